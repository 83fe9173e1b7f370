"""Who is told: a peer's address, its TLS and its credentials. Plain values, checked once; a secret is in no repr."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from node.destinations import trusting
from node.errors import BadSettings


@dataclass(frozen=True)
class Receiver:
    """One ``[notify.NAME]`` of settings.toml, field by field.

    Attributes:
        on: Whether it is told anything; what waits for one that is off is dead.
        names: Whether the patient's name and birth date are told; the ID and the accession number always are where
            the receiver needs them to find the study.
        password_variable, token_variable, secret_variable: Names of environment variables.
        messages: Of HL7: which of ORU^R01 and OMI^O23.
        application, facility: Of HL7: who receives, MSH-5 and MSH-6.
        worklist: Of UPS: the Worklist Label of readings; empty: any, and READING for what is made.
        sender, recipients: Of mail: addresses.
        tls: ``required``: from the first byte, or STARTTLS for mail; never falls back to plaintext.
        answer_seconds: How long a whole exchange may take.
    """

    name: str
    protocol: str
    on: bool = True
    names: bool = True
    url: str | None = None
    host: str | None = None
    port: int | None = None
    user: str | None = None
    password_variable: str | None = None
    token_variable: str | None = None
    secret_variable: str | None = None
    tls: str = "off"
    tls_ca: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    messages: tuple[str, ...] = ("ORU^R01", "OMI^O23")
    facility: str = ""
    application: str = ""
    worklist: str = ""
    sender: str | None = None
    recipients: tuple[str, ...] = ()
    answer_seconds: float = 20.0

    @property
    def where(self) -> str:
        """How a person finds the peer."""
        return f"{self.name} ({self.url or f'{self.host}:{self.port}'})"

    def secret(self, kind: str) -> str | None:
        """The ``password``, ``token`` or ``secret`` from the environment variable that is named; None if none is.

        Raises:
            BadSettings: If the variable is not set.
        """
        variable = getattr(self, f"{kind}_variable")
        if variable is None:
            return None
        if not os.environ.get(variable):
            raise BadSettings(f"notify.{self.name}.{kind}_variable names {variable}, which is not set")
        return os.environ[variable]

    def ssl_context(self) -> ssl.SSLContext:
        """As for a destination; raises BadSettings as that does."""
        return trusting(f"notify.{self.name}", self.tls_ca, self.tls_certificate, self.tls_key)
