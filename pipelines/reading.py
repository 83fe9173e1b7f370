"""Runs a pipeline over a study and leaves evidence of it, whatever the outcome: read, unsuitable, withheld or failed.

The one place where a pipeline is called in earnest: by ``wetread read`` and by the worker's child. It never raises for
what a pipeline or its evidence does wrong; it keeps no queue, sends nothing and knows no settings.
"""

from __future__ import annotations

import hashlib
import logging
import re
import traceback
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Any

from pipelines import filing
from pipelines.base import Findings, Pipeline, UnsuitableStudy, WithheldStudy
from pipelines.evidence import InvalidEvidence, NotEvaluated, Predecessor
from pipelines.filing import Filing
from pipelines.forms import EXPLAINING, USUAL, Form
from pipelines.instance import Unreadable, one_sentence, text
from pipelines.priors import Prior, kind_of, latest
from pipelines.run import Run
from pipelines.study import BadPixels, Study

_log = logging.getLogger(__name__)

# Errors whose words are written here or by the system, of files and sizes; by name where the class is torch's or needs
# it, for ``wetread`` must not import torch to say what went wrong.
_OURS = (UnsuitableStudy, WithheldStudy, BadPixels, Unreadable, InvalidEvidence, MemoryError, OSError)
_OURS_BY_NAME = frozenset({"DamagedWeights", "OutOfMemoryError"})
# Other RuntimeErrors of torch and CUDA that mean memory, which the node tries again.
_OUT_OF_MEMORY = re.compile(r"out of memory|(unable|can't|cannot|could not|not enough memory).*allocate", re.IGNORECASE)


def job_key(study: Study, pipeline: Pipeline) -> str:
    """What makes one reading of a folder the same as another: the study, its pictures, the model and its weights.

    Reports and outlines that lie in the folder, ours among them, do not make it another.
    """
    algorithm = pipeline.algorithm
    pictures = [series for series in study.series if series.is_image]
    instances = sorted(text(each, "SOPInstanceUID") for series in pictures for each in series.instances)
    parts = (study.uid, algorithm.name, algorithm.version, algorithm.weights_digest, *instances)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def read(
    study: Study,
    pipeline: Pipeline,
    *,
    name: str,
    out: Path,
    job: str,
    forms: Collection[Form] = USUAL,
    started: datetime | None = None,
    predecessors: Mapping[Form, Predecessor] = MappingProxyType({}),
    priors: Sequence[Prior] = (),
) -> tuple[Run, ...]:
    """Run one pipeline over a study and leave its evidence in ``out/name``, in place of what lay there.

    Where the pipeline reads several series apart, each has a folder of its own below. A study that names more than
    one patient is not read, and nothing is written under a name that may be the wrong one.

    Args:
        forms: What is made: all that any destination takes.
        job: Seeds every UID; the same job and the same findings make the same bytes.
        started: Content Date and Time; by default now, or as before where this very job has left its report.
        predecessors: The reports of the study's former revision, by their forms.
        priors: Earlier readings, of this patient among others.
    """
    clock = _Clock(started or datetime.now().replace(microsecond=0), perf_counter())
    blank = Run(name, "unknown", "failed", device=str(getattr(pipeline, "device", "cpu")))
    try:
        algorithm = pipeline.algorithm
    except Exception as error:
        runs: tuple[Run, ...] = (replace(blank, reason=_explained(error)),)
    else:
        place = Filing(study, algorithm, job, out / name, forms, predecessors)
        runs = _runs(pipeline, replace(blank, version=algorithm.version), place, clock, priors)
    try:
        filing.clear(out / name, keep={path for run in runs for path in run.objects})
    except OSError as error:
        _log.error("evidence of an earlier run could not be removed: %s", error)
    return runs


def _runs(pipeline: Pipeline, blank: Run, place: Filing, clock: _Clock, priors: Sequence[Prior]) -> tuple[Run, ...]:
    if place.study.mixed:
        return (replace(blank, reason=f"{place.study.mixed}; it is held for a person to look at"),)
    answers = _answers(pipeline, place.study, maps=any(form.kind in EXPLAINING for form in place.forms))
    if isinstance(answers, NotEvaluated):
        return (_not_evaluated(blank, answers, place, clock),)
    if priors and hasattr(pipeline, "since"):
        answers = tuple(_compared(pipeline, answer, priors) for answer in answers)
    seconds = clock.seconds / len(answers)
    return tuple(
        _evaluated(blank, answer, each, replace(clock, begun=perf_counter() - seconds))
        for answer, each in zip(answers, _places(place, answers), strict=True)
    )


@dataclass(frozen=True)
class _Clock:
    started: datetime
    begun: float  # of perf_counter

    @property
    def seconds(self) -> float:
        return perf_counter() - self.begun


def _answers(pipeline: Pipeline, study: Study, *, maps: bool) -> tuple[Findings, ...] | NotEvaluated:
    """What the pipeline says, with ``maps`` also where it looked, or why it says nothing."""
    try:
        answers = tuple(pipeline(study))
        if wrong := [type(each).__name__ for each in answers if not isinstance(each, Findings)]:
            return NotEvaluated("failed", f"the pipeline answered with {wrong[0]} where Findings are due")
        if maps and hasattr(pipeline, "saliency"):
            answers = tuple(_with_maps(pipeline, answer) for answer in answers)
        return tuple(map(_with_faults, answers)) or NotEvaluated("unsuitable", "the pipeline found no series to read")
    except UnsuitableStudy as reason:
        return NotEvaluated("unsuitable", one_sentence(reason))
    except WithheldStudy as reason:
        return NotEvaluated("withheld", one_sentence(reason))
    except Exception as error:
        return NotEvaluated("failed", _explained(error))


def _with_maps(pipeline: Any, answer: Findings) -> Findings:
    """A map explains what was found and is none of it: where there is none, the findings stand, and a note says so."""
    begun = perf_counter()
    try:
        answer = replace(answer, maps=tuple(pipeline.saliency(answer)))
    except Exception as error:
        answer = replace(answer, notes=(*answer.notes, f"no map of where it looked: {_explained(error)}"))
    return replace(answer, stages={**answer.stages, "maps": perf_counter() - begun})


def _compared(pipeline: Any, answer: Findings, priors: Sequence[Prior]) -> Findings:
    """With what changed since the newest of the earlier readings; where that cannot be said, the findings stand."""
    try:
        prior, why_not = latest(priors, answer.series, pipeline.algorithm)
        if prior:
            compared: Findings = pipeline.since(answer, prior.volumes, prior.study)
            return compared
    except Exception as error:
        why_not = f"no change since the earlier study: {_explained(error)}"
    return replace(answer, notes=(*answer.notes, why_not)) if why_not else answer


def _against(answer: Findings) -> str:
    """The report that its changes are against: it is part of what the objects say, and so of their UIDs."""
    since = {each.against.sop_uid for one in answer.findings for each in one.measurements if each.against}
    return "".join(f"/against/{uid}" for uid in sorted(since))


def _with_faults(answer: Findings) -> Findings:
    """What is wrong with the geometry of a series that was read stands among the notes, said once."""
    notes = list(answer.notes)
    for series in answer.read or (answer.series,):
        for fault in series.faults:
            if not any(fault in note for note in notes):
                notes.append(f"{series.description or f'series {series.uid}'}: {fault}")
    return replace(answer, notes=tuple(notes))


def _places(place: Filing, answers: tuple[Findings, ...]) -> Iterator[Filing]:
    """One answer has the run's own folder and job; of several each has one below, by its series."""
    seen: Counter[str] = Counter()
    for answer in answers:
        uid = answer.series.uid
        seen[uid] += 1
        below = uid if seen[uid] == 1 else f"{uid}-{seen[uid]}"
        if len(answers) > 1:
            yield replace(place, job=f"{place.job}/{below}{_against(answer)}", folder=place.folder / below)
        else:
            yield replace(place, job=f"{place.job}{_against(answer)}")


def _evaluated(blank: Run, answer: Findings, place: Filing, clock: _Clock) -> Run:
    encoding = perf_counter()
    try:
        objects = place.put(answer, started=clock.started)
    except Exception as error:
        reason = f"no evidence could be written: {_explained(error)}"
        return _not_evaluated(replace(blank, device=answer.device), NotEvaluated("failed", reason), place, clock)
    return replace(
        blank,
        status="read",
        series_uid=answer.series.uid,
        series_kind=kind_of(answer.series),
        seconds=clock.seconds,
        device=answer.device,
        findings=answer.findings,
        notes=answer.notes,
        objects=objects,
        stages={**answer.stages, "encode": perf_counter() - encoding},
    )


def _not_evaluated(blank: Run, outcome: NotEvaluated, place: Filing, clock: _Clock) -> Run:
    """Silence is not an answer: a report says why there is none, where one can be written."""
    encoding = perf_counter()
    run = replace(blank, status=outcome.status, reason=outcome.reason)
    try:
        objects = place.put(outcome, started=clock.started)
    except Exception as error:
        said = _explained(error)
        reason = outcome.reason if said in outcome.reason else f"{outcome.reason}; and no report: {said}"
        return replace(run, status="failed", reason=reason, seconds=clock.seconds)
    return replace(run, objects=objects, seconds=clock.seconds, stages={"encode": perf_counter() - encoding})


def _explained(error: Exception) -> str:
    """The error in one sentence; its place goes to the log without its words, for those may name a patient.

    So may the words of a library's error, which quote what they stumble over: of those only kind and place are told.
    """
    places = "".join(traceback.format_tb(error.__traceback__))
    _log.error("%s in a pipeline or its evidence\n%s", type(error).__name__, places)
    if isinstance(error, _OURS) or type(error).__name__ in _OURS_BY_NAME:
        return one_sentence(error)
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = "".join(f" at {Path(each.filename).name}:{each.lineno}" for each in last)
    memory = ": out of memory" if _OUT_OF_MEMORY.search(str(error)) else ""
    return f"{type(error).__name__}{place}{memory}"
