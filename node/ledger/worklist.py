"""The ledger read for triage: when studies came that a pipeline reads, and how long it took to read them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import and_, select

from node.ledger.chapter import Chapter
from node.ledger.tables import jobs, revisions


@dataclass(frozen=True)
class Came:
    """A study as it was when it was first whole.

    Attributes:
        at: Its last image, by the wall clock.
        read_after: Seconds until the pipeline had read it; None: it has not.
    """

    at: float
    read_after: float | None


class Worklist(Chapter):
    def came(self, pipeline: str, *, since: float = 0.0) -> tuple[Came, ...]:
        """The studies that the pipeline was wanted for, in the order in which they were whole."""
        first = and_(revisions.c.study_uid == jobs.c.study_uid, revisions.c.number == jobs.c.revision)
        query = (
            select(revisions.c.last_arrival, revisions.c.settled_at, jobs.c.done_at)
            .join(jobs, first)
            .where(jobs.c.pipeline == pipeline, jobs.c.revision == 1, revisions.c.last_arrival >= since)
            .order_by(revisions.c.last_arrival)
        )
        with self._database.reading() as db:
            return tuple(
                # From when it settled: the two clocks differ, the quiet time is short beside any reading.
                Came(row.last_arrival, None if row.done_at is None else row.done_at - row.settled_at)
                for row in db.execute(query)
            )
