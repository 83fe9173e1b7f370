"""Where a finding lies in images, as SR content items: outlines, boxes, whole images.

Looks at masks and headers; knows neither groups nor presets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pipelines.base import Finding
from pipelines.evidence import codes, content
from pipelines.evidence.errors import InvalidEvidence
from pipelines.evidence.outlines import area, short_outlines
from pipelines.frames import Frame
from pipelines.instance import number, text
from pipelines.series import Series

# of one segment; a viewer lists them one by one, and the Segmentation has every voxel
MOST_OUTLINES = 120
# of one outline: Graphic Data is FL, which has 64 KiB at most in Explicit VR (PS3.5 7.1.2), 8 bytes a point
MOST_POINTS = 8000


@dataclass(frozen=True, eq=False)
class Outline:
    """A closed polygon on one frame: (column, row), shape (points, 2)."""

    frame: Frame
    polygon: NDArray[np.float64]

    def as_region(self) -> Dataset:
        """Image Region (111030) of TID 1410 and 1411."""
        return content.polygon(codes.IMAGE_REGION, self.polygon, reference(self.frame))


def outlines(mask: NDArray[np.bool_], series: Series) -> list[Outline]:
    """The outer outlines of a mask (frames, rows, columns), the largest first: some viewers show one.

    Of a mask on very many frames those with the most of it; the Segmentation beside the report has them all. An outline
    of more points than an element holds is several, side by side.
    """
    sizes = np.count_nonzero(mask, axis=(1, 2))
    largest = np.argsort(-sizes, kind="stable")[:MOST_OUTLINES]
    found = [
        Outline(series.frames[index], polygon)
        for index in sorted(largest[sizes[largest] > 0])
        for polygon in short_outlines(mask[index], MOST_POINTS)
    ]
    return sorted(found, key=lambda outline: -area(outline.polygon))[:MOST_OUTLINES]


def box(finding: Finding, series: Series) -> Outline:
    """The box of a detection, on the one image that it was judged on."""
    if finding.box is None:
        raise ValueError("the finding has no box")
    frames = judged_on(finding, series)
    if len(frames) != 1:
        raise InvalidEvidence(f"the box of {finding.code.meaning!r} must name the one image that it lies on")
    return _rectangle(frames[0], *finding.box)


def title(frames: Sequence[Frame], rank: int = 0) -> Dataset:
    """What a number without an outline is inferred from (TID 320): the middle one of the images that it was judged on.

    A mark at its left edge, one below the other by ``rank``: OHIF 3.13.2 writes a number to the right of the first
    coordinates that it finds, and of an outline of the whole image that is beyond the screen.
    """
    frame = frames[len(frames) // 2]
    columns, rows = number(frame.instance, "Columns") or 1, number(frame.instance, "Rows") or 1
    mark = _rectangle(frame, 0, rows * (0.06 + 0.1 * (rank % 9)), columns * 0.01, rows * 0.01)
    return content.polygon(codes.TEXT_POSITION, mark.polygon, reference(frame), content.INFERRED)


def judged_on(finding: Finding, series: Series) -> Sequence[Frame]:
    """The frames of the instances that the finding names, or all of them.

    Raises:
        InvalidEvidence: If it names an instance that is not of the series.
    """
    if not finding.sop_uids:
        return series.frames
    frames = [frame for frame in series.frames if text(frame.instance, "SOPInstanceUID") in finding.sop_uids]
    if len({id(frame.instance) for frame in frames}) < len(set(finding.sop_uids)):
        raise InvalidEvidence(f"{finding.code.meaning!r} names an image that is not of the series that was read")
    return frames


def reference(frame: Frame) -> Dataset:
    """To its instance, and to the frame where the instance has several."""
    item = content.instance(text(frame.instance, "SOPClassUID"), text(frame.instance, "SOPInstanceUID"))
    if (number(frame.instance, "NumberOfFrames") or 1) > 1:
        item.ReferencedFrameNumber = frame.number
    return item


def _rectangle(frame: Frame, x: float, y: float, width: float, height: float) -> Outline:
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)]
    return Outline(frame, np.array(corners, dtype=np.float64))
