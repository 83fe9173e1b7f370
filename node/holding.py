"""Holds a claim while its job is worked on: the lease is kept alive, and a worker that is to stop stops in time."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from node.errors import NodeError, Unavailable
from node.ledger import Claim, Ledger

BEAT_SECONDS = 5.0


class Stopping(NodeError):
    """The worker is to end, and the job has had the time that it may still take."""


@dataclass
class Holding:
    """Asked several times a second whether the work is still wanted.

    Attributes:
        drain_seconds: How long the job may go on after ``stop`` was set.
    """

    ledger: Ledger
    claim: Claim
    stop: threading.Event
    lease_seconds: float
    drain_seconds: float
    _next_beat: float = field(default_factory=lambda: time.monotonic() + BEAT_SECONDS)
    _stopped_at: float | None = None

    def __call__(self) -> bool:
        """False when the claim is lost or the job cancelled.

        Raises:
            Stopping: If the worker is to stop, and the job has had its time since.
        """
        if self.stop.is_set():
            self._stopped_at = self._stopped_at or time.monotonic()
            if time.monotonic() - self._stopped_at > self.drain_seconds:
                raise Stopping("the worker is stopped")
        if time.monotonic() < self._next_beat:
            return True
        self._next_beat = time.monotonic() + BEAT_SECONDS
        try:
            return self.ledger.heartbeat(self.claim.job.id, self.claim.owner, self.claim.attempt, self.lease_seconds)
        except Unavailable:
            return True  # the claim is fenced: if it is lost by then, the result is dropped
