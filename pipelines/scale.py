"""How large a pixel of a picture is, where its header says so, and how large what was outlined on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.base import Measurement
from pipelines.evidence import codes
from pipelines.frames import Frame
from pipelines.instance import items, number, numbers

_CENTIMETRES = 3  # Physical Units X and Y Direction (PS3.3 C.8.5.5.1.15)
_DIRECTIONS = np.radians(np.arange(0, 180, 2))


@dataclass(frozen=True)
class Pixel:
    """mm from row to row and from column to column; without a scale both are 1, and the unit is pixels."""

    rows: float = 1.0
    columns: float = 1.0
    is_mm: bool = False


def mm_per_pixel(frame: Frame, mask: NDArray[np.bool_]) -> Pixel:
    """Of the ultrasound region (PS3.3 C.8.5.5) that the middle of the mask lies in, else Pixel Spacing."""
    row, column = (float(each.mean()) for each in np.nonzero(mask))
    for region in items(frame.instance, "SequenceOfUltrasoundRegions"):
        edges = [number(region, f"RegionLocation{name}") for name in ("MinX0", "MinY0", "MaxX1", "MaxY1")]
        units = [number(region, f"PhysicalUnits{axis}Direction") for axis in "XY"]
        deltas = [number(region, f"PhysicalDelta{axis}") for axis in "XY"]
        if None in edges or None in deltas or units != [_CENTIMETRES, _CENTIMETRES]:
            continue
        left, top, right, bottom = (float(each or 0) for each in edges)
        across, down = (abs(float(each or 0)) * 10 for each in deltas)  # negative where an axis runs the other way
        if left <= column <= right and top <= row <= bottom and across > 0 and down > 0:
            return Pixel(down, across, is_mm=True)
    spacing = numbers(frame.instance, "PixelSpacing", 2)
    return Pixel(spacing[0], spacing[1], is_mm=True) if spacing and min(spacing) > 0 else Pixel()


def size_of(mask: NDArray[np.bool_], pixel: Pixel) -> tuple[Measurement, ...]:
    """Area, longest extent and the extent across it, of a mask (rows, columns) that has a pixel at least."""
    length, area = (codes.MILLIMETER, codes.SQUARE_MILLIMETER) if pixel.is_mm else (codes.PIXELS, codes.PIXELS)
    rows, columns = np.nonzero(mask)
    corners = np.concatenate([(rows + down, columns + right) for down in (0, 1) for right in (0, 1)], axis=1)
    along = (
        np.cos(_DIRECTIONS)[:, None] * corners[0] * pixel.rows
        + np.sin(_DIRECTIONS)[:, None] * corners[1] * pixel.columns
    )
    extents = along.max(1) - along.min(1)  # per direction
    longest = int(extents.argmax())
    across = float(extents[(longest + len(_DIRECTIONS) // 2) % len(_DIRECTIONS)])
    return (
        Measurement(codes.AREA, float(mask.sum()) * pixel.rows * pixel.columns, area),
        Measurement(codes.LONG_AXIS, float(extents[longest]), length),
        Measurement(codes.SHORT_AXIS, across, length),
    )
