"""Whose turn it is among the jobs that wait: what the order of work is made of. It claims nothing.

Two jobs are told: the most urgent one, and the one whose turn has come by waiting. A job's turn is the time at which
it was queued, later by ``aging_seconds`` for each step of its priority; so priority 5 overtakes priority 7 by two
steps' time and no more, and nothing waits for ever behind a stream of others. What the worker makes of the two is its
own affair (node/turns.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, select, union_all

from node.ledger.chapter import Chapter
from node.ledger.jobs import unhindered
from node.ledger.states import JobState
from node.ledger.tables import jobs

PRIORITIES = range(10)
WINDOW = 10  # of each priority; more only where all of these are held


@dataclass(frozen=True)
class Order:
    """What decides who comes first.

    Attributes:
        urgent_up_to: Priorities 0 to this one are urgent: they overtake whatever waits, however long it has.
        aging_seconds: By how much waiting makes up for one step of priority.
    """

    urgent_up_to: int = 1
    aging_seconds: float = 600.0


class Turns(Chapter):
    def next_jobs(
        self, order: Order, *, passing_over: Collection[str] = (), now: float | None = None
    ) -> tuple[int | None, int | None]:
        """The job that is urgent and the job whose turn it is by its waiting; they may be the same, or None.

        Looks at the first few of each priority, so it takes as long with a hundred thousand jobs as with one.

        Args:
            passing_over: ``use`` of pipelines that cannot be loaded here.
        """
        moment = self._now(now)
        with self._database.reading() as db:
            firsts = list(_firsts(db, moment, sorted(passing_over)))
        if not firsts:
            return None, None
        urgent = [row for row in firsts if row.priority <= order.urgent_up_to]
        waited = min(firsts, key=lambda row: (_turn(row, order), row.id))
        first = min(urgent, key=lambda row: (row.priority, row.queued_at, row.id), default=None)
        return (None if first is None else first.id), waited.id


def _turn(row: Row[Any], order: Order) -> float:
    return float(row.queued_at) + int(row.priority) * order.aging_seconds


def _firsts(db: Connection, moment: float, passing_over: Collection[str]) -> Iterator[Row[Any]]:
    """Of each priority the job that has waited longest and can be done, and those that their worker has deserted."""
    deserted = and_(jobs.c.state == JobState.RUNNING, jobs.c.lease_until <= moment, jobs.c.use.not_in(passing_over))
    yield from (row for row in db.execute(_judged(moment, deserted)) if row.is_free)
    left, window = list(PRIORITIES), WINDOW
    while left:
        seen: dict[int, list[Row[Any]]] = {priority: [] for priority in left}
        for row in db.execute(union_all(*(_oldest(moment, priority, passing_over, window) for priority in left))):
            seen[row.priority].append(row)
        for priority, rows in seen.items():
            free = min((row for row in rows if row.is_free), key=lambda row: (row.queued_at, row.id), default=None)
            if free is not None:
                yield free
            if free is not None or len(rows) < window:
                left.remove(priority)
        window *= 20  # all of them are held: look further


def _oldest(moment: float, priority: int, passing_over: Collection[str], window: int) -> Select[Any]:
    """SQL: the first of a priority in the order of the index alone, so that no planner thinks of sorting them all."""
    waits = and_(jobs.c.state == JobState.QUEUED, jobs.c.priority == priority, jobs.c.not_before <= moment)
    first = select(jobs.c.id).where(waits, jobs.c.use.not_in(passing_over)).order_by(jobs.c.queued_at).limit(window)
    return _judged(moment, jobs.c.id.in_(select(first.subquery().c.id)))


def _judged(moment: float, which: ColumnElement[bool]) -> Select[Any]:
    """SQL: jobs, and whether something hinders them."""
    return select(jobs.c.id, jobs.c.priority, jobs.c.queued_at, unhindered(moment).label("is_free")).where(which)
