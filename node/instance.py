"""The head of an instance: whose it is and where it belongs, read from the encoded bytes (PS3.5 section 7).

It decodes no pixels and changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from pydicom.charset import convert_encodings, decode_bytes

from node.elements import EXPLICIT_LITTLE, Elements, text_of
from node.errors import CannotUnderstand, DataSetDoesNotMatch, InvalidUid

# A deflated dataset inflates a thousandfold before anything in it can be checked; the same holds for deflated frames.
DEFLATED = {
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.4.95",
    "1.2.840.10008.1.2.4.205",
    "1.2.840.10008.1.2.8.1",
}

_CHARACTER_SET, _SOP_CLASS, _SOP_UID, _MODALITY = 0x00080005, 0x00080016, 0x00080018, 0x00080060
_NAME, _ID, _ISSUER, _BIRTH_DATE = 0x00100010, 0x00100020, 0x00100021, 0x00100030
_STUDY, _SERIES, _EXPECTED = 0x0020000D, 0x0020000E, 0x00201208
_WANTED = frozenset(
    (_CHARACTER_SET, _SOP_CLASS, _SOP_UID, _MODALITY, _NAME, _ID, _ISSUER, _BIRTH_DATE, _STUDY, _SERIES, _EXPECTED)
)
_UID = re.compile(r"(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*))*", re.ASCII)


@dataclass(frozen=True)
class Head:
    """What the node must know of an instance.

    Attributes:
        patient_key: SHA-256 of Patient ID, its issuer, name and birth date, so that the ledger holds no identity.
        expected: Number of Study Related Instances (0020,1208), where the sender tells it.
        patient_id: Patient ID (0010,0020), for the audit trail alone.
    """

    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class: str
    modality: str
    patient_key: str
    expected: int | None
    patient_id: str = ""


@dataclass(frozen=True)
class FileMeta:
    """What the File Meta Information of a Part 10 file says, and where the dataset begins."""

    sop_class: str
    sop_uid: str
    transfer_syntax: str
    dataset_start: int


def new_uid() -> str:
    """A UID that nobody else has, and nobody can guess (PS3.5 B.2)."""
    return f"2.25.{uuid4().int}"


def is_uid(text: str) -> bool:
    """Whether the text obeys PS3.5 section 9.1: at most 64 characters, no empty and no zero-padded component."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def read_meta(file: int) -> FileMeta:
    """The File Meta Information (PS3.10 section 7.1) of an open file.

    Raises:
        CannotUnderstand: If it is not a Part 10 file, or its meta information is incomplete.
    """
    size = os.fstat(file).st_size
    if os.pread(file, 4, 128) != b"DICM":
        raise CannotUnderstand("not a DICOM file: no DICM after the preamble")
    elements = Elements(file, 132, size, EXPLICIT_LITTLE)
    values: dict[int, str] = {}
    offset = 132
    while os.pread(file, 2, offset) == b"\2\0":  # the dataset that follows may be encoded otherwise
        tag, _, length, start = elements.element(offset, explicit=True)
        if tag in (0x00020002, 0x00020003, 0x00020010):
            values[tag] = text_of(elements.value(tag, start, length))
        offset = start + length
    if len(values) < 3:
        raise CannotUnderstand("the file meta information lacks the SOP class, the SOP instance or the transfer syntax")
    return FileMeta(values[0x00020002], values[0x00020003], values[0x00020010], offset)


def read_head(file: int, *, start: int, transfer_syntax: str) -> Head:
    """Read the head of the dataset that lies in an open file from ``start`` to the end, and check that it is whole.

    Raises:
        CannotUnderstand: The dataset cannot be parsed, is truncated, or nests too deep.
        DataSetDoesNotMatch: It names no study, series, SOP class or SOP instance (all Type 1).
        InvalidUid: One of these is no UID.
    """
    if transfer_syntax in DEFLATED:
        raise CannotUnderstand("deflated instances are not taken")
    values = Elements(file, start, os.fstat(file).st_size, transfer_syntax).through(_WANTED)
    uids: dict[int, str] = {}
    for tag, name in (
        (_SOP_CLASS, "SOP Class UID"),
        (_SOP_UID, "SOP Instance UID"),
        (_STUDY, "Study Instance UID"),
        (_SERIES, "Series Instance UID"),
    ):
        uids[tag] = text_of(values.get(tag, b""))
        if not uids[tag]:
            raise DataSetDoesNotMatch(f"the dataset has no {name}")
        if not is_uid(uids[tag]):
            raise InvalidUid(f"the dataset's {name} breaks the rules for UIDs")
    expected = text_of(values.get(_EXPECTED, b""))
    return Head(
        study_uid=uids[_STUDY],
        series_uid=uids[_SERIES],
        sop_uid=uids[_SOP_UID],
        sop_class=uids[_SOP_CLASS],
        modality=text_of(values.get(_MODALITY, b""))[:16],
        patient_key=_patient_key(values),
        expected=int(expected) if re.fullmatch(r"[0-9]{1,9}", expected) and int(expected) > 0 else None,
        patient_id=_decoded(values.get(_ID, b""), text_of(values.get(_CHARACTER_SET, b"")).split("\\"))[:64],
    )


def head_of(path: Path) -> Head:
    """The head of a Part 10 file.

    Raises:
        Refusal: As ``read_meta`` and ``read_head``.
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        meta = read_meta(file.fileno())
        return read_head(file.fileno(), start=meta.dataset_start, transfer_syntax=meta.transfer_syntax)


def _patient_key(values: dict[int, bytes]) -> str:
    character_set = text_of(values.get(_CHARACTER_SET, b"")).split("\\")
    name, patient, issuer, birth = (
        _decoded(values.get(tag, b""), character_set) for tag in (_NAME, _ID, _ISSUER, _BIRTH_DATE)
    )
    # Trailing empty components and groups of a name mean nothing (PS3.5 section 6.2.1.1): DOE^JOHN is DOE^JOHN^^.
    name = "=".join(group.rstrip("^ ") for group in name.split("=")).rstrip("=")
    return hashlib.sha256(json.dumps([patient, issuer, name, birth]).encode()).hexdigest()


def _decoded(raw: bytes, character_set: list[str]) -> str:
    if raw.isascii() and b"\x1b" not in raw:
        return text_of(raw)
    try:
        return str(decode_bytes(raw, convert_encodings(character_set), {0x5C, 0x5E, 0x3D})).strip(" \0")
    except Exception:  # whatever a codec makes of foreign bytes: the bytes themselves identify as well
        return raw.hex()
