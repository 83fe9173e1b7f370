"""A study settles: its instances become a revision that does not change, and its jobs are queued.

A held study does not settle; a human releases it. Rules are not looked at here: the caller brings the jobs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, insert, or_, select, update

from node.ledger.chapter import Chapter, digest_of, job_of, locked_study, members
from node.ledger.entries import Job, NewJob
from node.ledger.states import JobState, StudyState
from node.ledger.tables import evidence, instances, jobs, revisions, studies


class Settling(Chapter):
    def settle(
        self,
        study_uid: str,
        wanted: Sequence[NewJob],
        *,
        seen: int | None = None,
        reason: str | None = None,
        now: float | None = None,
    ) -> list[Job]:
        """Freeze the study's next revision and queue its jobs, all in one transaction.

        Jobs of older revisions that are still queued are superseded. Nothing happens, and no job is returned, when
        the study is not receiving, or holds the same set of instances as its last revision; but a revision that no
        rule wanted, and that was released since, gets the jobs that are wanted now.

        Args:
            seen: How many instances the caller judged the study by; when others have come since, nothing happens and
                the study stays due.
            reason: Why nothing is wanted, for people who look for the study; nothing that names a patient.
        """
        moment = self._now(now)
        with self._database.writing() as db:
            study = locked_study(db, study_uid)
            if study.state != StudyState.RECEIVING or seen not in (None, study.arrived):
                return []
            rows = members(db, study_uid)
            digest = digest_of(rows)
            revision = study.revision
            if study.purged_at is not None and (missing := _missing(db, study, len(rows))):
                _set_state(db, study_uid, StudyState.HELD, reason=missing)
                return []
            if digest != _last_digest(db, study):
                revision += 1
                _freeze(db, study, digest, len(rows), moment)
            elif (state := _state_of(db, study)) != StudyState.UNROUTED:
                _put_into(db, study_uid, revision)  # it was purged, and has come again
                _set_state(db, study_uid, state)
                return []
            created = [self._queue(db, study, new, (revision, digest), moment) for new in wanted]
            state = StudyState.SETTLED if created else StudyState.UNROUTED
            _set_state(db, study_uid, state, revision=revision, reason=None if created else reason)
            return created

    def _queue(self, db: Connection, study: Row[Any], new: NewJob, frozen: tuple[int, str], moment: float) -> Job:
        revision, digest = frozen
        row = db.execute(
            insert(jobs)
            .values(
                study_uid=study.uid,
                revision=revision,
                pipeline=new.pipeline,
                use=new.use,
                priority=new.priority,
                destinations=list(new.destinations),
                why=new.reason,
                shadow=new.shadow,
                key=_key(study.uid, new.pipeline, revision, digest),
                predecessor_key=last_done_key(db, study.uid, new.pipeline, revision),
                state=JobState.QUEUED,
                attempts=0,
                forgiven=0,
                not_before=moment,
                queued_at=moment,
            )
            .returning(jobs)
        ).one()
        return job_of(row)

    def hold(self, study_uid: str, reason: str) -> None:
        """Nothing of the study is read or sent from now on, until ``release``."""
        with self._database.writing() as db:
            locked_study(db, study_uid)
            _set_state(db, study_uid, StudyState.HELD, reason=reason)

    def release(self, study_uid: str, *, now: float | None = None) -> str:
        """Let a held study go on; of two contents under one SOP Instance UID the newest wins. Returns what was done.

        A study that no rule wanted is routed again, by the rules as they are now.
        """
        moment = self._now(now)
        with self._database.writing() as db:
            study = locked_study(db, study_uid)
            if study.state == StudyState.UNROUTED:
                _set_state(db, study_uid, StudyState.RECEIVING, settle_at=moment, settle_by=moment)
                return f"study {study_uid} was not wanted by any rule, and is routed again now"
            if study.state != StudyState.HELD:
                return f"study {study_uid} is not held, it is {study.state}"
            if study.revision and digest_of(members(db, study_uid)) == _last_digest(db, study):
                _set_state(db, study_uid, _state_of(db, study))
                return f"study {study_uid} is released as it was"
            # A person has decided: what was purged is not waited for any more.
            _set_state(db, study_uid, StudyState.RECEIVING, settle_at=moment, settle_by=moment, purged_at=None)
            doubled = _doubled(db, study_uid)
            newest = f"; of {doubled} instance(s) with two contents the newest is taken" if doubled else ""
            return f"study {study_uid} is released and settles now{newest}"


def last_done_key(db: Connection, study_uid: str, pipeline: str, before: int) -> str | None:
    """The key of the last job of this pipeline on this study whose evidence exists."""
    of_job = select(evidence.c.job_id).where(evidence.c.job_id == jobs.c.id).correlate(jobs)
    query = select(jobs.c.key).where(
        jobs.c.study_uid == study_uid,
        jobs.c.pipeline == pipeline,
        jobs.c.revision < before,
        jobs.c.shadow.is_(False),  # no destination has what was read in shadow
        or_(jobs.c.state == JobState.DONE, of_job.exists()),  # one in quarantine has left a report, too
    )
    return db.scalars(query.order_by(jobs.c.revision.desc()).limit(1)).one_or_none()


def _key(study_uid: str, pipeline: str, revision: int, digest: str) -> str:
    return hashlib.sha256("\n".join((study_uid, pipeline, str(revision), digest)).encode()).hexdigest()


def _last_digest(db: Connection, study: Row[Any]) -> str | None:
    query = select(revisions.c.digest).where(revisions.c.study_uid == study.uid, revisions.c.number == study.revision)
    return db.scalars(query).one_or_none()


def _freeze(db: Connection, study: Row[Any], digest: str, count: int, moment: float) -> None:
    number = study.revision + 1
    db.execute(
        insert(revisions).values(
            study_uid=study.uid,
            number=number,
            predecessor=study.revision or None,
            digest=digest,
            instances=count,
            opened_at=study.opened_at,
            last_arrival=study.last_arrival,
            settled_at=moment,
        )
    )
    _put_into(db, study.uid, number)
    older = (jobs.c.study_uid == study.uid) & (jobs.c.state == JobState.QUEUED)
    db.execute(
        update(jobs)
        .where(older)
        .values(state=JobState.SUPERSEDED, done_at=moment, reason=f"revision {number} of the study settled first")
    )


def _put_into(db: Connection, study_uid: str, revision: int) -> None:
    unfrozen = (instances.c.study_uid == study_uid) & instances.c.revision.is_(None)
    db.execute(update(instances).where(unfrozen).values(revision=revision))


def _missing(db: Connection, study: Row[Any], count: int) -> str:
    """Why a study whose images were purged cannot be read with what has come since; empty if it can."""
    query = select(revisions.c.instances).where(
        revisions.c.study_uid == study.uid, revisions.c.number == study.revision
    )
    had = db.scalars(query).one_or_none() or 0
    if count >= had:
        return ""
    came = f"purged: {count} images came after the {had} of before were deleted"
    return f"{came}; send the whole study again, then release it"


def _state_of(db: Connection, study: Row[Any]) -> StudyState:
    """The state of a study whose set is its last revision's."""
    query = select(jobs.c.id).where(jobs.c.study_uid == study.uid, jobs.c.revision == study.revision).limit(1)
    return StudyState.UNROUTED if db.scalars(query).one_or_none() is None else StudyState.SETTLED


def _set_state(db: Connection, study_uid: str, state: StudyState, **others: Any) -> None:
    values = {"state": state, "reason": None} | others
    db.execute(update(studies).where(studies.c.uid == study_uid).values(values))


def _doubled(db: Connection, study_uid: str) -> int:
    query = (
        select(instances.c.sop_uid)
        .where(instances.c.study_uid == study_uid)
        .group_by(instances.c.sop_uid)
        .having(func.count() > 1)
    )
    return len(db.scalars(query).all())
