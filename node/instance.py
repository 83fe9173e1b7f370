"""The head of an instance: whose it is and where it belongs, read from the encoded bytes (PS3.5 section 7).

It hops from element to element without recursion and without building a dataset, so that neither a deep sequence nor
a huge one costs more than time, and finds out whether the bytes end where they should. It decodes no pixels and changes
nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from pydicom.charset import convert_encodings, decode_bytes

from node.errors import CannotUnderstand, DataSetDoesNotMatch, InvalidUid

IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
# A deflated dataset inflates a thousandfold before anything in it can be checked; the same holds for deflated frames.
DEFLATED = {
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.4.95",
    "1.2.840.10008.1.2.4.205",
    "1.2.840.10008.1.2.8.1",
}
NATIVE = {IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG}

# PS3.5 Table 7.1-2: these have a length of 16 bits; "all other VRs" have one of 32 bits (Table 7.1-1).
_SHORT_LENGTH = {
    *(b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO"),
    *(b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"),
}
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXELS = {0x7FE00008: "Float Pixel Data", 0x7FE00009: "Double Float Pixel Data", 0x7FE00010: "Pixel Data"}

_CHARACTER_SET, _SOP_CLASS, _SOP_UID, _MODALITY = 0x00080005, 0x00080016, 0x00080018, 0x00080060
_NAME, _ID, _ISSUER, _BIRTH_DATE = 0x00100010, 0x00100020, 0x00100021, 0x00100030
_STUDY, _SERIES, _EXPECTED = 0x0020000D, 0x0020000E, 0x00201208
_SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS, _BITS = (
    *(0x00280002, 0x00280004, 0x00280008),
    *(0x00280010, 0x00280011, 0x00280100),
)
_WANTED = {
    *(_CHARACTER_SET, _SOP_CLASS, _SOP_UID, _MODALITY, _NAME, _ID, _ISSUER, _BIRTH_DATE, _STUDY, _SERIES, _EXPECTED),
    *(_SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS, _BITS),
}
_LONGEST_VALUE = (
    4096  # of the values above the longest is PN: 3 groups of 64 characters, multi-byte (PS3.5 Table 6.2-1)
)
_DEEPEST = 64  # nested sequences; pydicom gives up at about 300
_FIRST_PAGE, _PAGE = 65536, 4096

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
    walk = _Walk(file, 132, size, EXPLICIT_LITTLE)
    values: dict[int, str] = {}
    offset = 132
    while os.pread(file, 2, offset) == b"\2\0":  # the dataset that follows may be encoded otherwise
        tag, _, length, start = walk.element(offset, explicit=True)
        if tag in (0x00020002, 0x00020003, 0x00020010):
            values[tag] = _text(walk.value(tag, start, length))
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
    values = _Walk(file, start, os.fstat(file).st_size, transfer_syntax).through()
    uids: dict[int, str] = {}
    for tag, name in (
        (_SOP_CLASS, "SOP Class UID"),
        (_SOP_UID, "SOP Instance UID"),
        (_STUDY, "Study Instance UID"),
        (_SERIES, "Series Instance UID"),
    ):
        uids[tag] = _text(values.get(tag, b""))
        if not uids[tag]:
            raise DataSetDoesNotMatch(f"the dataset has no {name}")
        if not is_uid(uids[tag]):
            raise InvalidUid(f"the dataset's {name} breaks the rules for UIDs")
    expected = _text(values.get(_EXPECTED, b""))
    return Head(
        study_uid=uids[_STUDY],
        series_uid=uids[_SERIES],
        sop_uid=uids[_SOP_UID],
        sop_class=uids[_SOP_CLASS],
        modality=_text(values.get(_MODALITY, b""))[:16],
        patient_key=_patient_key(values),
        expected=int(expected) if re.fullmatch(r"[0-9]{1,9}", expected) and int(expected) > 0 else None,
        patient_id=_decoded(values.get(_ID, b""), _text(values.get(_CHARACTER_SET, b"")).split("\\"))[:64],
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
    character_set = _text(values.get(_CHARACTER_SET, b"")).split("\\")
    name, patient, issuer, birth = (
        _decoded(values.get(tag, b""), character_set) for tag in (_NAME, _ID, _ISSUER, _BIRTH_DATE)
    )
    # Trailing empty components and groups of a name mean nothing (PS3.5 section 6.2.1.1): DOE^JOHN is DOE^JOHN^^.
    name = "=".join(group.rstrip("^ ") for group in name.split("=")).rstrip("=")
    return hashlib.sha256(json.dumps([patient, issuer, name, birth]).encode()).hexdigest()


def _decoded(raw: bytes, character_set: list[str]) -> str:
    if raw.isascii() and b"\x1b" not in raw:
        return _text(raw)
    try:
        return str(decode_bytes(raw, convert_encodings(character_set), {0x5C, 0x5E, 0x3D})).strip(" \0")
    except Exception:  # whatever a codec makes of foreign bytes: the bytes themselves identify as well
        return raw.hex()


def _text(raw: bytes) -> str:
    return raw.decode("latin-1").strip(" \0")


class _Walk:
    """A hop over the elements of one encoded dataset."""

    def __init__(self, file: int, start: int, end: int, transfer_syntax: str) -> None:
        self._file, self._start, self._end = file, start, end
        self._native = transfer_syntax in NATIVE
        self._explicit = transfer_syntax != IMPLICIT_LITTLE  # every compressed one is explicit (PS3.5 A.4)
        order = ">" if transfer_syntax == EXPLICIT_BIG else "<"
        self._head, self._long = (struct.Struct(order + kind).unpack_from for kind in ("HH2sH", "L"))
        self._is_big = order == ">"
        self._page_start, self._page = start, os.pread(file, _FIRST_PAGE, start)

    def through(self) -> dict[int, bytes]:
        """The wanted values of the top level.

        Raises:
            CannotUnderstand: Unless the elements end exactly where the dataset ends.
        """
        values: dict[int, bytes] = {}
        offset = self._start
        while offset < self._end:
            if self._end - offset < 8:
                self._expect_padding(offset)
                break
            tag, vr, length, start = self.element(offset, explicit=self._explicit)
            if tag == 0:  # no element has this tag
                self._expect_padding(offset)
                break
            if tag in _WANTED and tag not in values and length != _UNDEFINED:
                values[tag] = self.value(tag, start, length)
            elif tag in _PIXELS and self._native and length != _UNDEFINED:
                self._expect_pixels(tag, length, values)
            offset = self._over(vr, length, start, explicit=self._explicit)
            if offset > self._end:
                raise CannotUnderstand(f"the dataset is truncated inside {_name(tag)}")
        return values

    def element(self, offset: int, *, explicit: bool) -> tuple[int, bytes, int, int]:
        """Tag, VR, length and the place of the value of the element at ``offset``."""
        page, place = self._page, offset - self._page_start
        if place < 0 or place + 12 > len(page):
            page, place = self._at(offset, min(12, self._end - offset)), 0
            if len(page) < 8:
                raise CannotUnderstand("the dataset is truncated")
        group, number, vr, short = self._head(page, place)
        tag = group << 16 | number
        if not explicit or group == 0xFFFE or tag == 0:
            return tag, b"", self._long(page, place + 4)[0], offset + 8
        if vr in _SHORT_LENGTH:
            return tag, vr, short, offset + 8
        if not vr.isalpha() or not vr.isupper():
            raise CannotUnderstand(f"{_name(tag)} has no value representation that there is")
        if len(page) < place + 12:
            raise CannotUnderstand("the dataset is truncated")
        return tag, vr, self._long(page, place + 8)[0], offset + 12

    def value(self, tag: int, start: int, length: int) -> bytes:
        if length > _LONGEST_VALUE:
            raise CannotUnderstand(f"{_name(tag)} is {length} bytes long")
        raw = self._at(start, length)
        # Numbers are handed on in little endian order, whatever the dataset's.
        return raw[::-1] if length == 2 and tag in (_SAMPLES, _ROWS, _COLUMNS, _BITS) and self._is_big else raw

    def _at(self, offset: int, count: int) -> bytes:
        if offset + count > self._end:
            raise CannotUnderstand("the dataset is truncated")
        place = offset - self._page_start
        if place < 0 or place + count > len(self._page):
            self._page_start, place = offset, 0
            self._page = os.pread(self._file, max(_PAGE, count), offset)
            if len(self._page) < count:
                raise CannotUnderstand("the dataset is truncated")
        return self._page[place : place + count]

    def _over(self, vr: bytes, length: int, start: int, *, explicit: bool) -> int:
        """The place after an element, whatever it holds."""
        if length != _UNDEFINED:
            return start + length
        # The inside of an UN of undefined length is implicit little endian (PS3.5 section 6.2.2 note 2).
        inside = [explicit and vr != b"UN"]  # one entry per open item or sequence
        in_item = [False]
        offset = start
        while inside:
            tag, vr, length, start = self.element(offset, explicit=inside[-1] and in_item[-1])
            offset = start
            if (tag == _SEQUENCE_END and not in_item[-1]) or (tag == _ITEM_END and in_item[-1]):
                inside.pop()
                in_item.pop()
                continue
            if (not in_item[-1] and tag != _ITEM) or (in_item[-1] and tag >> 16 == 0xFFFE):
                raise CannotUnderstand(f"{_name(tag)} stands where an item must")
            if length != _UNDEFINED:
                offset += length
                continue
            if len(inside) >= 2 * _DEEPEST:
                raise CannotUnderstand(f"sequences nest deeper than {_DEEPEST}")
            inside.append(inside[-1] and vr != b"UN")
            in_item.append(not in_item[-1])
        return offset

    def _expect_padding(self, offset: int) -> None:
        # Some senders pad the end with zeros.
        while offset < self._end:
            rest = os.pread(self._file, 1 << 20, offset)
            if any(rest) or not rest:
                raise CannotUnderstand("the dataset is truncated, or ends in bytes that are no element")
            offset += len(rest)

    def _expect_pixels(self, tag: int, length: int, values: dict[int, bytes]) -> None:
        """Native pixels have a known size (PS3.5 section 8.1.1)."""
        numbers = [values.get(key, b"") for key in (_ROWS, _COLUMNS, _BITS)]
        if any(len(number) != 2 for number in numbers):
            return
        rows, columns, bits = (int.from_bytes(number, "little") for number in numbers)
        samples = int.from_bytes(values.get(_SAMPLES, b"\1\0"), "little")
        if _text(values.get(_PHOTOMETRIC, b"")) == "YBR_FULL_422":
            samples = 2  # the colours of two neighbours are one (PS3.3 C.7.6.3.1.2)
        frames = _text(values.get(_FRAMES, b""))
        count = int(frames) if re.fullmatch(r"[0-9]{1,9}", frames) else 1
        needed = (rows * columns * samples * bits * count + 7) // 8
        if length < needed:
            raise CannotUnderstand(f"{_PIXELS[tag]} is truncated: {length} bytes of {needed}")


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
