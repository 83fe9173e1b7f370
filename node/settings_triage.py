"""What settings.toml says of triage: who comes first, before anything has read a study and after."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class UrgencyLine(_Table):
    """``[urgency.NAME]``: studies that are urgent whatever reads them."""

    when: dict[str, Any]
    priority: int = Field(default=0, ge=0, le=9)


class TriageLine(_Table):
    """``[triage.NAME]``: findings that move a study up once it is read."""

    pipeline: str
    finding: str | tuple[str, ...] = ()
    at_least: float = Field(default=0.0, ge=0, le=1)
    priority: int = Field(default=0, ge=0, le=9)
    notify: tuple[str, ...] = ()
    on: bool = True


MAIL = r"^[^@\s<>,;:\"]+@[^@\s<>,;:\"]+$"
NEEDS = {
    "fhir": ("url",),
    "hl7": ("host", "port"),
    "smtp": ("host", "sender", "recipients"),
    "ups": ("url",),
    "webhook": ("url", "secret_variable"),
}


class NotifyLine(_Table):
    """``[notify.NAME]``: who is told of findings."""

    protocol: Literal["fhir", "hl7", "smtp", "ups", "webhook"]
    on: bool = True
    names: bool | None = None  # not in mail, in all else
    url: str | None = Field(default=None, pattern=r"^https?://[^@]+$")
    host: str | None = None
    port: int | None = Field(default=None, ge=1, le=65535)
    user: str | None = None
    password_variable: str | None = None
    token_variable: str | None = None
    secret_variable: str | None = None
    tls: Literal["off", "required"] = "off"
    tls_ca: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    messages: tuple[Literal["ORU^R01", "OMI^O23"], ...] = ("ORU^R01", "OMI^O23")
    application: str = ""
    facility: str = ""
    worklist: str = Field(default="", max_length=64)
    sender: str | None = Field(default=None, pattern=MAIL)
    recipients: tuple[Annotated[str, Field(pattern=MAIL)], ...] = ()
    answer_seconds: float = Field(default=20, gt=0, le=600)

    @model_validator(mode="after")
    def _is_reachable(self) -> NotifyLine:
        missing = [key for key in NEEDS[self.protocol] if getattr(self, key) in (None, ())]
        if missing:
            raise ValueError(f'protocol = "{self.protocol}" needs {", ".join(missing)}')
        if self.tls == "required" and self.url and not self.url.startswith("https://"):
            raise ValueError('url is not https://, and tls = "required"')
        return self

    @property
    def tells_names(self) -> bool:
        """Whether the patient's name is told."""
        return self.protocol != "smtp" if self.names is None else self.names
