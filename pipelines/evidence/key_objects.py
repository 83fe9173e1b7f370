"""The images to look at first, as a Key Object Selection (PS3.3 A.35.4, TID 2010): those that a positive finding is on.

A finding that is outlined has the image with most of it; one that names its images has those. What is no abnormality,
as the outline of an organ, and what cannot be placed on an image is not selected; without any there is no object.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage

from pipelines.base import Finding, Findings
from pipelines.evidence import codes, content, equipment, wording
from pipelines.evidence.regions import judged_on, reference
from pipelines.evidence.sr import references
from pipelines.evidence.stamp import Stamp
from pipelines.evidence.told import Told
from pipelines.evidence.tracking import named
from pipelines.frames import Frame
from pipelines.instance import items, text
from pipelines.series import Series

SERIES_NUMBER = 9010
MOST_IMAGES = 20  # of one finding: what names more, as a whole series, selects nothing

# what is there, or how, in a body without a finding
NO_ABNORMALITY = frozenset(
    (code.value, code.scheme_designator)
    for code in (
        codes.BRAIN,
        codes.HIPPOCAMPUS,
        codes.LUNG,
        codes.HEART,
        codes.SKIN,
        codes.LEFT_VENTRICLE,
        codes.BREAST,
        codes.BLOOD_VESSEL,
        codes.RETINA,
        codes.NUCLEUS,
        codes.RED_BLOOD_CELL,
        codes.WHITE_BLOOD_CELL,
        codes.PLATELET,
        codes.NORMAL,
        codes.IMAGE_ROTATED,
    )
)


def key_objects(told: Told) -> list[Dataset]:
    """One selection, or none where nothing is to be looked at first."""
    findings = told.findings
    if findings is None:
        return []
    selected = [(finding, frames) for finding in positive(findings) if (frames := _frames(finding, findings.series))]
    if not selected:
        return []
    frames = list({id(frame): frame for _, of_finding in selected for frame in of_finding}.values())
    return [_selection(frames, [finding for finding, _ in selected], told.stamp)]


def positive(findings: Findings) -> list[Finding]:
    """The findings that are there and should not be."""
    return [
        finding
        for finding in findings.findings
        if finding.present and (finding.code.value, finding.code.scheme_designator) not in NO_ABNORMALITY
    ]


def _frames(finding: Finding, series: Series) -> Sequence[Frame]:
    if finding.segment:
        sizes = np.count_nonzero(finding.segment.mask, axis=(1, 2))
        return (series.frames[int(sizes.argmax())],) if sizes.any() else ()
    frames = judged_on(finding, series)
    return frames if len(frames) <= MOST_IMAGES and (finding.sop_uids or len(frames) == 1) else ()


def _selection(frames: Sequence[Frame], findings: Sequence[Finding], stamp: Stamp) -> Dataset:
    algorithm, header = stamp.algorithm, frames[0].instance
    made: Dataset = hd.SOPClass(
        study_instance_uid=text(header, "StudyInstanceUID"),
        series_instance_uid=stamp.uid("key objects series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=stamp.uid("key objects"),
        sop_class_uid=KeyObjectSelectionDocumentStorage,
        instance_number=1,
        modality="KO",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        series_description=wording.series_title("images to look at", algorithm),
        **equipment.general(algorithm),
    )
    made.ReferencedPerformedProcedureStepSequence = []
    made.ValueType, made.ContinuityOfContent = "CONTAINER", "SEPARATE"
    made.ConceptNameCodeSequence = [content.coded(codes.OF_INTEREST)]
    made.ContentTemplateSequence = [content.template_item("2010")]
    made.ContentSequence = list(_parts(frames, findings, stamp))
    instances = {id(frame.instance): frame.instance for frame in frames}
    made.CurrentRequestedProcedureEvidenceSequence = [references(instances.values())]
    stamp.put_on(made)
    return made


def _parts(frames: Sequence[Frame], findings: Sequence[Finding], stamp: Stamp) -> Iterable[Dataset]:
    """TID 2010: a device has selected them; the images have no concept name there."""
    yield from equipment.as_observer(stamp.algorithm)
    by = f"{stamp.algorithm.name} {stamp.algorithm.version}, not verified by a person"
    yield content.words(
        codes.KEY_OBJECT_DESCRIPTION, f"{'; '.join(dict.fromkeys(map(_said, findings)))}. Found by {by}."
    )
    for frame in frames:
        yield content.unnamed_image(reference(frame))


def _said(finding: Finding) -> str:
    certainty = "" if finding.certainty is None else f" ({finding.certainty:.0%})"
    return f"{named(finding)}{certainty}"


def key_object_faults(result: Dataset) -> Iterable[str]:
    """What is wrong with a selection (TID 2010)."""
    if [text(each, "CodeValue") for each in items(result, "ConceptNameCodeSequence")] != [codes.OF_INTEREST.value]:
        yield "the title is not Of Interest"
    if [text(item, "TemplateIdentifier") for item in items(result, "ContentTemplateSequence")] != ["2010"]:
        yield "the root template is not TID 2010"
    content_items = items(result, "ContentSequence")
    images = [
        text(r, "ReferencedSOPInstanceUID") for item in content_items for r in items(item, "ReferencedSOPSequence")
    ]
    listed = [
        text(instance, "ReferencedSOPInstanceUID")
        for study in items(result, "CurrentRequestedProcedureEvidenceSequence")
        for series in items(study, "ReferencedSeriesSequence")
        for instance in items(series, "ReferencedSOPSequence")
    ]
    if not images or set(images) != set(listed):
        yield "the images that are selected are not those that are named as evidence"
    described = [text(item, "TextValue") for item in content_items if text(item, "TextValue")]
    if not any("not verified" in each for each in described):
        yield "the description does not say that no person has verified it"
