"""Which job a worker does when a bell rings: not the one that was rung for, but the one whose turn it is.

    urgent jobs wait                     the most urgent of them, then the oldest
    else                                 the one whose turn has come by its priority and its waiting (ledger/turns.py)
    urgent ones have overtaken others
    so often in a row on this device     the one that has waited, once

So a STAT study begins when the job that runs ends, whatever waits; and where urgent work never ends, each device gives
the rest one job in so many.
"""

from __future__ import annotations

from collections.abc import Collection

from node.ledger import Ledger, Order


class Turns:
    """The order of one device's work; to be asked from one thread.

    Args:
        rest_every: Of so many jobs in a row one goes to who has waited longest, though urgent ones wait.
    """

    def __init__(self, ledger: Ledger, order: Order, *, rest_every: int = 10) -> None:
        self._ledger = ledger
        self._order = order
        self._rest_every = rest_every
        self._overtook = 0

    def __call__(self, passing_over: Collection[str] = ()) -> int | None:
        """The job whose turn it is; None where nothing waits that can be done here.

        Args:
            passing_over: ``use`` of pipelines that cannot be loaded here.
        """
        urgent, waited = self._ledger.next_jobs(self._order, passing_over=passing_over)
        if urgent is None or urgent == waited:
            self._overtook = 0
            return waited
        self._overtook += 1
        if self._overtook < self._rest_every:
            return urgent
        self._overtook = 0
        return waited
