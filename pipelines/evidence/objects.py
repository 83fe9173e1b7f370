"""Who makes which kind of object: one line each. Report and Segmentation, which have several forms, are in outcome.py.

A kind that has no line here is not made. What an object has to keep to stands in ``check.py``, a line per SOP class.
"""

from __future__ import annotations

from pipelines.evidence.capture import captures
from pipelines.evidence.derived import derived_series
from pipelines.evidence.document import documents
from pipelines.evidence.heat import explanations, map_captures
from pipelines.evidence.key_objects import key_objects
from pipelines.evidence.presentation import presentation_states
from pipelines.evidence.structures import structure_sets
from pipelines.evidence.told import Builder
from pipelines.forms import Kind

BUILDERS: dict[Kind, Builder] = {
    Kind.DERIVED_SERIES: derived_series,
    Kind.PRESENTATION_STATE: presentation_states,
    Kind.SECONDARY_CAPTURE: captures,
    Kind.PARAMETRIC_MAP: explanations,
    Kind.MAP_CAPTURE: map_captures,
    Kind.RT_STRUCTURE_SET: structure_sets,
    Kind.PDF: documents,
    Kind.KEY_OBJECTS: key_objects,
}

# what the files are called
STEMS = {
    Kind.SEGMENTATION: "seg",
    Kind.DERIVED_SERIES: "derived",
    Kind.KEY_OBJECTS: "key-objects",
    Kind.PRESENTATION_STATE: "presentation",
    Kind.SECONDARY_CAPTURE: "capture",
    Kind.PARAMETRIC_MAP: "map",
    Kind.MAP_CAPTURE: "map-capture",
    Kind.RT_STRUCTURE_SET: "structures",
    Kind.PDF: "document",
    Kind.REPORT: "sr",
}
