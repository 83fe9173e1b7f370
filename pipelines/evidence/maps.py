"""Parametric Maps (PS3.3 A.75): where a network looked, as floating-point values 0 to 1 on the images' own pixels.

One object per map. Of a projection or a photograph, which lies nowhere, the standard knows none: see ``heat.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ParametricMapStorage

from pipelines.base import Findings, SaliencyMap
from pipelines.evidence import codes, content
from pipelines.evidence.errors import InvalidEvidence
from pipelines.evidence.header import Heading, begun
from pipelines.evidence.regions import reference
from pipelines.evidence.told import Told
from pipelines.frames import Frame
from pipelines.instance import items, number, text

HEADING = Heading(ParametricMapStorage, "OT", "map", 9005, "where it looked")
_POSITION, _POSITION_GROUP = 0x00200032, 0x00209113  # Image Position (Patient), Plane Position Sequence


def can_be_mapped(frames: Sequence[Frame]) -> bool:
    """Whether images say where they lie and how large their pixels are: a Parametric Map must (PS3.3 Table A.75-1)."""
    lies = all(frame.plane is not None and frame.plane.spacing for frame in frames)
    return lies and bool(text(frames[0].instance, "FrameOfReferenceUID"))


def parametric_map(told: Told, findings: Findings, found: SaliencyMap, count: int) -> Dataset:
    """The ``count``-th map of a run; its images can be mapped.

    Raises:
        InvalidEvidence: If it is off the grid of its images.
    """
    frames = frames_of(findings, found)
    first = frames[0].instance
    made = begun(told, HEADING, count)
    made.Laterality = text(first, "Laterality")  # Type 2C
    made.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "QUANTITY"]
    made.ContentLabel, made.ContentCreatorName = "AI_MAP", told.stamp.algorithm.name
    made.ContentDescription = f"{found.label}: {found.method.meaning}, not verified"[:64]
    made.ContentQualification = "RESEARCH"
    made.BurnedInAnnotation = made.RecognizableVisualFeatures = "NO"
    made.PresentationLUTShape = "IDENTITY"
    made.AcquisitionContextSequence = []
    made.FrameOfReferenceUID = first.FrameOfReferenceUID
    made.PositionReferenceIndicator = text(first, "PositionReferenceIndicator")
    made.ReferencedSeriesSequence = [_sources(frames)]
    _say_lossy(made, frames)
    _put_values(made, found)
    _put_dimensions(made)
    made.SharedFunctionalGroupsSequence = [_shared(made, found, frames[0])]
    made.PerFrameFunctionalGroupsSequence = [_of_frame(place, frame) for place, frame in enumerate(frames, start=1)]
    told.stamp.put_on(made)
    return made


def frames_of(findings: Findings, found: SaliencyMap) -> list[Frame]:
    """The images of a map, which have its size."""
    frames = [findings.series.frames[place] for place in found.places]
    for frame in frames:
        size = number(frame.instance, "Rows"), number(frame.instance, "Columns")
        if found.values.shape[1:] != size:
            raise InvalidEvidence(f"the map of {found.label!r} is off the grid of {frame.title}")
    return frames


def _sources(frames: Sequence[Frame]) -> Dataset:
    """Item of the Common Instance Reference module (PS3.3 C.12.2)."""
    item = Dataset()
    item.SeriesInstanceUID = frames[0].instance.SeriesInstanceUID
    named = {text(each.instance, "SOPInstanceUID"): text(each.instance, "SOPClassUID") for each in frames}
    item.ReferencedInstanceSequence = [content.instance(sop_class, uid) for uid, sop_class in named.items()]
    return item


def _say_lossy(made: Dataset, frames: Sequence[Frame]) -> None:
    """Once lossy, always (PS3.3 C.7.6.1.1.5)."""
    lossy = [frame.instance for frame in frames if text(frame.instance, "LossyImageCompression") == "01"]
    made.LossyImageCompression = "01" if lossy else "00"
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if lossy and keyword in lossy[0]:
            made[keyword] = lossy[0][keyword]


def _put_values(made: Dataset, found: SaliencyMap) -> None:
    made.NumberOfFrames, made.Rows, made.Columns = found.values.shape
    made.SamplesPerPixel, made.PhotometricInterpretation, made.BitsAllocated = 1, "MONOCHROME2", 32
    made.FloatPixelData = np.ascontiguousarray(found.values, "<f4").tobytes()


def _put_dimensions(made: Dataset) -> None:
    """Frames by where they lie."""
    organization, index = Dataset(), Dataset()
    organization.DimensionOrganizationUID = index.DimensionOrganizationUID = ""  # the stamp gives it
    index.DimensionIndexPointer, index.FunctionalGroupPointer = _POSITION, _POSITION_GROUP
    made.DimensionOrganizationSequence, made.DimensionIndexSequence = [organization], [index]


def _shared(made: Dataset, found: SaliencyMap, first: Frame) -> Dataset:
    shared, frame_type, transformation, window = Dataset(), Dataset(), Dataset(), Dataset()
    frame_type.FrameType = made.ImageType
    shared.ParametricMapFrameTypeSequence = [frame_type]
    transformation.RescaleIntercept, transformation.RescaleSlope, transformation.RescaleType = "0", "1", "US"
    shared.PixelValueTransformationSequence = [transformation]
    window.WindowCenter, window.WindowWidth = "0.5", "1"
    shared.FrameVOILUTSequence = [window]
    shared.RealWorldValueMappingSequence = [_meaning(found)]
    shared.PixelMeasuresSequence = [_measures(first)]
    return shared


def _meaning(found: SaliencyMap) -> Dataset:
    """What the values are: themselves, of the quantity that the method gives (C.7.6.16.2.11)."""
    item, quantity = Dataset(), Dataset()
    item.LUTExplanation, item.LUTLabel = f"{found.label}: {found.method.meaning}"[:64], "AI_MAP"
    item.DoubleFloatRealWorldValueFirstValueMapped, item.DoubleFloatRealWorldValueLastValueMapped = 0.0, 1.0
    item.RealWorldValueIntercept, item.RealWorldValueSlope = 0.0, 1.0
    item.MeasurementUnitsCodeSequence = [content.coded(codes.NO_UNITS)]
    quantity.ValueType = "CODE"
    quantity.ConceptNameCodeSequence = [content.coded(codes.QUANTITY)]
    quantity.ConceptCodeSequence = [content.coded(found.method)]
    item.QuantityDefinitionSequence = [quantity]
    return item


def _measures(frame: Frame) -> Dataset:
    item = Dataset()
    if frame.plane is not None and frame.plane.spacing:
        item.PixelSpacing = [f"{each:.8g}" for each in frame.plane.spacing]
    thickness = frame.get("SliceThickness") or frame.get("SpacingBetweenSlices")
    item.SliceThickness = thickness or None
    return item


def _of_frame(place: int, frame: Frame) -> Dataset:
    group, placed, position, orientation = Dataset(), Dataset(), Dataset(), Dataset()
    placed.DimensionIndexValues = place
    if frame.plane is not None:
        position.ImagePositionPatient = [f"{each:.10g}" for each in frame.plane.position]
        orientation.ImageOrientationPatient = [f"{each:.10g}" for each in frame.plane.orientation]
    group.FrameContentSequence = [placed]
    group.PlanePositionSequence, group.PlaneOrientationSequence = [position], [orientation]
    group.DerivationImageSequence = [_came_from(frame)]
    return group


def _came_from(frame: Frame) -> Dataset:
    item, source = Dataset(), reference(frame)
    source.PurposeOfReferenceCodeSequence = [content.coded(codes.SOURCE_IMAGE_FOR_PROCESSING)]
    item.SourceImageSequence = [source]
    item.DerivationCodeSequence = [content.coded(codes.UNSPECIFIED_METHOD)]
    return item


def map_faults(made: Dataset) -> Iterable[str]:
    """What is wrong with a map of ours."""
    count, rows, columns = (int(number(made, each) or 0) for each in ("NumberOfFrames", "Rows", "Columns"))
    held = made.get("FloatPixelData") or b""
    if len(held) != count * rows * columns * 4 or not held:
        yield f"it has {len(held)} bytes of values, not {count * rows * columns * 4}"
    elif not ((values := np.frombuffer(held, "<f4")).min() >= 0 and values.max() <= 1):
        yield "its values are not between 0 and 1"
    groups = items(made, "PerFrameFunctionalGroupsSequence")
    if len(groups) != count:
        yield "it has another number of functional groups than of frames"
    if any(len(items(group, "DerivationImageSequence")) != 1 for group in groups):
        yield "a frame does not name its source image"
    if "not verified" not in text(made, "ContentDescription") + text(made, "SeriesDescription"):
        yield "it does not say that it is not verified"
    said = {
        text(code, "CodeValue")
        for shared in items(made, "SharedFunctionalGroupsSequence")
        for mapping in items(shared, "RealWorldValueMappingSequence")
        for quantity in items(mapping, "QuantityDefinitionSequence")
        for code in items(quantity, "ConceptCodeSequence")
    }
    if len(said) != 1 or not said <= {each.value for each in codes.EXPLANATIONS}:
        yield "it does not say by which method it explains (CID 217)"
