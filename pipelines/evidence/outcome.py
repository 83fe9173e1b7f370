"""The evidence of one run, built, checked and put on disk: ``seg.dcm`` where something is outlined, ``sr.dcm`` always.

Images of derived series are ``derived-1-0001.dcm`` and so on.

All of it or nothing: an object that fails its check takes the others with it. Sends nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydicom.dataset import Dataset

from pipelines.base import Algorithm, Findings
from pipelines.evidence import codes
from pipelines.evidence.check import check
from pipelines.evidence.derived import derived_images
from pipelines.evidence.encode import part10
from pipelines.evidence.errors import InvalidEvidence
from pipelines.evidence.groups import PRESETS, Writing, groups
from pipelines.evidence.seg import Drawn, draw
from pipelines.evidence.source import take_over
from pipelines.evidence.sr import Content, Predecessor, report
from pipelines.evidence.stamp import Stamp
from pipelines.evidence.tracking import tracks
from pipelines.series import Series
from pipelines.study import Study

# status: outcome (CID 6042), a few words
_NOT_EVALUATED = {
    "unsuitable": (codes.NOT_ATTEMPTED, "not evaluated"),
    "withheld": (codes.NOT_ATTEMPTED, "withheld"),
    "failed": (codes.FAILED, "failed"),
}


@dataclass(frozen=True)
class NotEvaluated:
    """Why there are no findings.

    Attributes:
        status: "unsuitable", "withheld" or "failed".
        reason: One sentence.
    """

    status: str
    reason: str

    def __post_init__(self) -> None:
        if self.status not in _NOT_EVALUATED:
            raise ValueError(f"the status is {self.status!r}, not one of {', '.join(_NOT_EVALUATED)}")


def write(
    outcome: Findings | NotEvaluated,
    *,
    study: Study,
    algorithm: Algorithm,
    job: str,
    started: datetime,
    out: Path,
    preset: str = "ohif",
    predecessor: Predecessor | None = None,
) -> tuple[Path, ...]:
    """Write the evidence into ``out``; the same job and findings make the same bytes.

    Args:
        started: When the analysis began: Content Date and Time.
        predecessor: The report of the study's former revision, if there is one.

    Raises:
        InvalidEvidence: If an object is not right; then nothing is written.
        OSError: If the disk does not take it; then nothing is left.
    """
    if preset not in PRESETS:
        raise ValueError(f"there is no preset {preset!r}; there are {', '.join(PRESETS)}")
    if study.mixed:
        raise InvalidEvidence(study.mixed)
    read = _series_read(outcome, study)
    stamp = Stamp(take_over(read[0].header, beside=_own_words(outcome, algorithm)), algorithm, job, started)
    drawn, content = _content(outcome, read, stamp, preset)
    made = report(content, stamp, beside=drawn.objects, predecessor=predecessor)
    objects = {_seg_name(place): each for place, each in enumerate(drawn.objects)} | _derived(outcome, stamp)
    objects["sr.dcm"] = made
    images = [instance for series in read for instance in series.instances]
    for name, each in objects.items():
        if wrong := check(each, source=images, beside=tuple(objects.values())):
            raise InvalidEvidence(f"{name}: {'; '.join(wrong)}")
    return _put(objects, out)


def _content(
    outcome: Findings | NotEvaluated, read: Sequence[Series], stamp: Stamp, preset: str
) -> tuple[Drawn, Content]:
    if isinstance(outcome, NotEvaluated):
        code, words = _NOT_EVALUATED[outcome.status]
        return Drawn(), Content(code, words, read, comments=[f"{words}: {outcome.reason}"])
    named = tracks(outcome.findings, stamp.job)
    drawn = draw(outcome, named, stamp)
    written, loose = groups(outcome, named, Writing(outcome.series, stamp.algorithm, drawn, preset))
    is_found = any(finding.present for finding in outcome.findings)
    notes = [*outcome.notes, *drawn.notes]
    words = "findings" if is_found else "nothing found"
    return drawn, Content(codes.SUCCEEDED, words, read, written, loose, notes)


def _derived(outcome: Findings | NotEvaluated, stamp: Stamp) -> dict[str, Dataset]:
    """The images of derived series, by the names of their files."""
    if isinstance(outcome, NotEvaluated):
        return {}
    return {
        f"derived-{place + 1}-{count:04}.dcm": image
        for place, made in enumerate(outcome.derived)
        for count, image in enumerate(derived_images(made, stamp, place=place), start=1)
    }


def _series_read(outcome: Findings | NotEvaluated, study: Study) -> tuple[Series, ...]:
    """The series that were read, the one that masks lie on first; of a study that was not, all its images."""
    if isinstance(outcome, NotEvaluated):
        return tuple(series for series in study.series if series.is_image) or study.series
    read = (outcome.series, *(series for series in outcome.read if series.uid != outcome.series.uid))
    of_study = {series.uid for series in study.series}
    if strangers := [series.uid for series in read if series.uid not in of_study]:
        raise InvalidEvidence(f"the findings are of series {strangers[0]}, which is not of the study")
    return read


def _own_words(outcome: Findings | NotEvaluated, algorithm: Algorithm) -> str:
    """Everything in words of ours that may go into an object."""
    about = f"{algorithm.name} {algorithm.version} {algorithm.manufacturer}"
    if isinstance(outcome, NotEvaluated):
        return f"{about} {outcome.reason}"
    labels = [finding.label or "" for finding in outcome.findings]
    labels += [finding.segment.label for finding in outcome.findings if finding.segment]
    made = [words for each in outcome.derived for words in (each.description, each.words)]
    return " ".join([about, *outcome.notes, *labels, *made])


def _seg_name(place: int) -> str:
    return f"seg-{place + 1}.dcm" if place else "seg.dcm"


def _put(objects: dict[str, Dataset], out: Path) -> tuple[Path, ...]:
    """All files under other names first, then renamed: nobody meets half an object."""
    out.mkdir(parents=True, exist_ok=True)
    parts = {out / f".{name}.part": out / name for name in objects}
    try:
        for part, each in zip(parts, objects.values(), strict=True):
            with part.open("wb") as file:
                file.writelines(part10(each))
                file.flush()
                os.fsync(file.fileno())
        return tuple(part.replace(path) for part, path in parts.items())
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
