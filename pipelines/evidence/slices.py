"""The frames of a Segmentation on single-frame slices: what each says of itself, and their voxels.

highdicom builds such an object with all that its frames share, but takes milliseconds for each source image and frame.
So it is shown one slice, and the rest is put in here: element for element what it would have made of all of them (the
tests compare the two). Multi-frame images, and pictures that lie nowhere, are left to highdicom.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import highdicom as hd
import numpy as np
from highdicom.spatial import VOLUME_INDEX_CONVENTION, get_normal_vector, get_volume_positions
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.valuerep import format_number_as_ds

from pipelines.evidence import content, voxels
from pipelines.evidence.voxels import Masks

_ONE = ("StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns", "FrameOfReferenceUID", "ImageOrientationPatient")
_FRAME_CONTENT, _DIMENSION_INDEX_VALUES = 0x00209111, 0x00209157
_SEGMENT_IDENTIFICATION, _REFERENCED_SEGMENT_NUMBER = 0x0062000A, 0x0062000B
_PLANE_POSITION = 0x00209113
_LONGEST_DECIMAL_STRING = 16  # PS3.5 6.2


@dataclass(frozen=True, eq=False)
class Slices:
    """Single-frame images of one series, grid size and direction at distinct places, by their place.

    Attributes:
        order: Their places in the sequence that was given, along the normal that highdicom takes.
        positions: Image Position (Patient), (slices, 3), in the order given.
    """

    images: tuple[Dataset, ...]
    order: NDArray[np.intp]
    positions: NDArray[np.float64]

    @property
    def orientation(self) -> Any:
        return self.images[0].ImageOrientationPatient


def slices_of(images: Sequence[Dataset]) -> Slices | None:
    """The images as slices; None if highdicom has to look at each of them."""
    first = images[0]
    if any(keyword not in first for keyword in (*_ONE, "ImagePositionPatient", "PixelSpacing", "SliceThickness")):
        return None
    for image in images:
        if "PerFrameFunctionalGroupsSequence" in image or len(image.get("ImagePositionPatient") or ()) != 3:
            return None
        if any(image.get(keyword) != first[keyword].value for keyword in _ONE):
            return None
    positions = np.array([image.ImagePositionPatient for image in images], np.float64)
    normal = get_normal_vector(first.ImageOrientationPatient, index_convention=VOLUME_INDEX_CONVENTION)
    heights, order = np.unique(normal @ positions.T, return_index=True)
    return Slices(tuple(images), order, positions) if len(heights) == len(images) else None


def fill(made: Dataset, slices: Slices, masks: Masks) -> Dataset:
    """A Segmentation that highdicom made of the first slice alone, with all frames of all slices.

    Args:
        masks: Its slices are in the order that the images were given in.
    """
    filled = Dataset(made)
    filled.file_meta = made.file_meta
    _name_sources(filled, slices)
    _say_spacing(filled, slices, masks)
    ordered = Masks(masks.occupied[:, slices.order], lambda segment, place: masks.plane(segment, slices.order[place]))
    groups = _groups_of_labels if made.SegmentationType == "LABELMAP" else _groups_of_segments
    filled.PerFrameFunctionalGroupsSequence = list(groups(filled, slices, ordered))
    filled.NumberOfFrames = len(filled.PerFrameFunctionalGroupsSequence)
    match made.SegmentationType:
        case "LABELMAP":
            filled.PixelData, overlap = voxels.labels(ordered), False
        case "FRACTIONAL":
            filled.PixelData, overlap = voxels.fractions(ordered), len(voxels.layers(ordered)) > 1
        case _:
            filled.PixelData, overlap = voxels.bits(ordered, int(filled.Rows) * int(filled.Columns))
    filled.SegmentsOverlap = "YES" if overlap else "NO"
    return filled


def _name_sources(made: Dataset, slices: Slices) -> None:
    """Source Image Sequence (PS3.3 C.7.6.1) and the Common Instance Reference module, which share their items."""
    references = Items([_reference(image) for image in slices.images])
    made.SourceImageSequence = references
    made.ReferencedSeriesSequence[0].ReferencedInstanceSequence = references


def _reference(image: Dataset) -> Dataset:
    return content.instance(image.SOPClassUID, image.SOPInstanceUID)


def _say_spacing(made: Dataset, slices: Slices, masks: Masks) -> None:
    """What can be said of all frames only: how far apart they are, and whether they are a volume (PS3.3 C.7.6.17.1)."""
    if "SpacingBetweenSlices" not in slices.images[0]:
        measures = made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        spacing, _ = get_volume_positions(slices.positions, slices.orientation)
        measures.pop("SpacingBetweenSlices", None)
        if spacing is not None:
            measures.SpacingBetweenSlices = format_number_as_ds(spacing)
    shown = masks.occupied.any(axis=0)
    one_a_slice = len(masks.occupied) == 1 or made.SegmentationType == "LABELMAP"
    if one_a_slice and np.count_nonzero(shown) > 1:
        spacing, _ = get_volume_positions(slices.positions[shown], slices.orientation, sort=False)
        if spacing is not None and spacing > 0:
            made.DimensionOrganizationType = "3D"


def _groups_of_segments(made: Dataset, slices: Slices, masks: Masks) -> Iterable[Dataset]:
    """Items of the Per-frame Functional Groups Sequence; those of one slice, or one segment, share their parts."""
    of_slice = _OfSlice(made, slices, masks)
    several = len(masks.occupied) > 1
    of_segment = [_identification(number) for number in range(1, len(masks.occupied) + 1)]
    for segment, place in masks.frames:
        rank, parts = of_slice[place]
        yield _group([segment + 1, rank], *parts, *([of_segment[segment]] if several else ()))


def _groups_of_labels(made: Dataset, slices: Slices, masks: Masks) -> Iterable[Dataset]:
    """The same where a frame has all segments of its slice, and says of none which it is (PS3.3 C.8.20.3)."""
    of_slice = _OfSlice(made, slices, masks)
    for place in masks.shown:
        rank, parts = of_slice[place]
        yield _group(rank, *parts)


class _OfSlice(dict[int, tuple[int, tuple[DataElement, DataElement]]]):
    """By slice: its rank among those with any frame, from 1, where it lies and which image it was drawn on."""

    def __init__(self, made: Dataset, slices: Slices, masks: Masks) -> None:
        super().__init__()
        derivation = made.PerFrameFunctionalGroupsSequence[0]["DerivationImageSequence"]
        for rank, place in enumerate(masks.shown, start=1):
            image = slices.images[slices.order[place]]
            self[place] = rank, (_position(image), _derived(derivation, image))


def _group(index: int | list[int], *parts: DataElement) -> Dataset:
    values = content.of_elements((_DIMENSION_INDEX_VALUES, "UL", index))
    group = content.of_elements((_FRAME_CONTENT, "SQ", Items([values])))
    for element in parts:
        group.add(element)
    return group


def _identification(number: int) -> DataElement:
    item = content.of_elements((_REFERENCED_SEGMENT_NUMBER, "US", number))
    return DataElement(_SEGMENT_IDENTIFICATION, "SQ", [item])


def _position(image: Dataset) -> DataElement:
    """As the image says it; highdicom shortens numbers that are longer than a Decimal String may be."""
    position = image["ImagePositionPatient"]
    if any(len(str(each)) > _LONGEST_DECIMAL_STRING for each in position.value):
        return DataElement(_PLANE_POSITION, "SQ", hd.PlanePositionSequence("PATIENT", position.value))
    item = Dataset()
    item.add(position)
    return DataElement(_PLANE_POSITION, "SQ", [item])


def _derived(derivation: DataElement, image: Dataset) -> DataElement:
    """The Derivation Image Sequence of the first slice, said of another."""
    first = derivation.value[0]
    source = _reference(image)
    for keyword in ("PurposeOfReferenceCodeSequence", "SpatialLocationsPreserved"):
        source.add(first.SourceImageSequence[0][keyword])
    item = Dataset()
    item.add(first["DerivationCodeSequence"])
    item.SourceImageSequence = [source]
    return DataElement(derivation.tag, "SQ", [item])
