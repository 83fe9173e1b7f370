"""Which series of a brain MR is which: FLAIR, T1 before and after contrast. Acquisition first, descriptions second.

Headers only. A localizer, a derived picture, a diffusion or an angiography is none of them.
"""

from __future__ import annotations

import re
from typing import Any

from pipelines.instance import items
from pipelines.study import Series, Study

T1_PRE, FLAIR, T1_POST = "T1 PRE", "FLAIR", "T1 POST"

# Times in ms. Fluid is nulled by an inversion time of 1.6 to 3 s (shorter with a short repetition time), fat and grey
# by less; T1 weighting has a short echo, and a short repetition or an inversion of about a second (MPRAGE, T1-FLAIR).
_FLAIR_INVERSION, _FLAIR_ECHO, _FLAIR_REPETITION = (1400.0, 3200.0), 60.0, 4000.0
_T1_ECHO, _T1_REPETITION, _T1_PREPARED_REPETITION = 35.0, 1300.0, 3500.0

_OTHER = re.compile(
    r"loc(ali[sz]er)?\b|scout|survey|plan(ning)?\b|dwi|dti|diff|adc|trace|b1000|swi|t2\*|flash2d|tof|angio|\bmra\b|\bmrv\b"
    r"|perf|dsc|dce|asl|cbf|cbv|mip\b|spectro|fmri|bold|subtract",
    re.IGNORECASE,
)
_SAYS_FLAIR = re.compile(r"flair|fluid.?atten|dark.?fluid|tirm", re.IGNORECASE)
_SAYS_T1 = re.compile(r"t1|mprage|\bspgr|bravo|\btfe\b|\bvibe", re.IGNORECASE)
# A reformat; but "T1 MPR" and "MPRAGE MPR" are what people call the MPRAGE itself, and a reformat of it is DERIVED.
_REFORMAT = re.compile(r"(?<!t1.)mpr(?![a-z])", re.IGNORECASE)
_MPRAGE = re.compile(r"mprage", re.IGNORECASE)
# Words end where letters do: "T1_POST" and "T1POST" say post, "T1 POSTERIOR FOSSA" does not.
_AGENT = r"(?:contrast|con(?![a-z])|gad|gd(?![a-z])|km(?![a-z])|ce(?![a-z])|c(?![a-z])|enh)"
_SAYS_POST = re.compile(
    rf"(?<![a-z])post(?:(?![a-z])|(?={_AGENT}))|\+ ?c(?![a-z])|(?<![a-z])c ?\+"
    r"|(?<![a-z])(?:gad|(?:gd|ce|km)(?![a-z])|enh)|(?<![a-z])contrast",
    re.IGNORECASE,
)
_SAYS_PRE = re.compile(rf"(?<![a-z])(?:pre(?!.?op)|nati[vf]e?)(?:(?![a-z])|(?={_AGENT}))", re.IGNORECASE)
# "w/o contrast" denies the agent, "w/o fs +Gd" the fat saturation.
_DENIED = re.compile(
    rf"(?<![a-z])(?:no|non|un|without|w/?o|ohne|sans)[ ._-]*(?:i\.?v\.? )?{_AGENT}[a-z]*", re.IGNORECASE
)
_NO_AGENT = frozenset({"", "NONE", "NO", "N", "N/A", "NA"})


def role(series: Series) -> str | None:
    """T1_PRE, FLAIR, T1_POST, or None for any other series.

    A series that is no volume has its role, too: who reads it must say what is wrong with it (``obstacle``).
    """
    if series.modality != "MR" or not series.is_image or _is_derived(series) or _is_other(series.description):
        return None
    weighting = _by_acquisition(series) or _by_description(series)
    if weighting != "T1":
        return FLAIR if weighting == FLAIR else None
    return T1_POST if _has_agent(series) else T1_PRE


def candidates(study: Study, wanted: str) -> tuple[Series, ...]:
    """The series that have this role, the best first: axial, volumes, most slices, then in the study's order."""
    fitting = [series for series in study.series if role(series) == wanted]
    return tuple(sorted(fitting, key=lambda each: (not is_axial(each), not each.is_volume, -len(each.frames))))


def obstacle(series: Series) -> str | None:
    """Why the series cannot be read as one volume; None where it can."""
    if series.is_volume:
        return None
    return "; ".join(series.faults) or "its slices do not say where they lie"


def is_axial(series: Series) -> bool:
    """Whether the slices lie across the body's long axis, give or take 45 degrees."""
    return bool(series.planes) and abs(float(series.planes[0].normal[2])) > 0.7071  # type: ignore[index]


def description_of(study: Study) -> str:
    """What the study holds, for a sentence: "MR 'T2 TSE', MR 'LOCALIZER'"."""
    said = [
        f"{series.modality or 'no modality'} {series.description or 'without a description'!r}"
        for series in study.series
    ]
    return ", ".join(said[:6]) + (f" and {len(said) - 6} more" if len(said) > 6 else "")


def _is_derived(series: Series) -> bool:
    kind = series.get("ImageType") or ()
    words = {str(word).upper() for word in ([kind] if isinstance(kind, str) else kind)}
    return bool(words & {"DERIVED", "LOCALIZER", "SECONDARY", "PROJECTION IMAGE", "MIP", "MPR", "ADC"})


def _is_other(description: str) -> bool:
    is_reformat = _REFORMAT.search(description) and not _MPRAGE.search(description)
    return bool(is_reformat or _OTHER.search(description))


def _by_acquisition(series: Series) -> str | None:
    """FLAIR or T1 by Repetition, Echo and Inversion Time; "other" where they say neither; None where there are none."""
    contrast = str(series.get("AcquisitionContrast") or "")  # enhanced MR says it outright (PS3.3 C.8.13.3.1.1)
    if contrast in ("FLUID_ATTENUATED", "T1"):
        return FLAIR if contrast == "FLUID_ATTENUATED" else "T1"
    repetition = _time(series, "RepetitionTime")
    echo = _time(series, "EchoTime") or _time(series, "EffectiveEchoTime")
    inversion = _time(series, "InversionTime") or _time(series, "InversionTimes")
    if repetition is None or echo is None:
        return None
    low, high = _FLAIR_INVERSION
    if inversion and low <= inversion <= high and echo >= _FLAIR_ECHO and repetition >= _FLAIR_REPETITION:
        return FLAIR
    limit = _T1_PREPARED_REPETITION if inversion and inversion < low else _T1_REPETITION
    if echo <= _T1_ECHO and repetition <= limit:
        return "T1"
    # Philips and others leave Inversion Time out: a long echo and repetition are FLAIR or T2, so the name decides.
    return FLAIR if inversion is None and echo >= _FLAIR_ECHO and _SAYS_FLAIR.search(series.description) else "other"


def _by_description(series: Series) -> str | None:
    if _SAYS_FLAIR.search(series.description) and not re.search(r"t1", series.description, re.IGNORECASE):
        return FLAIR
    return "T1" if _SAYS_T1.search(series.description) else None


def _has_agent(series: Series) -> bool:
    """What the scanner says of the agent, then what a person has called the series."""
    if str(series.get("ContrastBolusAgent") or "").strip().upper() not in _NO_AGENT:
        return True
    if items(series.header, "ContrastBolusAgentSequence"):
        return True
    said = _DENIED.sub(" ", series.description)
    return bool(_SAYS_POST.search(said)) and not _SAYS_PRE.search(said)


def _time(series: Series, keyword: str) -> float | None:
    found: Any = series.get(keyword)
    try:
        first = found[0] if isinstance(found, (list, tuple)) or type(found).__name__ == "MultiValue" else found
        return float(first)
    except (TypeError, ValueError, IndexError):
        return None
