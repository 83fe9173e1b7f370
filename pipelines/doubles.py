"""A series without the slices that it holds twice: sent again under another UID, they are the same picture.

Drops only what is at one position and has the same pixels; two pictures at one position stay, for nobody knows which
of them is meant.
"""

from __future__ import annotations

import numpy as np

from pipelines.frames import Frame
from pipelines.geometry import SAME_POSITION, heights
from pipelines.pixels import BadPixels
from pipelines.series import Series
from pipelines.volume import stack


def without_doubles(series: Series) -> tuple[Series, str | None]:
    """The series with each doubled slice once and a sentence that says so; as it is where there are none."""
    if series.is_volume or not series.planes or len(series.instances) < len(series.frames):
        return series, None
    above = np.diff(heights(series.planes))
    dropped = {
        id(later.instance)
        for earlier, later, step in zip(series.frames, series.frames[1:], above, strict=False)
        if step <= SAME_POSITION and _is_same_picture(earlier, later)
    }
    if not dropped:
        return series, None
    kept = tuple(each for each in series.instances if id(each) not in dropped)
    what = "1 slice is there twice" if len(dropped) == 1 else f"{len(dropped)} slices are there twice"
    return Series(series.uid, series.modality, kept), f"{what}, with the same pixels, and read once"


def _is_same_picture(one: Frame, other: Frame) -> bool:
    try:
        return np.array_equal(stack([one]), stack([other])) and _place(one) == _place(other)
    except BadPixels:
        return False


def _place(frame: Frame) -> tuple[float, ...]:
    assert frame.plane is not None  # series.planes says so
    return tuple(round(value / SAME_POSITION) for value in frame.plane.position)
