"""What goes wrong when evidence is made."""

from __future__ import annotations


class InvalidEvidence(Exception):
    """An object is not right, or cannot be made right from this source: nothing is written."""
