"""A hop over the elements of an encoded dataset (PS3.5 section 7), which finds out whether it ends where it should.

From element to element without recursion and without building a dataset, so that neither a deep sequence nor a huge
one costs more than time. It decodes no pixels.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Collection

from node.errors import CannotUnderstand

IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
NATIVE = {IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG}

# PS3.5 Table 7.1-2: these have a length of 16 bits; "all other VRs" have one of 32 bits (Table 7.1-1).
_SHORT_LENGTH = {
    *(b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO"),
    *(b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"),
}
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXELS = {0x7FE00008: "Float Pixel Data", 0x7FE00009: "Double Float Pixel Data", 0x7FE00010: "Pixel Data"}
_SAMPLES, _PHOTOMETRIC, _FRAMES = 0x00280002, 0x00280004, 0x00280008
_ROWS, _COLUMNS, _BITS = 0x00280010, 0x00280011, 0x00280100
_SIZE = frozenset((_SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS, _BITS))
# Of the values that are asked for the longest is PN: 3 groups of 64 characters, multi-byte (PS3.5 Table 6.2-1).
_LONGEST_VALUE = 4096
_DEEPEST = 64  # nested sequences; pydicom gives up at about 300
_FIRST_PAGE, _PAGE = 65536, 4096


def text_of(raw: bytes) -> str:
    """A value of the default repertoire without its padding."""
    return raw.decode("latin-1").strip(" \0")


class Elements:
    """The elements of one encoded dataset, which lies in an open file from ``start`` to ``end``."""

    def __init__(self, file: int, start: int, end: int, transfer_syntax: str) -> None:
        self._file, self._start, self._end = file, start, end
        self._native = transfer_syntax in NATIVE
        self._explicit = transfer_syntax != IMPLICIT_LITTLE  # every compressed one is explicit (PS3.5 A.4)
        order = ">" if transfer_syntax == EXPLICIT_BIG else "<"
        self._head, self._long = (struct.Struct(order + kind).unpack_from for kind in ("HH2sH", "L"))
        self._is_big = order == ">"
        self._page_start, self._page = start, os.pread(file, _FIRST_PAGE, start)

    def through(self, wanted: Collection[int]) -> dict[int, bytes]:
        """The values of the tags ``wanted``, and of those that say how large native pixels are, at the top level.

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
            if (tag in wanted or tag in _SIZE) and tag not in values and length != _UNDEFINED:
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
        if text_of(values.get(_PHOTOMETRIC, b"")) == "YBR_FULL_422":
            samples = 2  # the colours of two neighbours are one (PS3.3 C.7.6.3.1.2)
        frames = text_of(values.get(_FRAMES, b""))
        count = int(frames) if re.fullmatch(r"[0-9]{1,9}", frames) else 1
        needed = (rows * columns * samples * bits * count + 7) // 8
        if length < needed:
            raise CannotUnderstand(f"{_PIXELS[tag]} is truncated: {length} bytes of {needed}")


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
