"""What settings.toml says of triage: who comes first, before anything has read a study and after."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class UrgencyLine(_Table):
    """``[urgency.NAME]``: studies that are urgent whatever reads them."""

    when: dict[str, Any]
    priority: int = Field(default=0, ge=0, le=9)
