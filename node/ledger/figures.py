"""The ledger as figures: what came, was read, was sent and failed per hour, and what the owners of claims have done.

It changes nothing. Every query is answered from an index: a page is to come at once, also with 100,000 jobs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, and_, case, cast, func, literal_column, select

from node.ledger.chapter import Chapter
from node.ledger.states import DeliveryState, JobState, StudyState
from node.ledger.tables import deliveries, jobs, studies

HOUR = 3600.0
BAD_JOBS = (JobState.FAILED, JobState.QUARANTINED)


@dataclass(frozen=True)
class Hours:
    """Numbers per hour, the oldest first; the last hour is the one that runs.

    Attributes:
        begins: When the first hour began, in seconds since the epoch.
        received: Studies whose first image came. ``done``: jobs that ended. ``waiting``, ``running``: jobs at the end
            of the hour. ``delivered``: deliveries. ``failed``: jobs that failed or are in quarantine, and deliveries
            that were given up.
    """

    begins: float
    received: tuple[int, ...]
    done: tuple[int, ...]
    waiting: tuple[int, ...]
    running: tuple[int, ...]
    delivered: tuple[int, ...]
    failed: tuple[int, ...]


@dataclass(frozen=True)
class Counts:
    """How many there are in each state; ``deliveries`` per destination.

    Attributes:
        oldest_waiting: When the job was queued that waits longest of those that may be read; a held study's may not.
        overdue: Per destination since when its first failed delivery has been waiting.
    """

    studies: dict[str, int]
    jobs: dict[str, int]
    deliveries: dict[str, dict[str, int]]
    oldest_waiting: float | None
    overdue: dict[str, float]


class Figures(Chapter):
    def counts(self) -> Counts:
        held = select(studies.c.uid).where(studies.c.uid == jobs.c.study_uid, studies.c.state == StudyState.HELD)
        free = and_(jobs.c.state == JobState.QUEUED, ~held.correlate(jobs).exists())
        failing = and_(deliveries.c.state == DeliveryState.WAITING, deliveries.c.first_failed_at.is_not(None))
        with self._database.reading() as db:
            per_state = [
                {row[0]: row[1] for row in db.execute(select(table.c.state, func.count()).group_by(table.c.state))}
                for table in (studies, jobs)
            ]
            sent = _per_destination(db)
            oldest = db.scalars(select(jobs.c.queued_at).where(free).order_by(jobs.c.queued_at).limit(1)).one_or_none()
            since = select(deliveries.c.destination, func.min(deliveries.c.first_failed_at)).where(failing)
            overdue = {row[0]: row[1] for row in db.execute(since.group_by(deliveries.c.destination))}
        return Counts(per_state[0], per_state[1], sent, oldest, overdue)

    def delivery_counts(self) -> dict[str, dict[str, int]]:
        """Per destination how many deliveries are in each state."""
        with self._database.reading() as db:
            return _per_destination(db)

    def hours(self, count: int = 24, now: float | None = None) -> Hours:
        moment = self._now(now)
        begins = (moment // HOUR - count + 1) * HOUR
        # Not as parameters: PostgreSQL would not see that it groups by what it selects.
        start: ColumnElement[float] = literal_column(repr(begins))
        hour: ColumnElement[int] = literal_column(str(int(HOUR)), Integer)

        def hour_of(column: ColumnElement[Any]) -> ColumnElement[Any]:
            """Which hour of the picture; -1 before it; null where there is no time."""
            # Of whole seconds: floor() would be asked of Python, once per row (SQLAlchemy on SQLite).
            return case(
                (column < start, literal_column("-1")), (column >= start, cast(column - start, Integer) // hour)
            )

        came = hour_of(studies.c.first_arrival)
        steps = [hour_of(jobs.c.queued_at), hour_of(jobs.c.claimed_at), hour_of(jobs.c.done_at)]
        left = hour_of(deliveries.c.delivered_at)
        died = hour_of(deliveries.c.first_failed_at)
        is_dead = and_(deliveries.c.state == DeliveryState.DEAD, deliveries.c.first_failed_at >= begins)
        received, done, delivered, failed, waiting, running = ([0] * count for _ in range(6))
        with self._database.reading() as db:
            for when, number in db.execute(
                select(came, func.count()).where(studies.c.first_arrival >= begins).group_by(came)
            ):
                _add(received, when, number)
            found: Any = _counted(db, (jobs.c.state, *steps), begins)
            for state, queued, claimed, ended, number in found:
                if ended is not None:
                    _add(failed if state in BAD_JOBS else done, ended, number)
                _hold(waiting, queued, claimed if claimed is not None else ended, number)
                if claimed is not None and state != JobState.QUEUED:
                    _hold(running, claimed, ended, number)
            for when, number in db.execute(
                select(left, func.count()).where(deliveries.c.delivered_at >= begins).group_by(left)
            ):
                _add(delivered, when, number)
            for when, number in db.execute(select(died, func.count()).where(is_dead).group_by(died)):
                _add(failed, when, number)
        return Hours(
            begins, tuple(received), tuple(done), tuple(waiting), tuple(running), tuple(delivered), tuple(failed)
        )

    def done_by(self, since: float) -> dict[str, tuple[int, float]]:
        """Per owner of a claim how many jobs it has ended since then, and the seconds that it took for them."""
        took = func.sum(jobs.c.done_at - jobs.c.claimed_at)
        query = select(jobs.c.owner, func.count(), took).where(
            jobs.c.done_at >= since, jobs.c.claimed_at.is_not(None), jobs.c.owner.is_not(None)
        )
        with self._database.reading() as db:
            return {row[0]: (row[1], float(row[2] or 0)) for row in db.execute(query.group_by(jobs.c.owner))}

    def pipeline_counts(self, since: float) -> dict[str, dict[str, int]]:
        """Per pipeline how many of its jobs ended how since then, and how many wait or run."""
        columns = (jobs.c.pipeline, jobs.c.state, jobs.c.outcome)
        found: dict[str, dict[str, int]] = {}
        with self._database.reading() as db:
            for pipeline, state, outcome, number in _counted(db, columns, since):
                word = outcome if state == JobState.DONE and outcome else state.lower()
                of_pipeline = found.setdefault(pipeline, {})
                of_pipeline[word] = of_pipeline.get(word, 0) + number
        return found


def _per_destination(db: Connection) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    pair = (deliveries.c.state, deliveries.c.destination)
    for state, destination, count in db.execute(select(*pair, func.count()).group_by(*pair)):
        found.setdefault(destination, {})[state] = count
    return dict(sorted(found.items()))


def _counted(db: Connection, columns: Sequence[ColumnElement[Any]], since: float) -> Iterator[Any]:
    """The jobs that have not ended, and those that have since then, counted per value of the columns.

    Two questions, each answered from its piece of the index alone: what ended long ago is not looked at.
    """
    for which in (jobs.c.done_at.is_(None), jobs.c.done_at >= since):
        yield from db.execute(select(*columns, func.count()).where(which).group_by(*columns))


def _add(row: list[int], hour: int | None, number: int) -> None:
    if hour is not None and 0 <= hour < len(row):
        row[hour] += number


def _hold(row: list[int], begins: int | None, ends: int | None, number: int) -> None:
    """Count what began in one hour and ended in another at the end of each hour between."""
    first = max(begins if begins is not None else 0, 0)
    for hour in range(first, min(len(row) if ends is None else ends, len(row))):
        row[hour] += number
