"""What settings.toml says of the web server: where it listens, and who is let in by an identity provider."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError("an IPv4 or IPv6 address, as 127.0.0.1") from None


def _issuer(text: str) -> str:
    parts = urlsplit(text)
    host = parts.hostname or ""
    here = host == "localhost" or host == "::1" or host.startswith("127.")
    if not host or parts.query or parts.fragment or "@" in text or not (parts.scheme == "https" or here):
        raise ValueError("an https:// address without user and query, as https://login.hospital.example/realm")
    return text


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Oidc(_Table):
    """``[web.oidc]``: sign-in at the hospital's identity provider, beside the accounts of this node."""

    issuer: Annotated[str, AfterValidator(_issuer)]
    client_id: str = Field(min_length=1)
    secret_variable: str | None = None
    roles: dict[Literal["viewer", "operator", "administrator"], tuple[str, ...]]
    claim: str = Field(default="groups", min_length=1)
    name_claim: str = Field(default="preferred_username", min_length=1)
    scopes: tuple[str, ...] = ("openid", "profile")
    label: str = Field(default="the hospital's account", max_length=60)
    clock_seconds: int = Field(default=60, ge=0, le=600)
    ca: Path | None = None

    @model_validator(mode="after")
    def _lets_somebody_in(self) -> Oidc:
        if "openid" not in self.scopes:
            raise ValueError('scopes lacks "openid", without which no provider says who somebody is')
        if not any(self.roles.values()):
            raise ValueError('roles names no group, so nobody could come in: roles = { viewer = ["radiology"] }')
        return self


class Web(_Table):
    bind: Annotated[str, AfterValidator(address)] | None = None
    hosts: tuple[str, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    idle_minutes: float = Field(default=15, gt=0)
    oidc: Oidc | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Web:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key: both, or neither")
        return self
