"""The Pixel Data of a Segmentation: bits of each segment on each slice, or whole slices of labels or fractions in RLE.

Knows masks and bytes; what the frames say of themselves is in slices.py.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rle.rle import encode_segment  # one RLE segment: 20 times as fast as the package's encoder of frames

from pipelines.probability import STEPS

FULL = STEPS  # Maximum Fractional Value: the voxel lies in the segment
_ITEM = b"\xfe\xff\x00\xe0"


@dataclass(frozen=True, eq=False)
class Masks:
    """What is drawn on slices.

    Attributes:
        occupied: bool, (segments, slices): where there is any voxel.
        plane: Of a segment and a slice, both from 0: bool (rows, columns), or uint8 steps of a probability.
    """

    occupied: NDArray[np.bool_]
    plane: Callable[[int, int], NDArray[Any]]

    @property
    def frames(self) -> Iterator[tuple[int, int]]:
        """(segment, slice) of each frame that has one segment, by segment."""
        return ((int(segment), int(place)) for segment, place in np.argwhere(self.occupied))

    @property
    def shown(self) -> list[int]:
        """The slices with any voxel."""
        return np.flatnonzero(self.occupied.any(axis=0)).tolist()

    def here(self, place: int) -> list[int]:
        """The segments on a slice."""
        return np.flatnonzero(self.occupied[:, place]).tolist()


def layers(masks: Masks) -> list[list[int]]:
    """The segments in groups without overlap, each as early as it fits: one label map can hold a group."""
    apart: list[set[int]] = [set() for _ in masks.occupied]  # which of the earlier ones each overlaps
    for place in masks.shown:
        seen: list[tuple[int, NDArray[np.uint8]]] = []
        for segment in masks.here(place) if len(masks.here(place)) > 1 else ():
            packed = np.packbits(masks.plane(segment, place))
            apart[segment] |= {other for other, bits in seen if other not in apart[segment] and (bits & packed).any()}
            seen.append((segment, packed))
    grouped: list[list[int]] = []
    for segment, others in enumerate(apart):
        fitting = next((group for group in grouped if not others & set(group)), None)
        if fitting is None:
            grouped.append([segment])
        else:
            fitting.append(segment)
    return grouped


def bits(masks: Masks, pixels: int) -> tuple[bytes, bool]:
    """BINARY: frame after frame without a gap (PS3.5 8.1.1), and whether any two segments overlap.

    Args:
        pixels: Of a frame.
    """
    file = BytesIO()  # gives its bytes without a copy
    shared = np.count_nonzero(masks.occupied, axis=0) > 1
    seen: dict[int, NDArray[np.uint8]] = {}
    overlap = False
    together = 8 // gcd(pixels, 8)  # so many frames end with a byte
    waiting: list[NDArray[np.bool_]] = []
    for segment, place in masks.frames:
        plane = masks.plane(segment, place).ravel()
        waiting.append(plane)
        if shared[place]:
            packed = _packed([plane])
            before = seen.setdefault(place, np.zeros_like(packed))
            overlap = overlap or bool((before & packed).any())
            before |= packed
        if len(waiting) == together:
            file.write(_packed(waiting).data)
            waiting.clear()
    if waiting:
        file.write(_packed(waiting).data)
    file.write(b"\0" * (file.tell() % 2))
    return file.getvalue(), overlap


def _packed(planes: Sequence[NDArray[np.bool_]]) -> NDArray[np.uint8]:
    return np.packbits(np.concatenate(planes) if len(planes) > 1 else planes[0], bitorder="little")


def fractions(masks: Masks) -> bytes:
    """FRACTIONAL, RLE Lossless: a frame for each segment and slice: steps, or all of a voxel or nothing."""
    planes = (masks.plane(segment, place) for segment, place in masks.frames)
    return encapsulated(
        rle(np.multiply(plane, FULL, dtype=np.uint8) if plane.dtype == np.bool_ else plane) for plane in planes
    )


def labels(masks: Masks) -> bytes:
    """LABELMAP, RLE Lossless: a frame for each slice with any voxel, of segment numbers from 1; none may overlap."""
    dtype = label_type(len(masks.occupied))
    return encapsulated(rle(_labelled(masks, place, dtype)) for place in masks.shown)


def label_type(segments: int) -> type[np.uint8] | type[np.uint16]:
    """What holds so many segment numbers, and 0 for the background."""
    return np.uint8 if segments < 256 else np.uint16


def _labelled(masks: Masks, place: int, dtype: type[np.uint8] | type[np.uint16]) -> NDArray[np.uint8 | np.uint16]:
    plane: NDArray[np.uint8 | np.uint16] | None = None
    for segment in masks.here(place):
        mask = masks.plane(segment, place)
        if plane is None:
            plane = np.multiply(mask, segment + 1, dtype=dtype)
        else:
            plane += np.multiply(mask, segment + 1, dtype=dtype)
    if plane is None:
        raise ValueError("a slice without a segment is no frame")
    return plane


def rle(plane: NDArray[np.uint8 | np.uint16]) -> bytes:
    """A frame in RLE Lossless: a header, and a segment per byte of a pixel, the highest first (PS3.5 G.2)."""
    columns, size = plane.shape[1], plane.dtype.itemsize
    octets = np.ascontiguousarray(plane).view(np.uint8).reshape(-1, size)
    parts = [encode_segment(octets[:, size - 1 - byte].tobytes(), columns) for byte in range(size)]
    offsets = [64 + sum(map(len, parts[:count])) for count in range(size)]
    return struct.pack("<16L", size, *offsets, *[0] * (15 - size)) + b"".join(parts)


def encapsulated(frames: Iterable[bytes]) -> bytes:
    """Fragments, one per frame, behind their Basic Offset Table (PS3.5 A.4); the delimiter is the file's to write."""
    held = list(frames)
    offsets = np.cumsum([0, *(len(each) + 8 for each in held[:-1])])
    table = b"".join(struct.pack("<L", offset) for offset in offsets)
    items = (piece for each in (table, *held) for piece in (_ITEM + struct.pack("<L", len(each)), each))
    return b"".join(items)
