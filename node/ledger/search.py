"""The queue as people look for things in it: filtered, searched, sorted, a page at a time. It changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, or_, select

from node.ledger.chapter import Chapter, chunks, delivery_of, job_of
from node.ledger.entries import Delivery, Job, StudyEntry
from node.ledger.overview import entry_of, modalities_of
from node.ledger.states import DeliveryState, JobState, StudyState
from node.ledger.tables import deliveries, jobs, studies

MOST = 200  # rows of a page
SORTS: dict[str, tuple[ColumnElement[Any], ...]] = {
    "newest": (jobs.c.queued_at.desc(), jobs.c.id.desc()),
    "oldest": (jobs.c.queued_at, jobs.c.id),
    "urgent": (jobs.c.priority, jobs.c.queued_at, jobs.c.id),
}


@dataclass(frozen=True)
class Asked:
    """What is looked for.

    Attributes:
        states: Of jobs, or of studies; none: all.
        text: The beginning or the end of a Study Instance UID, or the number of a job.
        sort: A key of SORTS.
    """

    states: tuple[str, ...] = ()
    pipeline: str = ""
    text: str = ""
    sort: str = "newest"
    first: int = 0
    limit: int = 50

    def __post_init__(self) -> None:
        if self.sort not in SORTS:
            raise ValueError(f"sort is {self.sort!r}; allowed: {', '.join(SORTS)}")
        if "\0" in self.text + self.pipeline:  # which PostgreSQL refuses as text
            raise ValueError("a text without NUL is looked for")
        if not 0 <= self.first <= 10_000_000 or not 1 <= self.limit <= MOST:
            raise ValueError(f"a page begins at 0 or later and has 1 to {MOST} rows")


@dataclass(frozen=True)
class JobRow:
    """A job with its study's sender and its deliveries."""

    job: Job
    caller: str
    study_state: str
    deliveries: tuple[Delivery, ...]


class Search(Chapter):
    def find_jobs(self, asked: Asked) -> tuple[JobRow, ...]:
        wanted: list[ColumnElement[bool]] = []
        if asked.states:
            # With a pipeline, too, the index by time holds all that is asked; the one by state would read every row.
            state = jobs.c.state.concat("") if asked.pipeline and asked.sort != "urgent" else jobs.c.state
            wanted.append(state.in_([JobState(one) for one in asked.states]))
        if asked.pipeline:
            wanted.append(jobs.c.pipeline == asked.pipeline)
        if asked.text:
            number = [jobs.c.id == int(asked.text)] if asked.text.isdecimal() and len(asked.text) < 15 else []
            # By way of the studies, whose rows are short.
            named = select(studies.c.uid).where(or_(*_uid_like(asked.text)))
            wanted.append(or_(jobs.c.study_uid.in_(named), *number))
        ids = _page(select(jobs.c.id).where(*wanted).order_by(*SORTS[asked.sort]), asked)
        query = select(jobs, studies.c.caller.label("sender"), studies.c.state.label("study_state"))
        query = query.join(studies, studies.c.uid == jobs.c.study_uid)
        with self._database.reading() as db:
            found = list(db.scalars(ids))
            rows = {row.id: row for row in db.execute(query.where(jobs.c.id.in_(found)))}
            sent: dict[int, list[Delivery]] = {number: [] for number in found}
            of_jobs = select(deliveries).where(deliveries.c.job_id.in_(found)).order_by(deliveries.c.id)
            for row in db.execute(of_jobs):
                sent[row.job_id].append(delivery_of(row))
        return tuple(
            JobRow(job_of(rows[number]), rows[number].sender, rows[number].study_state, tuple(sent[number]))
            for number in found
        )

    def find_studies(self, asked: Asked) -> tuple[StudyEntry, ...]:
        query = select(studies).order_by(studies.c.last_arrival.desc(), studies.c.uid)
        if asked.states:
            query = query.where(studies.c.state.in_([StudyState(one) for one in asked.states]))
        if asked.text:
            query = query.where(or_(*_uid_like(asked.text)))
        with self._database.reading() as db:
            rows = db.execute(_page(query, asked)).all()
            modalities = modalities_of(db, [row.uid for row in rows])
            return tuple(entry_of(row, modalities[row.uid]) for row in rows)

    def jobs_of(self, study_uids: Sequence[str]) -> dict[str, list[Job]]:
        """Per study the jobs of its newest revision."""
        query = select(jobs).join(studies, studies.c.uid == jobs.c.study_uid)
        query = query.where(jobs.c.revision == studies.c.revision).order_by(jobs.c.id)
        found: dict[str, list[Job]] = {uid: [] for uid in study_uids}
        with self._database.reading() as db:
            for piece in chunks(study_uids):
                for row in db.execute(query.where(jobs.c.study_uid.in_(piece))):
                    found[row.study_uid].append(job_of(row))
        return found

    def find_deliveries(self, states: Sequence[DeliveryState], *, limit: int = 50) -> tuple[tuple[Delivery, Job], ...]:
        """The deliveries in these states, those that failed first at the head, each with its job."""
        query = select(deliveries.c.id, deliveries.c.job_id)
        query = query.where(deliveries.c.state.in_(states)).order_by(deliveries.c.first_failed_at, deliveries.c.id)
        with self._database.reading() as db:
            pairs = [(row[0], row[1]) for row in db.execute(query.limit(limit))]
            sent = {
                row.id: delivery_of(row)
                for row in db.execute(select(deliveries).where(deliveries.c.id.in_([one for one, _ in pairs])))
            }
            of = {
                row.id: job_of(row) for row in db.execute(select(jobs).where(jobs.c.id.in_([one for _, one in pairs])))
            }
        return tuple((sent[number], of[job]) for number, job in pairs)

    def last_of_destination(self, destination: str) -> tuple[float | None, str | None]:
        """When it last took a delivery, and what it last complained of in one that waits or is dead."""
        mine = deliveries.c.destination == destination
        # Along the index: a maximum would look at every row.
        took = select(deliveries.c.delivered_at).where(mine, deliveries.c.delivered_at.is_not(None))
        took = took.order_by(deliveries.c.delivered_at.desc()).limit(1)
        ill = deliveries.c.state.in_((DeliveryState.WAITING, DeliveryState.DEAD))
        said = select(deliveries.c.reason).where(and_(mine, ill, deliveries.c.reason.is_not(None)))
        said = said.order_by(deliveries.c.claimed_at.desc()).limit(1)
        with self._database.reading() as db:
            return db.scalars(took).one_or_none(), db.scalars(said).one_or_none()


def _uid_like(text: str) -> list[ColumnElement[bool]]:
    """SQL: begins or ends so."""
    return [studies.c.uid.startswith(text, autoescape=True), studies.c.uid.endswith(text, autoescape=True)]


def _page(query: Select[Any], asked: Asked) -> Select[Any]:
    return query.offset(asked.first).limit(asked.limit)
