"""The way back: a Segmentation to masks on the grid of a series, as training and checks of our own results want them.

Reads BINARY, FRACTIONAL and LABELMAP objects, ours and others'.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from pipelines.evidence.check_segmentation import described_segments
from pipelines.evidence.errors import InvalidEvidence
from pipelines.evidence.fractional import threshold_of
from pipelines.geometry import SAME_POSITION
from pipelines.instance import items, number, numbers, text
from pipelines.series import Series

SEGMENTATION_TYPES = ("BINARY", "FRACTIONAL", "LABELMAP")  # (0062,0001)


def seg_masks(path: Path, series: Series) -> dict[str, NDArray[np.bool_]]:
    """By label: bool, (frames, rows, columns), pixel for pixel the grid of the series.

    A fraction counts above the threshold that its segment names, else above half.

    A frame is put where its source image is; where none is named, where it lies in the patient.

    Raises:
        InvalidEvidence: If the file is no Segmentation that we read, or not one of this series.
    """
    segmentation = dcmread(path)
    if text(segmentation, "SegmentationType") not in SEGMENTATION_TYPES:
        raise InvalidEvidence(f"{path.name} is no BINARY, FRACTIONAL or LABELMAP Segmentation")
    frames = _pixels(segmentation)
    grid = (len(series.frames), int(number(series.header, "Rows") or 0), int(number(series.header, "Columns") or 0))
    if frames.shape[1:] != grid[1:]:
        raise InvalidEvidence(f"{path.name} has {frames.shape[1:]} pixels a frame and the series {grid[1:]}")
    described = described_segments(segmentation)
    labels = {number(each, "SegmentNumber"): text(each, "SegmentLabel") for each in described}
    least = _least_fractions(segmentation, described)
    masks = {label: np.zeros(grid, np.bool_) for label in labels.values()}
    places = _places(series)
    shared = items(segmentation, "SharedFunctionalGroupsSequence")
    for frame, group in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        groups = [group, *shared]
        place = next((places[key] for key in _keys(groups) if key in places), None)
        if place is None:
            raise InvalidEvidence(f"{path.name} has a frame that lies on no image of the series")
        if text(segmentation, "SegmentationType") == "LABELMAP":
            for each in np.unique(frame[frame > 0]):
                masks[labels[each]][place] |= frame == each
        else:
            segment = _segment_number(groups)
            masks[labels[segment]][place] |= frame > least[segment] if least else frame
    return masks


def _pixels(segmentation: Dataset) -> NDArray[Any]:
    """(frames, rows, columns): bool, the labels of a label map, or fractions as they are stored."""
    shape = (int(number(segmentation, "NumberOfFrames") or 1), segmentation.Rows, segmentation.Columns)
    if text(segmentation, "SegmentationType") == "LABELMAP":
        return np.asarray(segmentation.pixel_array).reshape(shape)
    if segmentation.file_meta.TransferSyntaxUID.is_encapsulated:
        raw = segmentation.pixel_array.reshape(-1)
    else:
        raw = np.frombuffer(segmentation.PixelData, np.uint8)
    if text(segmentation, "SegmentationType") == "BINARY" and raw.size < np.prod(shape):
        # one bit per pixel, the lowest first (PS3.5 8.1.1)
        return np.unpackbits(raw, bitorder="little", count=int(np.prod(shape))).reshape(shape).astype(np.bool_)
    found = raw[: int(np.prod(shape))].reshape(shape)
    return np.asarray(found if text(segmentation, "SegmentationType") == "FRACTIONAL" else found > 0)


def _least_fractions(segmentation: Dataset, described: list[Dataset]) -> dict[float | None, float]:
    """Of a FRACTIONAL one by Segment Number: what a stored value has to be above."""
    if text(segmentation, "SegmentationType") != "FRACTIONAL":
        return {}
    full = number(segmentation, "MaximumFractionalValue") or 255
    thresholds = {number(each, "SegmentNumber"): threshold_of(each) for each in described}
    return {segment: full * (0.5 if each is None else each) for segment, each in thresholds.items()}


def _places(series: Series) -> dict[Any, int]:
    """Where in a mask the frame of an image is, by (SOP Instance UID, frame number) and by position."""
    places: dict[Any, int] = {}
    for index, frame in reversed(list(enumerate(series.frames))):
        places[text(frame.instance, "SOPInstanceUID"), frame.number] = index
        if frame.plane:
            places[_rounded(frame.plane.position)] = index
    return places


def _keys(groups: list[Dataset]) -> list[Any]:
    """By what a frame can be placed, the surest first."""
    named = [
        (text(image, "ReferencedSOPInstanceUID"), int(number(image, "ReferencedFrameNumber") or 1))
        for group in groups
        for derivation in items(group, "DerivationImageSequence")
        for image in items(derivation, "SourceImageSequence")
    ]
    lies = [
        _rounded(position)
        for group in groups
        for plane in items(group, "PlanePositionSequence")
        if (position := numbers(plane, "ImagePositionPatient", 3))
    ]
    return [*named, *lies]


def _segment_number(groups: list[Dataset]) -> float | None:
    found = [each for group in groups for each in items(group, "SegmentIdentificationSequence")]
    return number(found[0], "ReferencedSegmentNumber") if found else None


def _rounded(position: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(round(mm / (10 * SAME_POSITION)) for mm in position)
