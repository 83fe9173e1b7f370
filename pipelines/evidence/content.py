"""Content items of a report (PS3.3 C.17.3), as plain datasets.

highdicom builds the measurement groups; its items check themselves, and are checked and copied again by its report
class, which takes seconds for the thousand items of a CT. What is said once or once per image is made here.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

CONTAINS = "CONTAINS"
MODIFIES = "HAS CONCEPT MOD"
ACQUISITION = "HAS ACQ CONTEXT"


def coded(code: Code) -> Dataset:
    """An item of a Code Sequence."""
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme_designator
    item.CodeMeaning = code.meaning
    return item


def container(name: Code, parts: Iterable[Dataset], *, template: str | None = None) -> Dataset:
    item = _item("CONTAINER", name, CONTAINS)
    item.ContinuityOfContent = "CONTINUOUS"
    if template:
        item.ContentTemplateSequence = [template_item(template)]
    item.ContentSequence = list(parts)
    return item


def template_item(identifier: str) -> Dataset:
    item = Dataset()
    item.MappingResource = "DCMR"
    item.TemplateIdentifier = identifier
    return item


def code(name: Code, value: Code, relationship: str = CONTAINS) -> Dataset:
    item = _item("CODE", name, relationship)
    item.ConceptCodeSequence = [coded(value)]
    return item


def words(name: Code, value: str, relationship: str = CONTAINS) -> Dataset:
    item = _item("TEXT", name, relationship)
    item.TextValue = value
    return item


def uid(name: Code, value: str, relationship: str = CONTAINS) -> Dataset:
    item = _item("UIDREF", name, relationship)
    item.UID = value
    return item


def quantity(name: Code, value: str, unit: Code, relationship: str = CONTAINS) -> Dataset:
    """``value`` as it is to stand in the Decimal String."""
    measured = Dataset()
    measured.NumericValue = value
    measured.MeasurementUnitsCodeSequence = [coded(unit)]
    item = _item("NUM", name, relationship)
    item.MeasuredValueSequence = [measured]
    return item


def image(name: Code, sop_class: str, sop_instance: str) -> Dataset:
    item = _item("IMAGE", name, CONTAINS)
    item.ReferencedSOPSequence = [instance(sop_class, sop_instance)]
    return item


def instance(sop_class: str, sop_instance: str) -> Dataset:
    """An item of a Referenced SOP Sequence."""
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class
    item.ReferencedSOPInstanceUID = sop_instance
    return item


def _item(value_type: str, name: Code, relationship: str) -> Dataset:
    item = Dataset()
    item.RelationshipType = relationship
    item.ValueType = value_type
    item.ConceptNameCodeSequence = [coded(name)]
    return item
