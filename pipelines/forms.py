"""Which objects a destination takes, and in which form: the kinds, the presets, and what a site switches on or off.

The evidence of a run is made once in each form that any of its destinations takes, and each is sent its own. Makes no
object and reads no file: who makes which stands in ``pipelines.evidence.objects``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import StrEnum

ALIGNED = "ALIGNED"  # BINARY where each of its frames ends with a byte, else FRACTIONAL
ENCODINGS = ("BINARY", "FRACTIONAL", "LABELMAP", ALIGNED)  # of a Segmentation
REGIONS = ("regions", "references")  # of a report: outlines on the images, or the segments that have them
OFF = "off"


class Kind(StrEnum):
    """The kinds of objects, by the name that the ledger has for them."""

    SEGMENTATION = "SEG"
    DERIVED_SERIES = "DERIVED"
    KEY_OBJECTS = "KO"
    PRESENTATION_STATE = "PR"
    SECONDARY_CAPTURE = "SC"
    PARAMETRIC_MAP = "PM"
    MAP_CAPTURE = "PMSC"  # a Parametric Map as coloured pictures, for who cannot show maps
    RT_STRUCTURE_SET = "RTSTRUCT"
    PDF = "DOC"
    REPORT = "SR"


@dataclass(frozen=True, order=True)
class Form:
    """A kind, and how it is made where there are several ways.

    Attributes:
        regions: Of a report, one of ``REGIONS``.
        encoding: Of a Segmentation, and of the one that a report stands beside; empty where it stands beside none.
    """

    kind: Kind
    regions: str = ""
    encoding: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.kind, self.regions, self.encoding)))

    @classmethod
    def named(cls, name: str) -> Form:
        """The form that is written so."""
        kind, *how = name.split()
        regions = next((each for each in how if each in REGIONS), "")
        return cls(Kind(kind), regions, next((each for each in how if each in ENCODINGS), ""))


@dataclass(frozen=True)
class Wanted:
    """What one destination takes: a switch for each kind.

    Attributes:
        report: ``off``, or how it shows where things lie: one of ``REGIONS``.
        segmentation: ``off``, or one of ``ENCODINGS``.

    Raises:
        ValueError: If a switch has another value, or a report is to refer to segments that are not sent.
    """

    report: str = "regions"
    segmentation: str = "BINARY"
    derived_series: bool = True
    key_objects: bool = False
    presentation_state: bool = False
    secondary_capture: bool = False
    parametric_map: bool = False
    map_capture: bool = False
    rt_structure_set: bool = False
    pdf: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (("report", REGIONS), ("segmentation", ENCODINGS)):
            if (value := getattr(self, name)) not in (OFF, *allowed):
                raise ValueError(f'{name} is "{value}"; it may be {", ".join((OFF, *allowed))}')
        if self.report == "references" and self.segmentation == OFF:
            raise ValueError('report = "references" refers to segments, and segmentation is "off"')

    @property
    def forms(self) -> frozenset[Form]:
        encoding = "" if self.segmentation == OFF else self.segmentation
        found = {Form(Kind[each.name.upper()]) for each in fields(self) if getattr(self, each.name) is True}
        if encoding:
            found.add(Form(Kind.SEGMENTATION, encoding=encoding))
        if self.report != OFF:
            found.add(Form(Kind.REPORT, self.report, encoding))
        return frozenset(found)


_ALL_PICTURES = Wanted(key_objects=True, presentation_state=True, parametric_map=True)

# ohif: what OHIF 3.13.2 shows: outlines as SCOORD, for a report that refers to segments alone blanks its viewport; and
# Segmentations whose frames end with a byte, for others it never loads, or colours the wrong place.
# orthanc: an archive that takes everything and whose viewers are several. air: as IHE AI Results describes it.
# legacy: a PACS of before Segmentation (2006) and Comprehensive 3D SR (2014), which shows pictures and documents.
# planning: radiotherapy planning, which reads structures.
PRESETS = {
    "ohif": Wanted(segmentation=ALIGNED),
    "orthanc": _ALL_PICTURES,
    "air": replace(_ALL_PICTURES, report="references", presentation_state=False),
    "legacy": Wanted(
        report=OFF,
        segmentation=OFF,
        key_objects=True,
        presentation_state=True,
        secondary_capture=True,
        map_capture=True,
        pdf=True,
    ),
    "planning": Wanted(report=OFF, derived_series=False, rt_structure_set=True),
}
DEFAULT = "ohif"


def on_disk(wanted: Wanted) -> Wanted:
    """The same as files for programs: who reads a folder is promised masks of 0 and 1, not what OHIF takes for them."""
    return replace(wanted, segmentation="BINARY") if wanted.segmentation == ALIGNED else wanted


EXPLAINING = frozenset({Kind.PARAMETRIC_MAP, Kind.MAP_CAPTURE})  # who takes none of these is not read for maps
ALONE = Form(Kind.REPORT, "regions")  # a report beside no Segmentation
UNSAID = Wanted()  # what is made where nobody says what he takes
USUAL = UNSAID.forms  # file names and UIDs do not say that it is these
