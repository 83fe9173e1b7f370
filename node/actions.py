"""What an administrator does: retry, cancel, quarantine, prioritize, send again, hold, release, drain, resume, switch.

The command line, the REST API and the pages call the same acts here. Each may be done twice, each is written into the
audit trail with who did it and what came of it, also where it is refused; and what cannot be written there is not done.
It rings no bell: the clock sees within seconds what is ready or more urgent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from node.audit import Actor, Event, Trail, Transfer, administered
from node.errors import NodeError, NotNow, Refusal, Unknown
from node.instance import head_of
from node.ledger import JobState, Ledger, Mode, StudyState

_WORKER = re.compile(r"[^/\s]+/[^/\s]+")
AS_SET = "settings"
MODES = (*(mode.value for mode in Mode), AS_SET)
WHAT_IT_IS = {
    Mode.ON: "is on",
    Mode.OFF: "is off: it reads nothing, and what waited for it is cancelled",
    Mode.SHADOW: "reads in shadow: what it finds is kept and shown, and nothing is sent or moved up",
}
Come = tuple[bool, str]  # whether anything is otherwise now, and the sentence that says so


@dataclass(frozen=True)
class Done:
    """What came of an act; ``changed`` is False where it was so already."""

    action: str
    subject: str
    changed: bool
    sentence: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Actions:
    """The acts, for whoever asks for them. To be called from any thread.

    Args:
        destinations: The names that evidence can be sent to.
        pipelines: By name what the settings say: whether it reads by itself (on), or only by name (off).
        path: Where the instance with a SHA-256 lies: the audit trail names the patient by what stands there.

    Raises, each of the acts:
        Unknown: There is no such job, study, destination or pipeline.
        NotNow: It does not go with the state that it is in.
        Unavailable: The ledger or the audit trail cannot be written; nothing was done.
    """

    def __init__(
        self,
        ledger: Ledger,
        trail: Trail,
        *,
        destinations: Collection[str],
        path: Callable[[str], Path],
        pipelines: Mapping[str, Mode] | None = None,
    ) -> None:
        self._ledger, self._trail, self._destinations, self._path = ledger, trail, destinations, path
        self._pipelines = pipelines or {}

    def retry(self, job_id: int, *, by: Actor) -> Done:
        """What failed of a job is done again: reading it, or sending its evidence."""

        def act() -> Come:
            if self._ledger.job(job_id).state in (JobState.QUEUED, JobState.RUNNING):
                return False, f"job {job_id} is waiting or running already"
            self._ledger.retry(job_id)
            return True, f"job {job_id}: what had failed of it is queued again"

        return self._job("retry", job_id, by, act)

    def cancel(self, job_id: int, *, by: Actor) -> Done:
        """A job that waits or runs is not done; its worker stops within seconds."""
        return self._job("cancel", job_id, by, lambda: self._end(job_id, JobState.CANCELLED, self._ledger.cancel))

    def quarantine(self, job_id: int, *, by: Actor, reason: str = "") -> Done:
        """A job is set apart until somebody retries it."""

        def end(number: int) -> None:
            self._ledger.quarantine(number, reason=reason)

        return self._job("quarantine", job_id, by, lambda: self._end(job_id, JobState.QUARANTINED, end))

    def prioritize(self, job_id: int, priority: int, *, by: Actor) -> Done:
        """A job, and the sending of its evidence, gets another priority: 0 the most urgent to 9."""

        def act() -> Come:
            changed = self._ledger.prioritize(job_id, priority)
            return changed, f"job {job_id} has priority {priority}{' now' if changed else ' already'}"

        return self._job("prioritize", job_id, by, act)

    def send_again(self, job_id: int, destination: str, *, by: Actor) -> Done:
        """All evidence of a job goes to a destination, whether or not it went there before."""

        def act() -> Come:
            if destination not in self._destinations:
                known = ", ".join(sorted(self._destinations)) or "none is defined"
                raise Unknown(f'there is no destination "{destination}"; destinations: {known}')
            if self._ledger.send_again(job_id, destination) is None:
                return False, f"the evidence of job {job_id} is on its way to {destination} already"
            return True, f"the evidence of job {job_id} is queued for {destination}"

        return self._job("send again", job_id, by, act)

    def hold(self, study_uid: str, *, by: Actor, reason: str = "held by the administrator") -> Done:
        """Nothing of a study is read or sent until it is released."""

        def act() -> Come:
            study = self._ledger.entry(study_uid)
            if study.state == StudyState.HELD:
                return False, f"study {study_uid} is held already: {study.reason}"
            self._ledger.hold(study_uid, reason)
            return True, f"study {study_uid} is held"

        return self._study("hold", study_uid, by, act)

    def release(self, study_uid: str, *, by: Actor) -> Done:
        """A held study goes on; one that no rule wanted is routed again."""

        def act() -> Come:
            changes = self._ledger.entry(study_uid).state in (StudyState.HELD, StudyState.UNROUTED)
            return changes, self._ledger.release(study_uid)

        return self._study("release", study_uid, by, act)

    def drain(self, worker: str, *, by: Actor, reason: str = "") -> Done:
        """A worker, as ``host/device``, ends what it does and takes nothing more until it is resumed."""

        def act() -> Come:
            if not _WORKER.fullmatch(worker):
                raise NotNow(f"{worker} is no worker; they are called host/device, as ct-node/cpu or ct-node/deliver")
            changed = self._ledger.drain(worker, reason=reason)
            return changed, f"{worker} ends what it does and takes nothing more" if changed else f"{worker} is drained"

        return self._do("drain", worker, by, None, act)

    def resume(self, worker: str, *, by: Actor) -> Done:
        """A drained worker takes work again."""

        def act() -> Come:
            changed = self._ledger.resume(worker)
            return changed, f"{worker} takes work again" if changed else f"{worker} was not drained"

        return self._do("resume", worker, by, None, act)

    def switch(self, pipeline: str, mode: str, *, by: Actor, reason: str = "") -> Done:
        """A pipeline is ``on``, ``off``, or reads in ``shadow``, from now on; ``settings``: as they say."""

        def act() -> Come:
            usual = _known(pipeline, self._pipelines)
            if mode not in MODES:
                raise NotNow(f"{mode!r} is no way to switch {pipeline}; allowed: {', '.join(MODES)}")
            wanted = None if mode in (AS_SET, usual) else Mode(mode)
            changed = self._ledger.switch(pipeline, wanted, usual=usual, reason=reason)
            said = f"{pipeline} {WHAT_IT_IS[wanted or usual]}{', as the settings say' if wanted is None else ''}"
            return changed, said if changed else f"{said}; it was so already"

        return self._do("switch", f"pipeline {pipeline}", by, None, act)

    def _end(self, job_id: int, state: JobState, end: Callable[[int], None]) -> Come:
        if self._ledger.job(job_id).state == state:
            return False, f"job {job_id} is {state.lower()} already"
        end(job_id)
        return True, f"job {job_id} is {state.lower()}"

    def _job(self, action: str, job_id: int, by: Actor, act: Callable[[], Come]) -> Done:
        try:
            study_uid = self._ledger.job(job_id).study_uid
        except Unknown:
            study_uid = None  # the act says so
        return self._do(action, f"job {job_id}", by, study_uid, act)

    def _study(self, action: str, study_uid: str, by: Actor, act: Callable[[], Come]) -> Done:
        return self._do(action, f"study {study_uid}", by, study_uid, act)

    def _do(self, action: str, subject: str, by: Actor, study_uid: str | None, act: Callable[[], Come]) -> Done:
        transfer = self.transfer(study_uid) if study_uid else None

        def said(**outcome: str) -> Event:
            return administered(action, subject, by=by, transfer=transfer, **outcome)

        with self._trail.recording() as record:
            try:
                changed, sentence = act()
            except NodeError as refused:
                record(said(reason=str(refused)))
                raise
            record(said(sentence=sentence))
        return Done(action, subject, changed, sentence)

    def transfer(self, study_uid: str) -> Transfer:
        """A study as the audit trail names it."""
        for instance in self._ledger.instances(study_uid)[:1]:
            try:
                return Transfer(study_uid, head_of(self._path(instance.sha256)).patient_id)
            except (OSError, Refusal):
                break  # it is purged, or was never whole
        return Transfer(study_uid)


def _known(pipeline: str, known: Mapping[str, Mode]) -> Mode:
    if pipeline not in known:
        raise Unknown(f'there is no pipeline "{pipeline[:64]}"; in the settings: {", ".join(known) or "none"}')
    return known[pipeline]
