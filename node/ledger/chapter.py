"""What every chapter of the ledger stands on: the database, the clock, and rows as entries."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, and_, insert, select, update

from node.errors import Unknown
from node.ledger.database import Database
from node.ledger.entries import Delivery, Evidence, Job
from node.ledger.states import DeliveryState, JobState
from node.ledger.tables import deliveries, evidence, instances, jobs, studies

T = TypeVar("T")

ACCEPTED = ("delivered", "warning")  # verdicts after which an object is not sent again


class Chapter:
    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def now(self) -> float:
        """The time by which everything in the ledger is due, in seconds since the epoch."""
        return self._clock()

    def _now(self, now: float | None) -> float:
        return self._clock() if now is None else now


def chunks(values: Iterable[T], size: int = 400) -> Iterator[list[T]]:
    """Pieces small enough for one statement's variables."""
    iterator = iter(values)
    while piece := list(islice(iterator, size)):
        yield piece


def locked_study(db: Connection, study_uid: str) -> Row[Any]:
    """The study's row, which no one else changes until this transaction ends."""
    row = db.execute(select(studies).where(studies.c.uid == study_uid).with_for_update()).one_or_none()
    if row is None:
        raise Unknown(f"the ledger knows no study {study_uid}")
    return row


def locked_job(db: Connection, job_id: int) -> Row[Any]:
    row = db.execute(select(jobs).where(jobs.c.id == job_id).with_for_update()).one_or_none()
    if row is None:
        raise Unknown(f"the ledger knows no job {job_id}")
    return row


def members(db: Connection, study_uid: str, revision: int | None = None) -> list[Row[Any]]:
    """The newest version of each instance, in the order in which the instances first came; of a revision, or of all."""
    query = select(instances).where(instances.c.study_uid == study_uid).order_by(instances.c.id)
    if revision is not None:
        query = query.where(instances.c.revision <= revision)
    return list({row.sop_uid: row for row in db.execute(query)}.values())


def digest_of(rows: Sequence[Row[Any]]) -> str:
    """SHA-256 of a set of instances, whatever their order."""
    return hashlib.sha256("".join(sorted(f"{row.sop_uid} {row.sha256}\n" for row in rows)).encode()).hexdigest()


def job_of(row: Row[Any]) -> Job:
    values = {name: getattr(row, name) for name in Job.__dataclass_fields__}
    values["state"] = JobState(row.state)
    values["destinations"] = tuple(row.destinations)
    values["stages"] = row.stages or {}
    values |= {"forms": tuple(row.forms or ()), "asked": tuple(row.asked or ())}
    return Job(**values)


def delivery_of(row: Row[Any]) -> Delivery:
    values = {name: getattr(row, name) for name in Delivery.__dataclass_fields__}
    values["state"] = DeliveryState(row.state)
    return Delivery(**values)


def evidence_of(db: Connection, job_id: int) -> tuple[Evidence, ...]:
    query = select(evidence).where(evidence.c.job_id == job_id).order_by(evidence.c.position)
    return tuple(
        Evidence(**{name: getattr(row, name) for name in Evidence.__dataclass_fields__}) for row in db.execute(query)
    )


def sent_anew(moment: float) -> dict[str, Any]:
    """What a delivery is that is to be sent from the beginning; its attempts stay, for they are its fencing token."""
    forgotten = ("owner", "lease_until", "first_failed_at", "delivered_at", "verified_at", "reason")
    waits = {"state": DeliveryState.WAITING, "not_before": moment, "queued_at": moment, "verified": False}
    return waits | dict.fromkeys(forgotten)


def ended(which: Any, state: JobState, moment: float, reason: str) -> Any:
    """SQL: the jobs have ended without a result."""
    return update(jobs).where(which).values(state=state, done_at=moment, lease_until=None, reason=reason)


def send_to(db: Connection, job: Job, destination: str, moment: float) -> int:
    """The job's evidence is to be sent there from the beginning; the id of the delivery."""
    same = and_(deliveries.c.job_id == job.id, deliveries.c.destination == destination)
    again = update(deliveries).where(same).values(sent_anew(moment))
    if (known := db.scalars(again.returning(deliveries.c.id)).one_or_none()) is not None:
        return int(known)
    new = {"job_id": job.id, "destination": destination, "attempts": 0} | sent_anew(moment)
    return int(db.scalars(insert(deliveries).values(new).returning(deliveries.c.id)).one())


def is_held(table: Any) -> Any:
    """SQL: the study of this row's job is held."""
    if table is deliveries:
        query = (
            select(jobs.c.id).join(studies, studies.c.uid == jobs.c.study_uid).where(jobs.c.id == deliveries.c.job_id)
        )
        return query.where(studies.c.state == "held").correlate(deliveries).exists()
    return (
        select(studies.c.uid)
        .where(studies.c.uid == jobs.c.study_uid, studies.c.state == "held")
        .correlate(jobs)
        .exists()
    )
