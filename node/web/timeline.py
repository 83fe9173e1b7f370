"""The steps of a study from its first image to the PACS, each with when it began and how long it took. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from node.ledger import Delivery, DeliveryState, Job, JobState, Revision, StudyHistory, StudyState
from node.web.words import number_of

GOOD, ILL, NOW, QUIET = "good", "ill", "now", "quiet"


@dataclass(frozen=True)
class Step:
    """``ends`` is None while it goes on. ``kind`` is one of the four words above, ``note`` a few words more."""

    name: str
    begins: float
    ends: float | None
    kind: str = GOOD
    note: str = ""

    def took(self, now: float) -> float:
        return max((now if self.ends is None else self.ends) - self.begins, 0.0)


def steps(history: StudyHistory) -> list[Step]:
    study = history.study
    found: list[Step] = []
    for revision in history.revisions:
        found += _arrival(revision, study.caller)
        found += [
            step for job in history.jobs if job.revision == revision.number for step in _of_job(job, history.deliveries)
        ]
    if study.state in (StudyState.RECEIVING, StudyState.HELD):
        begins = study.opened_at if history.revisions else study.first_arrival
        name = "Arrives" if not history.revisions else "Late images arrive"
        found.append(Step(name, begins, study.last_arrival, GOOD, _came(study.arrived, study.caller)))
        if study.state == StudyState.HELD:
            found.append(Step("Held", study.last_arrival, None, ILL, study.reason or ""))
        else:
            found.append(Step("Waits whether more comes", study.last_arrival, None, NOW))
    return found


def _arrival(revision: Revision, caller: str) -> Iterator[Step]:
    name = "Arrives" if revision.number == 1 else f"Late images arrive (revision {revision.number})"
    note = _came(revision.instances, caller)
    yield Step(name, revision.opened_at, max(revision.last_arrival, revision.opened_at), GOOD, note)
    yield Step("Waits whether more comes", revision.last_arrival, revision.settled_at, QUIET)


def _came(count: int, caller: str) -> str:
    return f"{number_of(count, 'image')} from {caller}"


def _of_job(job: Job, deliveries: tuple[Delivery, ...]) -> Iterator[Step]:
    begun = job.claimed_at
    waiting = begun is None or job.state == JobState.QUEUED
    ended = job.done_at if begun is None else begun
    kind = NOW if waiting and job.done_at is None else QUIET
    yield Step(f"{job.pipeline} waits", job.queued_at, None if kind == NOW else ended, kind, f"priority {job.priority}")
    if begun is not None and job.state != JobState.QUEUED:
        kinds = {JobState.DONE: ILL if job.outcome == "failed" else GOOD, JobState.RUNNING: NOW}
        shown = {JobState.RUNNING: "", JobState.DONE: job.outcome or ""}.get(job.state, job.state.lower())
        yield Step(f"{job.pipeline} reads", begun, job.done_at, kinds.get(job.state, ILL), shown)
        at = begun
        for stage, took in job.stages.items():
            yield Step(f"… {stage}", at, at + took, QUIET)
            at += took
    for one in deliveries:
        if one.job_id == job.id:
            yield from _of_delivery(one)


def _of_delivery(one: Delivery) -> Iterator[Step]:
    tries = f"{one.attempts} attempts" if one.attempts > 1 else ""
    if one.state == DeliveryState.DELIVERED:
        ends = one.delivered_at
        yield Step(f"Sent to {one.destination}", one.queued_at, ends, GOOD, tries or ("found there" * one.verified))
    elif one.state == DeliveryState.DEAD:
        yield Step(f"Given up for {one.destination}", one.queued_at, one.claimed_at, ILL, tries)
    else:
        word = "Being sent to" if one.state == DeliveryState.SENDING else "Waits for"
        ill = one.first_failed_at is not None
        yield Step(f"{word} {one.destination}", one.queued_at, None, ILL if ill else NOW, tries)
