"""RT Structure Sets (PS3.3 A.19): the segments as closed planar contours in the patient, for treatment planning.

Exact: inside a contour lie the centres of the mask's pixels and no others; a hole is tied to its outline by a channel
of no width (C.8.8.6.3). Approval Status is UNAPPROVED: no person has looked. Where nothing is outlined, or nothing was
evaluated, one region without contours (they are Type 3) has that as its name, so that who plans does not wait for more.
What does not lie at one place each, as the frames of a cine or a projection, has no structure set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

from pipelines import geometry
from pipelines.base import Segment
from pipelines.evidence import content, wording
from pipelines.evidence.header import Heading, begun
from pipelines.evidence.marks import colours
from pipelines.evidence.outlines import closed_planar
from pipelines.evidence.regions import reference
from pipelines.evidence.segments import merged
from pipelines.evidence.told import NOT_EVALUATED, NotEvaluated, Told
from pipelines.frames import Frame
from pipelines.instance import items, number, numbers, text
from pipelines.series import Series

HEADING = Heading(RTStructureSetStorage, "RTSTRUCT", "structures", 9006, "structures")
DETACHED_STUDY = "1.2.840.10008.3.1.2.3.1"  # what RT Referenced Study calls a study (C.8.8.5)
_FLAT = 0.01  # mm off a common plane: coordinates have four decimals


def structure_sets(told: Told) -> list[Dataset]:
    """One, or none of images that do not lie in the patient, and where nothing was looked for."""
    findings = told.findings
    series = next((each for each in _series(told) if _lies_in_patient(each)), None)
    if series is None or (findings is not None and not findings.findings):
        return []
    segments = merged(findings) if findings else []
    made = begun(told, HEADING)
    # Contour Data is a DS, and Explicit VR has 64 KiB for one at most (PS3.5 7.1.2): 2700 points
    made.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    made.StructureSetLabel, made.StructureSetName = "AI_FINDINGS", wording.signature(told.stamp.algorithm)[:64]
    made.StructureSetDescription = wording.NOT_VERIFIED if segments else _outcome(told)
    made.StructureSetDate = told.stamp.started.strftime("%Y%m%d")
    made.StructureSetTime = told.stamp.started.strftime("%H%M%S")
    made.OperatorsName = None
    made.FrameOfReferenceUID = series.frame_of_reference
    made.PositionReferenceIndicator = text(series.header, "PositionReferenceIndicator")
    made.ReferencedFrameOfReferenceSequence = [_frame_of_reference(series)]
    names = [each.label for each in segments] or [_name(told)]
    made.StructureSetROISequence = [_roi(i, each, told, series) for i, each in enumerate(names, start=1)]
    if findings and segments:
        looks = colours(findings)
        made.ROIContourSequence = [
            _contours(i, each, series, looks[each.label]) for i, each in enumerate(segments, start=1)
        ]
        made.RTROIObservationsSequence = [_observation(i, each) for i, each in enumerate(segments, start=1)]
    else:
        made.ROIContourSequence, made.RTROIObservationsSequence = [_no_contours()], [_observation(1)]
    made.ApprovalStatus = "UNAPPROVED"
    told.stamp.put_on(made)
    return [made]


def _series(told: Told) -> Sequence[Series]:
    """What a structure set may lie on: the series of the masks, or any of a study that was not evaluated."""
    return (told.findings.series,) if told.findings else told.read


def _name(told: Told) -> str:
    """Of the one region that is there to say that there is none."""
    if isinstance(told.outcome, NotEvaluated):
        return NOT_EVALUATED[told.outcome.status][1]
    return "nothing outlined" if any(each.present for each in told.outcome.findings) else "nothing found"


def _outcome(told: Told) -> str:
    """Structure Set Description has 1024 characters (ST)."""
    if isinstance(told.outcome, NotEvaluated):
        said = [f"{_name(told)}: {told.outcome.reason}"]
    else:
        said = [line.words for line in wording.told(told.outcome)]
    return "; ".join([wording.NOT_VERIFIED, *said])[:1024]


def _no_contours() -> Dataset:
    item = Dataset()
    item.ReferencedROINumber = 1
    return item


def _lies_in_patient(series: Series) -> bool:
    planes = series.planes
    if not planes or series.frame_of_reference is None:
        return False
    return geometry.are_distinct(planes) and all(plane.spacing is not None for plane in planes)


def _frame_of_reference(series: Series) -> Dataset:
    of_series = Dataset()
    of_series.SeriesInstanceUID = series.uid
    of_series.ContourImageSequence = [
        content.instance(text(each, "SOPClassUID"), text(each, "SOPInstanceUID")) for each in series.instances
    ]
    study = content.instance(DETACHED_STUDY, text(series.header, "StudyInstanceUID"))
    study.RTReferencedSeriesSequence = [of_series]
    item = Dataset()
    item.FrameOfReferenceUID = series.frame_of_reference
    item.RTReferencedStudySequence = [study]
    return item


def _roi(place: int, name: str, told: Told, series: Series) -> Dataset:
    item = Dataset()
    item.ROINumber, item.ROIName = place, name
    item.ReferencedFrameOfReferenceUID = series.frame_of_reference
    item.ROIGenerationAlgorithm = "AUTOMATIC"
    item.ROIGenerationDescription = f"{wording.signature(told.stamp.algorithm)}, not verified"[:64]
    return item


def _contours(place: int, segment: Segment, series: Series, colour: str) -> Dataset:
    item = Dataset()
    item.ReferencedROINumber = place
    item.ROIDisplayColor = list(ImageColor.getrgb(colour))
    item.ContourSequence = [
        _contour(polygon, series.frames[frame])
        for frame in np.flatnonzero(segment.mask.any(axis=(1, 2))).tolist()
        for polygon in closed_planar(segment.mask[frame])
    ]
    return item


def _contour(polygon: NDArray[np.float64], frame: Frame) -> Dataset:
    points = in_patient(polygon[:-1], frame)  # the last is the first again, which a closed contour does not repeat
    item = Dataset()
    item.ContourImageSequence = [reference(frame)]
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(points)
    item.ContourData = [f"{each:.4f}" for each in points.ravel().tolist()]
    return item


def in_patient(points: NDArray[np.float64], frame: Frame) -> NDArray[np.float64]:
    """(column, row), from the corner of the first pixel, to mm in LPS, shape (points, 3) (PS3.3 C.7.6.2.1.1)."""
    plane = frame.plane
    if plane is None or plane.spacing is None:
        raise ValueError(f"{frame.title} lies nowhere")
    row, column = np.array(plane.orientation).reshape(2, 3)
    between_rows, between_columns = plane.spacing
    across, down = (points - 0.5).T  # the position is that of the first pixel's centre
    lies: NDArray[np.float64] = (
        np.array(plane.position) + np.outer(across * between_columns, row) + np.outer(down * between_rows, column)
    )
    return lies


def _observation(place: int, segment: Segment | None = None) -> Dataset:
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = place
    item.RTROIInterpretedType = item.ROIInterpreter = ""  # Type 2: whether it is a target only a person can say
    if segment:
        item.RTROIIdentificationCodeSequence = [content.coded(segment.property_type)]
    return item


def structure_faults(made: Dataset) -> Iterable[str]:
    """What is wrong with a structure set of ours."""
    if text(made, "ApprovalStatus") != "UNAPPROVED":
        yield "Approval Status is not UNAPPROVED: no person has looked"
    numbered = [number(each, "ROINumber") for each in items(made, "StructureSetROISequence")]
    for keyword in ("ROIContourSequence", "RTROIObservationsSequence"):
        if [number(each, "ReferencedROINumber") for each in items(made, keyword)] != numbered:
            yield f"{keyword} is not of the regions that the structure set has"
    named = {text(each, "ReferencedSOPInstanceUID") for each in _images(made)}
    for roi in items(made, "ROIContourSequence"):
        for contour in items(roi, "ContourSequence"):
            yield from _contour_faults(contour, named)


def _images(made: Dataset) -> Iterator[Dataset]:
    for frame_of_reference in items(made, "ReferencedFrameOfReferenceSequence"):
        for study in items(frame_of_reference, "RTReferencedStudySequence"):
            for series in items(study, "RTReferencedSeriesSequence"):
                yield from items(series, "ContourImageSequence")


def _contour_faults(contour: Dataset, named: Sequence[str] | set[str]) -> Iterable[str]:
    count = int(number(contour, "NumberOfContourPoints") or 0)
    found = numbers(contour, "ContourData", 3 * count)
    if count < 3 or found is None:
        yield "a contour has fewer than three points, or other than it says"
        return
    if {text(each, "ReferencedSOPInstanceUID") for each in items(contour, "ContourImageSequence")} - set(named):
        yield "a contour lies on an image that the structure set does not name"
    points = np.array(found).reshape(-1, 3)
    if (points[0] == points[-1]).all():
        yield "a closed contour repeats its first point"
    if np.linalg.svd(points - points.mean(axis=0), compute_uv=False)[2] > _FLAT * np.sqrt(count):
        yield "a contour does not lie in one plane"
