"""Storage commitment (PS3.4 Annex J): what a destination was asked to keep, and its report, whichever way that comes.

The report may come before its delivery is put to wait for it, or long after: either way the delivery is verified.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from node.errors import LostClaim
from node.ledger.chapter import Chapter, evidence_of
from node.ledger.deliveries import is_claimed
from node.ledger.entries import Commitment, DeliveryClaim
from node.ledger.states import DeliveryState
from node.ledger.tables import commitments, deliveries


class Commitments(Chapter):
    def ask_commitment(self, claim: DeliveryClaim, transaction_uid: str, *, now: float | None = None) -> None:
        """The destination is about to be asked; to be written down before it is, for it may answer at once."""
        new = {"transaction_uid": transaction_uid, "delivery_id": claim.delivery.id, "asked_at": self._now(now)}
        new["wanted"] = sorted(one.sop_uid for one in claim.all_evidence)
        with self._database.writing() as db:
            db.execute(insert(commitments).values(new))

    def commitment(self, claim: DeliveryClaim) -> Commitment | None:
        """What the destination was asked last since the delivery was queued."""
        query = select(commitments).where(
            commitments.c.delivery_id == claim.delivery.id, commitments.c.asked_at >= claim.delivery.queued_at
        )
        with self._database.reading() as db:
            row = db.execute(query.order_by(commitments.c.asked_at.desc()).limit(1)).one_or_none()
        return None if row is None else _commitment_of(row)

    def await_commitment(self, claim: DeliveryClaim, transaction_uid: str, *, until: float, reason: str) -> bool:
        """Let the delivery wait for the report; False if it has come already, and nothing is done.

        Raises:
            LostClaim: If another sender has the delivery by now.
        """
        waits = {"state": DeliveryState.WAITING, "not_before": until, "reason": reason, "lease_until": None}
        with self._database.writing() as db:
            _locked(db, claim.delivery.id)
            asked = db.execute(select(commitments).where(commitments.c.transaction_uid == transaction_uid)).one()
            if asked.reported_at is not None:
                return False
            if db.execute(update(deliveries).where(is_claimed(claim)).values(waits)).rowcount != 1:
                raise LostClaim(f"delivery {claim.delivery.id} is no longer held by {claim.owner}")
            return True

    def commitment_reported(
        self, transaction_uid: str, held: Sequence[str], failed: Sequence[str], *, now: float | None = None
    ) -> str:
        """What the destination says that it keeps. Returns what that came to.

        A delivery of which everything is kept is delivered and verified; of which something is not is asked about
        again at once. One that is being sent has a sender who will look, and one that was queued anew asks anew.
        """
        moment = self._now(now)
        which = commitments.c.transaction_uid == transaction_uid
        with self._database.writing() as db:
            number = db.scalars(select(commitments.c.delivery_id).where(which)).one_or_none()
            if number is None:
                return "nobody asked for it"
            delivery = _locked(db, number)
            db.execute(update(commitments).where(which).values(reported_at=moment, held=sorted({*held} - {*failed})))
            asked = db.execute(select(commitments).where(which)).one()
            if delivery.state == DeliveryState.SENDING or asked.asked_at < delivery.queued_at:
                return "its delivery is under way"
            all_of_it = {
                one.sop_uid for one in evidence_of(db, delivery.job_id)
            }  # of who asked before forms were known
            if set(asked.wanted or all_of_it) <= set(asked.held):
                _verify(db, delivery, moment)
                return "everything is kept"
            if delivery.state == DeliveryState.WAITING:
                db.execute(update(deliveries).where(deliveries.c.id == number).values(not_before=moment))
            return "not everything is kept"


def _verify(db: Connection, delivery: Row[Any], moment: float) -> None:
    first = {name: func.coalesce(deliveries.c[name], moment) for name in ("delivered_at", "verified_at")}
    done = {"state": DeliveryState.DELIVERED, "verified": True, "reason": None}
    db.execute(update(deliveries).where(deliveries.c.id == delivery.id).values(done | first))


def _locked(db: Connection, delivery_id: int) -> Row[Any]:
    return db.execute(select(deliveries).where(deliveries.c.id == delivery_id).with_for_update()).one()


def _commitment_of(row: Row[Any]) -> Commitment:
    held = None if row.reported_at is None else frozenset(row.held)
    return Commitment(row.transaction_uid, row.delivery_id, row.asked_at, held)
