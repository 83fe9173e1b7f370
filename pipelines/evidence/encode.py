"""Datasets to DICOM files (PS3.10), as they are or RLE Lossless: byte for byte what pydicom writes, in less time.

What is Implicit VR Little Endian, as structure sets are, pydicom writes itself.

pydicom looks at each of the ten thousand elements of a report in a buffer of its own. Here the few VRs that evidence is
made of are encoded at once, a sequence that several items share is encoded once, and pydicom gets the rest: names, text
beyond ASCII, what came out of a file and was not looked at. Judges nothing: that is ``check.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import correct_ambiguous_vr_element, dcmwrite, write_data_element, write_file_meta_info
from pydicom.multival import MultiValue
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, DSfloat

_SPACED = frozenset({"AE", "AS", "CS", "DA", "TM", "DT"})  # of the default repertoire alone
_TEXT = frozenset({"SH", "LO", "ST", "LT", "UT", "UC"})
_NUMBERS = {"US": "H", "UL": "L", "SS": "h", "SL": "l", "FL": "f", "FD": "d"}
_BYTES = frozenset({"OB", "OW"})
_NOT_ASCII = ("shift_jis", "iso2022")  # encodings that have other characters among the first 128
_PIXEL_DATA = 0x7FE00010
_ENCAPSULATED_PIXELS = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff"  # of undefined length (PS3.5 A.4)
_DELIMITER = b"\xfe\xff\xdd\xe0\0\0\0\0"
_ITEM = b"\xfe\xff\x00\xe0"
_LONGEST_SHORT = 0xFFFF


def part10(dataset: Dataset) -> Iterator[bytes]:
    """The file, piece by piece: the pixel data is a piece of its own and not copied.

    Raises:
        ValueError: If the dataset has another transfer syntax than these three.
    """
    meta = deepcopy(dataset.file_meta)
    if meta.TransferSyntaxUID == ImplicitVRLittleEndian:
        file = DicomBytesIO()
        dcmwrite(file, dataset, enforce_file_format=True)
        yield bytes(file.getvalue())
        return
    if meta.TransferSyntaxUID not in (ExplicitVRLittleEndian, RLELossless):
        raise ValueError(f"the transfer syntax {meta.TransferSyntaxUID} is not written here")
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    head = DicomBytesIO()
    head.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(head, meta, enforce_standard=True)
    yield head.getvalue()
    yield from _Encoder(is_encapsulated=meta.TransferSyntaxUID == RLELossless).pieces(dataset, default_encoding)


class _Encoder:
    """Remembers, for one file, the sequences that it has encoded; they stay as they are meanwhile."""

    def __init__(self, *, is_encapsulated: bool = False) -> None:
        self._is_encapsulated = is_encapsulated
        self._encoded: dict[tuple[int, str], bytes] = {}

    def pieces(self, dataset: Dataset, charset: Any) -> Iterator[bytes]:
        """The elements by tag; head and value apart where the value is long."""
        charset = dataset.get("SpecificCharacterSet", charset)
        encodings = convert_encodings(charset or default_encoding)
        is_ascii = not encodings[0].startswith(_NOT_ASCII)
        for tag, element in sorted(dataset.items()):
            if tag & 0xFFFF == 0 and tag >> 16 > 6:
                continue  # Group Length is retired (PS3.5 7.2)
            if isinstance(element, RawDataElement):
                element = dataset[tag]
            if len(element.VR) > 2:  # "US or SS"
                element = correct_ambiguous_vr_element(element, dataset, True)
            vr = element.VR
            if tag == _PIXEL_DATA and self._is_encapsulated:
                yield _ENCAPSULATED_PIXELS
                yield element.value
                yield _DELIMITER
                continue
            value = self._sequence(element, charset) if vr == "SQ" else _value(element.value, vr, is_ascii)
            if value is None or (vr not in EXPLICIT_VR_LENGTH_32 and len(value) > _LONGEST_SHORT):
                yield _by_pydicom(element, charset)
                continue
            where = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
            if vr not in EXPLICIT_VR_LENGTH_32:
                yield where + struct.pack("<H", len(value)) + value
            else:
                yield where + struct.pack("<HL", 0, len(value))
                yield value

    def _sequence(self, element: DataElement, charset: Any) -> bytes | None:
        if element.is_undefined_length:
            return None
        key = id(element.value), str(charset)
        if key not in self._encoded:
            self._encoded[key] = b"".join(self._item(item, charset) for item in element.value or ())
        return self._encoded[key]

    def _item(self, item: Dataset, charset: Any) -> bytes:
        if vars(item).get("is_undefined_length_sequence_item") or any(
            isinstance(element, RawDataElement) for element in item.values()
        ):
            return _item_by_pydicom(item, charset)
        value = b"".join(self.pieces(item, charset))
        return _ITEM + struct.pack("<L", len(value)) + value


def _value(value: Any, vr: str, is_ascii: bool) -> bytes | None:
    """The value with its padding; None for what pydicom has to encode."""
    if vr == "UI" or vr in _SPACED or (vr in _TEXT and is_ascii):
        if value is None:
            return b""
        if type(value) not in (str, UID) or not value.isascii():
            return None
        return _padded(value, b"\0" if vr == "UI" else b" ")
    if vr in _NUMBERS:
        if type(value) in (int, float):
            return struct.pack("<" + _NUMBERS[vr], value)
        if not isinstance(value, list | MultiValue) or len(value) == 0:
            return None
        return struct.pack(f"<{len(value)}{_NUMBERS[vr]}", *value)
    if vr == "DS" and isinstance(value, MultiValue) and all(isinstance(each, DSfloat) for each in value):
        return _padded("\\".join(map(_as_written, value)), b" ")
    if vr in _BYTES and isinstance(value, bytes) and len(value) % 2 == 0:
        return value
    return None


def _padded(value: str, padding: bytes) -> bytes:
    encoded = value.encode()
    return encoded + padding if len(encoded) % 2 else encoded


def _as_written(number: DSfloat) -> str:
    return number.original_string if hasattr(number, "original_string") else str(number)


def _by_pydicom(element: DataElement, charset: Any) -> bytes:
    file = _explicit_little()
    write_data_element(file, element, charset)
    return bytes(file.getvalue())


def _item_by_pydicom(item: Dataset, charset: Any) -> bytes:
    file = _explicit_little()
    whole = DataElement(0x00081140, "SQ", [item])
    write_data_element(file, whole, charset)
    return bytes(file.getvalue()[12:])  # without the head of the sequence


def _explicit_little() -> DicomBytesIO:
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = False, True
    return file
