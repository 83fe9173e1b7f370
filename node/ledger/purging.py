"""What may be deleted, and that it was: images and evidence of which every destination has said that it has it.

A study is safe when all its jobs have ended well or by a person's word, each that was read has gone somewhere, and
every delivery was found there when asked back. What is held, failed, in quarantine, dead, unverified or without a
destination stays, however old. Rows go first and files after; ``purging`` remembers between the two what a crash would
forget.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, or_, select, update

from node.ledger.chapter import Chapter, chunks, locked_job, locked_study
from node.ledger.entries import Expired
from node.ledger.states import DeliveryState, JobState, StudyState
from node.ledger.tables import deliveries, evidence, instances, jobs, purging, studies

# Reason why a study stays, and the SQL that says so; the first that holds is said.
Reason = tuple[str, ColumnElement[bool]]
UNDER_WAY = (DeliveryState.WAITING, DeliveryState.SENDING)


class Purging(Chapter):
    def expired_images(
        self, before: float, *, unrouted_before: float | None = None, told: Collection[str] = (), limit: int = 1000
    ) -> list[Expired]:
        """Studies whose images may go: safe, and verified and last heard of before that time; the oldest first.

        Args:
            unrouted_before: Also those that no rule wanted and that nothing came for since then; None: never.
            told: Destinations that get messages and no evidence: they make nothing safe, and need only be done.
        """
        query = (
            select(studies.c.uid, func.count(), func.coalesce(func.sum(instances.c.size), 0))
            .join(instances, instances.c.study_uid == studies.c.uid)
            .where(_may_go(before, unrouted_before, told))
            .group_by(studies.c.uid, studies.c.last_arrival)
            .order_by(studies.c.last_arrival)
            .limit(limit)
        )
        with self._database.reading() as db:
            return [Expired(row[0], row[0], row[1], int(row[2])) for row in db.execute(query)]

    def staying(self, before: float, *, told: Collection[str] = ()) -> dict[str, int]:
        """How many studies that old stay although their time is over, per reason."""
        found: dict[str, int] = {}
        passed: list[ColumnElement[bool]] = []
        with self._database.reading() as db:
            for reason, holds in _reasons(before, told):
                query = select(func.count()).select_from(studies)
                query = query.where(studies.c.arrived > 0, studies.c.last_arrival < before, holds)
                query = query.where(*[~earlier for earlier in passed])
                if count := db.scalars(query).one():
                    found[reason] = int(count)
                passed.append(holds)
        return found

    def forget_images(
        self, study_uid: str, before: float, *, unrouted_before: float | None = None, told: Collection[str] = ()
    ) -> list[str]:
        """The study's images are to go; SHA-256 of the files. None if it is not safe any more."""
        with self._database.writing() as db:
            locked_study(db, study_uid)
            may = select(studies.c.uid).where(studies.c.uid == study_uid, _may_go(before, unrouted_before, told))
            if db.scalars(may).one_or_none() is None:
                return []
            rows = list(db.scalars(select(instances.c.sha256).where(instances.c.study_uid == study_uid)))
            for piece in chunks([{"sha256": sha256} for sha256 in rows]):
                db.execute(self._database.insert_new(purging), piece)
            db.execute(delete(instances).where(instances.c.study_uid == study_uid))
            gone = {"purged_at": self._now(None), "arrived": 0, "expected": None}
            db.execute(update(studies).where(studies.c.uid == study_uid).values(gone))
            return rows

    def being_purged(self, limit: int = 10_000) -> list[str]:
        """Files that are to go, and may have gone."""
        with self._database.reading() as db:
            return list(db.scalars(select(purging.c.sha256).limit(limit)))

    def purged(self, sha256s: Iterable[str]) -> None:
        """These files are dealt with."""
        with self._database.writing() as db:
            for piece in chunks(sha256s):
                db.execute(delete(purging).where(purging.c.sha256.in_(piece)))

    def expired_evidence(self, before: float, *, told: Collection[str] = (), limit: int = 1000) -> list[Expired]:
        """Jobs whose evidence may go: it was found at every destination, before that time. ``bytes`` is not known."""
        query = (
            select(jobs.c.key, jobs.c.study_uid, func.count(), jobs.c.id)
            .join(evidence, evidence.c.job_id == jobs.c.id)
            .where(_evidence_may_go(before, told))
            .group_by(jobs.c.id, jobs.c.key, jobs.c.study_uid)
            .order_by(jobs.c.id)
            .limit(limit)
        )
        with self._database.reading() as db:
            return [Expired(row[0], row[1], row[2], 0, row[3]) for row in db.execute(query)]

    def forget_evidence(self, job_id: int, before: float, *, told: Collection[str] = ()) -> bool:
        """The job's evidence is to go, and what was found with it; its UIDs stay. False if it is not safe any more."""
        with self._database.writing() as db:
            locked_job(db, job_id)
            which = and_(jobs.c.id == job_id, _evidence_may_go(before, told))
            gone = update(jobs).where(which).values(purged_at=self._now(None), runs=None)
            return db.execute(gone).rowcount == 1

    def keys_of_purged(self, keys: Iterable[str]) -> set[str]:
        """Those of the jobs' keys whose evidence is to have gone."""
        found: set[str] = set()
        with self._database.reading() as db:
            for piece in chunks(keys):
                found.update(db.scalars(select(jobs.c.key).where(jobs.c.key.in_(piece), jobs.c.purged_at.is_not(None))))
        return found


def has_images(db: Connection, study_uid: str) -> bool:
    return (
        db.scalars(select(instances.c.id).where(instances.c.study_uid == study_uid).limit(1)).one_or_none() is not None
    )


def _of_study(*conditions: Any) -> ColumnElement[bool]:
    return exists().where(jobs.c.study_uid == studies.c.uid, *conditions).correlate(studies)


def _delivery(*conditions: Any) -> ColumnElement[bool]:
    of_job = and_(deliveries.c.job_id == jobs.c.id, jobs.c.study_uid == studies.c.uid)
    return select(deliveries.c.id).where(of_job, *conditions).correlate(studies).exists()


def _reasons(before: float, told: Collection[str]) -> list[Reason]:
    newest = jobs.c.revision == studies.c.revision
    to_keep = deliveries.c.destination.not_in(told)
    sent = select(deliveries.c.id).where(deliveries.c.job_id == jobs.c.id, to_keep).correlate(jobs).exists()
    unsure = or_(deliveries.c.verified.is_(False), deliveries.c.verified_at.is_(None))
    return [
        ("held for a person", studies.c.state == StudyState.HELD),
        ("more of it is coming", studies.c.state == StudyState.RECEIVING),
        ("no rule wanted it", studies.c.state == StudyState.UNROUTED),
        ("a job waits or runs", _of_study(jobs.c.state.in_((JobState.QUEUED, JobState.RUNNING)))),
        ("a job failed", _of_study(newest, jobs.c.state == JobState.FAILED)),
        ("a job is in quarantine", _of_study(newest, jobs.c.state == JobState.QUARANTINED)),
        ("evidence is not delivered", _delivery(to_keep, deliveries.c.state != DeliveryState.DELIVERED)),
        ("somebody has still to be told", _delivery(deliveries.c.state.in_(UNDER_WAY))),
        ("evidence goes nowhere", _of_study(newest, jobs.c.state == JobState.DONE, ~sent, jobs.c.shadow.is_(False))),
        ("nothing of it was read", ~_of_study(newest, jobs.c.state == JobState.DONE)),
        ("no destination could say that it has the evidence", _delivery(to_keep, unsure)),
        ("evidence was verified too lately", _delivery(to_keep, deliveries.c.verified_at >= before)),
    ]


def _may_go(before: float, unrouted_before: float | None, told: Collection[str]) -> ColumnElement[bool]:
    safe = and_(studies.c.last_arrival < before, *[~holds for _, holds in _reasons(before, told)])
    has = exists().where(instances.c.study_uid == studies.c.uid).correlate(studies)
    if unrouted_before is None:
        return and_(has, safe)
    unwanted = and_(studies.c.state == StudyState.UNROUTED, studies.c.last_arrival < unrouted_before)
    return and_(has, or_(safe, unwanted))


def _evidence_may_go(before: float, told: Collection[str]) -> ColumnElement[bool]:
    """SQL on jobs."""
    of_job, to_keep = deliveries.c.job_id == jobs.c.id, deliveries.c.destination.not_in(told)
    settled = and_(
        deliveries.c.state == DeliveryState.DELIVERED, deliveries.c.verified, deliveries.c.verified_at < before
    )
    held = exists().where(studies.c.uid == jobs.c.study_uid, studies.c.state == StudyState.HELD).correlate(jobs)
    in_shadow = and_(jobs.c.shadow, jobs.c.done_at < before)  # it goes nowhere
    return and_(
        jobs.c.state.in_((JobState.DONE, JobState.QUARANTINED)),
        jobs.c.purged_at.is_(None),
        ~held,
        or_(in_shadow, exists().where(of_job, to_keep).correlate(jobs)),
        ~exists().where(of_job, to_keep, ~func.coalesce(settled, False)).correlate(jobs),
        ~exists().where(of_job, deliveries.c.state.in_(UNDER_WAY)).correlate(jobs),
    )
