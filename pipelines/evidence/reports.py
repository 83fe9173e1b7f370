"""The way back: a Measurement Report (TID 1500), ours or others', to what it says: for feedback and comparison.

Reads any SR whose root template is TID 1500, whatever its SOP class; what it does not know in a report it passes over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from pipelines.base import Measurement
from pipelines.evidence import codes
from pipelines.evidence.errors import InvalidEvidence
from pipelines.instance import items, number, numbers, text


@dataclass(frozen=True)
class Region:
    """An outline on an image.

    Attributes:
        kind: Graphic Type, as POLYLINE.
        points: (column, row) each, or (x, y, z) in mm where it is in space.
        sop_uid: Of the image; empty where it is in space.
    """

    kind: str
    points: tuple[tuple[float, ...], ...]
    sop_uid: str = ""


@dataclass(frozen=True)
class Reported:
    """One measurement group.

    Attributes:
        finding: What it is; None where the group does not say.
        evaluations: Coded answers, as (Lesion, Present).
        certainty: 0 to 1.
        segments: (SOP Instance UID, segment number or None) of Segmentations that it refers to.
        images: SOP Instance UIDs of the images that it refers to, of regions and sources too.
    """

    identifier: str
    uid: str
    finding: Code | None
    site: Code | None
    side: Code | None
    evaluations: tuple[tuple[Code, Code], ...]
    certainty: float | None
    measurements: tuple[Measurement, ...]
    regions: tuple[Region, ...]
    segments: tuple[tuple[str, int | None], ...]
    images: tuple[str, ...]


def reported(path: Path) -> tuple[Reported, ...]:
    """The measurement groups of a report, in its order.

    Raises:
        InvalidEvidence: If the file is no report by TID 1500.
    """
    report = dcmread(path)
    if [text(each, "TemplateIdentifier") for each in items(report, "ContentTemplateSequence")] != ["1500"]:
        raise InvalidEvidence(f"{path.name} is no Measurement Report by TID 1500")
    return tuple(
        _group(group)
        for container in _named(report, codes.IMAGING_MEASUREMENTS)
        for group in _named(container, codes.MEASUREMENT_GROUP)
    )


def _group(group: Dataset) -> Reported:
    sites = [each for name in (codes.FINDING_SITE, _OLD_SITE) for each in _named(group, name)]
    sides = [side for site in sites for name in (codes.LATERALITY, _OLD_SIDE) for side in _named(site, name)]
    found = list(_measured(group))
    certainty = [each.value / 100 for each in found if each.name.value == codes.CERTAINTY_OF_FINDING.value]
    told = {codes.FINDING.value, codes.FINDING_SITE.value, _OLD_SITE.value, codes.ALGORITHM_FAMILY.value}
    answers = [
        (name, answer)
        for each in items(group, "ContentSequence")
        if (name := _code(each, "ConceptNameCodeSequence")) and (answer := _code(each, "ConceptCodeSequence"))
        if name.value not in told and text(each, "RelationshipType") == "CONTAINS"
    ]
    return Reported(
        identifier=next((text(each, "TextValue") for each in _named(group, codes.TRACKING_IDENTIFIER)), ""),
        uid=next((text(each, "UID") for each in _named(group, codes.TRACKING_UNIQUE_IDENTIFIER)), ""),
        finding=next((_code(each, "ConceptCodeSequence") for each in _named(group, codes.FINDING)), None),
        site=next((_code(each, "ConceptCodeSequence") for each in sites), None),
        side=next((_code(each, "ConceptCodeSequence") for each in sides), None),
        evaluations=tuple(answers),
        certainty=certainty[0] if certainty else None,
        measurements=tuple(each for each in found if each.name.value != codes.CERTAINTY_OF_FINDING.value),
        regions=tuple(_region(each) for each in _below(group) if text(each, "ValueType") in _DIMENSIONS),
        segments=tuple(dict.fromkeys(_segments(group))),
        images=tuple(dict.fromkeys(_images(group))),
    )


# SRT, as before 2017 (PS3.16 Annex: Withdrawn SNOMED RT codes)
_OLD_SITE = Code("G-C0E3", "SRT", "Finding Site")
_OLD_SIDE = Code("G-C171", "SRT", "Laterality")
_DIMENSIONS = {"SCOORD": 2, "SCOORD3D": 3}
_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")


def _measured(group: Dataset) -> Iterator[Measurement]:
    for each in items(group, "ContentSequence"):
        name = _code(each, "ConceptNameCodeSequence")
        for measured in items(each, "MeasuredValueSequence"):
            exactly, unit = number(measured, "FloatingPointValue"), _code(measured, "MeasurementUnitsCodeSequence")
            value = number(measured, "NumericValue") if exactly is None else exactly
            if name and unit and value is not None:
                yield Measurement(name, value, unit)


def _region(item: Dataset) -> Region:
    size = _DIMENSIONS[text(item, "ValueType")]
    flat = numbers(item, "GraphicData", len(item.get("GraphicData") or ())) or ()
    points = tuple(tuple(flat[i : i + size]) for i in range(0, len(flat) - size + 1, size))
    return Region(text(item, "GraphicType"), points, next(_images(item), ""))


def _segments(group: Dataset) -> Iterator[tuple[str, int | None]]:
    for item in _below(group):
        for reference in items(item, "ReferencedSOPSequence"):
            if text(reference, "ReferencedSOPClassUID") in _SEGMENTATIONS:
                segment = number(reference, "ReferencedSegmentNumber")
                yield text(reference, "ReferencedSOPInstanceUID"), None if segment is None else int(segment)


def _images(group: Dataset) -> Iterator[str]:
    for item in _below(group):
        for reference in items(item, "ReferencedSOPSequence"):
            if text(reference, "ReferencedSOPClassUID") not in _SEGMENTATIONS:
                yield text(reference, "ReferencedSOPInstanceUID")


def _below(item: Dataset) -> Iterator[Dataset]:
    for child in items(item, "ContentSequence"):
        yield child
        yield from _below(child)


def _named(item: Dataset, name: Code) -> list[Dataset]:
    return [each for each in items(item, "ContentSequence") if _value(each, "ConceptNameCodeSequence") == name.value]


def _value(item: Dataset, keyword: str) -> str:
    found = items(item, keyword)
    return text(found[0], "CodeValue") if found else ""


def _code(item: Dataset, keyword: str) -> Code | None:
    found = items(item, keyword)
    if not found:
        return None
    return Code(text(found[0], "CodeValue"), text(found[0], "CodingSchemeDesignator"), text(found[0], "CodeMeaning"))
