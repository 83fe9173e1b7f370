"""The clock: settles the studies whose time has come, and rings again whatever the ledger holds and the queue forgot.

Any number of clocks may run, on any number of machines: a study settles once, a job rung twice is claimed once. It
reads headers, one per series, and neither pixels nor evidence.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydicom.dataset import Dataset

from node import log, routing, urgency
from node.counts import Counts, Pending
from node.errors import NodeError, Unavailable
from node.ledger import Instance, Ledger, Mode, NewJob, StudyEntry
from node.reader import AWAY_SECONDS, Away
from node.routing import Route
from node.tasks import ANALYZE, DELIVER
from node.urgency import Urgency, Urgent
from pipelines.instance import Unreadable, open_header
from pipelines.passing import may_pass

SETTLE_SECONDS = 0.25
RING_SECONDS = 5.0
FIRST_PATIENCE, LONGEST_PATIENCE = 10.0, 60.0  # until what was rung and not taken is rung again
FULL = 1000  # bells of one priority that nobody has heard: more of them would only fill the broker
_TRIES_PER_SERIES = 3

_events = log.get("clock")


class Bell(Protocol):
    def ring_job(self, job_id: int, priority: int) -> bool: ...
    def ring_delivery(self, delivery_id: int, priority: int) -> bool: ...
    def waiting(self, queue: str) -> dict[int, int] | None: ...


class Clock:
    """Settles and rings, each when it is time.

    Args:
        path: Where the instance with a SHA-256 lies.
        counts: Which PACS to ask whether a study is whole, and what it says.
        rules: They make a study more urgent than its pipelines are.
        away_seconds: So long a study waits for headers that cannot be read now; then it settles without them.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        path: Callable[[str], Path],
        routes: Mapping[str, Route],
        bell: Bell,
        counts: Counts | None = None,
        rules: Mapping[str, Urgency] | None = None,
        away_seconds: float = AWAY_SECONDS,
    ) -> None:
        self._ledger = ledger
        self._away_seconds = away_seconds
        self._counts = counts or Counts({})
        self._path = path
        self._routes = routes
        self._urgency = rules or {}
        self._bell = bell
        self._jobs = Ringing(bell, ANALYZE, bell.ring_job)
        self._deliveries = Ringing(bell, DELIVER, bell.ring_delivery)
        self._failing: dict[str, float] = {}  # studies whose settling failed, and when to try again

    def run(self, stop: threading.Event) -> None:
        next_ring = 0.0
        is_well = True
        while not stop.is_set():
            try:
                self.settle()
                if time.monotonic() >= next_ring:
                    next_ring = time.monotonic() + RING_SECONDS
                    self.ring()
                is_well = True
            except Unavailable as error:
                if is_well:
                    _events.error("the ledger does not answer; nothing settles until it does", reason=str(error))
                is_well = False
            stop.wait(SETTLE_SECONDS)

    def settle(self) -> None:
        """Settle what is due, the longest waiting first, and ring for its jobs."""
        now = time.monotonic()
        for study_uid in self._ledger.due():
            if self._failing.get(study_uid, 0.0) > now:
                continue
            try:
                self._settle(study_uid)
                self._failing.pop(study_uid, None)
            except Unavailable:
                raise
            except Away as away:
                self._failing[study_uid] = now + FIRST_PATIENCE
                self._ledger.waits(study_uid, str(away))
                _events.error("a study cannot be read now; it waits", study=study_uid, reason=str(away))
            except Exception as error:  # one study must not stop the clock for the others
                self._failing[study_uid] = now + FIRST_PATIENCE
                reason = f"{type(error).__name__}: {error}" if isinstance(error, NodeError) else type(error).__name__
                _events.error("a study cannot be settled", study=study_uid, reason=reason)

    def ring(self) -> None:
        """Ring for what is ready and was not rung, or was rung and not taken."""
        self._jobs.ring(self._ledger.ready())
        self._deliveries.ring(self._ledger.ready_deliveries())

    def _settle(self, study_uid: str) -> None:
        study = self._ledger.entry(study_uid)
        if self._is_short(study):
            return
        instances = self._ledger.instances(study_uid)
        due = max(study.last_arrival, min(study.settle_at, study.settle_by))
        is_patient = self._ledger.now() - due < self._away_seconds
        headers, faults = self._headers(instances, is_patient=is_patient)
        modes = {name: switched.mode for name, switched in self._ledger.switched().items()}
        matches = routing.route(headers, self._routes, modes)
        urgent = urgency.urgent(headers, self._urgency)
        wanted = [
            _new_job(self._routes[match.pipeline], match.why, urgent, modes.get(match.pipeline))
            for match in matches
            if match.matched
        ]
        # Why each rule failed may quote the study: `wetread doctor --file` shows it, ledger and log do not.
        why = _unwanted(matches) if headers else _mute(len(instances), faults)
        jobs = self._ledger.settle(study_uid, wanted, seen=len(instances), reason=why)
        for job in jobs:
            self._jobs.ring_now(job.id, job.priority)
            _events.info("queued", study=study_uid, job=job.id, pipeline=job.pipeline, priority=job.priority)
        if not wanted:
            say = _events.info if headers else _events.error
            say("unrouted", study=study_uid, count=len(instances), reason=why)

    def _is_short(self, study: StudyEntry) -> bool:
        """Whether the PACS has more of the study than has come; or has yet to say so.

        Only more is evidence: a PACS that is being filled itself has less, or for a moment as much. Its count holds our
        own evidence, too, once that was delivered.
        """
        if study.settle_by <= self._ledger.now():
            return False  # the longest wait is over
        try:
            told = self._counts.of(study.uid, study.caller)
        except Pending:
            return True
        if told is None:
            return False
        expected = told - self._ledger.evidence_elsewhere(study.uid)
        if expected <= study.arrived:
            return False
        self._ledger.expect(study.uid, expected)
        _events.info("waits for what the PACS has", study=study.uid, count=study.arrived, wanted=expected)
        return True

    def _headers(self, instances: Sequence[Instance], *, is_patient: bool) -> tuple[list[Dataset], list[str]]:
        """One header per series that can be read, and why the others cannot.

        Raises:
            Away: If none of a series can be read for a reason that may pass, and the study waits for that.
        """
        by_series: dict[str, list[Instance]] = {}
        for instance in instances:
            by_series.setdefault(instance.series_uid, []).append(instance)
        headers: list[Dataset] = []
        faults: list[str] = []
        for series_uid, of_series in by_series.items():
            away: Unreadable | None = None
            for instance in of_series[:_TRIES_PER_SERIES]:
                try:
                    headers.append(open_header(self._path(instance.sha256)))  # cut-off pixels are the job's to report
                    break
                except Unreadable as error:
                    away = error if may_pass(str(error)) else away
                    faults.append(str(error))
                    _events.warning("a header cannot be read", series=series_uid, sop=instance.sop_uid)
            else:
                if away is not None and is_patient:
                    raise Away(f"series {series_uid} cannot be read now: {away}")
        return headers, faults


def _unwanted(matches: Sequence[routing.Match]) -> str:
    off = ", ".join(match.pipeline for match in matches if match.why == routing.OFF)
    return f"none of the {len(matches)} rules wants it" + (f"; switched off: {off}" if off else "")


def _mute(count: int, faults: Sequence[str]) -> str:
    """Why nothing at all comes of a study: a rule needs a header, and so does a report."""
    said = "; ".join(dict.fromkeys(faults))
    return f"no header of its {count} instances can be read, so no pipeline and no report is possible: {said}"


def _new_job(route: Route, why: str, urgent: Urgent | None, mode: Mode | None) -> NewJob:
    is_raised = urgent is not None and urgent.priority < route.priority
    return NewJob(
        pipeline=route.name,
        use=route.use,
        priority=urgent.priority if urgent and is_raised else route.priority,
        destinations=tuple(route.deliver_to),
        reason=f"{why}; {urgent.why}" if urgent and is_raised else why,
        shadow=mode == Mode.SHADOW,
    )


@dataclass
class _Rung:
    next: float  # of time.monotonic
    patience: float
    priority: int


class Ringing:
    """What was rung of one queue, and when it is to be rung again.

    At once if the queue is empty, for then the broker was flushed or has lost it; else after 10 s, 20 s, 40 s, 60 s:
    what waits behind a thousand others is not lost, and bells cost memory.
    """

    def __init__(self, bell: Bell, queue: str, ring: Callable[[int, int], bool]) -> None:
        self._bell = bell
        self._queue = queue
        self._ring = ring
        self._rung: dict[int, _Rung] = {}

    def ring_now(self, number: int, priority: int) -> None:
        if self._ring(number, priority):
            self._rung[number] = _Rung(time.monotonic() + FIRST_PATIENCE, FIRST_PATIENCE, priority)

    def ring(self, ready: Sequence[tuple[int, int]]) -> None:
        """Ring for those of ``ready``, as (number, priority), that need it."""
        self._rung = {number: self._rung[number] for number, _ in ready if number in self._rung}
        if not ready:
            return
        waiting = self._bell.waiting(self._queue)
        if waiting is None:
            return
        is_empty = not any(waiting.values())
        now = time.monotonic()
        for number, priority in ready:
            rung = self._rung.get(number)
            is_moved_up = rung is not None and priority < rung.priority  # somebody has made it more urgent
            if rung is not None and rung.next > now and not is_empty and not is_moved_up:
                continue
            if waiting[priority] >= FULL:
                continue
            if not self._ring(number, priority):
                return
            waiting[priority] += 1
            patience = FIRST_PATIENCE if rung is None else min(rung.patience * 2, LONGEST_PATIENCE)
            self._rung[number] = _Rung(now + patience, patience, priority)
