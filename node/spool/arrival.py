"""An instance that was received: what the ledger is told of it, and where it came from. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from node.instance import Head


@dataclass(frozen=True)
class Arrival:
    """An instance that was received and is durable.

    Attributes:
        sha256: Of the whole file in the spool, and its name there.
        size: Of that file, in bytes.
        patient_key: SHA-256 of who the patient is; the ledger holds no identity.
        caller, address: The AE title and the IP address that it came from; empty if that is not known any more.
        received_at: Seconds since the epoch.
        expected: Number of Study Related Instances, where the sender told it.
        patient_id: For the audit trail alone; the ledger has no place for it.
    """

    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class: str
    transfer_syntax: str
    sha256: str
    size: int
    patient_key: str
    modality: str
    caller: str
    address: str
    received_at: float
    expected: int | None = None
    patient_id: str = field(default="", repr=False)  # no log may name a patient


@dataclass(frozen=True)
class Origin:
    """Where an instance came from, and when."""

    caller: str = ""
    address: str = ""
    received_at: float = 0.0

    def link_name(self, sha256: str) -> str:
        return f"{sha256},{self.received_at:.6f},{quote(self.caller, safe='')},{quote(self.address, safe='')}"

    @classmethod
    def of_link(cls, name: str) -> tuple[str, Origin]:
        """The SHA-256 and the origin that the name of a link in ``pending`` tells."""
        sha256, received, caller, address = name.split(",")
        return sha256, cls(unquote(caller), unquote(address), float(received))


def arrival_of(head: Head, transfer_syntax: str, sha256: str, size: int, origin: Origin) -> Arrival:
    return Arrival(
        study_uid=head.study_uid,
        series_uid=head.series_uid,
        sop_uid=head.sop_uid,
        sop_class=head.sop_class,
        transfer_syntax=transfer_syntax,
        sha256=sha256,
        size=size,
        patient_key=head.patient_key,
        modality=head.modality,
        caller=origin.caller,
        address=origin.address,
        received_at=origin.received_at,
        expected=head.expected,
        patient_id=head.patient_id,
    )
