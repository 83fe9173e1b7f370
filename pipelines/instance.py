"""One file on disk to one header that can be trusted, or a sentence why not.

Reads no pixels and inflates nothing. pydicom converts values when they are looked at, so that a damaged value raises
then: ``value``, ``text`` and ``numbers`` look and never raise.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydicom import config, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.tag import BaseTag, Tag

from pipelines import passing

# We judge files ourselves and say it with the file's name. What pydicom says besides names no file, and its tracebacks
# may hold what stands in the header.
config.settings.reading_validation_mode = config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom\.")

DEFLATED = "1.2.840.10008.1.2.1.99"
DIRECTORY = "1.2.840.10008.1.3.10"  # Media Storage Directory Storage: a table of contents
UNDEFINED_LENGTH = 0xFFFFFFFF
_UID = re.compile(r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))*")
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08", b"\x00\x02")  # what a dataset without preamble begins with
_PIXEL_DATA = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")  # (7FE0,0010) in either byte order
_GROUP_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"  # of the File Meta Information (PS3.10 7.1)
_LONG_VRS = (b"OB", b"OW", b"UN", b"OF", b"OD", b"OL", b"OV")


class Unreadable(Exception):
    """A file is no instance that we can read; the sentence says why."""


class MediaDirectory(Unreadable):
    """A DICOMDIR: there is nothing in it to read, and nothing wrong with it."""


def value(header: Dataset, keyword: str, default: Any = None) -> Any:
    """The value of an element; ``default`` where it is absent, empty or damaged."""
    tag = tag_of(keyword)
    try:
        if tag is None or tag not in header:
            return default
        found = header[tag].value
        return default if found is None or found == "" else found
    except Exception:
        return default


@cache
def tag_of(keyword: str) -> BaseTag | None:
    """The tag of an attribute, looked up once: by keyword, pydicom looks it up for every value of every slice."""
    tag = tag_for_keyword(keyword)
    return None if tag is None else Tag(tag)


def is_damaged(header: Dataset, keyword: str) -> bool:
    """Whether the element is there and its value cannot be had."""
    try:
        header.get(keyword)
    except Exception:
        return True
    return False


def text(header: Dataset, keyword: str) -> str:
    """The value as stripped text; empty where it is absent, empty or damaged."""
    try:
        return str(value(header, keyword, "")).strip(" \0")
    except Exception:
        return ""


def numbers(header: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Exactly ``count`` finite numbers, or None."""
    found = value(header, keyword)
    try:
        values = tuple(float(part) for part in ((found,) if isinstance(found, str | int | float) else found))
    except Exception:
        return None
    return values if len(values) == count and all(map(isfinite, values)) else None


def number(header: Dataset, keyword: str) -> float | None:
    """One finite number, or None."""
    found = numbers(header, keyword, 1)
    return found[0] if found else None


def meta(header: Dataset, keyword: str) -> str:
    """The value of an element of the File Meta Information as text; empty where there is none."""
    return text(getattr(header, "file_meta", Dataset()), keyword)


def items(header: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none where it is absent or damaged."""
    try:
        return list(value(header, keyword) or ())
    except Exception:
        return []


def is_uid(uid: str) -> bool:
    """Whether the text keeps the rules of PS3.5 section 9.1: a path can never pass."""
    return len(uid) <= 64 and bool(_UID.fullmatch(uid))


def open_instance(path: Path) -> Dataset:
    """The header of a DICOM file: all elements before the pixel data.

    Two attributes are set on it: ``filename``, and ``pixel_offset``, the place of the Pixel Data element or None.

    Raises:
        Unreadable: In one sentence, whatever is wrong with the file.
    """
    return _opened(path, _refuse_what_is_cut_off)


def open_header(path: Path) -> Dataset:
    """As ``open_instance``, but the pixels may be cut off: enough to say whose the file is, and not to read it."""
    return _opened(path, lambda _header, _file: None)


def _opened(path: Path, check_pixels: Callable[[Dataset, BinaryIO], None]) -> Dataset:
    try:
        with path.open("rb") as file:
            _refuse_what_is_not_dicom(file)
            _refuse_deflated(path, file)
            file.seek(0)
            header = dcmread(file, stop_before_pixels=True, force=True)
            header.filename = str(path)
            header.pixel_offset = _pixel_offset(file)
            check_pixels(header, file)
    except Unreadable:
        raise
    except OSError as error:
        raise Unreadable(f"the file cannot be read: {passing.sentence(error, path)}") from error
    except RecursionError as error:
        raise Unreadable("its sequences are nested too deeply") from error
    except Exception as error:
        raise Unreadable(f"it cannot be parsed: {one_sentence(error)}") from error
    _refuse_without_identity(header)
    return header


def one_sentence(error: BaseException) -> str:
    """What an error says, on one line; with its class where that alone says little."""
    said = " ".join(str(error).split())[:240]
    return said if " " in said else f"{type(error).__name__} {said}".strip()


def _refuse_what_is_not_dicom(file: BinaryIO) -> None:
    start = file.read(132)
    if not start:
        raise Unreadable("the file is empty")
    if start[128:] != b"DICM" and start[:2] not in _FIRST_GROUPS:
        raise Unreadable("it is not a DICOM file")


def _refuse_deflated(path: Path, file: BinaryIO) -> None:
    """Reading a deflated dataset inflates all of it at once: 1 MiB becomes 2 GiB, whatever we ask pydicom to skip."""
    file.seek(128)
    head = file.read(16)
    if head[:4] != b"DICM":
        return
    if head[4:12] == _GROUP_LENGTH:
        group = file.read(int.from_bytes(head[12:], "little") & 0xFFFF)
        if DEFLATED.encode() not in group and file.read(2) != b"\x02\x00":  # the length was right
            return
    try:
        meta = read_file_meta_info(str(path))
    except InvalidDicomError as error:
        raise Unreadable("it is not a DICOM file") from error
    if text(meta, "TransferSyntaxUID") == DEFLATED:
        raise Unreadable("it is in the deflated transfer syntax, which is not read")


def _pixel_offset(file: BinaryIO) -> int | None:
    """Where the Pixel Data element begins; None where there is none. pydicom has stopped before it."""
    offset = file.tell()
    head = file.read(4)
    return offset if head in _PIXEL_DATA else None


def _refuse_what_is_cut_off(header: Dataset, file: BinaryIO) -> None:
    """The pixel element, and as many frames as the header announces, must have room in the file."""
    if header.pixel_offset is None:
        return
    size = file.seek(0, 2)
    if (frames := number(header, "NumberOfFrames") or 1) > size:
        raise Unreadable(f"{frames:.0f} frames are announced in {size} bytes")
    file.seek(header.pixel_offset)
    start, length = native_pixels(header, file)
    if length is None:
        return
    there = max(size - start, 0)
    if length > there:
        raise Unreadable(f"it is cut off: {length} bytes of pixel data are announced and {there} are there")


def native_pixels(header: Dataset, file: BinaryIO) -> tuple[int, int | None]:
    """Where the value of the Pixel Data element at the file's place begins, and its length; None if encapsulated."""
    order: Literal["little", "big"] = "big" if header.original_encoding[1] is False else "little"
    head = file.read(12)
    # files exist whose encoding is not what their transfer syntax says; no even length begins with these letters
    is_explicit = head[4:6] in _LONG_VRS
    length = int.from_bytes(head[8:12] if is_explicit else head[4:8], order)
    start = header.pixel_offset + (12 if is_explicit else 8)
    return start, None if length == UNDEFINED_LENGTH else length


def _refuse_without_identity(header: Dataset) -> None:
    if "DirectoryRecordSequence" in header or meta(header, "MediaStorageSOPClassUID") == DIRECTORY:
        raise MediaDirectory("it is a DICOMDIR")
    if not len(header):
        raise Unreadable("it is not a DICOM file")
    for keyword, name in (
        ("StudyInstanceUID", "Study Instance UID"),
        ("SeriesInstanceUID", "Series Instance UID"),
        ("SOPInstanceUID", "SOP Instance UID"),
    ):
        uid = text(header, keyword)
        if not uid:
            raise Unreadable(f"no {name}")
        if not is_uid(uid):
            raise Unreadable(f"its {name} breaks the rules for UIDs")
    if not text(header, "SOPClassUID"):
        raise Unreadable("no SOP Class UID")
