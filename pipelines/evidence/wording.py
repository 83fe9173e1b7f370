"""What a run says, in lines for people: for pictures, pages and annotations beside outlines. Volumes in ml.

The words of machines are in the report; here is what a reader must see at once: what, how sure, how large, who says
it, and that nobody has verified it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipelines.base import Algorithm, Finding, Findings, Measurement
from pipelines.evidence.tracking import named
from pipelines.frames import Frame
from pipelines.instance import text

NOT_VERIFIED = "AI RESULT, NOT VERIFIED"
_UNITS = {"cm3": "ml", "{pixels}": "pixels", "1": "", "{ratio}": ""}  # in ASCII, whatever the study's character set
_APART = 3  # findings of one name that are told one by one; of more their number is told


@dataclass(frozen=True)
class Line:
    """A line of text, and the name of what is marked in a colour beside it."""

    words: str
    name: str | None = None


def signature(algorithm: Algorithm) -> str:
    """Which machine says it."""
    return f"{algorithm.name} {algorithm.version} ({algorithm.manufacturer})"


def series_title(words: str, algorithm: Algorithm) -> str:
    """A Series Description: lists of series show some 24 characters of it, so who and what come first."""
    return f"AI: {words} ({algorithm.name}, not verified)"[:64]


def image_name(frame: Frame) -> str:
    """``T2 FLAIR, instance 11``."""
    series = text(frame.instance, "SeriesDescription") or f"series {text(frame.instance, 'SeriesNumber')}".strip()
    return f"{series}, {frame.title}"


def told(findings: Findings) -> list[Line]:
    """What was found, the surest first, then what was not."""
    if not findings.findings:
        return [Line("nothing was looked for")]
    there = [finding for finding in findings.findings if finding.present]
    absent = [finding for finding in findings.findings if not finding.present]
    lines = _grouped(sorted(there, key=lambda finding: -(finding.certainty or 0.0)))
    known = {named(finding) for finding in there}
    lines += _grouped([finding for finding in absent if named(finding) not in known])
    return lines if there else [Line("Nothing found"), *lines]


def told_of_image(findings: Findings, frame: Frame) -> list[Line]:
    """What is said of one image alone, where several were judged one by one."""
    uid = text(frame.instance, "SOPInstanceUID")
    single = [each for each in findings.findings if each.sop_uids and not each.box and not each.segment]
    if len({uids for each in single for uids in each.sop_uids}) < 2:
        return []
    return told_of([each for each in single if uid in each.sop_uids])


def told_of(findings: Sequence[Finding]) -> list[Line]:
    """Some findings alone, as those of one image."""
    return _grouped(findings)


def _grouped(findings: Sequence[Finding]) -> list[Line]:
    groups: dict[tuple[str, bool, bool], list[Finding]] = {}
    for finding in findings:
        of_images = bool(finding.sop_uids) and not finding.box and not finding.segment
        groups.setdefault((named(finding), finding.present, of_images), []).append(finding)
    return [line for (_, _, of_images), group in groups.items() for line in _lines(group, of_images)]


def _lines(group: Sequence[Finding], of_images: bool) -> Iterable[Line]:
    name, there = named(group[0]), group[0].present
    sure = [finding.certainty for finding in group if finding.certainty is not None]
    if there and ((len(group) <= _APART and not of_images) or len(group) == 1):
        for finding in group:
            yield Line(_sentence(finding), name)
    elif there:
        span = f" ({_percent(min(sure))} to {_percent(max(sure))} certain)" if sure else ""
        yield Line(f"{name}{f' on {len(group)} images' if of_images else f': {len(group)}'}{span}", name)
    else:
        most = f" ({'at most ' if len(group) > 1 else ''}{_percent(max(sure))} certain)" if sure else ""
        yield Line(f"no {name}{f' on {len(group)} images' if len(group) > 1 else ''}{most}")


def _sentence(finding: Finding) -> str:
    sure = "" if finding.certainty is None else f" ({_percent(finding.certainty)} certain)"
    numbers = "; ".join(map(quantity, finding.measurements))
    return named(finding) + sure + (f": {numbers}" if numbers else "")


def quantity(measurement: Measurement) -> str:
    """``Volume 41.2 ml``."""
    unit = _UNITS.get(measurement.unit.value, measurement.unit.value)
    value = measurement.value
    number = f"{value:.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"
    sign = "+" if measurement.against and value > 0 else ""
    within = "" if measurement.within is None else f" (+/- {measurement.within:.2g})"
    return f"{measurement.name.meaning} {sign}{number}{f' {unit}' if unit else ''}{within}"


def _percent(share: float) -> str:
    return f"{share:.0%}" if 0.01 <= share <= 0.99 else f"{share:.1%}"
