"""The evidence of one run, built, checked and put on disk: in each form that is asked for, and in each of them once.

All of it or nothing: an object that fails its check takes the others with it. Sends nothing.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

from pydicom.dataset import Dataset

from pipelines.base import Algorithm, Findings
from pipelines.evidence import codes
from pipelines.evidence.check import check
from pipelines.evidence.encode import part10
from pipelines.evidence.errors import InvalidEvidence
from pipelines.evidence.groups import Writing, groups, without_findings
from pipelines.evidence.objects import BUILDERS, STEMS
from pipelines.evidence.seg import Drawn, draw
from pipelines.evidence.source import take_over
from pipelines.evidence.sr import Content, Predecessor, report
from pipelines.evidence.stamp import Stamp
from pipelines.evidence.told import NOT_EVALUATED, NotEvaluated, Told
from pipelines.forms import USUAL, Form, Kind
from pipelines.series import Series
from pipelines.study import Study


@dataclass(frozen=True, eq=False)
class _Made:
    """An object, and the form that it is of."""

    form: Form
    dataset: Dataset


def write(
    outcome: Findings | NotEvaluated,
    *,
    study: Study,
    algorithm: Algorithm,
    job: str,
    started: datetime,
    out: Path,
    forms: Collection[Form] = USUAL,
    predecessors: Mapping[Form, Predecessor] = MappingProxyType({}),
) -> dict[Path, Form]:
    """Write the evidence into ``out``; the same job and findings make the same bytes. Returns what each file is.

    Args:
        started: When the analysis began: Content Date and Time.
        predecessors: The reports of the study's former revision, by their forms.

    Raises:
        InvalidEvidence: If an object is not right; then nothing is written.
        OSError: If the disk does not take it; then nothing is left.
    """
    if study.mixed:
        raise InvalidEvidence(study.mixed)
    read = _series_read(outcome, study)
    stamp = Stamp(take_over(read[0].header, beside=_own_words(outcome, algorithm)), algorithm, job, started)
    made = list(_built(Told(outcome, read, stamp), forms, predecessors))
    objects = dict(zip(_names(made), made, strict=True))
    images = [instance for series in read for instance in series.instances]
    for name, each in objects.items():
        if wrong := check(each.dataset, source=images, beside=_beside(each.form, made)):
            raise InvalidEvidence(f"{name}: {'; '.join(wrong)}")
    _put({name: each.dataset for name, each in objects.items()}, out)
    return {out / name: each.form for name, each in objects.items()}


def _built(told: Told, forms: Collection[Form], predecessors: Mapping[Form, Predecessor]) -> Iterator[_Made]:
    """Segmentations first and reports last, which refer to them."""
    drawn = {each: _drawn(told, each) for each in sorted({form.encoding for form in forms})}
    for form in sorted(forms):
        if form.kind == Kind.SEGMENTATION:
            yield from (_Made(form, each) for each in drawn[form.encoding].objects)
        elif form.kind in BUILDERS:
            yield from (_Made(form, each) for each in BUILDERS[form.kind](told))
    for form in sorted(forms):
        if form.kind == Kind.REPORT:
            content = _content(told, form, drawn[form.encoding])
            beside = drawn[form.encoding].objects
            before = predecessors.get(form)
            yield _Made(form, report(content, told.stamp, form=form, beside=beside, predecessor=before))


def _drawn(told: Told, encoding: str) -> Drawn:
    return draw(told.findings, told.tracks, told.stamp, encoding) if told.findings and encoding else Drawn()


def _content(told: Told, form: Form, drawn: Drawn) -> Content:
    outcome = told.outcome
    if isinstance(outcome, NotEvaluated):
        code, words = NOT_EVALUATED[outcome.status]
        said = _instead(told, form, words, outcome.reason)
        return Content(code, words, told.read, said, comments=[f"{words}: {outcome.reason}"])
    writing = Writing(outcome.series, told.stamp.algorithm, drawn, form.regions)
    written, loose = groups(outcome, told.tracks, writing)
    is_found = any(finding.present for finding in outcome.findings)
    is_made = bool(outcome.derived) and not outcome.findings  # it has looked for nothing
    words = "findings" if is_found else "derived images" if is_made else "nothing found"
    since = [measured.against for finding in outcome.findings for measured in finding.measurements if measured.against]
    comments = [*outcome.notes, *drawn.notes]
    written = written or _instead(told, form, words, comments[0] if comments else "")
    return Content(codes.SUCCEEDED, words, told.read, written, loose, comments, list(dict.fromkeys(since)))


def _instead(told: Told, form: Form, words: str, why: str) -> list[Dataset]:
    """Where a report shows things on images, what it says if there is no finding to show."""
    if form.regions != "regions":
        return []
    return without_findings(words, why, told.read[0], told.stamp)


def _beside(form: Form, made: Collection[_Made]) -> tuple[Dataset, ...]:
    """What a destination that takes this form may have, too: a report speaks of one encoding of the outlines."""
    of_several = (Kind.SEGMENTATION, Kind.REPORT)
    return tuple(
        each.dataset
        for each in made
        if form.kind not in of_several or each.form.kind not in of_several or each.form.encoding == form.encoding
    )


def _names(made: Collection[_Made]) -> Iterator[str]:
    """``seg.dcm``, ``seg-2.dcm``; where a kind is made in several forms, the unusual ones say which they are."""
    met: dict[Form, int] = {}
    for each in made:
        met[each.form] = count = met.get(each.form, 0) + 1
        is_alone = all(other.form == each.form for other in made if other.form.kind == each.form.kind)
        how = "" if is_alone or each.form in USUAL else "-".join(("", *str(each.form).lower().split()[1:]))
        yield f"{STEMS[each.form.kind]}{how}{f'-{count}' if count > 1 else ''}.dcm"


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


def _put(objects: dict[str, Dataset], out: Path) -> None:
    """All files under other names first, then renamed: nobody meets half an object."""
    out.mkdir(parents=True, exist_ok=True)
    parts = {out / f".{name}.part": out / name for name in objects}
    try:
        for part, each in zip(parts, objects.values(), strict=True):
            with part.open("wb") as file:
                file.writelines(part10(each))
                file.flush()
                os.fsync(file.fileno())
        for part, path in parts.items():
            part.replace(path)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
