"""Which pipelines a person has switched on, off or to shadow, whatever the settings say.

A switch holds for what settles from then on, and for what waits or is being read: what is off is not read, and what is
read in shadow is kept and shown, sent nowhere and moves nothing. What is read already stays as it was read.
"""

from __future__ import annotations

from sqlalchemy import Connection, and_, delete, or_, select, update

from node.ledger.chapter import Chapter, ended
from node.ledger.entries import Switched
from node.ledger.states import JobState, Mode
from node.ledger.tables import jobs, switches

OPEN = (JobState.QUEUED, JobState.RUNNING)


class Switches(Chapter):
    def switch(
        self, pipeline: str, mode: Mode | None, *, usual: Mode = Mode.ON, reason: str = "", now: float | None = None
    ) -> bool:
        """Have the pipeline go by this mode, or by the settings' (None); False if it does so already.

        Args:
            usual: What the settings say.
        """
        moment = self._now(now)
        with self._database.writing() as db:
            row = db.execute(select(switches).where(switches.c.pipeline == pipeline).with_for_update()).one_or_none()
            if (row.mode if row else None) == mode:
                return False
            db.execute(delete(switches).where(switches.c.pipeline == pipeline))
            if mode is not None:
                values = {"pipeline": pipeline, "mode": mode, "since": moment, "reason": reason}
                db.execute(switches.insert().values(values))
            self._apply(db, pipeline, mode or usual, moment)
            return True

    def switched(self) -> dict[str, Switched]:
        """The pipelines that a person has switched, by name."""
        with self._database.reading() as db:
            return {
                row.pipeline: Switched(row.pipeline, Mode(row.mode), row.since, row.reason)
                for row in db.execute(select(switches))
            }

    def _apply(self, db: Connection, pipeline: str, mode: Mode, moment: float) -> None:
        is_unread = or_(jobs.c.outcome.is_(None), jobs.c.outcome != "read")  # else it is read again, in other forms
        to_do = and_(jobs.c.pipeline == pipeline, jobs.c.state.in_(OPEN), is_unread)
        if mode == Mode.OFF:
            db.execute(ended(to_do, JobState.CANCELLED, moment, f"{pipeline} was switched off"))
        else:
            is_shadow = mode == Mode.SHADOW
            db.execute(update(jobs).where(to_do, jobs.c.shadow.is_not(is_shadow)).values(shadow=is_shadow))
