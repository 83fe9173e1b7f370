"""The rules that a Segmentation of ours keeps (PS3.3 A.51, C.8.20), as sentences about what breaks them."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.encaps import parse_basic_offsets, parse_fragments
from pydicom.uid import RLELossless

from pipelines.evidence.fractional import OCCUPANCY, PROBABILITY, threshold_of
from pipelines.instance import is_uid, items, number, text
from pipelines.probability import STEPS

_OF_SEGMENT = (
    "SegmentLabel",
    "SegmentAlgorithmType",
    "SegmentAlgorithmName",
    "TrackingID",
    "TrackingUID",
    "RecommendedDisplayCIELabValue",
)


def segmentation_faults(result: Dataset) -> Iterable[str]:
    """What is wrong with it."""
    segments = described_segments(result)
    for segment in segments:
        yield from _segment_faults(segment, result)
    labels = [text(segment, "SegmentLabel") for segment in segments]
    if len(set(labels)) < len(labels):
        yield "two segments have one label"
    numbers = [number(segment, "SegmentNumber") for segment in segments]
    if numbers != list(range(1, len(numbers) + 1)):
        yield "the segments are not numbered 1, 2, …"
    if text(result, "SegmentationType") == "FRACTIONAL":
        yield from _fraction_faults(result, segments)
    yield from _frame_faults(result, set(numbers))


def described_segments(result: Dataset) -> list[Dataset]:
    """The segments that are drawn: a label map describes its background, too, as number 0 (PS3.3 C.8.20.2.8)."""
    return [
        segment
        for segment in items(result, "SegmentSequence")
        if not (number(segment, "SegmentNumber") == 0 and text(result, "SegmentationType") == "LABELMAP")
    ]


def _segment_faults(segment: Dataset, result: Dataset) -> Iterable[str]:
    label = text(segment, "SegmentLabel")
    for keyword in _OF_SEGMENT:
        if keyword not in segment or segment[keyword].is_empty:
            yield f"the segment {label!r} lacks {keyword}"
    if not is_uid(text(segment, "TrackingUID")):
        yield f"the Tracking UID of the segment {label!r} is no UID"
    for keyword in ("SegmentedPropertyCategoryCodeSequence", "SegmentedPropertyTypeCodeSequence"):
        if len(items(segment, keyword)) != 1:
            yield f"the segment {label!r} needs one item of {keyword}"
    identified = items(segment, "SegmentationAlgorithmIdentificationSequence")
    if len(identified) != 1 or len(items(identified[0], "AlgorithmFamilyCodeSequence")) != 1:
        yield f"the segment {label!r} does not identify its algorithm"
        return
    for ours, theirs in (("AlgorithmName", "ManufacturerModelName"), ("AlgorithmVersion", "SoftwareVersions")):
        if not text(identified[0], ours) or text(identified[0], ours) != text(result, theirs):
            yield f"{ours} of the segment {label!r} is not {theirs}"


def _fraction_faults(result: Dataset, segments: list[Dataset]) -> Iterable[str]:
    """What a stored value is worth can be told, and above which a probability is outlined."""
    kind = text(result, "SegmentationFractionalType")
    if kind not in (PROBABILITY, OCCUPANCY):
        yield f"the Segmentation Fractional Type is {kind!r}"
    if number(result, "MaximumFractionalValue") != STEPS:
        yield f"the Maximum Fractional Value is not {STEPS}"
    for segment in segments:
        threshold, label = threshold_of(segment), text(segment, "SegmentLabel")
        if kind == PROBABILITY and not (threshold is not None and 0 <= threshold < 1):
            yield f"the segment {label!r} does not say above which probability it is outlined"
        elif kind == OCCUPANCY and threshold is not None:
            yield f"the segment {label!r} names a threshold, but its fractions are no probabilities"


def _frame_faults(result: Dataset, numbers: set[float | None]) -> Iterable[str]:
    """Each frame has its segment and its source image, each segment has a frame, and the bits are all there."""
    frames = int(number(result, "NumberOfFrames") or 0)
    groups = items(result, "PerFrameFunctionalGroupsSequence")
    if frames < 1 or len(groups) != frames:
        yield f"there are {frames} frames and {len(groups)} descriptions of frames"
        return
    shared = items(result, "SharedFunctionalGroupsSequence")
    identified = [
        [each for part in (group, *shared) for each in items(part, "SegmentIdentificationSequence")] for group in groups
    ]
    drawn = {number(told[0], "ReferencedSegmentNumber") if len(told) == 1 else None for told in identified}
    if text(result, "SegmentationType") == "LABELMAP":
        if any(identified) or text(result, "SegmentsOverlap") != "NO":
            yield "a frame of a label map names a segment, or its segments overlap"
    elif drawn != numbers:
        yield "the frames and the segments do not match"
    if not all(any(items(part, "DerivationImageSequence") for part in (group, *shared)) for group in groups):
        yield "a frame does not name its source image"
    if result.file_meta.TransferSyntaxUID == RLELossless:
        fragments = _fragments(result.PixelData)
        if fragments != frames:
            yield f"there are {frames} frames and {fragments} pieces of Pixel Data"
        return
    bits = frames * int(number(result, "Rows") or 0) * int(number(result, "Columns") or 0)
    needed = -(-bits // 8)
    if len(result.get("PixelData", b"")) != needed + needed % 2:
        yield "the Pixel Data is not as long as its frames"


def _fragments(pixels: bytes) -> int:
    """How many there are behind the Basic Offset Table."""
    file = BytesIO(pixels)
    parse_basic_offsets(file)
    return int(parse_fragments(file)[0])
