"""One job, from claim to evidence in the ledger: claim → child → evidence files → finish → ring for its deliveries.

How it can end:

    the pipeline read it, or said why not           DONE, and its report goes out (also "failed": that is said, too)
    its child took too long or too much memory      DONE, "failed": its report names the limit; FAILED without one
    its child crashed, or took the worker along     QUEUED again, at the third time QUARANTINED: its report says so
    none of its files can be read                   DONE, "failed", where a header says whose it is; FAILED without one
    the pipeline cannot be loaded                   QUEUED, with the reason, until it can
    the disk is full                                QUEUED, until there is room
    its files cannot be read now                    QUEUED, until they can; after hours as where none can be read
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
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node import log
from node.audit import Act, Actor, Audited, accessed, unrecorded
from node.errors import LostClaim, NodeError, Unavailable
from node.holding import Holding, Stopping
from node.ledger import MAX_ATTEMPTS, Claim, Job, JobState, Ledger
from node.outcome import device_of, evidence_of, make_names_durable, outcome_of, remove_older, stages_of
from node.questions import Questions
from node.reader import AWAY_SECONDS, LOAD_AGAIN_SECONDS, Away, NoRoom, Reader
from node.triage.rules import Rule, raised
from node.warm import ChildFault, Died, Limits, NotWanted, PipelineFault, StudyFault, TookTooLong, TookTooMuch
from pipelines.forms import Form

LEASE_SECONDS = 30.0
NO_ROOM_SECONDS = 60.0
RESERVE_BYTES = 256 << 20  # for the ledger, which must go on when evidence no longer can
_CHOICES = 3  # how often to choose anew where another device has taken what was chosen
_LEDGER_SECONDS = 120.0  # how long a result waits for a ledger that does not answer

_events = log.get("analysis")


class OnceOnly(NodeError):
    """Evidence that was made cannot be made in other forms, too: it would not say the same."""


@dataclass(frozen=True)
class Rules:
    """What holds for every job of this worker.

    Attributes:
        evidence: The folder that evidence lies under: ``<job key>/<attempt>/<pipeline>/…``.
        forms: What each destination takes.
        drain_seconds: How long a job that runs may go on after the worker was told to stop.
        away_seconds: How long a job waits for images that cannot be read now; then it fails.
        triage: What makes a study more urgent once it is read.
    """

    evidence: Path
    owner: str
    time_limit_seconds: float = 600.0
    lease_seconds: float = LEASE_SECONDS
    drain_seconds: float = 20.0
    away_seconds: float = AWAY_SECONDS
    forms: Mapping[str, frozenset[Form]] = field(default_factory=dict)
    reserve_bytes: int = RESERVE_BYTES
    triage: tuple[Rule, ...] = ()


class Analysis:
    """Does jobs one after the other, in one lasting child. To be called from one thread.

    Args:
        path: Where the instance with a SHA-256 lies.
        finished: Told the deliveries, and their priority, of each job that is done.
        again: Told a job, and its priority, that is to be tried again at once.
        turn: Says which job is to be done, given the ``use`` of pipelines to pass over; by default the one rung for.
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
        turn: Callable[[Collection[str]], int | None] | None = None,
        audited: Audited = unrecorded,
    ) -> None:
        self._audited = audited
        self._ledger = ledger
        self._turn = turn
        self._reader = Reader(limits, seconds=rules.time_limit_seconds)
        self._rules = rules
        self._asks = Questions(ledger, path=path, forms=rules.forms)
        self._finished = finished
        self._again = again
        self._stop = stop

    def warm(self, uses: Sequence[str]) -> None:
        """Load the pipelines now; one that cannot be loaded is said, and its jobs wait."""
        for use in uses:
            if not self._stop.is_set():
                self._reader.warm(use)

    def close(self) -> None:
        self._reader.close()

    def __call__(self, job_id: int) -> None:
        """Do the job, or the one whose turn it is, if it is to be had."""
        try:
            job = self._ledger.job(job_id)
        except Unavailable:
            raise
        except NodeError as unknown:
            _events.warning("a bell rang for nothing", job=job_id, reason=str(unknown))
            return
        if not self._has_room():
            return
        if self._turn is None or job.use in self._reader.disabled:
            self._attempt(job)  # which says why it waits, where its pipeline cannot be loaded
        if self._turn is None:
            return
        for _ in range(_CHOICES):  # another device may be quicker
            chosen = self._turn(self._reader.disabled)
            if chosen is None or self._attempt(self._ledger.job(chosen)):
                return

    def _attempt(self, job: Job) -> bool:
        """Do the job; False where it is not to be had, or is put off for want of its pipeline."""
        if job.state not in (JobState.QUEUED, JobState.RUNNING):
            return False
        is_well = self._reader.is_well(job.use)
        if not is_well and job.reason == self._reader.why_not(job.use):
            return False  # said already
        claim = self._ledger.claim(job.id, owner=self._rules.owner, lease_seconds=self._rules.lease_seconds)
        if claim is None:
            return False
        try:
            if is_well:
                self._do(claim)
            else:
                self._put_off(claim, self._reader.why_not(job.use), LOAD_AGAIN_SECONDS)
        except LostClaim as lost:
            _events.warning("the result is dropped", job=job.id, reason=str(lost))
        return is_well

    def _do(self, claim: Claim) -> None:
        job = claim.job
        begun = time.monotonic()
        _events.info("claimed", job=job.id, study=job.study_uid, pipeline=job.pipeline, attempt=claim.attempt)
        folder = self._rules.evidence / job.key / str(claim.attempt)
        self._audited(accessed(self._asks.transfer(claim), Act.READ, by=Actor(job.pipeline, way="pipeline")))
        try:
            self._check_model(job)
            reply, state = self._answer(claim, folder)
            self._finish(claim, folder, reply, state)
        except PipelineFault as fault:
            self._reader.disable(job.use, str(fault))
            self._put_off(claim, str(fault), LOAD_AGAIN_SECONDS)
        except (StudyFault, TookTooLong, TookTooMuch) as fault:
            self._end(claim, f"{job.pipeline} could not read the study: {fault}")
        except OnceOnly as fault:
            self._end(claim, f"the evidence is not made in other forms, too: {fault}")
        except NotWanted as fault:
            _events.warning("the work is stopped", job=job.id, reason=str(fault))
        except Stopping as stopping:
            self._ledger.give_back(claim)
            _events.info("given back", job=job.id, reason=str(stopping))
        except ChildFault as fault:
            self._try_again(claim, f"{job.pipeline} was lost while it read the study: {fault}")
        except (NoRoom, Away) as fault:
            self._put_off(claim, str(fault), NO_ROOM_SECONDS, away=isinstance(fault, Away))
        else:
            with contextlib.suppress(Unavailable):  # what is left takes room and does no harm
                remove_older(folder, self._rules.evidence, self._ledger.evidence(job.key))
            _events.info("done", job=job.id, study=job.study_uid, seconds=round(time.monotonic() - begun, 3))
            return
        shutil.rmtree(folder, ignore_errors=True)  # it has not become evidence

    def _check_model(self, job: Job) -> None:
        """What was read is read once more, for evidence in other forms, by the same weights alone."""
        made = self._ledger.evidence(job.key) if job.outcome == "read" else ()
        if made and device_of(self._rules.evidence / made[-1].path) != self._reader.device(job.use):
            raise OnceOnly(f"other weights of {job.pipeline} read now than read the study")

    def _answer(self, claim: Claim, folder: Path) -> tuple[dict[str, Any], JobState]:
        """The reading, and what the job is then; or a report that there is none: silence would look like no finding.

        A report it is where the reading exceeds a limit, or has taken its reader along for the last time.
        """
        ask, wanted = self._question(claim, folder), self._holding(claim)
        try:
            if claim.is_spent:
                raise Died("the worker died or was not heard of any more")
            return self._reader.read(ask, wanted), JobState.DONE
        except Died as crash:
            if not claim.is_last:
                raise
            said = f"{claim.job.pipeline} was lost {MAX_ATTEMPTS} times while it read the study: {crash}"
            return self._report(claim, folder, said, crash), JobState.QUARANTINED
        except (TookTooLong, TookTooMuch) as limit:
            said = f"{claim.job.pipeline} could not read the study: {limit}"
            return self._report(claim, folder, said, limit), JobState.DONE
        except Away as away:
            since = claim.job.away_since
            if since is None or self._ledger.now() - since < self._rules.away_seconds:
                raise
            lasting = StudyFault(f"{away}; it has waited {self._rules.away_seconds / 60:.0f} minutes for that to pass")
            said = f"{claim.job.pipeline} could not read the study: {lasting}"
            return self._report(claim, folder, said, lasting), JobState.DONE

    def _report(self, claim: Claim, folder: Path, reason: str, fault: ChildFault | StudyFault) -> dict[str, Any]:
        """A report with the reason; raises the ``fault``, and why no report says so, where it cannot be written."""
        shutil.rmtree(folder, ignore_errors=True)
        _events.error("failed", job=claim.job.id, study=claim.job.study_uid, reason=reason)
        try:
            return self._reader.report(self._question(claim, folder), reason, self._holding(claim))
        except (StudyFault, Died, TookTooLong, TookTooMuch) as mute:
            raise type(fault)(f"{fault}; and no report says so: {mute}") from mute

    def _question(self, claim: Claim, folder: Path) -> dict[str, Any]:
        return self._asks.question(claim, folder, compares=self._reader.compares(claim.job.use))

    def _holding(self, claim: Claim) -> Holding:
        rules = self._rules
        return Holding(self._ledger, claim, self._stop, rules.lease_seconds, rules.drain_seconds)

    def _finish(self, claim: Claim, folder: Path, reply: dict[str, Any], state: JobState) -> None:
        runs = reply["runs"]
        outcome, reason = outcome_of(runs)
        if claim.job.outcome == "read" and outcome != "read":
            raise OnceOnly(f"the study was read before, and now it is {outcome}: {reason}")
        if reply["refused"]:
            _events.warning("files were left out", job=claim.job.id, count=len(reply["refused"]))
            reason = "; ".join(filter(None, (reason, f"left out of the study: {'; '.join(reply['refused'][:3])}")))
        objects = {Path(path): form for run in runs for path, form in zip(run["objects"], run["forms"], strict=True)}
        if outcome == "failed" and not objects:
            self._end(claim, reason or "the pipeline failed, and no report could be written")
            return
        evidence = [evidence_of(path, form, self._rules.evidence) for path, form in objects.items()]
        make_names_durable(folder, self._rules.evidence)
        found = raised(self._rules.triage, claim.job.pipeline, runs)
        ids = self._persist(
            lambda: self._ledger.finish(
                claim,
                outcome=outcome,
                state=state,
                reason=reason,
                runs_json=json.dumps(runs),
                evidence=evidence,
                forms=self._asks.forms(claim.job),
                stages=stages_of(runs),
                notify=found.notify if found else (),
                priority=found.priority if found else None,
                why=found.why if found else "",
            )
        )
        priority = min(claim.job.priority, found.priority) if found else claim.job.priority
        for delivery_id in ids:
            self._finished(delivery_id, priority)

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
        state = self._ledger.fail(claim, reason=reason, retry_at=self._ledger.now())
        _events.warning("not done", job=claim.job.id, attempt=claim.attempt, state=state, reason=reason)
        if state == JobState.QUEUED:
            self._again(claim.job.id, claim.job.priority)

    def _put_off(self, claim: Claim, reason: str, seconds: float, *, away: bool = False) -> None:
        """Until something is mended that is no fault of the job, however often it takes."""
        state = self._ledger.fail(claim, reason=reason, retry_at=self._ledger.now() + seconds, counts=False, away=away)
        _events.warning("not done", job=claim.job.id, attempt=claim.attempt, state=state, reason=reason)

    def _end(self, claim: Claim, reason: str) -> None:
        self._ledger.fail(claim, reason=reason, retry_at=None)
        _events.error("failed", job=claim.job.id, study=claim.job.study_uid, reason=reason)

    def _has_room(self) -> bool:
        self._rules.evidence.mkdir(parents=True, exist_ok=True, mode=0o700)
        if shutil.disk_usage(self._rules.evidence).free >= self._rules.reserve_bytes:
            return True
        _events.error("no room for evidence; the jobs wait", path=str(self._rules.evidence))
        return False
