"""Which pipelines want a study: rules by DICOM keyword, all of them data.

    when = { Modality = "MR", BodyPartExamined = ["BRAIN", "HEAD"], StudyDescription = "*brain*",
             SliceThickness = { min = 0, max = 6 } }

A text is equal whatever its case, and may hold ``*`` (any text) and ``?`` (one character); a list is one of; a table is
a range of numbers, ends included. A study matches when any one of its series meets every condition; of an attribute
with several values (ImageType) one has to. An enhanced instance is also asked for what all its frames share, and any
for what it says of the request (RequestedProcedurePriority in its Request Attributes Sequence).

It reads headers that were read already, runs no code from the settings, and decides nothing else.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Protocol

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_dict, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from node.errors import BadSettings

NUMBERS = frozenset(("AS", "DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"))
TEXTS = frozenset(("AE", "CS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"))
# Who the patient is. A sentence that is shown, stored or logged never quotes these.
IDENTITY = ("Patient", "OtherPatient", "Accession", "AdmissionID", "IssuerOf", "MilitaryRank", "ResponsiblePerson")
NOT_IDENTITY = frozenset(("PatientAge", "PatientOrientation", "PatientPosition", "PatientSex", "PatientSize"))

BY_NAME = "it reads only when it is asked for by name (automatic = false)"
OFF = "it is switched off"
DAYS_PER = {"D": 1.0, "W": 7.0, "M": 365.25 / 12, "Y": 365.25}  # Age String, PS3.5 Table 6.2-1


class Condition(Protocol):
    @property
    def keyword(self) -> str: ...
    @property
    def wanted(self) -> str:
        """What it asks for, to stand after the keyword: ``is MR``."""

    def is_met(self, value: object) -> bool: ...


@dataclass(frozen=True)
class OneOf:
    """Equal to one of these; texts may hold ``*`` and ``?``."""

    keyword: str
    choices: tuple[str | float, ...]

    @property
    def wanted(self) -> str:
        shown = [str(choice) for choice in self.choices]
        return f"is {shown[0]}" if len(shown) == 1 else f"is one of {', '.join(shown)}"

    def is_met(self, value: object) -> bool:
        return any(_equal(choice, value) for choice in self.choices)


@dataclass(frozen=True)
class Within:
    """A number from ``low`` to ``high``, both included."""

    keyword: str
    low: float
    high: float

    @property
    def wanted(self) -> str:
        if self.high == inf:
            return f"is at least {self.low:g}"
        if self.low == -inf:
            return f"is at most {self.high:g}"
        return f"is from {self.low:g} to {self.high:g}"

    def is_met(self, value: object) -> bool:
        number = _number(value)
        return number is not None and self.low <= number <= self.high


@dataclass(frozen=True)
class Route:
    """One ``[pipelines.NAME]`` table of the settings.

    Raises:
        BadSettings: If a condition names no DICOM keyword, or one that it cannot judge, or is never met.
    """

    name: str
    use: str
    when: Mapping[str, object] = field(default_factory=dict)
    deliver_to: tuple[str, ...] = ()
    priority: int = 5
    automatic: bool = True  # else it wants no study, until it is switched on: only who names it gets it
    conditions: tuple[Condition, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "conditions", conditions_of(f"pipelines.{self.name}.when", self.when))


@dataclass(frozen=True)
class Match:
    """Whether a pipeline wants the study, and why.

    ``why`` of a match says only what the rule says, and may be stored; of a failure it may quote the study: show it,
    store it not.
    """

    pipeline: str
    matched: bool
    why: str


def route(
    headers: Sequence[Dataset], routes: Mapping[str, Route], switched: Mapping[str, str] | None = None
) -> list[Match]:
    """What each rule says of a study, given one header per series.

    Args:
        switched: By pipeline ``on``, ``off`` or ``shadow``, where a person has decided so.
    """
    modes = switched or {}
    return [
        Match(name, matched=False, why=OFF if name in modes else BY_NAME)
        if (modes[name] == "off" if name in modes else not rule.automatic)
        else match(name, rule.conditions, headers)
        for name, rule in routes.items()
    ]


def conditions_of(place: str, when: Mapping[str, object]) -> tuple[Condition, ...]:
    """The conditions of a rule that stands at ``place`` in the settings; raises BadSettings as ``Route`` does."""
    return tuple(_condition(place, key, value) for key, value in when.items())


def match(name: str, conditions: Sequence[Condition], headers: Sequence[Dataset]) -> Match:
    """What the rule ``name`` says of a study, given one header per series."""
    if not headers:
        return Match(name, matched=False, why="the study has no series")
    failures = [list(_failures(header, conditions)) for header in headers]
    fewest = min(failures, key=len)
    if fewest:
        which = "" if len(headers) == 1 else f" (the nearest of {len(headers)} series)"
        return Match(name, matched=False, why=f"{' and '.join(fewest)}{which}")
    if not conditions:
        return Match(name, matched=True, why="it wants every study")
    said = " and ".join(f"{condition.keyword} {condition.wanted}" for condition in conditions)
    met, of = sum(not failed for failed in failures), len(headers)
    return Match(name, matched=True, why=f"{said}, in {met} of {of} series")


def _failures(header: Dataset, conditions: Sequence[Condition]) -> Iterator[str]:
    for condition in conditions:
        keyword = condition.keyword
        try:
            values = _values(header, keyword)
        except Exception:  # a value converts on access, and a hostile one raises anything (pydicom)
            yield f"{keyword} cannot be read"
            continue
        if not values:
            yield f"{keyword} is absent, so it is not so that it {condition.wanted}"
        elif not any(condition.is_met(value) for value in values):
            yield f"{keyword} is {_shown(keyword, values)}, so it is not so that it {condition.wanted}"


def _values(header: Dataset, keyword: str) -> list[object]:
    """The values of an attribute: in the dataset itself, its request, or what the frames of an enhanced one share."""
    found = _plain(header.get(keyword))
    if not found:
        for request in header.get("RequestAttributesSequence") or ():
            found += _plain(request.get(keyword))
    if not found:
        for group in header.get("SharedFunctionalGroupsSequence") or ():
            for macro in group:
                if macro.VR == "SQ":
                    found += [value for item in macro.value for value in _plain(item.get(keyword))]
    return found


def _plain(value: object) -> list[object]:
    values = list(value) if isinstance(value, MultiValue | list | tuple) else [value]
    return [one for one in values if one is not None and str(one).strip()]


def _shown(keyword: str, values: list[object]) -> str:
    if keyword.startswith(IDENTITY) and keyword not in NOT_IDENTITY:
        return "another"
    text = " and ".join(" ".join(str(value).split()) for value in values[:4])
    return text if len(text) <= 80 else f"{text[:79]}…"


def _equal(choice: str | float, value: object) -> bool:
    if not isinstance(choice, str):
        return _number(value) == choice
    return re.fullmatch(_pattern(choice), " ".join(str(value).split()), re.IGNORECASE | re.DOTALL) is not None


def _pattern(text: str) -> str:
    """A regular expression for ``*`` and ``?``. Brackets are brackets: they are common in descriptions."""
    first, *rest = ("".join("." if one == "?" else re.escape(one) for one in part) for part in _parts(text))
    if not rest:
        return first
    # Each middle part where it first occurs, and never tried elsewhere (atomic), as fnmatch does it: otherwise a text
    # that a sender chose could keep "*a*b*c*" busy for ever.
    *middle, last = rest
    return first + "".join(f"(?>.*?{part})" for part in middle) + f".*{last}"


def _parts(text: str) -> list[str]:
    return re.split(r"\*+", " ".join(text.split()))


def _number(value: object) -> float | None:
    """A number of the dataset; an Age String in years."""
    age = re.fullmatch(r"(\d{1,3})([DWMY])", str(value).strip())
    if age:
        return int(age[1]) * DAYS_PER[age[2]] / DAYS_PER["Y"]
    try:
        return float(str(value))
    except ValueError:
        return None


def _condition(place: str, keyword: str, value: object) -> Condition:
    place = f"{place}.{keyword}"
    vr = _vr(place, keyword)
    if isinstance(value, Mapping):
        if vr not in NUMBERS:
            raise BadSettings(
                f"{place} is a range, but {keyword} is a text ({vr}); allowed: a text, or a list of texts"
            )
        return _range(place, keyword, value)
    choices = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not choices:
        raise BadSettings(f"{place} is an empty list, which nothing matches; allowed: at least one value")
    return OneOf(keyword, tuple(_choice(place, keyword, vr, choice) for choice in choices))


def _vr(place: str, keyword: str) -> str:
    tag = tag_for_keyword(keyword)
    if tag is None or not dictionary_has_tag(tag):
        near = _nearest(keyword)
        hint = f"did you mean {near}?" if near else "allowed: the keywords of PS3.6, as Modality"
        raise BadSettings(f"{place}: {keyword!r} is no DICOM keyword; {hint}")
    vr = str(dictionary_VR(tag))
    for one in vr.split(" or "):
        if one in NUMBERS | TEXTS:
            return one
    raise BadSettings(f"{place}: {keyword} is of VR {vr}, which a rule cannot judge; allowed: texts and numbers")


def _nearest(keyword: str) -> str | None:
    by_lower = {known.lower(): known for known in keyword_dict if known}
    near = difflib.get_close_matches(keyword.lower().replace(" ", "").replace("_", ""), by_lower, n=1, cutoff=0.7)
    return by_lower[near[0]] if near else None


def _choice(place: str, keyword: str, vr: str, choice: object) -> str | float:
    if vr in NUMBERS:
        if isinstance(choice, bool) or not isinstance(choice, int | float) or not isfinite(choice):
            raise BadSettings(
                f"{place} is {choice!r}, but {keyword} is a number ({vr}); allowed: 3, [1, 2], {{ min = 0, max = 6 }}"
            )
        return choice
    if not isinstance(choice, str) or not choice.strip():
        raise BadSettings(
            f'{place} is {choice!r}, but {keyword} is a text ({vr}); allowed: "MR", ["MR", "CT"], "*brain*"'
        )
    return choice


def _range(place: str, keyword: str, ends: Mapping[str, object]) -> Within:
    unknown = ends.keys() - {"min", "max"}
    if unknown or not ends:
        what = f"has {sorted(unknown)[0]!r}" if unknown else "is empty"
        raise BadSettings(f"{place}: the range {what}; allowed: min, max, or both")
    for end, value in ends.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise BadSettings(f"{place}.{end} is {value!r}; allowed: a number")
    low, high = (float(str(ends.get(end, default))) for end, default in (("min", -inf), ("max", inf)))
    if low > high:
        raise BadSettings(f"{place}: min {low:g} is above max {high:g}, so nothing matches; allowed: min up to max")
    return Within(keyword, low, high)
