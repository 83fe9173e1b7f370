"""What a run has to say, as a Measurement Report: Comprehensive 3D SR, root template TID 1500, always UNVERIFIED.

Every run gets one. Nothing found, not evaluated, withheld and failed are said as codes (CID 6042) with the reason
beside them, in the report's Qualitative Evaluations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian

from pipelines.base import Earlier, derived_uid
from pipelines.evidence import codes, content, equipment, wording
from pipelines.evidence.library import image_library
from pipelines.evidence.stamp import Stamp
from pipelines.forms import USUAL, Form
from pipelines.instance import items, text
from pipelines.series import Series

SERIES_NUMBER = 9002  # behind the series of the scanner, and the outlines


@dataclass(frozen=True)
class Predecessor:
    """The report of the study's former revision, which this one follows."""

    sop_uid: str
    series_uid: str


@dataclass(frozen=True, eq=False)
class Content:
    """What a report says.

    Attributes:
        outcome: From CID 6042.
        summary: A few words for the Series Description.
        read: The series that were read.
        groups: Measurement groups (TID 1410, 1411, 1501).
        evaluations: Coded answers that have no group.
        comments: Sentences that a reader must know.
        earlier: Reports on earlier studies that the content refers to.
    """

    outcome: Code
    summary: str
    read: Sequence[Series]
    groups: Sequence[Dataset] = ()
    evaluations: Sequence[Dataset] = ()
    comments: Sequence[str] = ()
    earlier: Sequence[Earlier] = ()


def report(
    said: Content, stamp: Stamp, *, form: Form, beside: Sequence[Dataset], predecessor: Predecessor | None
) -> Dataset:
    """One report.

    Args:
        beside: The run's other objects, which the report may refer to.
    """
    made = _empty(said, stamp, form)
    made.ValueType, made.ContinuityOfContent = "CONTAINER", "CONTINUOUS"
    made.ConceptNameCodeSequence = [content.coded(codes.IMAGING_MEASUREMENT_REPORT)]
    made.ContentTemplateSequence = [content.template_item("1500")]
    made.ContentSequence = list(_parts(said, stamp))
    instances = [instance for series in said.read for instance in series.instances]
    made.CurrentRequestedProcedureEvidenceSequence = [references([*instances, *beside])]
    if said.earlier:
        made.PertinentOtherEvidenceSequence = [
            _study_item(each.study_uid, {each.series_uid: [content.instance(made.SOPClassUID, each.sop_uid)]})
            for each in said.earlier
        ]
    made.PerformedProcedureCodeSequence, made.ReferencedPerformedProcedureStepSequence = [], []
    if predecessor:
        made.PredecessorDocumentsSequence = [_following(predecessor, made)]
    stamp.put_on(made)
    return made


def report_uid(job: str, form: Form, of: str = "sr") -> str:
    """SOP Instance UID of a job's report: each form is another document."""
    return derived_uid(job, of, *(() if form in USUAL else (form,)))


def _empty(said: Content, stamp: Stamp, form: Form) -> Dataset:
    """The header: patient and study as the source has them, and the flags of the SR Document General module."""
    algorithm = stamp.algorithm
    made: Dataset = hd.SOPClass(
        study_instance_uid=said.read[0].header.StudyInstanceUID,
        series_instance_uid=report_uid(stamp.job, form, "sr series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=report_uid(stamp.job, form),
        sop_class_uid=Comprehensive3DSRStorage,
        instance_number=1,
        modality="SR",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        series_description=wording.series_title(said.summary, algorithm),
        **equipment.general(algorithm),
    )
    made.CompletionFlag = "PARTIAL" if said.outcome == codes.FAILED else "COMPLETE"
    made.PreliminaryFlag, made.VerificationFlag = "PRELIMINARY", "UNVERIFIED"
    return made


def _parts(said: Content, stamp: Stamp) -> Iterable[Dataset]:
    """TID 1500. Its row 6 is there only with groups: an empty container is not valid."""
    yield content.code(codes.LANGUAGE, codes.ENGLISH, content.MODIFIES)
    yield from equipment.as_observer(stamp.algorithm)
    for procedure in _procedures(stamp.source.header):
        yield content.code(codes.PROCEDURE_REPORTED, procedure, content.MODIFIES)
    yield image_library(said.read)
    if said.groups:
        yield content.container(codes.IMAGING_MEASUREMENTS, said.groups)
    yield content.container(codes.QUALITATIVE_EVALUATIONS, _evaluations(said))


def _evaluations(said: Content) -> Iterable[Dataset]:
    """Rows 13 and 14 of TID 1500."""
    yield content.code(codes.SUMMARY_OF_ANALYSES, said.outcome)
    yield from said.evaluations
    for comment in said.comments:
        yield content.words(codes.COMMENT, comment)


def _procedures(header: Dataset) -> list[Code]:
    """The imaging procedure as the study codes it, never the algorithm; else that it was one (CID 100)."""
    coded = [
        Code(text(item, "CodeValue"), text(item, "CodingSchemeDesignator"), text(item, "CodeMeaning"))
        for item in items(header, "ProcedureCodeSequence")
    ]
    complete = [code for code in coded if code.value and code.scheme_designator and code.meaning]
    return complete or [codes.IMAGING_PROCEDURE]


def references(instances: Iterable[Dataset]) -> Dataset:
    """Item of the Current Requested Procedure Evidence Sequence (0040,A375): they are all of one study."""
    by_series: dict[str, list[Dataset]] = {}
    study_uid = ""
    for each in instances:
        reference = content.instance(text(each, "SOPClassUID"), text(each, "SOPInstanceUID"))
        by_series.setdefault(text(each, "SeriesInstanceUID"), []).append(reference)
        study_uid = text(each, "StudyInstanceUID")
    return _study_item(study_uid, by_series)


def _following(predecessor: Predecessor, result: Dataset) -> Dataset:
    """Item of the Predecessor Documents Sequence (0040,A360): the same study's, of the same SOP class."""
    document = content.instance(result.SOPClassUID, predecessor.sop_uid)
    return _study_item(result.StudyInstanceUID, {predecessor.series_uid: [document]})


def _study_item(study_uid: str, by_series: dict[str, list[Dataset]]) -> Dataset:
    """Hierarchical SOP Instance Reference Macro (PS3.3 Table C.17-3)."""
    study = Dataset()
    study.StudyInstanceUID = study_uid
    study.ReferencedSeriesSequence = []
    for uid, references in by_series.items():
        series = Dataset()
        series.SeriesInstanceUID = uid
        series.ReferencedSOPSequence = references
        study.ReferencedSeriesSequence.append(series)
    return study
