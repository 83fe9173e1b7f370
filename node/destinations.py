"""Where evidence goes: a peer's address, its TLS and its credentials, and the objects that are sent to it.

Plain values, checked once. Nothing is opened or sent here, and a password never stands in a repr.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from node.errors import BadSettings, CannotUnderstand
from pipelines.forms import UNSAID, Wanted

# RFC 9325 (BCP 195) section 4.2: forward secrecy and authenticated encryption. TLS 1.3 brings its own.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM"

# What is read of a file to know how to offer it, up to the pixels
_IDENTITY = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]


@dataclass(frozen=True)
class Destination:
    """One ``[destinations.NAME]`` of settings.toml, field by field.

    Attributes:
        tls: ``required`` never falls back to plaintext: a peer that does not speak TLS gets not one byte of DICOM.
        tls_ca: The authority that the peer's certificate must come from; without, the system's. The certificate must
            also be for ``host``.
        tls_certificate, tls_key: Shown to the peer if it asks.
        password_variable, token_variable: Names of environment variables; they come before ``password`` and ``token``.
        verify: Delivered means: asked back and found.
        commitment: Ask for storage commitment first; the peer reports on the same association or on one of its own.
        evidence: Which objects it takes, and in which form.
        connect_seconds, acse_seconds: Until the connection stands; until the association is answered.
        dimse_seconds: Until a request is answered, and how long a transfer may stand still.
    """

    name: str
    protocol: str
    ae_title: str | None = None
    host: str | None = None
    port: int | None = None
    calling_ae_title: str | None = None
    tls: str = "off"
    tls_ca: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    url: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    password_variable: str | None = None
    token: str | None = field(default=None, repr=False)
    token_variable: str | None = None
    verify: bool = True
    commitment: bool = False
    evidence: Wanted = UNSAID
    connect_seconds: float = 10.0
    acse_seconds: float = 30.0
    dimse_seconds: float = 60.0

    def __post_init__(self) -> None:
        here = f"destinations.{self.name}"
        if self.protocol not in ("dimse", "dicomweb"):
            raise BadSettings(f'{here}.protocol is "{self.protocol}"; it may be "dimse" or "dicomweb"')
        if self.tls not in ("off", "required"):
            raise BadSettings(f'{here}.tls is "{self.tls}"; it may be "off" or "required"')
        needed = ("url",) if self.protocol == "dicomweb" else ("ae_title", "host", "port")
        for key in needed:
            if getattr(self, key) is None:
                raise BadSettings(f'{here}.{key} is missing; protocol = "{self.protocol}" needs it')
        if self.url is not None:
            self._check_url(here)

    def _check_url(self, here: str) -> None:
        parts = urlsplit(self.url or "")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadSettings(f"{here}.url is not an http:// or https:// address")
        if parts.username or parts.password:  # a URL is logged; a password must not be
            raise BadSettings(f"{here}.url holds a user or a password; use user and password_variable")
        if self.tls == "required" and parts.scheme != "https":
            raise BadSettings(f'{here}.url is not https://, and tls = "required"')

    @property
    def where(self) -> str:
        """How a person finds the peer: ``PACS (ORTHANC at 10.1.2.3:4242)``."""
        if self.protocol == "dicomweb":
            return f"{self.name} ({self.url})"
        return f"{self.name} ({self.ae_title} at {self.host}:{self.port})"

    @property
    def speaks_dimse(self) -> bool:
        """Whether it can be sent to by C-STORE, also as the second way of a DICOMweb destination."""
        return None not in (self.ae_title, self.host, self.port)

    def secret(self, kind: str) -> str | None:
        """The ``password`` or the ``token``, from the environment variable that is named, else as it is given."""
        variable = getattr(self, f"{kind}_variable")
        if variable is None:
            given: str | None = getattr(self, kind)
            return given
        if not os.environ.get(variable):
            raise BadSettings(f"destinations.{self.name}.{kind}_variable names {variable}, which is not set")
        return os.environ[variable]

    def ssl_context(self) -> ssl.SSLContext:
        """TLS 1.2 or later, the peer's certificate and host name checked (PS3.15 B.12, RFC 9325).

        Raises:
            BadSettings: If a file that the settings name cannot be used.
        """
        return trusting(f"destinations.{self.name}", self.tls_ca, self.tls_certificate, self.tls_key)

    def unreachable(self, error: Exception) -> str:
        """One sentence for a connection that could not be made, or was lost."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"{self.where} shows a certificate that is not to be trusted: {error.verify_message}"
        if isinstance(error, ssl.SSLError):
            return f"{self.where} does not agree on TLS: {error.reason or error}"
        if isinstance(error, TimeoutError):
            return f"{self.where} does not answer: no connection within {self.connect_seconds:.0f} s"
        if isinstance(error, socket.gaierror):
            return f"{self.where} cannot be found: its host name is not known"
        if isinstance(error, OSError) and error.strerror:
            return f"{self.where} does not answer: {error.strerror.lower()}"
        return f"{self.where} does not answer: {error}"


def trusting(place: str, ca: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """A client's TLS 1.2 or later that checks the peer's certificate and host name (RFC 9325).

    Args:
        place: Where the settings name these files.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(str(path) for path in (ca, certificate, key) if path)
        raise BadSettings(f"{place}: cannot use {files} for TLS: {error}") from error
    return context


@dataclass(frozen=True)
class Outgoing:
    """One object of a delivery: a DICOM file (PS3.10) and what it is offered as."""

    path: Path
    sop_class: str
    sop_uid: str
    study_uid: str
    transfer_syntax: str
    series_uid: str = ""


def outgoing(path: Path) -> Outgoing:
    """Read from a file what it is to be offered as.

    Raises:
        CannotUnderstand: If it is not a DICOM file, or lacks one of the UIDs.
    """
    try:
        header = dcmread(path, specific_tags=_IDENTITY, stop_before_pixels=True)
        syntax = str(header.file_meta.TransferSyntaxUID)
        sop_class, sop_uid, study_uid, series_uid = (str(header[keyword].value) for keyword in _IDENTITY)
    except (InvalidDicomError, AttributeError, KeyError, ValueError) as error:
        raise CannotUnderstand(f"{path.name} cannot be sent: {error}") from error
    return Outgoing(path, sop_class, sop_uid, study_uid, syntax, series_uid)


def by_series(objects: Sequence[Outgoing]) -> dict[tuple[str, str], list[str]]:
    """The SOP Instance UIDs per (study, series), for queries that must name both (PS3.4 C.4.1.2.1)."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in objects:
        series_uid = one.series_uid or outgoing(one.path).series_uid
        found.setdefault((one.study_uid, series_uid), []).append(one.sop_uid)
    return found
