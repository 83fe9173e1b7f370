"""One job, from claim to evidence in the ledger: claim → child → evidence files → finish → ring for its deliveries.

How it can end:

    the pipeline read it, or said why not           DONE, and its report goes out (also "failed": that is said, too)
    its child took too long or too much memory      DONE, "failed": its report names the limit; FAILED without one
    its child crashed                               QUEUED again, at the third time QUARANTINED
    its files cannot be read                        FAILED
    the pipeline cannot be loaded                   QUEUED, with the reason, until it can
    the disk is full                                QUEUED, until there is room
    the worker is stopped before the end            QUEUED, and the attempt does not count
    another worker has it by now                    nothing is written

It reads no pixels and knows no broker; what it needs of either it is handed.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from node import log
from node.errors import LostClaim, NodeError, Unavailable
from node.ledger import Claim, Job, JobState, Ledger
from node.outcome import NO_ROOM, OUT_OF_MEMORY, complaint, evidence_of, make_names_durable, outcome_of, remove_older
from node.warm import Child, ChildFault, Died, Limits, NotWanted, PipelineFault, StudyFault, TookTooLong, TookTooMuch

LEASE_SECONDS = 30.0
BEAT_SECONDS = 5.0
LOAD_AGAIN_SECONDS = 60.0
NO_ROOM_SECONDS = 60.0
RESERVE_BYTES = 256 << 20  # for the ledger, which must go on when evidence no longer can
_LEDGER_SECONDS = 120.0  # how long a result waits for a ledger that does not answer

REPORT = "1.2.840.10008.5.1.4.1.1.88.34"  # Comprehensive 3D SR Storage
_events = log.get("analysis")


class Stopping(NodeError):
    """The worker is to end, and the job has had the time that it may still take."""


@dataclass(frozen=True)
class Rules:
    """What holds for every job of this worker.

    Attributes:
        evidence: The folder that evidence lies under: ``<job key>/<attempt>/<pipeline>/…``.
        drain_seconds: How long a job that runs may go on after the worker was told to stop.
    """

    evidence: Path
    owner: str
    time_limit_seconds: float = 600.0
    lease_seconds: float = LEASE_SECONDS
    drain_seconds: float = 20.0
    reserve_bytes: int = RESERVE_BYTES


class Analysis:
    """Does jobs one after the other, in one lasting child. To be called from one thread.

    Args:
        path: Where the instance with a SHA-256 lies.
        finished: Told the deliveries, and their priority, of each job that is done.
        again: Told a job, and its priority, that is to be tried again at once.
    """

    def __init__(
        self,
        ledger: Ledger,
        limits: Limits,
        rules: Rules,
        *,
        path: Callable[[str], Path],
        finished: Callable[[int, int], object],
        again: Callable[[int, int], object],
        stop: threading.Event,
    ) -> None:
        self._ledger = ledger
        self._child = Child(limits)
        self._rules = rules
        self._path = path
        self._finished = finished
        self._again = again
        self._stop = stop
        self._disabled: dict[str, tuple[str, float]] = {}  # pipelines that cannot be loaded: why, and when to retry

    def warm(self, uses: Sequence[str]) -> None:
        """Load the pipelines now; one that cannot be loaded is said, and its jobs wait."""
        for use in uses:
            if self._stop.is_set():
                return
            begun = time.monotonic()
            if self._is_well(use):
                _events.info("warm", pipeline=use, seconds=round(time.monotonic() - begun, 3))

    def close(self) -> None:
        self._child.close()

    def __call__(self, job_id: int) -> None:
        """Do the job, if it is to be had."""
        try:
            job = self._ledger.job(job_id)
        except Unavailable:
            raise
        except NodeError as unknown:
            _events.warning("a bell rang for nothing", job=job_id, reason=str(unknown))
            return
        if job.state not in (JobState.QUEUED, JobState.RUNNING) or not self._has_room():
            return
        is_well = self._is_well(job.use)
        if not is_well and job.reason == self._disabled[job.use][0]:
            return  # said already
        claim = self._ledger.claim(job_id, owner=self._rules.owner, lease_seconds=self._rules.lease_seconds)
        if claim is None:
            return
        try:
            if is_well:
                self._do(claim)
            else:
                self._put_off(claim, self._disabled[job.use][0], LOAD_AGAIN_SECONDS)
        except LostClaim as lost:
            _events.warning("the result is dropped", job=job_id, reason=str(lost))

    def _do(self, claim: Claim) -> None:
        job = claim.job
        begun = time.monotonic()
        _events.info("claimed", job=job.id, study=job.study_uid, pipeline=job.pipeline, attempt=claim.attempt)
        folder = self._rules.evidence / job.key / str(claim.attempt)
        try:
            reply = self._answer(claim, folder)
            self._finish(claim, folder, reply)
        except PipelineFault as fault:
            self._disable(job.use, str(fault))
            self._put_off(claim, str(fault), LOAD_AGAIN_SECONDS)
        except (StudyFault, TookTooLong, TookTooMuch) as fault:
            self._end(claim, f"{job.pipeline} could not read the study: {fault}")
        except NotWanted as fault:
            _events.warning("the work is stopped", job=job.id, reason=str(fault))
        except Stopping as stopping:
            self._ledger.give_back(claim)
            _events.info("given back", job=job.id, reason=str(stopping))
        except ChildFault as fault:
            self._try_again(claim, f"{job.pipeline} was lost while it read the study: {fault}")
        except _NoRoom as fault:
            self._put_off(claim, str(fault), NO_ROOM_SECONDS)
        else:
            with contextlib.suppress(Unavailable):  # what is left takes room and does no harm
                remove_older(folder, self._rules.evidence, self._ledger.evidence(job.key))
            _events.info("done", job=job.id, study=job.study_uid, seconds=round(time.monotonic() - begun, 3))
            return
        shutil.rmtree(folder, ignore_errors=True)  # it has not become evidence

    def _answer(self, claim: Claim, folder: Path) -> dict[str, Any]:
        """The reading; or, where it exceeds a limit, a report that says so: silence would look like no finding."""
        ask = self._question(claim, folder)
        try:
            return self._read(claim, ask)
        except (TookTooLong, TookTooMuch) as fault:
            shutil.rmtree(folder, ignore_errors=True)
            reason = f"{claim.job.pipeline} could not read the study: {fault}"
            _events.error("failed", job=claim.job.id, study=claim.job.study_uid, reason=reason)
            try:  # the child is a fresh one, for the other was killed
                seconds = self._rules.time_limit_seconds
                return self._child.report(ask | {"reason": reason}, seconds=seconds, wanted=_Wanted(self, claim))
            except (PipelineFault, StudyFault, Died, TookTooLong, TookTooMuch) as mute:
                _events.warning("no report says that the reading failed", job=claim.job.id, reason=str(mute))
                raise fault from None

    def _question(self, claim: Claim, folder: Path) -> dict[str, Any]:
        job = claim.job
        return {
            "use": job.use,
            "name": job.pipeline,
            "study": job.study_uid,
            "files": [str(self._path(sha256)) for sha256 in claim.files],
            "out": str(folder),
            "job": job.key,
            "preset": job.preset,
            "predecessor": self._report_before(job),
        }

    def _read(self, claim: Claim, ask: dict[str, Any]) -> dict[str, Any]:
        job = claim.job
        reply = self._ask(self._child, claim, ask)
        if complaint(reply, OUT_OF_MEMORY) and self._child.limits.device != "cpu":
            _events.warning("no room on the GPU: once more on the CPU", job=job.id, device=self._child.limits.device)
            self._child.close()  # what a failed allocation leaves of the GPU's memory is in pieces
            slow = Child(replace(self._child.limits, device="cpu"))
            try:
                reply = self._ask(slow, claim, ask)
            finally:
                slow.close()
        if why := complaint(reply, NO_ROOM):
            raise _NoRoom(f"the evidence of {job.pipeline} could not be written: {why}")
        if why := complaint(reply, OUT_OF_MEMORY):
            self._child.close()
            limit = self._child.limits.memory_bytes / 2**30
            raise TookTooMuch(f"it needs more memory than the limit of {limit:.3g} GiB ({why})")
        return reply

    def _report_before(self, job: Job) -> tuple[str, str] | None:
        """SOP and Series Instance UID of the report that this job's will follow."""
        made = self._ledger.evidence(job.predecessor_key) if job.predecessor_key else ()
        return next(((one.sop_uid, one.series_uid) for one in made if one.sop_class == REPORT), None)

    def _ask(self, child: Child, claim: Claim, ask: dict[str, Any]) -> dict[str, Any]:
        return child.read(ask, seconds=self._rules.time_limit_seconds, wanted=_Wanted(self, claim))

    def _finish(self, claim: Claim, folder: Path, reply: dict[str, Any]) -> None:
        runs = reply["runs"]
        outcome, reason = outcome_of(runs)
        if reply["refused"]:
            _events.warning("files were left out", job=claim.job.id, count=len(reply["refused"]))
            reason = "; ".join(filter(None, (reason, f"left out of the study: {'; '.join(reply['refused'][:3])}")))
        objects = [Path(path) for run in runs for path in run["objects"]]
        if outcome == "failed" and not objects:
            self._end(claim, reason or "the pipeline failed, and no report could be written")
            return
        evidence = [evidence_of(path, self._rules.evidence) for path in objects]
        make_names_durable(folder, self._rules.evidence)
        stages: dict[str, float] = {}
        for run in runs:
            for stage, seconds in run["stages"].items():
                stages[stage] = stages.get(stage, 0.0) + seconds
        ids = self._persist(
            lambda: self._ledger.finish(
                claim, outcome=outcome, reason=reason, runs_json=json.dumps(runs), evidence=evidence, stages=stages
            )
        )
        for delivery_id in ids:
            self._finished(delivery_id, claim.job.priority)

    def _persist(self, write: Callable[[], list[int]]) -> list[int]:
        """The GPU's work is not thrown away because the ledger is away for a minute."""
        until = time.monotonic() + _LEDGER_SECONDS
        while True:
            try:
                return write()
            except Unavailable:
                if time.monotonic() > until or self._stop.is_set():
                    raise
                time.sleep(1.0)

    def _try_again(self, claim: Claim, reason: str) -> None:
        """At once; a study that takes its reader along three times is quarantined."""
        state = self._ledger.fail(claim, reason=reason, retry_at=time.time())
        _events.warning("not done", job=claim.job.id, attempt=claim.attempt, state=state, reason=reason)
        if state == JobState.QUEUED:
            self._again(claim.job.id, claim.job.priority)

    def _put_off(self, claim: Claim, reason: str, seconds: float) -> None:
        """Until something is mended that is no fault of the job, however often it takes."""
        state = self._ledger.fail(claim, reason=reason, retry_at=time.time() + seconds, counts=False)
        _events.warning("not done", job=claim.job.id, attempt=claim.attempt, state=state, reason=reason)

    def _end(self, claim: Claim, reason: str) -> None:
        self._ledger.fail(claim, reason=reason, retry_at=None)
        _events.error("failed", job=claim.job.id, study=claim.job.study_uid, reason=reason)

    def _is_well(self, use: str) -> bool:
        """Whether the pipeline is loaded or can be; one that could not is tried again every minute."""
        if use in self._disabled and time.monotonic() < self._disabled[use][1]:
            return False
        try:
            self._child.load(use)
        except PipelineFault as fault:
            self._disable(use, str(fault))
            return False
        if self._disabled.pop(use, None):
            _events.info("the pipeline can be loaded again", pipeline=use)
        return True

    def _disable(self, use: str, reason: str) -> None:
        if use not in self._disabled:
            _events.error("a pipeline is disabled; its jobs wait", pipeline=use, reason=reason)
        self._disabled[use] = (reason, time.monotonic() + LOAD_AGAIN_SECONDS)

    def _has_room(self) -> bool:
        self._rules.evidence.mkdir(parents=True, exist_ok=True, mode=0o700)
        if shutil.disk_usage(self._rules.evidence).free >= self._rules.reserve_bytes:
            return True
        _events.error("no room for evidence; the jobs wait", path=str(self._rules.evidence))
        return False

    def beat(self, claim: Claim) -> bool:
        try:
            return self._ledger.heartbeat(claim.job.id, claim.owner, claim.attempt, self._rules.lease_seconds)
        except Unavailable:
            return True  # the claim is fenced: if it is lost by then, the result is dropped

    def check_not_stopping(self, stopped_at: float | None) -> float | None:
        """When the worker was told to stop; raises once the job's time after that is over."""
        if not self._stop.is_set():
            return None
        since = stopped_at or time.monotonic()
        if time.monotonic() - since > self._rules.drain_seconds:
            raise Stopping("the worker is stopped")
        return since


class _NoRoom(NodeError):
    """The disk is full."""


class _Wanted:
    """Asked several times a second while the child works; keeps the lease alive meanwhile."""

    def __init__(self, analysis: Analysis, claim: Claim) -> None:
        self._analysis = analysis
        self._claim = claim
        self._next_beat = time.monotonic() + BEAT_SECONDS
        self._stopped_at: float | None = None

    def __call__(self) -> bool:
        self._stopped_at = self._analysis.check_not_stopping(self._stopped_at)
        if time.monotonic() < self._next_beat:
            return True
        self._next_beat = time.monotonic() + BEAT_SECONDS
        return self._analysis.beat(self._claim)
