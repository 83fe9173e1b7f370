"""Deliveries: the evidence of one job for one destination, each with its own attempts and its own end.

What a destination has accepted is not sent to it again. When to try again is the caller's to say.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, and_, func, insert, or_, select, text, update

from node.errors import LostClaim, NotNow, Unknown
from node.ledger.chapter import ACCEPTED, Chapter, delivery_of, evidence_of, is_held, job_of, sent_anew
from node.ledger.entries import Delivery, DeliveryClaim
from node.ledger.states import DeliveryState
from node.ledger.tables import answers, deliveries, jobs

OTHERS = deliveries.alias("others")
EARLIER, EARLIER_JOB, OWN_JOB = deliveries.alias("earlier"), jobs.alias("earlier_job"), jobs.alias("own_job")


class Deliveries(Chapter):
    def ready_deliveries(self, now: float | None = None, *, limit: int = 1000) -> list[tuple[int, int]]:
        """(delivery id, priority) of what can be sent: the most urgent first, then the oldest."""
        moment = self._now(now)
        with self._database.reading() as db:
            query = (
                select(deliveries.c.id, jobs.c.priority)
                .join(jobs, jobs.c.id == deliveries.c.job_id)
                .where(_sendable(moment))
                .order_by(jobs.c.priority, deliveries.c.queued_at, deliveries.c.id)
                .limit(limit)
            )
            return [(row.id, row.priority) for row in db.execute(query)]

    def claim_delivery(
        self,
        delivery_id: int,
        owner: str,
        lease_seconds: float,
        now: float | None = None,
        max_active_per_destination: int = 1,
    ) -> DeliveryClaim | None:
        """The right to send, or None: it is not to be had, or the destination is busy with others."""
        moment = self._now(now)
        with self._database.writing() as db:
            self._queue_for_destination(db, delivery_id)
            row = db.execute(
                update(deliveries)
                .where(
                    deliveries.c.id == delivery_id,
                    _sendable(moment),
                    _busy_with(moment) < max_active_per_destination,
                )
                .values(
                    state=DeliveryState.SENDING,
                    attempts=deliveries.c.attempts + 1,
                    owner=owner,
                    lease_until=moment + lease_seconds,
                    claimed_at=moment,
                )
                .returning(deliveries)
            ).one_or_none()
            return None if row is None else _claimed(db, delivery_of(row), owner)

    def _queue_for_destination(self, db: Connection, delivery_id: int) -> None:
        """Two claims for one destination must not both count the other as not yet there."""
        if self._database.is_sqlite:
            return  # one writer at a time anyway
        destination = select(deliveries.c.destination).where(deliveries.c.id == delivery_id)
        name = db.scalars(destination).one_or_none()
        db.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": f"wetread delivery {name}"})

    def heartbeat_delivery(self, claim: DeliveryClaim, lease_seconds: float, now: float | None = None) -> bool:
        """Prolong the lease; False when the claim is lost: stop sending."""
        until = self._now(now) + lease_seconds
        with self._database.writing() as db:
            longer = update(deliveries).where(is_claimed(claim)).values(lease_until=until)
            return db.execute(longer).rowcount == 1

    def record_answer(
        self,
        claim: DeliveryClaim,
        sop_uid: str,
        status: int | None,
        verdict: str,
        comment: str = "",
        *,
        now: float | None = None,
    ) -> None:
        """What the destination said to one object. Kept though the claim be lost meanwhile: it was said."""
        moment = self._now(now)
        with self._database.writing() as db:
            db.execute(
                insert(answers).values(
                    delivery_id=claim.delivery.id,
                    sop_uid=sop_uid,
                    attempt=claim.attempt,
                    status=status,
                    verdict=verdict,
                    comment=comment,
                    answered_at=moment,
                )
            )

    def times_said(self, claim: DeliveryClaim, verdict: str, statuses: Collection[int | None] | None = None) -> int:
        """In how many attempts the destination said so, to any object, since the delivery was last queued."""
        of_delivery = and_(answers.c.delivery_id == claim.delivery.id, answers.c.verdict == verdict)
        since = answers.c.answered_at >= claim.delivery.queued_at
        query = select(func.count(answers.c.attempt.distinct())).where(of_delivery, since)
        if statuses is not None:
            query = query.where(answers.c.status.in_(statuses))
        with self._database.reading() as db:
            return int(db.scalars(query).one())

    def finish_delivery(
        self,
        claim: DeliveryClaim,
        *,
        state: DeliveryState | str,
        verified: bool = False,
        retry_at: float | None = None,
        reason: str | None = None,
        now: float | None = None,
    ) -> None:
        """DELIVERED; or DEAD, until an administrator retries it; or WAITING until ``retry_at``.

        Raises:
            LostClaim: If another sender has the delivery by now.
        """
        moment = self._now(now)
        values: dict[str, Any] = {
            "state": DeliveryState(state),
            "reason": reason,
            "verified": verified,
            "lease_until": None,
        }
        match DeliveryState(state):
            case DeliveryState.DELIVERED:
                values |= {"delivered_at": moment, "verified_at": moment if verified else None}
            case DeliveryState.WAITING:
                if retry_at is None:
                    raise ValueError("a delivery that waits needs the time of its next attempt")
                first = func.coalesce(deliveries.c.first_failed_at, moment)
                values |= {"not_before": retry_at, "first_failed_at": first}
            case DeliveryState.DEAD:
                values |= {"first_failed_at": func.coalesce(deliveries.c.first_failed_at, moment)}
            case DeliveryState.SENDING:
                raise ValueError("a delivery that ends is not SENDING")
        with self._database.writing() as db:
            if db.execute(update(deliveries).where(is_claimed(claim)).values(values)).rowcount != 1:
                raise LostClaim(f"delivery {claim.delivery.id} is no longer held by {claim.owner}")

    def retry_delivery(self, delivery_id: int, *, now: float | None = None) -> None:
        """An administrator has what is dead or waits sent now, its patience renewed."""
        moment = self._now(now)
        with self._database.writing() as db:
            allowed = deliveries.c.state.in_((DeliveryState.DEAD, DeliveryState.WAITING))
            which = and_(deliveries.c.id == delivery_id, allowed)
            if db.execute(update(deliveries).where(which).values(sent_anew(moment))).rowcount != 1:
                raise NotNow(f"there is no delivery {delivery_id} that is dead or waiting")

    def delivery(self, delivery_id: int) -> Delivery:
        with self._database.reading() as db:
            row = db.execute(select(deliveries).where(deliveries.c.id == delivery_id)).one_or_none()
        if row is None:
            raise Unknown(f"the ledger knows no delivery {delivery_id}")
        return delivery_of(row)


def _sendable(moment: float) -> Any:
    waiting = and_(deliveries.c.state == DeliveryState.WAITING, deliveries.c.not_before <= moment)
    deserted = and_(deliveries.c.state == DeliveryState.SENDING, deliveries.c.lease_until <= moment)
    return and_(or_(waiting, deserted), ~is_held(deliveries), ~_overtakes())


def _overtakes() -> Any:
    """SQL: the same destination still waits for an older revision's evidence; the newest must arrive last."""
    return (
        select(EARLIER.c.id)
        .join(EARLIER_JOB, EARLIER_JOB.c.id == EARLIER.c.job_id)
        .join(
            OWN_JOB, and_(OWN_JOB.c.study_uid == EARLIER_JOB.c.study_uid, OWN_JOB.c.pipeline == EARLIER_JOB.c.pipeline)
        )
        .where(
            OWN_JOB.c.id == deliveries.c.job_id,
            EARLIER_JOB.c.revision < OWN_JOB.c.revision,
            EARLIER.c.destination == deliveries.c.destination,
            EARLIER.c.state.in_((DeliveryState.WAITING, DeliveryState.SENDING)),
        )
        .correlate(deliveries)
        .exists()
    )


def _busy_with(moment: float) -> Any:
    """SQL: how many others are being sent to the same destination."""
    return (
        select(func.count())
        .select_from(OTHERS)
        .where(
            OTHERS.c.destination == deliveries.c.destination,
            OTHERS.c.id != deliveries.c.id,
            OTHERS.c.state == DeliveryState.SENDING,
            OTHERS.c.lease_until > moment,
        )
        .correlate(deliveries)
        .scalar_subquery()
    )


def is_claimed(claim: DeliveryClaim) -> Any:
    """SQL: the delivery is still this sender's."""
    return and_(
        deliveries.c.id == claim.delivery.id,
        deliveries.c.state == DeliveryState.SENDING,
        deliveries.c.owner == claim.owner,
        deliveries.c.attempts == claim.attempt,
    )


def _claimed(db: Connection, delivery: Delivery, owner: str) -> DeliveryClaim:
    accepted = select(answers.c.sop_uid).where(answers.c.delivery_id == delivery.id, answers.c.verdict.in_(ACCEPTED))
    if delivery.whole_since is not None:  # somebody wants it sent again, all of it
        accepted = accepted.where(answers.c.answered_at >= delivery.whole_since)
    done = set(db.scalars(accepted))
    objects = evidence_of(db, delivery.job_id)
    return DeliveryClaim(
        delivery=delivery,
        job=job_of(db.execute(select(jobs).where(jobs.c.id == delivery.job_id)).one()),
        owner=owner,
        attempt=delivery.attempts,
        evidence=tuple(one for one in objects if one.sop_uid not in done),
        all_evidence=objects,
        accepted=frozenset(done),
    )
