"""Segments to Segmentation objects (PS3.3 A.51, A.94): on the grid of the series, one segment per label.

Frames without a voxel are left out (the sparse encoding of PS3.3 C.8.20.3): with all of them ten organs of a CT of
300 slices take 98 MB instead of a few, and viewers place a frame by its Plane Position, not by its number. BINARY has
every viewer; FRACTIONAL and LABELMAP (Supplement 243) are compressed without loss. FRACTIONAL has the probabilities of
segments whose pipeline keeps them; a frame is then there for any of one step. A label map cannot hold two segments at
one voxel: those that overlap go into objects of their own. ALIGNED is for viewers that cannot cut bits
where a frame ends within a byte: then it is FRACTIONAL, all or nothing, which they take for BINARY.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from pipelines.base import Findings, Segment
from pipelines.evidence import equipment, fractional, wording
from pipelines.evidence.segments import label_array, merged, part, refuse_off_grid
from pipelines.evidence.slices import fill, slices_of
from pipelines.evidence.source import lean_images
from pipelines.evidence.stacks import Stack, stacks
from pipelines.evidence.stamp import Stamp
from pipelines.evidence.tracking import Track
from pipelines.evidence.voxels import FULL, Masks, layers
from pipelines.forms import ALIGNED
from pipelines.instance import number as number_of
from pipelines.instance import one_sentence
from pipelines.series import Series

# told apart by people who see red and green alike (Okabe and Ito 2008), as CSS colours
COLOURS = ("#D55E00", "#56B4E9", "#F0E442", "#009E73", "#CC79A7", "#E69F00", "#0072B2")
SERIES_NUMBER = 9001  # behind the series of the scanner
_TITLES = {fractional.PROBABILITY: "probabilities", fractional.OCCUPANCY: "outlines"}
_UNEVEN = 0.01  # of a step between slices


@dataclass(frozen=True, eq=False)
class Placed:
    """Where a segment was put.

    Attributes:
        segmentation: The object that holds it.
        number: Its Segment Number there.
        frames: The Segmentation's frames that hold it and no other, from 1; none of a label map.
        stack: The source frames that the object lies on.
    """

    segmentation: Dataset
    number: int
    frames: tuple[int, ...]
    stack: Stack

    @property
    def is_plane(self) -> bool:
        """Whether a frame is the segment on one picture: a frame of a label map has others, too."""
        return self.stack.is_flat and bool(self.frames)


@dataclass(frozen=True, eq=False)
class Drawn:
    """What came of the segments of one run.

    Attributes:
        places: By label; several where the series has several stacks, none where no Segmentation can be made.
        notes: Sentences why not, and what was derived.
    """

    objects: tuple[Dataset, ...] = ()
    places: dict[str, tuple[Placed, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def draw(findings: Findings, tracks: Sequence[Track], stamp: Stamp, encoding: str) -> Drawn:
    """Segmentations of all segments: one object per stack of frames that has any voxel.

    Args:
        encoding: One of ``pipelines.forms.ENCODINGS``.

    Raises:
        InvalidEvidence: If a mask is off the grid of its series.
    """
    series = findings.series
    segments = merged(findings)
    for segment in segments:
        refuse_off_grid(segment, series)
        if encoding == "FRACTIONAL":
            fractional.refuse_contradicting(segment)
    uids = {track.identifier: track.uid for track in tracks}
    looks = {each.label: _Look(uids[each.label], COLOURS[i % len(COLOURS)]) for i, each in enumerate(segments)}
    objects: list[Dataset] = []
    places: dict[str, tuple[Placed, ...]] = {}
    notes: list[str] = []
    for stack, here in _portions(segments, series, encoding):
        try:
            images, derived = _images(stack, series)
            descriptions = [_description(i, each, looks[each.label], stamp) for i, each in enumerate(here, start=1)]
            is_fractional = encoding == "FRACTIONAL"
            voxels = fractional.described(descriptions, here) if is_fractional else [each.mask for each in here]
            object_ = _Object(encoding, _encoding_on(series, encoding), descriptions, stamp, len(objects) + 1)
            made = _drawn_on(images, [part(each, stack) for each in voxels], object_)
        except (ValueError, AttributeError, LookupError) as error:  # what highdicom says of a source that it cannot use
            notes.append(f"the outline is not stored as a Segmentation: {_why(error)}")
            continue
        _say_pitch(made, stack, series)
        objects.append(made)
        notes += derived
        for i, segment in enumerate(here, start=1):
            places.setdefault(segment.label, ())
            places[segment.label] += (Placed(made, i, _frames_of(made, i), stack),)
    return Drawn(tuple(objects), places, tuple(dict.fromkeys(notes)))


def _portions(segments: list[Segment], series: Series, encoding: str) -> Iterator[tuple[Stack, list[Segment]]]:
    """What goes into an object each: a stack of frames, and the segments that it has any voxel of."""
    occupied = {each.label: np.any(each.mask, axis=(1, 2)) for each in segments}
    for stack in stacks(series):
        here = [segment for segment in segments if occupied[segment.label][list(stack.frames)].any()]
        if here and encoding == "LABELMAP":
            for layer in layers(_masks([part(each.mask, stack) for each in here])):
                yield stack, [here[place] for place in layer]
        elif here and encoding == "FRACTIONAL":
            yield from ((stack, alike) for alike in fractional.by_type(here))
        elif here:
            yield stack, here


def _encoding_on(series: Series, asked: str) -> str:
    """How the segments of a series are encoded: ALIGNED is BINARY, if a frame ends with a byte (PS3.5 8.1.1)."""
    if asked != ALIGNED:
        return asked
    pixels = (number_of(series.header, "Rows") or 0) * (number_of(series.header, "Columns") or 0)
    return "BINARY" if pixels % 8 == 0 else "FRACTIONAL"


def _masks(masks: Sequence[NDArray[Any]]) -> Masks:
    occupied = np.stack([np.any(mask, axis=(1, 2)) for mask in masks])
    return Masks(occupied, lambda segment, place: masks[segment][place])


@dataclass(frozen=True)
class _Look:
    """What a segment has wherever it is drawn."""

    tracking_uid: str
    colour: str


def _why(error: Exception) -> str:
    """What highdicom means, to a person."""
    if isinstance(error, KeyError):
        return f"the SOP class {error.args[0]} is unknown"
    if isinstance(error, IndexError):
        return "the functional groups of the images are not complete"
    if isinstance(error, AttributeError):
        return f"the images lack {str(error).split()[-1].strip(chr(39))}"
    return one_sentence(error)


def _description(number: int, segment: Segment, look: _Look, stamp: Stamp) -> Any:
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.label,
        segmented_property_category=segment.category,
        segmented_property_type=segment.property_type,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=equipment.in_segment(stamp.algorithm),
        tracking_uid=look.tracking_uid,
        tracking_id=segment.label,
        display_color=hd.color.CIELabColor.from_string(look.colour),
    )


def _images(stack: Stack, series: Series) -> tuple[list[Dataset], list[str]]:
    """What highdicom reads of the images; a missing thickness is the distance between slices, and that is said."""
    images = lean_images(stack.images)
    planes = [series.frames[index].plane for index in stack.frames]
    if any(plane is None for plane in planes):
        for image in images:  # a frame of reference without a place in it says nothing
            image.pop("FrameOfReferenceUID", None)
    if any(plane is not None and plane.spacing is None for plane in planes):
        raise ValueError("the images say where they lie, but not how far apart their pixels are")
    if series.spacing is None or all("SliceThickness" in image for image in images) or series.frames[0].groups:
        return images, []
    for image in images:
        image.SliceThickness = f"{series.spacing[0]:.6g}"
    return images, ["the images do not say their Slice Thickness; the Segmentation has the distance between slices"]


@dataclass(frozen=True)
class _Object:
    """What one object is, whatever its voxels.

    Attributes:
        asked: The encoding that its form names.
        encoding: Its Segmentation Type (0062,0001).
        number: From 1, among those of its form.
    """

    asked: str
    encoding: str
    descriptions: list[Any]
    stamp: Stamp
    number: int

    def uid(self, what: str, *number: int) -> str:
        """Another form is another object, in a series of its own."""
        return self.stamp.uid(what, *(() if self.asked == "BINARY" else (self.asked,)), *number)


def _drawn_on(images: list[Dataset], masks: list[NDArray[Any]], object_: _Object) -> Dataset:
    """The object with all its frames; ``masks``, or steps: (frames, rows, columns), a frame for each image's."""
    slices = slices_of(images)
    if slices is None:
        is_mask = masks[0].dtype == np.bool_
        return _segmentation(images, label_array(masks) if is_mask else fractional.shares(masks), object_)
    voxel = np.zeros((1, *masks[0].shape[1:]), np.uint8)
    voxel[0, 0, 0] = 1  # makes one frame, to be replaced
    return fill(_segmentation(images[:1], voxel, object_), slices, _masks(masks))


def _say_pitch(made: Dataset, stack: Stack, series: Series) -> None:
    """Spacing Between Slices where the frames lie on an even grid, also with gaps or of a tilted gantry.

    highdicom says it of gapless volumes alone, and repeats what the images say, right or wrong. Without it dcmqi takes
    the Slice Thickness for it, and puts frames into one another.
    """
    planes = [series.frames[index].plane for index in stack.frames]
    measures = made.SharedFunctionalGroupsSequence[0].get("PixelMeasuresSequence")
    if len(planes) < 2 or not measures or any(plane is None for plane in planes):
        return
    normal = np.array(planes[0].normal if planes[0] else ())
    steps = np.diff(sorted(float(np.dot(plane.position, normal)) for plane in planes if plane))
    counts = steps / steps.min() if steps.min() > 0 else np.array([0.5])
    if np.abs(counts - counts.round()).max() < _UNEVEN:
        pitch = float(steps.sum() / counts.round().sum())
        said = float(measures[0].get("SpacingBetweenSlices") or 0)
        if abs(said - pitch) > _UNEVEN * pitch:
            measures[0].SpacingBetweenSlices = f"{pitch:.9g}"


def _segmentation(images: list[Dataset], pixels: NDArray[Any], object_: _Object) -> Dataset:
    stamp, algorithm = object_.stamp, object_.stamp.algorithm
    fractions = fractional.type_of(object_.descriptions)
    made: Dataset = hd.seg.Segmentation(
        source_images=[stamp.source.on(images[0]), *images[1:]],
        pixel_array=pixels,
        segmentation_type=object_.encoding,
        segment_descriptions=object_.descriptions,
        fractional_type=fractions,
        max_fractional_value=FULL,
        series_instance_uid=object_.uid("seg series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=object_.uid("seg", *([object_.number] if object_.number > 1 else [])),
        instance_number=object_.number,
        omit_empty_frames=True,
        transfer_syntax_uid=ExplicitVRLittleEndian if object_.encoding == "BINARY" else RLELossless,
        content_label="AI_FINDINGS",
        content_description=f"{algorithm.name} {algorithm.version}, not verified"[:64],
        series_description=wording.series_title(_TITLES[fractions], algorithm),
        specific_character_set=None,  # highdicom refuses some that are right; the stamp sets it
        **equipment.general(algorithm),
    )
    shared = made.SharedFunctionalGroupsSequence[0]
    if not any(shared.get("PixelMeasuresSequence", [])):
        # A picture that lies nowhere: OHIF 3.13.2 shows nothing at all where this item is missing, and Orthanc leaves
        # an empty one out. Without a volume it may be without Pixel Spacing (PS3.3 Table C.7.6.16-2).
        measures = Dataset()
        measures.PixelSpacingCalibrationDescription = "as of the source image"
        shared.PixelMeasuresSequence = [measures]
        made.VolumetricProperties = "DISTORTED"
    if "FrameOfReferenceUID" not in made:  # then Patient Orientation is Type 2 (PS3.3 C.7.6.1)
        made.PatientOrientation = images[0].get("PatientOrientation")
    stamp.put_on(made)
    return made


def _frames_of(segmentation: Dataset, number: int) -> tuple[int, ...]:
    """The frames, from 1, that hold a segment: highdicom says it once for all frames if they all hold the same."""
    if segmentation.SegmentationType == "LABELMAP":
        return ()
    if "SegmentIdentificationSequence" in segmentation.SharedFunctionalGroupsSequence[0]:
        return tuple(range(1, int(segmentation.NumberOfFrames) + 1))
    return tuple(
        place
        for place, group in enumerate(segmentation.PerFrameFunctionalGroupsSequence, start=1)
        if group.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number
    )
