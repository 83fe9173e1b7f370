"""Is an object right? The rules that evidence keeps before it leaves, as sentences about what breaks them.

Pure: a dataset, and what it came from, to sentences; none means right. They follow IHE AI Results (AIR, Rev 1.3) and
PS3.3; what dciodvfy can see better is left to it, in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from pipelines.evidence import capture, codes, document, maps, structures
from pipelines.evidence.check_report import report_faults
from pipelines.evidence.check_segmentation import described_segments, segmentation_faults
from pipelines.evidence.derived import IMAGES, derived_faults
from pipelines.evidence.key_objects import key_object_faults
from pipelines.evidence.presentation import COLOUR, GREY, presentation_faults
from pipelines.evidence.source import MAY_BE_EMPTY
from pipelines.instance import is_uid, items, text

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"  # Label Map Segmentation (Supplement 243)
KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"  # Key Object Selection Document
REPORT = "1.2.840.10008.5.1.4.1.1.88.34"  # Comprehensive 3D SR

# by SOP class: what its Modality is, what else may not be empty (Type 1), and its own rules
_TYPE_1 = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "SeriesNumber",
    "InstanceNumber",
    "Manufacturer",
    "ManufacturerModelName",
    "SoftwareVersions",
    "ContentDate",
    "ContentTime",
    "SeriesDescription",
)
_OF_PRESENTATION = ("ContentLabel", "PresentationCreationDate", "ReferencedSeriesSequence", "GraphicLayerSequence")
_OF_CLASS: dict[str, tuple[str, tuple[str, ...], Callable[[Dataset], Iterable[str]]]] = {
    **dict.fromkeys(
        (SEGMENTATION, LABEL_MAP),
        ("SEG", ("DeviceSerialNumber", "ContentLabel", "SegmentSequence"), segmentation_faults),
    ),
    **{
        image: (modality, ("ImageType", "DerivationCodeSequence", "SourceImageSequence", "PixelData"), derived_faults)
        for image, modality in IMAGES.items()
    },
    GREY.sop_class: (GREY.modality, _OF_PRESENTATION, presentation_faults),
    COLOUR.sop_class: (COLOUR.modality, (*_OF_PRESENTATION, "ICCProfile"), presentation_faults),
    capture.HEADING.sop_class: (
        capture.HEADING.modality,
        ("ConversionType", "ImageType", "PixelData", "BurnedInAnnotation"),
        capture.capture_faults,
    ),
    maps.HEADING.sop_class: (
        maps.HEADING.modality,
        ("DeviceSerialNumber", "ContentLabel", "ImageType", "FloatPixelData"),
        maps.map_faults,
    ),
    document.HEADING.sop_class: (
        document.HEADING.modality,
        ("ConversionType", "DocumentTitle", "EncapsulatedDocument", "SourceInstanceSequence"),
        document.document_faults,
    ),
    structures.HEADING.sop_class: (
        structures.HEADING.modality,
        ("StructureSetLabel", "StructureSetDate", "ReferencedFrameOfReferenceSequence", "ROIContourSequence"),
        structures.structure_faults,
    ),
    KEY_OBJECTS: ("KO", ("ConceptNameCodeSequence", "ContentSequence"), key_object_faults),
    REPORT: ("SR", ("CompletionFlag", "VerificationFlag", "ConceptNameCodeSequence"), report_faults),
}


def check(
    evidence: Dataset | Path, *, source: Sequence[Dataset] = (), beside: Sequence[Dataset] = ()
) -> tuple[str, ...]:
    """What is wrong with an object; nothing if it is right.

    Args:
        source: Headers of the images that it was made from; without them its identity is not compared.
        beside: The objects of the same run, to which it may refer and with which it must agree.
    """
    result = dcmread(evidence) if isinstance(evidence, Path) else evidence
    sop_class = text(result, "SOPClassUID")
    if sop_class not in _OF_CLASS:
        return (f"{sop_class or 'nothing'} is no SOP class of ours",)
    modality, filled, faults = _OF_CLASS[sop_class]
    said = [f"{keyword} is missing or empty" for keyword in (*_TYPE_1, *filled) if not _is_filled(result, keyword)]
    said += [f"{keyword} is missing" for keyword in MAY_BE_EMPTY if keyword not in result]
    if text(result, "Modality") != modality:
        said.append(f"Modality is {text(result, 'Modality')!r}, not {modality}")
    said += [*_uid_faults(result), *_equipment_faults(result), *_code_faults(result), *faults(result)]
    if source:
        said += [*_identity_faults(result, source), *_reference_faults(result, source, beside)]
    if beside:
        said += _disagreements(result, beside)
    return tuple(dict.fromkeys(said))


_CODED = (
    "ContentSequence",
    "SegmentSequence",
    "DerivationCodeSequence",
    "SourceImageSequence",
    "SharedFunctionalGroupsSequence",
    "RTROIObservationsSequence",
)


def _is_filled(result: Dataset, keyword: str) -> bool:
    return keyword in result and not result[keyword].is_empty


def _uid_faults(result: Dataset) -> Iterable[str]:
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        if keyword in result and not is_uid(text(result, keyword)):
            yield f"{keyword} is no UID"


def _equipment_faults(result: Dataset) -> Iterable[str]:
    """Contributing Equipment names the algorithm as a device (AIR: Processing Equipment, with Device UID)."""
    machines = processing_equipment(result)
    if not machines:
        yield "Contributing Equipment has no item (109102, DCM, Processing Equipment)"
    for item in machines:
        for keyword in ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceUID"):
            if not text(item, keyword):
                yield f"Contributing Equipment lacks {keyword}"
        if not is_uid(text(item, "DeviceUID")):
            yield "the Device UID of Contributing Equipment is no UID"
        for keyword in ("Manufacturer", "ManufacturerModelName", "SoftwareVersions"):
            if text(item, keyword) != text(result, keyword):
                yield f"{keyword} of Contributing Equipment is not that of the object"


def processing_equipment(result: Dataset) -> list[Dataset]:
    """The items of Contributing Equipment that say which algorithm processed."""
    return [
        item
        for item in items(result, "ContributingEquipmentSequence")
        for purpose in items(item, "PurposeOfReferenceCodeSequence")
        if text(purpose, "CodeValue") == codes.PROCESSING_EQUIPMENT.value
    ]


def _code_faults(result: Dataset) -> Iterable[str]:
    """Every code is one of the table; what the study itself coded stands in the header, and as the procedure."""
    for keyword in _CODED:
        for item in items(result, keyword):
            is_procedure = any(
                text(name, "CodeValue") == codes.PROCEDURE_REPORTED.value
                for name in items(item, "ConceptNameCodeSequence")
            )
            if not is_procedure:
                yield from _unknown_codes(item)


def _unknown_codes(dataset: Dataset) -> Iterable[str]:
    for item in _nested([dataset]):
        value, scheme = text(item, "CodeValue"), text(item, "CodingSchemeDesignator")
        if value and not codes.is_known(value, scheme, text(item, "CodeMeaning")):
            yield f"the code ({value}, {scheme}, {text(item, 'CodeMeaning')}) is not in the table"


def _identity_faults(result: Dataset, source: Sequence[Dataset]) -> Iterable[str]:
    """The same study and patient, value for value, or empty with the reason kept; and a series of its own."""
    first = source[0]
    if text(result, "StudyInstanceUID") != text(first, "StudyInstanceUID"):
        yield "Study Instance UID is not that of the source"
    if text(result, "SeriesInstanceUID") in {text(each, "SeriesInstanceUID") for each in source}:
        yield "the series is one of the source's"
    emptied = {
        element.keyword
        for original in items(result, "OriginalAttributesSequence")
        for before in items(original, "ModifiedAttributesSequence")
        for element in before
    }
    for keyword in (*MAY_BE_EMPTY, "IssuerOfPatientID"):
        ours, theirs = text(result, keyword), text(first, keyword)
        if ours != theirs and not (ours == "" and keyword in emptied):
            yield f"{keyword} is not that of the source"
    if text(result, "SyntheticData") != text(first, "SyntheticData"):
        yield "Synthetic Data is not that of the source"


def _reference_faults(result: Dataset, source: Sequence[Dataset], beside: Sequence[Dataset]) -> Iterable[str]:
    """Each reference is to an instance that exists; a report names every source image."""
    known = {text(each, "SOPInstanceUID"): text(each, "SOPClassUID") for each in (*source, *beside)}
    referred = set()
    # Of other studies: the report of the former revision, and those that a change is said against.
    elsewhere = [*items(result, "PredecessorDocumentsSequence"), *items(result, "PertinentOtherEvidenceSequence")]
    others = {id(item) for item in _nested(elsewhere)}
    known |= {
        text(item, "ReferencedSOPInstanceUID"): text(item, "ReferencedSOPClassUID")
        for item in _nested(items(result, "PertinentOtherEvidenceSequence"))
    }
    for item in _nested([result]):
        uid = text(item, "ReferencedSOPInstanceUID")
        if not uid or id(item) in others:
            continue
        referred.add(uid)
        if text(item, "ReferencedSOPClassUID") == structures.DETACHED_STUDY:
            if uid != text(result, "StudyInstanceUID"):
                yield "it refers to another study"
            continue
        if uid not in known:
            yield f"it refers to {uid}, which is neither of the source nor of the same run"
        elif text(item, "ReferencedSOPClassUID") != known[uid]:
            yield f"it refers to {uid} by another SOP class"
    if text(result, "Modality") == "SR":
        missing = len({text(each, "SOPInstanceUID") for each in source} - referred)
        if missing:
            yield f"{missing} source images are not named"


def _nested(datasets: Iterable[Dataset]) -> Iterator[Dataset]:
    """The datasets and all items below them; a sequence that several items share is entered once."""
    seen: set[int] = set()
    waiting = [iter(datasets)]
    while waiting:
        dataset = next(waiting[-1], None)
        if dataset is None:
            waiting.pop()
            continue
        yield dataset
        for tag, element in dataset.items():
            if element.VR == "SQ" and id(sequence := dataset[tag].value) not in seen:
                seen.add(id(sequence))
                waiting.append(iter(sequence))


def _disagreements(result: Dataset, beside: Sequence[Dataset]) -> Iterable[str]:
    """The objects of one run name one device, and a report tracks what a segment does."""
    devices = {text(item, "DeviceUID") for each in (result, *beside) for item in processing_equipment(each)}
    if len(devices) > 1:
        yield "the objects of the run name several devices"
    if text(result, "Modality") != "SR":
        return
    tracked = {text(item, "UID") for item in _nested([result])}
    for each in beside:
        for segment in described_segments(each):
            if text(segment, "TrackingUID") not in tracked:
                yield f"the segment {text(segment, 'SegmentLabel')!r} is not tracked in the report"
