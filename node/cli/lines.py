"""One line of ``wetread doctor``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One thing that was looked at; ``advice`` is empty when it is well."""

    what: str
    found: str
    advice: str = ""
