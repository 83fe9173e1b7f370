"""Asking a destination back: which objects of a delivery it has, by a search, or keeps, by storage commitment.

Where a destination is to be asked for commitment it may report in a moment, or on an association of its own: then the
delivery waits in the ledger, and nobody here for it. What an answer means for a delivery is outbox.py's to decide.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from node import delivery, log
from node.delivery import Destination, Outgoing
from node.instance import new_uid
from node.ledger import DeliveryClaim, Ledger

PAUSES = (0.0, 0.5, 1.5)  # seconds: a PACS may store first and index a moment later
COMMITMENT_SECONDS = 60.0  # for a report on another association; then the destination is asked what it has

_events = log.get("outbox")


class ToBeReported(Exception):
    """The delivery has been put to wait for a report on storage commitment."""


class AskingBack:
    """May be used from several threads."""

    def __init__(self, ledger: Ledger, stop: threading.Event) -> None:
        self._ledger, self._stop = ledger, stop

    def missing(self, claim: DeliveryClaim, destination: Destination, objects: Sequence[Outgoing]) -> set[str] | None:
        """The objects that the destination does not find, or does not say that it keeps; None if it cannot say.

        Raises:
            ToBeReported: It reports on another association.
        """
        uids = {one.sop_uid for one in objects}
        if destination.commitment and destination.protocol == "dimse":
            held = self._committed(claim, destination, objects)
            if held is not None:
                return uids - held
        missing: set[str] | None = None
        for pause in PAUSES:
            self._stop.wait(pause)
            found = delivery.verify(replace(destination, commitment=False), objects)
            missing = None if found is None else uids - found
            if not missing:
                break
        return missing

    def _committed(
        self, claim: DeliveryClaim, destination: Destination, objects: Sequence[Outgoing]
    ) -> frozenset[str] | None:
        """What the destination has reported that it keeps; None where it was asked in vain, once for each queueing."""
        if (asked := self._ledger.commitment(claim)) is not None:
            is_whole = asked.held is not None and asked.held >= {one.sop_uid for one in objects}
            return asked.held if is_whole else None  # what it did not keep then it may have by now
        transaction = new_uid()
        self._ledger.ask_commitment(claim, transaction)
        promise = delivery.request_commitment(
            destination, objects, transaction, has_come=lambda: self._report(claim) is not None
        )
        if promise.held is not None:
            self._ledger.commitment_reported(transaction, sorted(promise.held), ())
        elif promise.is_taken:
            until = self._ledger.now() + COMMITMENT_SECONDS
            reason = f"{destination.where} has taken all of it and is to report that it keeps it"
            if self._ledger.await_commitment(claim, transaction, until=until, reason=reason):
                _events.info("waits for storage commitment", delivery=claim.delivery.id, destination=destination.name)
                raise ToBeReported
        return self._report(claim)

    def _report(self, claim: DeliveryClaim) -> frozenset[str] | None:
        asked = self._ledger.commitment(claim)
        return asked.held if asked else None
