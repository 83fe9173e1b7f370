"""What a person orders: a job again, not at all, sooner, apart; its evidence once more; a worker to take nothing more.

Each is one transaction. Who may order and that it was ordered is not the ledger's to know (node/actions.py).
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, Row, and_, delete, select, update

from node.errors import NotNow
from node.ledger.chapter import Chapter, ended, evidence_of, job_of, locked_job, send_to, sent_anew
from node.ledger.entries import Drained
from node.ledger.purging import has_images
from node.ledger.states import DeliveryState, JobState, Mode
from node.ledger.tables import deliveries, drained, jobs, studies, switches

OPEN = (JobState.QUEUED, JobState.RUNNING)


class Orders(Chapter):
    def retry(self, job_id: int, *, now: float | None = None) -> None:
        """A job that ended without a result starts afresh, and its dead deliveries are sent again.

        Raises:
            NotNow: If there is nothing to retry, or a newer revision of the study has settled: what is sent late
                must not look like the newest.
        """
        moment = self._now(now)
        with self._database.writing() as db:
            job = locked_job(db, job_id)
            failed = job.state == JobState.DONE and job.outcome == "failed"  # its report says so, and was sent
            starts = failed or job.state in (JobState.FAILED, JobState.QUARANTINED, JobState.CANCELLED)
            dead = and_(deliveries.c.job_id == job_id, deliveries.c.state == DeliveryState.DEAD)
            if not starts and db.scalars(select(deliveries.c.id).where(dead).limit(1)).one_or_none() is None:
                raise NotNow(
                    f"job {job_id} is {job.state}; only a failed, quarantined or cancelled one is retried, or one with "
                    "a dead delivery"
                )
            _check_newest(db, job)
            mode = db.scalars(select(switches.c.mode).where(switches.c.pipeline == job.pipeline)).one_or_none()
            if starts and mode == Mode.OFF:
                raise NotNow(f"{job.pipeline} is switched off; switch it on first")
            if starts and not has_images(db, job.study_uid):
                raise NotNow(f"the images of study {job.study_uid} were deleted; send it again first")
            db.execute(update(deliveries).where(dead).values(sent_anew(moment)))
            if not starts:
                return
            again = {"state": JobState.QUEUED, "not_before": moment, "forgiven": jobs.c.attempts}
            cleared = {"owner": None, "lease_until": None, "done_at": None, "reason": None}
            shadow = {"shadow": mode == Mode.SHADOW} if mode else {}
            db.execute(update(jobs).where(jobs.c.id == job_id).values(again | cleared | shadow))

    def read_again(self, job_id: int, forms: Collection[str], *, now: float | None = None) -> None:
        """A job that is done has its evidence made in these forms, too; what it has left already stays as it is.

        Raises:
            NotNow: If it has not ended with evidence, or a newer revision of the study has settled.
        """
        with self._database.writing() as db:
            job = locked_job(db, job_id)
            if job.state in OPEN:
                return
            if job.state != JobState.DONE:
                raise NotNow(f"job {job_id} is {job.state}{f': {job.reason}' if job.reason else ''}")
            _check_newest(db, job)
            if db.scalars(select(studies.c.purged_at).where(studies.c.uid == job.study_uid)).one() is not None:
                raise NotNow(f"the images of job {job_id} are purged")
            asked = sorted({*(job.asked or ()), *forms})
            again = {
                "state": JobState.QUEUED,
                "not_before": self._now(now),
                "forgiven": jobs.c.attempts,
                "asked": asked,
            }
            cleared = {"owner": None, "lease_until": None, "done_at": None, "reason": None}
            db.execute(update(jobs).where(jobs.c.id == job_id).values(again | cleared))

    def cancel(self, job_id: int, *, now: float | None = None) -> None:
        """Stop a job; a worker that runs it learns so at its next heartbeat."""
        self._stop(job_id, JobState.CANCELLED, "cancelled by an administrator", self._now(now))

    def quarantine(self, job_id: int, *, reason: str = "", now: float | None = None) -> None:
        """Set a job apart, as one that takes its worker along: it is not read until somebody retries it."""
        because = f": {reason}" if reason else ""
        self._stop(job_id, JobState.QUARANTINED, f"quarantined by an administrator{because}", self._now(now))

    def _stop(self, job_id: int, state: JobState, reason: str, moment: float) -> None:
        allowed = (*OPEN, JobState.FAILED) if state == JobState.QUARANTINED else OPEN
        with self._database.writing() as db:
            job = locked_job(db, job_id)
            if job.state not in allowed:
                raise NotNow(f"job {job_id} is {job.state}; only a queued or running one is {state.lower()}")
            db.execute(ended(jobs.c.id == job_id, state, moment, reason))

    def prioritize(self, job_id: int, priority: int) -> bool:
        """Have the job, and what is still to be sent of it, done with this priority (0 the most urgent to 9).

        Returns whether that changes anything.

        Raises:
            NotNow: If nothing of it is to be done any more.
        """
        if not 0 <= priority <= 9:
            raise NotNow(f"a priority is 0, the most urgent, to 9, not {priority}")
        with self._database.writing() as db:
            job = locked_job(db, job_id)
            unsent = deliveries.c.state.in_((DeliveryState.WAITING, DeliveryState.SENDING))
            to_send = select(deliveries.c.id).where(deliveries.c.job_id == job_id, unsent).limit(1)
            if job.state not in OPEN and db.scalars(to_send).one_or_none() is None:
                raise NotNow(f"job {job_id} is {job.state}, and nothing of it is still to be read or sent")
            db.execute(update(jobs).where(jobs.c.id == job_id).values(priority=priority))
            return bool(job.priority != priority)

    def send_again(self, job_id: int, destination: str, *, now: float | None = None) -> int | None:
        """All evidence of a job to a destination, whether it has it already or never was to have it.

        Returns the delivery, or None where it is on its way there already.

        Raises:
            NotNow: If there is no evidence, or a newer revision of the study has settled.
        """
        moment = self._now(now)
        with self._database.writing() as db:
            job = locked_job(db, job_id)
            if job.purged_at is not None:
                raise NotNow(f"the evidence of job {job_id} was deleted after it had been delivered")
            if job.shadow:
                raise NotNow(f"job {job_id} was read in shadow: nothing of it is sent")
            if not evidence_of(db, job_id):
                raise NotNow(f"job {job_id} is {job.state} and has left no evidence to send")
            _check_newest(db, job)
            same = and_(deliveries.c.job_id == job_id, deliveries.c.destination == destination)
            under_way = deliveries.c.state.in_((DeliveryState.WAITING, DeliveryState.SENDING))
            if db.scalars(select(deliveries.c.id).where(same, under_way)).one_or_none() is not None:
                return None
            number = send_to(db, job_of(job), destination, moment)
            db.execute(update(deliveries).where(deliveries.c.id == number).values(whole_since=moment))
            return number

    def drain(self, worker: str, *, reason: str = "", now: float | None = None) -> bool:
        """The worker, as ``host/device``, ends what it does and takes nothing more; False if that holds already."""
        row = {"worker": worker, "since": self._now(now), "reason": reason}
        with self._database.writing() as db:
            new = self._database.insert_new(drained).values(row).returning(drained.c.worker)
            return db.scalars(new).one_or_none() is not None

    def resume(self, worker: str) -> bool:
        """The worker takes work again; False if it was not drained."""
        with self._database.writing() as db:
            return db.execute(delete(drained).where(drained.c.worker == worker)).rowcount == 1

    def drained(self) -> dict[str, Drained]:
        """The workers that take nothing more, by name."""
        with self._database.reading() as db:
            return {row.worker: Drained(row.worker, row.since, row.reason) for row in db.execute(select(drained))}

    def is_drained(self, worker: str) -> bool:
        with self._database.reading() as db:
            return db.scalars(select(drained.c.worker).where(drained.c.worker == worker)).one_or_none() is not None


def _check_newest(db: Connection, job: Row[tuple[object, ...]]) -> None:
    newest = db.scalars(select(studies.c.revision).where(studies.c.uid == job.study_uid)).one()
    if job.revision != newest:
        raise NotNow(f"job {job.id} is of revision {job.revision}; the study is at revision {newest}")
