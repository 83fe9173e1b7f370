"""The Image Library of a report (TID 1600): the images that were read, one group per series.

What all images of a series share is said once, for the group (TID 1602, 1604): 18 content items per slice make the
report of a CT larger than its findings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydicom.dataset import Dataset

from pipelines.evidence import codes, content
from pipelines.evidence.content import ACQUISITION
from pipelines.instance import number, numbers, text
from pipelines.series import Series


def image_library(read: Sequence[Series]) -> Dataset:
    """The container of TID 1600."""
    groups = [content.container(codes.IMAGE_LIBRARY_GROUP, [*_shared(series), *_entries(series)]) for series in read]
    return content.container(codes.IMAGE_LIBRARY, groups, template="1600")


def _entries(series: Series) -> Iterable[Dataset]:
    """TID 1601, one per instance."""
    for instance in series.instances:
        reference = content.instance(text(instance, "SOPClassUID"), text(instance, "SOPInstanceUID"))
        yield content.image(codes.SOURCE, reference)


def _shared(series: Series) -> Iterable[Dataset]:
    if modality := codes.MODALITIES.get(series.modality):
        yield content.code(codes.MODALITY, modality, ACQUISITION)
    if series.frame_of_reference:
        yield content.uid(codes.FRAME_OF_REFERENCE, series.frame_of_reference, ACQUISITION)
    for name, keyword in ((codes.PIXEL_ROWS, "Rows"), (codes.PIXEL_COLUMNS, "Columns")):
        if size := number(series.header, keyword):
            yield content.quantity(name, size, codes.PIXELS, ACQUISITION)
    if spacing := numbers(series.header, "PixelSpacing", 2):
        yield content.quantity(codes.HORIZONTAL_SPACING, spacing[1], codes.MILLIMETER, ACQUISITION)
        yield content.quantity(codes.VERTICAL_SPACING, spacing[0], codes.MILLIMETER, ACQUISITION)
