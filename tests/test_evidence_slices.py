"""The frames of a Segmentation on slices: element for element what highdicom makes of all slices."""

from __future__ import annotations

from typing import Any

import highdicom as hd
import numpy as np
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from pipelines.evidence import codes, equipment
from pipelines.evidence.slices import fill, slices_of
from pipelines.evidence.voxels import Masks
from tests.findings import ALGORITHM, GEOMETRIES, slices


def described(number: int) -> Any:
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=f"lesion {number}",
        segmented_property_category=codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE,
        segmented_property_type=codes.LESION,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=equipment.in_segment(ALGORITHM),
    )


def of_highdicom(images: list[Dataset], pixels: Any, count: int, encoding: str = "BINARY") -> Dataset:
    made = hd.seg.Segmentation(
        source_images=images,
        pixel_array=pixels,
        segmentation_type=encoding,
        fractional_type="OCCUPANCY",
        segment_descriptions=[described(number) for number in range(1, count + 1)],
        series_instance_uid="1.2.3.5",
        series_number=1,
        sop_instance_uid="1.2.3.5.1",
        instance_number=1,
        omit_empty_frames=True,
        transfer_syntax_uid=ExplicitVRLittleEndian if encoding == "BINARY" else RLELossless,
        **equipment.general(ALGORITHM),
    )
    organization = "1.2.3.5.2"  # by chance, else
    for keyword in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in made[keyword].value:
            item.DimensionOrganizationUID = organization
    made.InstanceCreationTime = made.ContentTime = "120000"
    del made.ContributingEquipmentSequence  # has the time
    return made


def of_us(images: list[Dataset], pixels: Any, count: int, encoding: str = "BINARY") -> Dataset:
    voxel = np.zeros((1, *pixels.shape[1:3]), np.uint8)
    voxel[0, 0, 0] = 1
    masks = [pixels[..., i] > 0 for i in range(count)] if pixels.ndim == 4 else [pixels == i + 1 for i in range(count)]
    found = slices_of(images)
    assert found is not None
    occupied = np.stack([mask.any(axis=(1, 2)) for mask in masks])
    return fill(
        of_highdicom(images[:1], voxel, count, encoding), found, Masks(occupied, lambda i, place: masks[i][place])
    )


def drawn(count: int, shape: tuple[int, ...]) -> Any:
    """Segments side by side, of which each leaves out some slices, none of the slices the first."""
    pixels = np.zeros(shape, np.uint8)
    for number in range(1, count + 1):
        pixels[number::2, number : number + 2, :4] = number
        pixels[number::2, number + 1, 3 + number] = number
    return pixels


def encoded(element: DataElement) -> bytes:
    if element.keyword == "PixelData":  # of VR "OB or OW" until it is written
        return bytes(element.value)
    if len(element.VR) > 2:  # as the Pixel Padding Value's
        return repr(element.value).encode()
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = False, True
    write_data_element(file, element)
    return bytes(file.getvalue())


def assert_equal(ours: Dataset, theirs: Dataset) -> None:
    for element in theirs:
        assert encoded(ours[element.tag]) == encoded(element), element.keyword
    assert {element.tag for element in ours} == {element.tag for element in theirs}


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_they_are_what_highdicom_makes(geometry, count):
    images = slices(9, geometry=GEOMETRIES[geometry])
    pixels = drawn(count, (9, 20, 24))
    assert_equal(of_us(images, pixels, count), of_highdicom(images, pixels, count))


@pytest.mark.parametrize("encoding", ["FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("count", [1, 3, 300])
def test_compressed_ones_are_what_highdicom_makes(encoding, count):
    images = slices(9)
    pixels = drawn(min(count, 3), (9, 20, 24)).astype(np.uint16)
    if count > 3:  # two bytes a pixel in a label map, and segments without any voxel
        pixels[pixels == 3] = count
    ours, theirs = (make(images, pixels, count, encoding) for make in (of_us, of_highdicom))
    read = [each.pixel_array for each in (ours, theirs)]
    assert np.array_equal(*read)
    ours.PixelData = theirs.PixelData
    assert_equal(ours, theirs)


@pytest.mark.parametrize("elements", [{"SpacingBetweenSlices": "3.1"}, {"LossyImageCompression": "01"}])
def test_what_the_images_say_besides_makes_no_difference(elements):
    images, pixels = slices(9, **elements), drawn(2, (9, 20, 24))
    assert_equal(of_us(images, pixels, 2), of_highdicom(images, pixels, 2))


def test_a_gap_between_slices_makes_no_volume_of_them():
    images, pixels = slices(9), np.ones((8, 20, 24), np.uint8)
    del images[4]
    ours = of_us(images, pixels, 1)
    assert_equal(ours, of_highdicom(images, pixels, 1))
    assert "DimensionOrganizationType" not in ours


def test_frames_that_do_not_end_with_a_byte_follow_each_other_without_a_gap():
    images = slices(9)
    for each in images:
        each.Rows, each.Columns = 7, 9
    pixels = drawn(1, (9, 7, 9))
    ours, theirs = of_us(images, pixels, 1), of_highdicom(images, pixels, 1)
    bits = int(theirs.NumberOfFrames) * 63
    assert bits % 8  # and the last byte is filled up
    read = [np.unpackbits(np.frombuffer(each.PixelData, np.uint8), bitorder="little")[:bits] for each in (ours, theirs)]
    assert np.array_equal(*read)
    assert len(ours.PixelData) == len(theirs.PixelData)


@pytest.mark.parametrize("together", [False, True])
def test_it_is_said_whether_segments_overlap(together):
    images = slices(9)
    pixels = np.zeros((9, 20, 24, 2), np.uint8)
    pixels[2:6, 3:9, 3:9, 0] = 1
    pixels[4:8, 8:12, 8 if together else 9 : 12, 1] = 1
    ours = of_us(images, pixels, 2)
    assert ours.SegmentsOverlap == ("YES" if together else "NO")
    assert_equal(ours, of_highdicom(images, pixels, 2))


def test_images_that_are_no_stack_are_left_to_highdicom():
    assert slices_of(slices(4)[:3] + slices(4, FrameOfReferenceUID="1.2.3.8")[3:]) is None
    assert slices_of(slices(4, ImagePositionPatient=None)) is None
    assert slices_of(slices(2) + slices(2)) is None
