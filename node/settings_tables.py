"""What may stand in settings.toml: every table, every key with its default, and what has to agree with what."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, model_validator

from node.settings_evidence import EvidenceLine
from node.settings_keeping import AuditTable, Retention
from node.settings_triage import NotifyLine, TriageLine, UrgencyLine
from node.settings_web import Web, address


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
