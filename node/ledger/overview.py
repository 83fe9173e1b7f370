"""The ledger read by people: counts, lists, and the whole history of one study. It changes nothing."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sqlalchemy import Connection, Row, and_, func, select

from node.errors import Unknown
from node.ledger.chapter import ACCEPTED, Chapter, chunks, delivery_of, evidence_of, job_of
from node.ledger.entries import Answer, Delivery, Evidence, Job, Overview, Revision, StudyEntry, StudyHistory
from node.ledger.states import JobState, StudyState
from node.ledger.tables import answers, deliveries, evidence, instances, jobs, revisions, studies


class Pages(Chapter):
    def overview(self) -> Overview:
        with self._database.reading() as db:
            oldest = select(func.min(jobs.c.queued_at)).where(jobs.c.state == JobState.QUEUED)
            count, size = db.execute(select(func.count(), func.coalesce(func.sum(instances.c.size), 0))).one()
            return Overview(
                studies=_per_state(db, studies),
                jobs=_per_state(db, jobs),
                deliveries=_per_destination(db),
                instances=count,
                bytes=int(size),
                oldest_queued_at=db.scalars(oldest).one(),
            )

    def studies(self, limit: int = 50, *, state: StudyState | str | None = None) -> tuple[StudyEntry, ...]:
        """The studies that something came for last, newest first."""
        query = select(studies).order_by(studies.c.last_arrival.desc(), studies.c.uid).limit(limit)
        if state is not None:
            query = query.where(studies.c.state == StudyState(state))
        with self._database.reading() as db:
            rows = db.execute(query).all()
            modalities = modalities_of(db, [row.uid for row in rows])
            return tuple(entry_of(row, modalities[row.uid]) for row in rows)

    def study(self, study_uid: str) -> StudyHistory:
        """Everything about one study.

        Raises:
            Unknown: If the ledger does not know it.
        """
        with self._database.reading() as db:
            return _history(db, _row_of(db, study_uid))

    def entry(self, study_uid: str) -> StudyEntry:
        """One study as a list shows it, less its modalities; raises as ``study`` does."""
        with self._database.reading() as db:
            return entry_of(_row_of(db, study_uid), ())

    def evidence_elsewhere(self, study_uid: str) -> int:
        """How many objects of ours about the study some destination has taken, and has not sent back to us."""
        returned = select(instances.c.sop_uid).where(instances.c.study_uid == study_uid)
        query = (
            select(func.count(answers.c.sop_uid.distinct()))
            .join(deliveries, deliveries.c.id == answers.c.delivery_id)
            .join(jobs, jobs.c.id == deliveries.c.job_id)
            # what a notice is answered with is about a message, and no object
            .join(evidence, and_(evidence.c.job_id == jobs.c.id, evidence.c.sop_uid == answers.c.sop_uid))
            .where(jobs.c.study_uid == study_uid, answers.c.verdict.in_(ACCEPTED), answers.c.sop_uid.not_in(returned))
        )
        with self._database.reading() as db:
            return int(db.scalars(query).one())

    def evidence(self, job_key: str) -> tuple[Evidence, ...]:
        """What the job with this key made."""
        with self._database.reading() as db:
            job_id = db.scalars(select(jobs.c.id).where(jobs.c.key == job_key)).one_or_none()
            return () if job_id is None else evidence_of(db, job_id)

    def jobs(self, limit: int = 50, *, state: JobState | str | None = None) -> tuple[Job, ...]:
        """The jobs that were queued last, newest first."""
        query = select(jobs).order_by(jobs.c.queued_at.desc(), jobs.c.id.desc()).limit(limit)
        if state is not None:
            query = query.where(jobs.c.state == JobState(state))
        with self._database.reading() as db:
            return tuple(job_of(row) for row in db.execute(query))

    def deliveries(self, limit: int = 50) -> tuple[Delivery, ...]:
        """The deliveries that were queued last, newest first."""
        query = select(deliveries).order_by(deliveries.c.queued_at.desc(), deliveries.c.id.desc()).limit(limit)
        with self._database.reading() as db:
            return tuple(delivery_of(row) for row in db.execute(query))


def _row_of(db: Connection, study_uid: str) -> Row[Any]:
    row = db.execute(select(studies).where(studies.c.uid == study_uid)).one_or_none()
    if row is None:
        raise Unknown(f"the ledger knows no study {study_uid}")
    return row


def _per_state(db: Connection, table: Any) -> dict[str, int]:
    rows = db.execute(select(table.c.state, func.count()).group_by(table.c.state))
    return {row[0]: row[1] for row in rows}


def _per_destination(db: Connection) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    columns = (deliveries.c.destination, deliveries.c.state)
    for destination, state, count in db.execute(select(*columns, func.count()).group_by(*columns)):
        counts[destination][state] = count
    return dict(counts)


def modalities_of(db: Connection, study_uids: list[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = defaultdict(tuple)
    columns = (instances.c.study_uid, instances.c.modality)
    for piece in chunks(study_uids):
        query = select(*columns).where(instances.c.study_uid.in_(piece)).distinct().order_by(*columns)
        for study_uid, modality in db.execute(query):
            found[study_uid] += (modality,)
    return found


def entry_of(row: Row[Any], modalities: tuple[str, ...]) -> StudyEntry:
    names = StudyEntry.__dataclass_fields__.keys() - {"modalities", "state"}
    values = {name: getattr(row, name) for name in names}
    return StudyEntry(**values, state=StudyState(row.state), modalities=modalities)


def _history(db: Connection, study: Row[Any]) -> StudyHistory:
    of_study = select(jobs).where(jobs.c.study_uid == study.uid).order_by(jobs.c.id)
    done = tuple(job_of(row) for row in db.execute(of_study))
    ids = [job.id for job in done]
    sent = tuple(
        delivery_of(row)
        for row in db.execute(select(deliveries).where(deliveries.c.job_id.in_(ids)).order_by(deliveries.c.id))
    )
    said = select(answers).where(answers.c.delivery_id.in_([one.id for one in sent])).order_by(answers.c.id)
    frozen = select(revisions).where(revisions.c.study_uid == study.uid).order_by(revisions.c.number)
    per_series = (
        select(instances.c.series_uid, func.count(instances.c.sop_uid.distinct()))
        .where(instances.c.study_uid == study.uid)
        .group_by(instances.c.series_uid)
        .order_by(instances.c.series_uid)
    )
    return StudyHistory(
        study=entry_of(study, modalities_of(db, [study.uid])[study.uid]),
        series={row[0]: row[1] for row in db.execute(per_series)},
        revisions=tuple(Revision(**row._mapping) for row in db.execute(frozen)),
        jobs=done,
        evidence={job_id: evidence_of(db, job_id) for job_id in ids},
        deliveries=sent,
        answers=tuple(
            Answer(**{name: getattr(row, name) for name in Answer.__dataclass_fields__}) for row in db.execute(said)
        ),
    )
