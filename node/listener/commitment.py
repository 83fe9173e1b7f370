"""The report of a peer on what we asked it to keep: N-EVENT-REPORT of Storage Commitment (PS3.4 J.3.3).

It reads what the peer says; which delivery that is about the ledger knows, by the Transaction UID.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO

from pydicom import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import ImplicitVRLittleEndian

from node.errors import CannotUnderstand
from node.instance import is_uid

LARGEST_BYTES = 16 << 20  # about 100,000 instances


@dataclass(frozen=True)
class CommitmentReport:
    """What the peer keeps, and what it does not: SOP Instance UIDs of the request with that Transaction UID."""

    transaction_uid: str
    held: tuple[str, ...]
    failed: tuple[str, ...]


def read_report(pieces: Iterable[memoryview], transfer_syntax: str) -> CommitmentReport:
    """The report in an event's dataset (PS3.4 Table J.3-4).

    Raises:
        CannotUnderstand: If it cannot be read or names no transaction.
    """
    raw = bytearray()
    for piece in pieces:
        raw += piece
        if len(raw) > LARGEST_BYTES:
            raise CannotUnderstand(f"a report of more than {LARGEST_BYTES} bytes")
    try:
        dataset = read_dataset(BytesIO(bytes(raw)), transfer_syntax == ImplicitVRLittleEndian, True)
        transaction = str(dataset.TransactionUID)
        held, failed = (_uids(dataset, keyword) for keyword in ("ReferencedSOPSequence", "FailedSOPSequence"))
    except Exception as fault:  # pydicom lets through whatever its parsers raise, RecursionError among them
        raise CannotUnderstand("the report cannot be read") from fault
    if not is_uid(transaction):
        raise CannotUnderstand("the report's Transaction UID breaks the rules for UIDs")
    return CommitmentReport(transaction, held, failed)


def _uids(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    return tuple(str(item.ReferencedSOPInstanceUID) for item in dataset.get(keyword) or [])
