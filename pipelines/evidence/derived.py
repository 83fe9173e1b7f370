"""A derived series: each image of a source again with other pixels, in the source's own IOD (PS3.3 C.7.6.1.1.2).

Geometry, acquisition and display of the source stay; who made it, what it is and what it came from is said anew.
Private elements, overlays, icons and references to other objects are not taken over: they speak of the source's pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from pipelines.base import DerivedSeries
from pipelines.evidence import codes, content, equipment
from pipelines.evidence.errors import InvalidEvidence
from pipelines.evidence.stamp import Stamp
from pipelines.evidence.told import Told
from pipelines.instance import items, number, text

SERIES_NUMBER = 9101  # behind the Segmentation's
IMAGES = {
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.6.1": "US",
}

# What is true of the source's pixels or objects alone, or is said anew.
_LEFT_OUT = frozenset(
    {
        "PixelData",
        "IconImageSequence",
        "SmallestImagePixelValue",
        "LargestImagePixelValue",
        "SmallestPixelValueInSeries",
        "LargestPixelValueInSeries",
        "PixelPaddingValue",
        "PixelPaddingRangeLimit",
        "DigitalSignaturesSequence",
        "MACParametersSequence",
        "OriginalAttributesSequence",
        "ContributingEquipmentSequence",
        "DeviceUID",
        "InstitutionName",
        "InstitutionAddress",
        "InstitutionalDepartmentName",
        "StationName",
        "PerformedProcedureStepID",
        "PerformedProcedureStepStartDate",
        "PerformedProcedureStepStartTime",
        "PerformedProcedureStepDescription",
    }
)


def derived_series(told: Told) -> list[Dataset]:
    """The images of all derived series of a run."""
    made = told.findings.derived if told.findings else ()
    return [image for place, each in enumerate(made) for image in derived_images(each, told.stamp, place=place)]


def derived_images(made: DerivedSeries, stamp: Stamp, *, place: int) -> list[Dataset]:
    """One object per image of the source, in the order of its frames.

    Args:
        place: Of the series among those of the run, from 0.

    Raises:
        InvalidEvidence: If the source is none that can be derived from.
    """
    return [
        _image(made, stamp, frame.instance, pixels, place)
        for frame, pixels in zip(made.series.frames, made.pixels, strict=True)
    ]


def _image(made: DerivedSeries, stamp: Stamp, source: Dataset, pixels: NDArray[np.float32], place: int) -> Dataset:
    if reason := underivable(source):
        raise InvalidEvidence(reason)
    result = Dataset()
    for element in _kept(source):
        result.add(element)
    kinds = [str(each) for each in source.get("ImageType") or ()][2:]
    result.ImageType = ["DERIVED", "SECONDARY", *kinds]
    result.SOPInstanceUID = stamp.uid("derived", place, text(source, "SOPInstanceUID"))
    result.SeriesInstanceUID = stamp.uid("derived series", place, text(source, "SeriesInstanceUID"))
    result.SeriesNumber, result.SeriesDescription = SERIES_NUMBER + place, made.description
    result.DerivationDescription = made.words
    result.DerivationCodeSequence = [content.coded(made.derivation)]
    result.SourceImageSequence = [_came_from(source)]
    for keyword, value in equipment.general(stamp.algorithm).items():
        setattr(result, "".join(word.capitalize() for word in keyword.split("_")), value)
    stamp.put_on(result)
    _put_pixels(result, pixels)
    result.file_meta = FileMetaDataset()
    result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return result


def underivable(source: Dataset) -> str | None:
    """Why no image can be derived from this one; None if one can."""
    if text(source, "SOPClassUID") not in IMAGES:
        return "a derived series is made of MR, CT and US images of one frame alone"
    if (number(source, "NumberOfFrames") or 1) > 1 or number(source, "SamplesPerPixel") != 1:
        return "a derived series is made of grey images of one frame alone"
    if "ModalityLUTSequence" in source or number(source, "BitsAllocated") not in (8, 16):
        return "a derived series is made of 8 or 16 bit pixels with a Rescale Slope alone"
    return None


def _kept(source: Dataset) -> Iterable[DataElement]:
    for element in source:
        tag = element.tag
        is_overlay = 0x6000 <= tag.group <= 0x60FF
        if tag.is_private or is_overlay or element.keyword in _LEFT_OUT:
            continue
        if element.VR == "SQ" and any(_refers(item) for item in element.value):
            continue
        yield deepcopy(element)  # or what is said anew would be said of the source


def _refers(item: Dataset) -> bool:
    """Whether an item names another object, somewhere below."""
    if "ReferencedSOPInstanceUID" in item:
        return True
    return any(_refers(each) for element in item if element.VR == "SQ" for each in element.value)


def _came_from(source: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    item.SpatialLocationsPreserved = "YES"
    item.PurposeOfReferenceCodeSequence = [content.coded(codes.SOURCE_IMAGE_FOR_PROCESSING)]
    return item


def _put_pixels(result: Dataset, pixels: NDArray[np.float32]) -> None:
    """Modality values back to stored ones, in the source's own bits (PS3.3 C.11.1)."""
    slope, intercept = float(result.get("RescaleSlope") or 1), float(result.get("RescaleIntercept") or 0)
    signed, bits = result.PixelRepresentation == 1, int(result.BitsStored)
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    stored = np.clip(np.rint((pixels - intercept) / slope), low, high)
    kind = f"<{'i' if signed else 'u'}{int(result.BitsAllocated) // 8}"
    raw = stored.astype(kind).tobytes()
    result.PixelData = raw + b"\0" * (len(raw) % 2)
    result["PixelData"].VR = "OW" if result.BitsAllocated == 16 else "OB"


def derived_faults(result: Dataset) -> Iterable[str]:
    """What is wrong with an image that says it was derived."""
    if [str(each) for each in result.get("ImageType") or ()][:2] != ["DERIVED", "SECONDARY"]:
        yield "Image Type does not begin with DERIVED and SECONDARY"
    if len(items(result, "SourceImageSequence")) != 1:
        yield "it names no source image, or several"
    rows, columns, bits = (int(number(result, each) or 0) for each in ("Rows", "Columns", "BitsAllocated"))
    expected, held = rows * columns * bits // 8, len(result.get("PixelData") or b"")
    if held != expected + expected % 2:
        yield f"it has {held} bytes of pixels, not {expected}"
