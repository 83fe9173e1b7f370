"""Triage: what moves up the reading list, and what that would be worth. Flags alone shorten no wait; order does."""
