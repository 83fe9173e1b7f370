"""The frames of a BINARY Segmentation on single-frame slices: their bits, and what each says of itself.

highdicom builds such an object with all that its frames share, but takes milliseconds for each source image and frame.
So it is shown one slice, and the rest is put in here: element for element what it would have made of all of them (the
tests compare the two). Multi-frame images, and pictures that lie nowhere, are left to highdicom.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import gcd
from typing import Any

import highdicom as hd
import numpy as np
from highdicom.spatial import VOLUME_INDEX_CONVENTION, get_normal_vector, get_volume_positions
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.valuerep import format_number_as_ds

from pipelines.evidence import content

_ONE = ("StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns", "FrameOfReferenceUID", "ImageOrientationPatient")
_FRAME_CONTENT, _DIMENSION_INDEX_VALUES = 0x00209111, 0x00209157
_SEGMENT_IDENTIFICATION, _REFERENCED_SEGMENT_NUMBER = 0x0062000A, 0x0062000B
_PLANE_POSITION = 0x00209113
_LONGEST_DECIMAL_STRING = 16  # PS3.5 6.2


@dataclass(frozen=True, eq=False)
class Masks:
    """What is drawn on slices.

    Attributes:
        occupied: bool, (segments, slices): where there is any voxel.
        plane: Of a segment and a slice, both from 0: bool, (rows, columns).
    """

    occupied: NDArray[np.bool_]
    plane: Callable[[int, int], NDArray[np.bool_]]

    @property
    def frames(self) -> Iterator[tuple[int, int]]:
        """(segment, slice) of each frame, by segment; of the slices in the order of ``Slices``."""
        return ((int(segment), int(place)) for segment, place in np.argwhere(self.occupied))


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
    filled.PerFrameFunctionalGroupsSequence = list(_groups(filled, slices, ordered))
    filled.NumberOfFrames = int(np.count_nonzero(ordered.occupied))
    bits, overlap = _bits(ordered, int(filled.Rows) * int(filled.Columns))
    filled.SegmentsOverlap = "YES" if overlap else "NO"
    filled.PixelData = bits
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
    if len(masks.occupied) == 1 and np.count_nonzero(shown) > 1:
        spacing, _ = get_volume_positions(slices.positions[shown], slices.orientation, sort=False)
        if spacing is not None and spacing > 0:
            made.DimensionOrganizationType = "3D"


def _groups(made: Dataset, slices: Slices, masks: Masks) -> Iterable[Dataset]:
    """Items of the Per-frame Functional Groups Sequence; those of one slice, or one segment, share their parts."""
    of_slice: dict[int, tuple[DataElement, DataElement]] = {}
    derivation = made.PerFrameFunctionalGroupsSequence[0]["DerivationImageSequence"]
    ranks = np.cumsum(masks.occupied.any(axis=0))  # from 1, of those with any frame
    several = len(masks.occupied) > 1
    of_segment = [_identification(number) for number in range(1, len(masks.occupied) + 1)]
    for segment, place in masks.frames:
        if place not in of_slice:
            image = slices.images[slices.order[place]]
            of_slice[place] = _position(image), _derived(derivation, image)
        index = content.of_elements((_DIMENSION_INDEX_VALUES, "UL", [segment + 1, int(ranks[place])]))
        group = content.of_elements((_FRAME_CONTENT, "SQ", Items([index])))
        for element in (*of_slice[place], *([of_segment[segment]] if several else ())):
            group.add(element)
        yield group


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


def _bits(masks: Masks, pixels: int) -> tuple[bytes, bool]:
    """Pixel Data, frame after frame without a gap (PS3.5 8.1.1), and whether any two segments overlap."""
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
