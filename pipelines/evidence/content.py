"""Content items of a report (PS3.3 C.17.3), as plain datasets.

highdicom's items check, copy and check themselves again, which takes seconds for the thousand items of a CT; here they
are only made. ``check_report.py`` judges the whole, and the tests have highdicom read it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.coding import Code
from pydicom.uid import UID

from pipelines.evidence import codes

GRAPHIC_DATA = 0x00700022
_REFERENCED_SOP_CLASS_UID, _REFERENCED_SOP_INSTANCE_UID = 0x00081150, 0x00081155
_CODE_VALUE, _CODING_SCHEME_DESIGNATOR, _CODE_MEANING = 0x00080100, 0x00080102, 0x00080104
_RELATIONSHIP_TYPE, _VALUE_TYPE, _CONCEPT_NAME_CODE_SEQUENCE = 0x0040A010, 0x0040A040, 0x0040A043
CONTAINS = "CONTAINS"
MODIFIES = "HAS CONCEPT MOD"
ACQUISITION = "HAS ACQ CONTEXT"
OBSERVATION = "HAS OBS CONTEXT"
INFERRED = "INFERRED FROM"
SELECTED = "SELECTED FROM"
PROPERTIES = "HAS PROPERTIES"


def coded(code: Code) -> Dataset:
    """An item of a Code Sequence."""
    return of_elements(
        (_CODE_VALUE, "SH", code.value),
        (_CODING_SCHEME_DESIGNATOR, "SH", code.scheme_designator),
        (_CODE_MEANING, "LO", code.meaning),
    )


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


def quantity(name: Code, value: float, unit: Code, relationship: str = CONTAINS) -> Dataset:
    """A number to nine digits, and where these are not all of it, exactly beside them (PS3.3 C.18.1)."""
    measured = Dataset()
    measured.NumericValue = f"{value:.9g}"
    if float(measured.NumericValue) != value:
        measured.FloatingPointValue = value
    measured.MeasurementUnitsCodeSequence = [coded(unit)]
    item = _item("NUM", name, relationship)
    item.MeasuredValueSequence = [measured]
    return item


def date(name: Code, value: str, relationship: str = CONTAINS) -> Dataset:
    item = _item("DATE", name, relationship)
    item.Date = value
    return item


def document(name: Code, reference: Dataset, relationship: str = CONTAINS) -> Dataset:
    """A report; ``reference``: as ``instance`` makes it."""
    item = _item("COMPOSITE", name, relationship)
    item.ReferencedSOPSequence = [reference]
    return item


def image(name: Code, reference: Dataset, relationship: str = CONTAINS) -> Dataset:
    """``reference``: as ``instance`` makes it."""
    item = _item("IMAGE", name, relationship)
    item.ReferencedSOPSequence = [reference]
    return item


def unnamed_image(reference: Dataset) -> Dataset:
    """An image without a concept name, as a Key Object Selection has them (TID 2010)."""
    item = of_elements((_RELATIONSHIP_TYPE, "CS", CONTAINS), (_VALUE_TYPE, "CS", "IMAGE"))
    item.ReferencedSOPSequence = [reference]
    return item


def polygon(name: Code, points: NDArray[np.float64], reference: Dataset, relationship: str = CONTAINS) -> Dataset:
    """A closed polyline of (column, row) on an image."""
    item = _item("SCOORD", name, relationship)
    item.GraphicType = "POLYLINE"
    numbers = points.astype(np.float32).ravel().tolist()
    # As they are: pydicom would look at each of them again, which takes longer than finding them.
    item[GRAPHIC_DATA] = DataElement(GRAPHIC_DATA, "FL", numbers, already_converted=True)
    item.ContentSequence = [image(codes.ORIGINAL_SOURCE, reference, SELECTED)]
    return item


def instance(sop_class: str, sop_instance: str) -> Dataset:
    """An item of a Referenced SOP Sequence, of the whole instance."""
    return of_elements(
        (_REFERENCED_SOP_CLASS_UID, "UI", UID(sop_class)), (_REFERENCED_SOP_INSTANCE_UID, "UI", UID(sop_instance))
    )


def of_elements(*elements: tuple[int, str, Any]) -> Dataset:
    """A dataset of (tag, VR, value as pydicom holds it): by keyword, pydicom takes three times as long."""
    item = Dataset()
    for tag, vr, value in elements:
        item.add(DataElement(tag, vr, value, already_converted=True))
    return item


def _item(value_type: str, name: Code, relationship: str) -> Dataset:
    return of_elements(
        (_RELATIONSHIP_TYPE, "CS", relationship),
        (_VALUE_TYPE, "CS", value_type),
        (_CONCEPT_NAME_CODE_SEQUENCE, "SQ", Sequence([coded(name)])),
    )
