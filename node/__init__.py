"""Carries: studies to the pipelines, evidence to the PACS. Owns every wire."""
