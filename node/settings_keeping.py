"""What settings.toml says of what is kept: the audit trail and where it goes, images, evidence, for how long."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Syslog(_Table):
    """``[audit.syslog]``: the collector, by syslog over TLS."""

    host: str
    port: int = Field(default=6514, ge=1, le=65535)
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @model_validator(mode="after")
    def _has_both(self) -> Syslog:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together")
        return self


class AuditTable(_Table):
    """``[audit]``."""

    syslog: Syslog | None = None


class Retention(_Table):
    """``[retention]``: days; 0 keeps for ever."""

    automatic: bool = False
    images_days: float = Field(default=7, ge=0)
    evidence_days: float = Field(default=30, ge=0)
    unrouted_days: float = Field(default=0, ge=0)
    audit_days: float = Field(default=2190, ge=0)
