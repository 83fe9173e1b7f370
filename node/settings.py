"""settings.toml → one frozen Settings, or a sentence that names the key, its value and what is allowed.

It reads the file and checks it; it opens no port, touches no disk beyond the file, and nobody but ``cli`` imports it:
everyone else is handed plain values.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator

from node.errors import BadSettings
from node.settings_evidence import EvidenceLine
from node.settings_keeping import AuditTable, Retention, Syslog
from node.settings_triage import NotifyLine, TriageLine, UrgencyLine
from node.settings_web import Oidc, Web, address

VARIABLE = "WETREAD_SETTINGS"


def _ae_title(text: str) -> str:
    # PS3.5 Table 6.2-1: 16 characters of the default repertoire, no backslash, not only spaces.
    if not re.fullmatch(r"[\x20-\x5b\x5d-\x7e]{1,16}", text) or not text.strip():
        raise ValueError("an AE title has 1 to 16 printable ASCII characters, no backslash")
    return text


def _network(text: object) -> IPv4Network | IPv6Network:
    try:
        return ip_network(str(text), strict=False)
    except ValueError:
        raise ValueError("an address or a network, as 10.1.2.3 or 10.1.2.0/24") from None


_PATHS = {"data", "certificate", "key", "client_ca", "ca", "tls_ca", "tls_certificate", "tls_key", "card"}
AETitle = Annotated[str, AfterValidator(_ae_title)]
Port = Annotated[int, Field(ge=1, le=65535)]
Positive = Annotated[float, Field(gt=0)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Peer(_Table):
    ae_title: AETitle
    address: Annotated[IPv4Network | IPv6Network, PlainValidator(_network)]
    quiet_seconds: float | None = Field(default=None, ge=0)
    count_from: str | None = None


class ListenerTls(_Table):
    certificate: Path
    key: Path
    client_ca: Path | None = None


class Node(_Table):
    ae_title: AETitle = "WETREAD"
    bind: Annotated[str, AfterValidator(address)] = "127.0.0.1"
    dicom_port: Port = 11112
    web_port: Port = 8114
    data: Path = Path("data")
    quiet_seconds: float = Field(default=3, ge=0)
    longest_wait_seconds: Positive = 900
    peers: tuple[Peer, ...] = ()
    database: str | None = None
    broker: str | None = Field(default=None, pattern=r"^(rediss?|redis\+socket|unix)://")
    max_associations: int = Field(default=60, ge=1)
    max_associations_per_address: int = Field(default=50, ge=1)
    reserve_gib: float = Field(default=1.0, ge=0)
    tls: ListenerTls | None = None

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Node:
        if self.dicom_port == self.web_port:
            raise ValueError(f"dicom_port and web_port are both {self.web_port}")
        if self.quiet_seconds > self.longest_wait_seconds:
            raise ValueError(
                f"quiet_seconds {self.quiet_seconds:g} exceeds longest_wait_seconds {self.longest_wait_seconds:g}"
            )
        if self.max_associations_per_address > self.max_associations:
            raise ValueError("max_associations_per_address exceeds max_associations")
        return self

    @property
    def folder(self) -> Path:
        return self.data.expanduser().resolve()

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.folder / 'ledger.sqlite'}"


class Worker(_Table):
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    threads: int = Field(default=0, ge=0)
    time_limit_seconds: Positive = 600
    memory_gib: Positive = 8
    deliver_threads: int = Field(default=8, ge=1)
    urgent_up_to: int = Field(default=1, ge=0, le=9)
    aging_minutes: Positive = 10
    rest_every: int = Field(default=10, ge=2)
    away_minutes: Positive = 240


class Destination(_Table):
    protocol: Literal["dimse", "dicomweb"]
    ae_title: AETitle | None = None
    host: str | None = None
    port: Port | None = None
    calling_ae_title: AETitle | None = None
    tls: Literal["off", "required"] = "off"
    tls_ca: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    url: str | None = Field(default=None, pattern=r"^https?://")
    user: str | None = None
    password_variable: str | None = None
    token_variable: str | None = None
    verify: bool = True
    commitment: bool = False
    evidence: EvidenceLine = EvidenceLine()

    @model_validator(mode="after")
    def _is_reachable(self) -> Destination:
        needed = ("url",) if self.protocol == "dicomweb" else ("ae_title", "host", "port")
        missing = [key for key in needed if getattr(self, key) is None]
        if missing:
            raise ValueError(f'protocol = "{self.protocol}" needs {", ".join(missing)}')
        return self


class PipelineLine(_Table):
    use: str = Field(pattern=r"^[\w.\-]+(:\w+)?$")
    card: Path | None = Field(default=None)
    when: dict[str, Any] = {}
    deliver_to: tuple[str, ...] = ()
    priority: int = Field(default=5, ge=0, le=9)
    automatic: bool = True


class Settings(_Table):
    node: Node = Node()
    worker: Worker = Worker()
    audit: AuditTable = AuditTable()
    retention: Retention = Retention()
    web: Web = Web()
    destinations: dict[str, Destination] = {}
    urgency: dict[str, UrgencyLine] = {}
    triage: dict[str, TriageLine] = {}
    notify: dict[str, NotifyLine] = {}
    pipelines: dict[str, PipelineLine] = {
        "mr_brain": PipelineLine(
            use="pipelines.mr_brain:BrainTumour", when={"Modality": "MR", "BodyPartExamined": ["BRAIN", "HEAD"]}
        ),
        "ct_head": PipelineLine(
            use="pipelines.ct_head:HeadHaemorrhage",
            when={"Modality": "CT", "BodyPartExamined": ["HEAD", "BRAIN", "SKULL"]},
            priority=1,
        ),
        "xc_skin": PipelineLine(use="pipelines.xc_skin:SkinMelanoma", when={"Modality": ["XC", "DMS"]}),
        "mr_hippocampus": PipelineLine(
            use="pipelines.mr_hippocampus:Hippocampus",
            when={
                "Modality": "MR",
                "BodyPartExamined": ["BRAIN", "HEAD", "HIPPOCAMPUS"],
                "Rows": {"min": 20, "max": 80},
                "Columns": {"min": 20, "max": 80},
            },
        ),
        "dx_chest": PipelineLine(
            use="pipelines.dx_chest:Chest",
            when={"Modality": ["CR", "DX"], "BodyPartExamined": ["CHEST", "THORAX", "LUNG"]},
        ),
        "gm_cells": PipelineLine(use="pipelines.gm_cells:Cells", when={"Modality": ["GM", "SM"]}, priority=7),
        "ct_chest": PipelineLine(
            use="pipelines.ct_chest:LungTumour",
            when={"Modality": "CT", "BodyPartExamined": ["CHEST", "LUNG", "THORAX"]},
        ),
        "op_retina": PipelineLine(use="pipelines.op_retina:Retina", when={"Modality": "OP"}),
        "us_breast": PipelineLine(
            use="pipelines.us_breast:BreastUltrasound", when={"Modality": "US", "BodyPartExamined": "BREAST"}
        ),
        "mr_heart": PipelineLine(
            use="pipelines.mr_heart:HeartCine", when={"Modality": "MR", "BodyPartExamined": ["HEART", "CARDIAC"]}
        ),
        "mr_brain_type": PipelineLine(
            use="pipelines.mr_brain_type:BrainTumourType",
            when={"Modality": "MR", "BodyPartExamined": ["BRAIN", "HEAD"]},
        ),
        "enhance": PipelineLine(
            use="pipelines.enhance:Enhance",
            when={
                "Modality": ["MR", "CT", "US"],
                "BodyPartExamined": ["BRAIN", "HEAD", "HEART", "CARDIAC", "BREAST"],
            },
            priority=8,
            automatic=False,
        ),
    }

    @model_validator(mode="after")
    def _destinations_exist(self) -> Settings:
        for name, line in self.pipelines.items():
            for destination in line.deliver_to:
                if destination not in self.destinations:
                    known = ", ".join(self.destinations) or "none is defined"
                    raise ValueError(f'pipelines.{name}.deliver_to names "{destination}"; destinations: {known}')
        return self

    @model_validator(mode="after")
    def _triage_names_what_is_there(self) -> Settings:
        for name in self.notify.keys() & self.destinations.keys():
            raise ValueError(f"notify.{name} and destinations.{name}: two of one name")
        for name, line in self.triage.items():
            if line.pipeline not in self.pipelines:
                raise ValueError(
                    f'triage.{name}.pipeline names "{line.pipeline}"; pipelines: {", ".join(self.pipelines)}'
                )
            for told in line.notify:
                if told not in self.notify:
                    known = ", ".join(self.notify) or "nobody is defined"
                    raise ValueError(f'triage.{name}.notify names "{told}"; notify: {known}')
        return self

    @model_validator(mode="after")
    def _counts_are_to_be_had(self) -> Settings:
        for peer in self.node.peers:
            if peer.count_from is not None and peer.count_from not in self.destinations:
                known = ", ".join(self.destinations) or "none is defined"
                raise ValueError(
                    f'node.peers: {peer.ae_title}.count_from names "{peer.count_from}"; destinations: {known}'
                )
            if self.count_from.get(peer.ae_title) != peer.count_from:
                raise ValueError(f"node.peers: {peer.ae_title} stands there twice, with another count_from")
        return self

    @property
    def count_from(self) -> dict[str, str | None]:
        """Per AE title that sends the destination that its studies are counted by."""
        return {peer.ae_title: peer.count_from for peer in self.node.peers}


def load(path: Path | None = None) -> tuple[Settings, str]:
    """The settings and their source: ``path``, else $WETREAD_SETTINGS, else ./settings.toml, else the defaults.

    Raises:
        BadSettings: One sentence per mistake; exit status 2.
    """
    named = path or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    file = named or Path("settings.toml")
    if not file.is_file():
        if named:
            raise BadSettings(f"{file}: no such file")
        return Settings(), "the shipped defaults"
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
        return parse(_beside(file.absolute().parent, tables), str(file)), str(file)
    except tomllib.TOMLDecodeError as error:
        raise BadSettings(f"{file}: not TOML: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"{file}: cannot be read: {error}") from error


def _beside(folder: Path, tables: dict[str, Any]) -> dict[str, Any]:
    """The tables with their relative paths resolved: a path is meant from the settings file, wherever one stands."""
    node = tables.setdefault("node", {})
    if not isinstance(node, dict):
        return tables
    node.setdefault("data", "data")
    homes = [
        node,
        node.get("tls"),
        dict(tables.get("audit") or {}).get("syslog"),
        tables.get("web"),
        dict(tables.get("web") or {}).get("oidc"),
        *(line for name in ("destinations", "notify", "pipelines") for line in dict(tables.get(name) or {}).values()),
    ]
    for home in (one for one in homes if isinstance(one, dict)):
        for key in _PATHS & home.keys():
            if isinstance(home[key], str):
                home[key] = str(folder / Path(home[key]).expanduser())
    return tables


def parse(tables: dict[str, Any], source: str) -> Settings:
    """Settings from the tables of a TOML file; ``source`` stands at the head of each sentence."""
    try:
        return Settings.model_validate(tables)
    except ValidationError as error:
        raise BadSettings("\n".join(_sentences(error, source))) from None


def _sentences(error: ValidationError, source: str) -> Iterator[str]:
    for fault in error.errors():
        place = [str(part) for part in fault["loc"]]
        key = ".".join(place)
        if fault["type"] == "extra_forbidden":
            near = difflib.get_close_matches(place[-1], _keys(place[:-1]), n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; allowed: {', '.join(sorted(_keys(place[:-1])))}"
            yield f"{source}: {key}: no such setting{hint}"
            continue
        what = fault["msg"].removeprefix("Value error, ")
        value = fault["input"]
        shown = f" is {value!r}" if isinstance(value, str | int | float | bool) and "password" not in key else ""
        yield f"{source}: {key}{shown}: {what}" if key else f"{source}: {what}"


def _keys(place: list[str]) -> list[str]:
    """The keys that are allowed in the table at ``place``."""
    match place:
        case []:
            table: type[BaseModel] = Settings
        case ["node"]:
            table = Node
        case ["node", "peers", *_]:
            table = Peer
        case ["node", "tls"]:
            table = ListenerTls
        case ["worker"]:
            table = Worker
        case ["web"]:
            table = Web
        case ["web", "oidc", *_]:
            table = Oidc
        case ["destinations", _, "evidence", *_]:
            table = EvidenceLine
        case ["destinations", *_]:
            table = Destination
        case ["audit"]:
            table = AuditTable
        case ["audit", "syslog"]:
            table = Syslog
        case ["retention"]:
            table = Retention
        case ["urgency", *_]:
            table = UrgencyLine
        case ["triage", *_]:
            table = TriageLine
        case ["notify", *_]:
            table = NotifyLine
        case _:
            table = PipelineLine
    return list(table.model_fields)
