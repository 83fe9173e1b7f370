"""The rules that a Measurement Report of ours keeps (TID 1500 and below, AIR), as sentences about what breaks them."""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from pipelines.evidence import codes
from pipelines.instance import is_uid, items, number, text


def report_faults(result: Dataset) -> Iterable[str]:
    """What is wrong with it."""
    if text(result, "VerificationFlag") != "UNVERIFIED":
        yield "Verification Flag is not UNVERIFIED: no person has looked"
    if _value(items(result, "ConceptNameCodeSequence")) != codes.IMAGING_MEASUREMENT_REPORT.value:
        yield "the title is not Imaging Measurement Report"
    if [text(item, "TemplateIdentifier") for item in items(result, "ContentTemplateSequence")] != ["1500"]:
        yield "the root template is not TID 1500"
    if not items(result, "CurrentRequestedProcedureEvidenceSequence"):
        yield "no source images are named as evidence"
    yield from _root_faults(result)
    for group in measurement_groups(result):
        yield from _group_faults(group, result)
    yield from _unresolved(result)


def measurement_groups(result: Dataset) -> list[Dataset]:
    """The containers of TID 1410, 1411 and 1501."""
    return [
        group
        for container in _children(result, codes.IMAGING_MEASUREMENTS)
        for group in _children(container, codes.MEASUREMENT_GROUP)
    ]


def _root_faults(result: Dataset) -> Iterable[str]:
    for name in (codes.LANGUAGE, codes.PROCEDURE_REPORTED, codes.DEVICE_OBSERVER_UID, codes.IMAGE_LIBRARY):
        if not _children(result, name):
            yield f"the report has no {name.meaning}"
    procedures = [text(c, "CodeMeaning") for p in _children(result, codes.PROCEDURE_REPORTED) for c in _coded(p)]
    if text(result, "ManufacturerModelName") in procedures:
        yield "Procedure reported names the algorithm, not the imaging procedure"
    evaluations = _children(result, codes.QUALITATIVE_EVALUATIONS)
    if not any(_children(each, codes.SUMMARY_OF_ANALYSES) for each in evaluations):
        yield "the report does not say whether the analysis succeeded"
    for container in _children(result, codes.IMAGING_MEASUREMENTS):
        if not _children(container, codes.MEASUREMENT_GROUP):
            yield "Imaging Measurements is empty"
    yield from _observer_faults(result)


def _observer_faults(result: Dataset) -> Iterable[str]:
    """TID 1004 repeats Contributing Equipment."""
    for item in items(result, "ContributingEquipmentSequence"):
        if _value(items(item, "PurposeOfReferenceCodeSequence")) != codes.PROCESSING_EQUIPMENT.value:
            continue
        for name, keyword, field in (
            (codes.DEVICE_OBSERVER_UID, "DeviceUID", "UID"),
            (codes.DEVICE_OBSERVER_MANUFACTURER, "Manufacturer", "TextValue"),
            (codes.DEVICE_OBSERVER_MODEL, "ManufacturerModelName", "TextValue"),
        ):
            if [text(each, field) for each in _children(result, name)] != [text(item, keyword)]:
                yield f"{name.meaning} is not {keyword} of Contributing Equipment"


def _group_faults(group: Dataset, result: Dataset) -> Iterable[str]:
    identifiers = _children(group, codes.TRACKING_IDENTIFIER)
    uids = _children(group, codes.TRACKING_UNIQUE_IDENTIFIER)
    name = text(identifiers[0], "TextValue") if identifiers else "without a name"
    if len(identifiers) != 1 or len(uids) != 1 or not is_uid(text(uids[0], "UID")):
        yield f"the measurement group {name!r} needs one Tracking Identifier and one Tracking Unique Identifier"
    for code, keyword in (
        (codes.ALGORITHM_NAME, "ManufacturerModelName"),
        (codes.ALGORITHM_VERSION, "SoftwareVersions"),
        (codes.ALGORITHM_MANUFACTURER, "Manufacturer"),
    ):
        if [text(item, "TextValue") for item in _children(group, code)] != [text(result, keyword)]:
            yield f"{code.meaning} of the measurement group {name!r} is not {keyword}"
    kinds = {text(item, "ValueType") for item in _children(group, codes.IMAGE_REGION)} & {"SCOORD", "SCOORD3D"}
    references = _children(group, codes.REFERENCED_SEGMENT) + _children(group, codes.REFERENCED_SEGMENTATION_FRAME)
    if kinds and references:
        yield f"the measurement group {name!r} has both a region and a segment (TID 1410, 1411)"
    for item in items(group, "ContentSequence"):
        if text(item, "ValueType") == "NUM":
            yield from _number_faults(item)


def _number_faults(item: Dataset) -> Iterable[str]:
    name = next((text(each, "CodeMeaning") for each in items(item, "ConceptNameCodeSequence")), "a number")
    measured = items(item, "MeasuredValueSequence")
    value = number(measured[0], "NumericValue") if len(measured) == 1 else None
    if value is None:
        yield f"{name} has no value"
        return
    units = items(measured[0], "MeasurementUnitsCodeSequence")
    if [text(each, "CodingSchemeDesignator") for each in units] != ["UCUM"]:
        yield f"the unit of {name} is not of UCUM"
    is_certainty = _value(items(item, "ConceptNameCodeSequence")) == codes.CERTAINTY_OF_FINDING.value
    if is_certainty and (_value(units) != codes.PERCENT.value or not 0 <= value <= 100):
        yield "Certainty of Finding is not in percent"


def _unresolved(result: Dataset) -> Iterable[str]:
    """What the content refers to stands among the evidence (PS3.3 C.17.2)."""
    listed = {
        text(instance, "ReferencedSOPInstanceUID")
        for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")
        for study in items(result, keyword)
        for series in items(study, "ReferencedSeriesSequence")
        for instance in items(series, "ReferencedSOPSequence")
    }
    for uid in dict.fromkeys(_referred(result)):
        if uid not in listed:
            yield f"the content refers to {uid}, which is not among the evidence"


def _referred(item: Dataset) -> Iterable[str]:
    for child in items(item, "ContentSequence"):
        yield from (text(each, "ReferencedSOPInstanceUID") for each in items(child, "ReferencedSOPSequence"))
        yield from _referred(child)


def _children(item: Dataset, name: Code) -> list[Dataset]:
    """The content items below one that have a concept name."""
    return [
        child
        for child in items(item, "ContentSequence")
        if _value(items(child, "ConceptNameCodeSequence")) == name.value
    ]


def _coded(item: Dataset) -> list[Dataset]:
    return items(item, "ConceptCodeSequence")


def _value(sequence: list[Dataset]) -> str:
    return text(sequence[0], "CodeValue") if sequence else ""
