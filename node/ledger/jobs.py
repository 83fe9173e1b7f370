"""Jobs: who may do which, and how it ended.

A claim is one atomic UPDATE that counts the attempt before the work begins, so that a study that kills its worker is
counted too. Owner and attempt together are a fencing token: whoever lost the claim cannot write a result.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, case, exists, insert, or_, select, update

from node.errors import LostClaim, Unknown
from node.ledger.chapter import Chapter, ended, evidence_of, is_held, job_of, locked_job, members, send_to
from node.ledger.entries import MAX_ATTEMPTS, Claim, Evidence, Job
from node.ledger.settling import last_done_key
from node.ledger.states import DeliveryState, JobState
from node.ledger.tables import deliveries, evidence, jobs, revisions, studies

REPORT_ATTEMPTS = 2  # to say in a report that the job took its worker along too often
REPLACED = "a newer revision of the study settled first"
OLDER = jobs.alias("older")
SPENT = f"tried {MAX_ATTEMPTS} times, and the worker died or failed each time, and also while a report was written"
COUNTED = jobs.c.attempts - jobs.c.forgiven
MOST_ATTEMPTS = MAX_ATTEMPTS + REPORT_ATTEMPTS


class Jobs(Chapter):
    def ready(self, now: float | None = None, *, limit: int = 1000) -> list[tuple[int, int]]:
        """(job id, priority) of what can be claimed: the most urgent first, then the oldest."""
        moment = self._now(now)
        columns = select(jobs.c.id, jobs.c.priority, jobs.c.queued_at).where(unhindered(moment))
        queued = columns.where(jobs.c.state == JobState.QUEUED, jobs.c.not_before <= moment)
        deserted = columns.where(jobs.c.state == JobState.RUNNING, jobs.c.lease_until <= moment)
        order = (jobs.c.priority, jobs.c.queued_at, jobs.c.id)
        with self._database.reading() as db:  # two queries, for each has an index to go along
            rows = [row for query in (queued, deserted) for row in db.execute(query.order_by(*order).limit(limit))]
        rows.sort(key=lambda row: (row.priority, row.queued_at, row.id))
        return [(row.id, row.priority) for row in rows[:limit]]

    def claim(self, job_id: int, *, owner: str, lease_seconds: float, now: float | None = None) -> Claim | None:
        """The right to do the job, or None: it is not to be had, or has just been put into quarantine."""
        moment = self._now(now)
        which = and_(jobs.c.id == job_id, _claimable(moment))
        with self._database.reading() as db:  # most bells ring for what is taken: those need not wait for a writer
            if db.execute(select(jobs.c.id).where(which)).one_or_none() is None:
                return None
        with self._database.writing() as db:
            db.execute(ended(and_(which, COUNTED >= MOST_ATTEMPTS), JobState.QUARANTINED, moment, SPENT))
            # A run that was lost is not worth repeating once a newer revision has settled.
            db.execute(ended(and_(which, _is_replaced()), JobState.SUPERSEDED, moment, REPLACED))
            row = db.execute(
                update(jobs)
                .where(which)
                .values(
                    state=JobState.RUNNING,
                    attempts=jobs.c.attempts + 1,
                    owner=owner,
                    lease_until=moment + lease_seconds,
                    claimed_at=moment,
                )
                .returning(jobs)
            ).one_or_none()
            if row is None:
                return None
            # An older revision's worker that has gone silent must not come back with a result after this one's.
            older = and_(
                jobs.c.study_uid == row.study_uid, jobs.c.pipeline == row.pipeline, jobs.c.revision < row.revision
            )
            silent = and_(older, jobs.c.state == JobState.RUNNING)
            db.execute(ended(silent, JobState.SUPERSEDED, moment, REPLACED))
            return _claimed(db, row, owner)

    def heartbeat(self, job_id: int, owner: str, attempt: int, lease_seconds: float, now: float | None = None) -> bool:
        """Prolong the lease; False when the claim is lost or the job cancelled: stop the work."""
        until = self._now(now) + lease_seconds
        with self._database.writing() as db:
            longer = update(jobs).where(_mine(job_id, owner, attempt))
            return db.execute(longer.values(lease_until=until)).rowcount == 1

    def finish(
        self,
        claim: Claim,
        *,
        outcome: str,
        state: JobState = JobState.DONE,
        reason: str | None = None,
        runs_json: str = "[]",
        evidence: Sequence[Evidence] = (),
        forms: Sequence[str] = (),
        stages: Mapping[str, float] | None = None,
        notify: Collection[str] = (),
        priority: int | None = None,
        why: str = "",
        now: float | None = None,
    ) -> list[int]:
        """The job is done; its evidence waits for each destination. Returns the ids of the deliveries.

        Args:
            forms: That the evidence was made in, also those that it has nothing to say in.
            notify: Who is told of it besides.
            priority: More urgent than before, for what was found; ``why`` says what.
            state: QUARANTINED where the evidence is a report that the job took its worker along too often.

        Raises:
            LostClaim: If the job is no longer this worker's; nothing is written.
        """
        json.loads(runs_json)  # what is kept can be read again
        moment = self._now(now)
        values = {
            "outcome": outcome,
            "reason": reason,
            "runs": runs_json,
            "stages": dict(stages or {}),
            "forms": list(forms),
        }
        with self._database.writing() as db:
            job = _close(db, claim, {"state": state, "done_at": moment, "away_since": None} | values)
            if not job.shadow and (raised := _raised(claim, priority, why)):
                db.execute(update(jobs).where(jobs.c.id == job.id).values(raised))
            _keep_evidence(db, job, evidence)
            is_more = claim.job.outcome == outcome == "read"  # the same once more, in other forms
            there = set(db.scalars(_destinations(job.id, DeliveryState.DELIVERED))) if is_more else set()
            waiting = db.scalars(_destinations(job.id, DeliveryState.WAITING))
            told = dict.fromkeys((*notify, *job.destinations, *waiting))  # who is told can do something at once
            if job.shadow:
                return []
            return [send_to(db, job, name, moment) for name in told if evidence and name not in there]

    def fail(
        self,
        claim: Claim,
        *,
        reason: str,
        retry_at: float | None,
        counts: bool = True,
        away: bool = False,
        now: float | None = None,
    ) -> JobState:
        """The job did not work: again at ``retry_at``, unless it was tried often enough, or never (None).

        Args:
            counts: Whether the attempt brings the job nearer to the quarantine; False where the job is not at fault,
                as with a full disk.
            away: Its images cannot be read; the job notes since when.

        Raises:
            LostClaim: If the job is no longer this worker's.
        """
        moment = self._now(now)
        with self._database.writing() as db:
            counted = locked_job(db, claim.job.id)
            if retry_at is None:
                state = JobState.FAILED
            elif counts and counted.attempts - counted.forgiven >= MAX_ATTEMPTS:
                state = JobState.QUARANTINED
            elif db.execute(select(jobs.c.id).where(jobs.c.id == claim.job.id, _is_replaced())).one_or_none():
                state = JobState.SUPERSEDED
            else:
                state = JobState.QUEUED
            times = {"not_before": retry_at} if state == JobState.QUEUED else {"done_at": moment}
            forgiven = counted.forgiven if counts else counted.forgiven + 1
            since = {"away_since": (counted.away_since or moment) if away and state == JobState.QUEUED else None}
            _close(db, claim, {"state": state, "reason": reason, "forgiven": forgiven} | times | since)
            return state

    def give_back(self, claim: Claim, *, now: float | None = None) -> None:
        """The worker stops before the end, through no fault of the job: the attempt does not count.

        Raises:
            LostClaim: If the job is no longer this worker's.
        """
        values = {"state": JobState.QUEUED, "not_before": self._now(now), "forgiven": jobs.c.forgiven + 1}
        with self._database.writing() as db:
            _close(db, claim, values)

    def earlier_readings(self, job: Job, *, limit: int = 20) -> list[str]:
        """What the pipeline said of the patient's other studies before this one settled, the newest first, as JSON.

        Not what came of it later: to do the job again is then to say the same again.
        """
        patient = select(studies.c.patient_key).where(studies.c.uid == job.study_uid).scalar_subquery()
        settled = (
            select(revisions.c.settled_at)
            .where(revisions.c.study_uid == job.study_uid, revisions.c.number == job.revision)
            .scalar_subquery()
        )
        query = (
            select(jobs.c.study_uid, jobs.c.runs)
            .join(studies, studies.c.uid == jobs.c.study_uid)
            .where(
                studies.c.patient_key == patient,
                studies.c.uid != job.study_uid,
                jobs.c.pipeline == job.pipeline,
                jobs.c.outcome == "read",
                jobs.c.done_at <= settled,
                jobs.c.purged_at.is_(None),
                jobs.c.shadow.is_(False),  # nobody has the report that it would be compared with
            )
            .order_by(jobs.c.done_at.desc(), jobs.c.id.desc())
            .limit(limit)
        )
        with self._database.reading() as db:
            newest: dict[str, str] = {}
            for row in db.execute(query):
                newest.setdefault(row.study_uid, row.runs or "[]")
            return list(newest.values())

    def job(self, job_id: int) -> Job:
        with self._database.reading() as db:
            row = db.execute(select(jobs).where(jobs.c.id == job_id)).one_or_none()
        if row is None:
            raise Unknown(f"the ledger knows no job {job_id}")
        return job_of(row)


def _claimable(moment: float) -> Any:
    """SQL: queued and its time has come, or its worker has not been heard of; and no reason to wait."""
    queued = and_(jobs.c.state == JobState.QUEUED, jobs.c.not_before <= moment)
    deserted = and_(jobs.c.state == JobState.RUNNING, jobs.c.lease_until <= moment)
    return and_(or_(queued, deserted), unhindered(moment))


def unhindered(moment: float) -> Any:
    """SQL: neither is the job's study held, nor does an older revision's job run that it has to wait for."""
    return and_(~is_held(jobs), ~_older_runs(moment))


def _older_runs(moment: float) -> Any:
    """SQL: the job of an older revision is running, whose evidence this one will name as what it replaces."""
    return exists().where(
        OLDER.c.study_uid == jobs.c.study_uid,
        OLDER.c.pipeline == jobs.c.pipeline,
        OLDER.c.revision < jobs.c.revision,
        OLDER.c.state == JobState.RUNNING,
        OLDER.c.lease_until > moment,
    )


def _is_replaced() -> Any:
    """SQL: a newer revision of the job's study has settled."""
    newer: Select[Any] = select(studies.c.uid).where(studies.c.uid == jobs.c.study_uid)
    return newer.where(studies.c.revision > jobs.c.revision).correlate(jobs).exists()


def _claimed(db: Connection, row: Row[Any], owner: str) -> Claim:
    # An older revision's job may have ended since this one was queued: its evidence is what ours replaces.
    before = last_done_key(db, row.study_uid, row.pipeline, row.revision)
    if before != row.predecessor_key:
        named = update(jobs).where(jobs.c.id == row.id).values(predecessor_key=before).returning(jobs)
        row = db.execute(named).one()
    files = tuple(member.sha256 for member in members(db, row.study_uid, row.revision))
    counted = row.attempts - row.forgiven
    return Claim(job=job_of(row), owner=owner, attempt=row.attempts, files=files, counted=counted)


def _destinations(job_id: int, state: DeliveryState) -> Select[tuple[str]]:
    return select(deliveries.c.destination).where(deliveries.c.job_id == job_id, deliveries.c.state == state)


def _mine(job_id: int, owner: str, attempt: int) -> Any:
    token = and_(jobs.c.owner == owner, jobs.c.attempts == attempt)
    return and_(jobs.c.id == job_id, jobs.c.state == JobState.RUNNING, token)


def _close(db: Connection, claim: Claim, values: dict[str, Any]) -> Job:
    mine = _mine(claim.job.id, claim.owner, claim.attempt)
    row = db.execute(update(jobs).where(mine).values({"lease_until": None} | values).returning(jobs)).one_or_none()
    if row is None:
        raise LostClaim(f"job {claim.job.id} is no longer held by {claim.owner} (attempt {claim.attempt})")
    return job_of(row)


def _raised(claim: Claim, priority: int | None, why: str) -> dict[str, Any]:
    values: dict[str, Any] = {"why": f"{claim.job.why}; {why}"} if why else {}
    if priority is not None:
        values["priority"] = case((jobs.c.priority < priority, jobs.c.priority), else_=priority)
    return values


def _keep_evidence(db: Connection, job: Job, objects: Sequence[Evidence]) -> None:
    there = {one.sop_uid for one in evidence_of(db, job.id)}  # of an earlier outcome that was retried
    rows = [
        {
            "job_id": job.id,
            "position": position,
            "sop_uid": one.sop_uid,
            "series_uid": one.series_uid,
            "sop_class": one.sop_class,
            "path": one.path,
            "sha256": one.sha256,
            "form": one.form,
        }
        for position, one in enumerate(objects, start=len(there))
        if one.sop_uid not in there
    ]
    if rows:
        db.execute(insert(evidence), rows)
