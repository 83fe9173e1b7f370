"""The ledger catches up with the spool, behind the sender's back: one transaction for all that came since the last.

The senders' answers do not wait for it, since the spool is the journal: an instance is durable there, with a link in
``pending`` that says where it came from, and that link goes only when the ledger has committed. When the ledger cannot
be had, nothing is refused and nothing is lost; it is told later, from memory or from those links.

A study is kept open while an association that brought something of it is open. That is a lease, renewed every few
seconds, so that a listener that died does not hold its studies open.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Protocol

from node import log
from node.audit import Act, Actor, Audited, Event, Transfer, transferred, unrecorded
from node.listener.commitment import CommitmentReport
from node.spool import Arrival, Spool

LEASE_SECONDS = 15.0
_GATHER_SECONDS = 0.5  # what comes within it shares a transaction, unless an association ends
_LONGEST_PAUSE_SECONDS = 10.0  # between two tries to reach the ledger
_MOST_IN_MEMORY = 50_000  # arrivals, about 1 KB each; beyond it the links in ``pending`` remember them
_MOST_REPORTS = 1000
_BATCH = 2000

_events = log.get("listener")


class Ledger(Protocol):
    """What the listener needs of the ledger."""

    def now(self) -> float: ...

    def record(self, arrivals: Sequence[Arrival], *, settle_at: float, settle_by_seconds: float) -> None: ...

    def settle_at(self, study_uids: Iterable[str], when: float) -> None: ...

    def commitment_reported(self, transaction_uid: str, held: Sequence[str], failed: Sequence[str]) -> str: ...


class Journal:
    """Tells the ledger what arrived and when its studies may settle, from a thread of its own.

    Args:
        quiet_seconds: For the studies of an earlier listener, which nobody is sending any more.
        longest_wait_seconds: After the first arrival of a revision its study settles, whatever is still open.
        own: Our AE title. ``audited``: is told what came, before its link in ``pending`` goes.
    """

    def __init__(
        self,
        spool: Spool,
        ledger: Ledger,
        *,
        quiet_seconds: float,
        longest_wait_seconds: float,
        own: str = "WETREAD",
        audited: Audited = unrecorded,
    ) -> None:
        self._own, self._audited = own, audited
        self._spool, self._ledger = spool, ledger
        self._quiet, self._longest_wait = quiet_seconds, longest_wait_seconds
        self._wake = threading.Condition()
        self._arrivals: list[Arrival] = []
        self._reports: list[CommitmentReport] = []
        self._look_in_spool = True  # at the start for what an earlier listener could not tell
        self._open: dict[str, set[int]] = defaultdict(set)  # study UID → the associations that brought some of it
        self._quiet_until: dict[str, float] = {}  # study UID → when it may settle, of time.monotonic; to be told
        self._ending = False
        self._renew_at = 0.0
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def arrived(self, arrival: Arrival, association: int) -> None:
        with self._wake:
            self._open[arrival.study_uid].add(association)
            self._quiet_until.pop(arrival.study_uid, None)  # an earlier association's; this one is open
            if len(self._arrivals) < _MOST_IN_MEMORY:
                self._arrivals.append(arrival)
            else:
                self._look_in_spool = True
            self._wake.notify()

    def reported(self, report: CommitmentReport) -> None:
        """A peer says what it keeps. It is not on disk: one that is lost costs a delivery a question (outbox.py)."""
        with self._wake:
            self._reports = [*self._reports[-_MOST_REPORTS:], report]
            self._wake.notify()

    def closed(self, association: int, quiet_seconds: float) -> None:
        """An association has ended: its studies may settle when it has been quiet, unless another one is open."""
        now = time.monotonic()
        with self._wake:
            for study_uid in [uid for uid, open_ones in self._open.items() if association in open_ones]:
                self._open[study_uid].discard(association)
                if not self._open[study_uid]:
                    del self._open[study_uid]
                    self._quiet_until[study_uid] = now + quiet_seconds
            self._wake.notify()

    def close(self, seconds: float) -> None:
        """Tell the ledger the rest, if it can be told in time; what it cannot be told stays in ``pending``."""
        with self._wake:
            self._ending = True
            self._wake.notify()
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            with self._wake:
                if self._wake.wait_for(self._has_news, self._seconds_to_wait()):
                    # A transaction has the price of some hundred instances, and the thread that receives pays it too.
                    self._wake.wait_for(self._is_urgent, _GATHER_SECONDS)
                ending = self._ending
            done = self._tell()
            if ending and (done or self._failures >= 3):
                return

    def _has_news(self) -> bool:
        told = not (self._arrivals or self._reports or self._quiet_until or self._look_in_spool)
        return self._ending or not (told or self._failures)

    def _is_urgent(self) -> bool:
        return bool(self._ending or self._quiet_until or len(self._arrivals) >= _BATCH)

    def _seconds_to_wait(self) -> float:
        if self._failures:
            return min(_LONGEST_PAUSE_SECONDS, 0.25 * 2.0 ** min(self._failures, 6))
        return LEASE_SECONDS / 3

    def _tell(self) -> bool:
        """One round; whether the ledger knows all that was there when it began."""
        with self._wake:
            arrivals, self._arrivals = self._arrivals, []
            quiet_until, self._quiet_until = self._quiet_until, {}
            still_open = list(self._open)
            reports, self._reports = self._reports, []
        try:
            while reports:
                self._report(reports[0])
                del reports[0]
            while arrivals:
                self._record(arrivals[:_BATCH])
                del arrivals[:_BATCH]
            by_time: dict[float, list[str]] = defaultdict(list)
            for study_uid, when in quiet_until.items():
                by_time[when].append(study_uid)
            for when, study_uids in by_time.items():
                self._ledger.settle_at(study_uids, self._ledger.now() + when - time.monotonic())
                for study_uid in study_uids:
                    del quiet_until[study_uid]
            if still_open and time.monotonic() >= self._renew_at:
                self._ledger.settle_at(still_open, self._ledger.now() + LEASE_SECONDS)
                self._renew_at = time.monotonic() + LEASE_SECONDS / 3
            if self._look_in_spool:
                self._take_from_spool()
                self._failures = 0
                return False
        except Exception as error:  # of whatever kind the database's: the spool remembers, and we try again
            with self._wake:
                self._reports = reports + self._reports
            self._remember(arrivals, quiet_until, error)
            return False
        self._failures = 0
        return True

    def _record(self, arrivals: list[Arrival]) -> None:
        lease = self._ledger.now() + LEASE_SECONDS
        self._ledger.record(arrivals, settle_at=lease, settle_by_seconds=self._longest_wait)
        self._audited(*received(arrivals, receiver=self._own, way="DICOM"))
        self._spool.recorded(arrivals)

    def _report(self, report: CommitmentReport) -> None:
        came_to = self._ledger.commitment_reported(report.transaction_uid, report.held, report.failed)
        _events.info("storage commitment", count=len(report.held), state=came_to)

    def _remember(self, arrivals: list[Arrival], quiet_until: dict[str, float], error: Exception) -> None:
        self._failures += 1
        _events.error(
            "the ledger cannot be told", count=len(arrivals), attempt=self._failures, reason=f"{type(error).__name__}"
        )
        if self._failures >= 3 and self._failures % 3 == 0:
            arrivals = self._one_by_one(arrivals)
        with self._wake:
            self._arrivals = arrivals + self._arrivals
            left = {uid: when for uid, when in quiet_until.items() if uid not in self._open}
            self._quiet_until = left | self._quiet_until

    def _one_by_one(self, arrivals: list[Arrival]) -> list[Arrival]:
        """Record what can be recorded: one that the ledger cannot take must not hold up the others."""
        left: list[Arrival] = []
        for place, arrival in enumerate(arrivals):
            try:
                self._record([arrival])
            except Exception as error:
                left.append(arrival)
                _events.error("not recorded", sha256=arrival.sha256, reason=type(error).__name__)
                if len(left) > 3 and len(left) == place + 1:  # none at all: it is the ledger
                    return left + arrivals[place + 1 :]
        return left

    def _take_from_spool(self) -> None:
        self._look_in_spool = False
        now = time.monotonic()
        try:
            for arrival in self._spool.unrecorded():
                with self._wake:
                    self._arrivals.append(arrival)
                    if arrival.study_uid not in self._open:
                        self._quiet_until[arrival.study_uid] = now + self._quiet
                    if len(self._arrivals) >= _MOST_IN_MEMORY:
                        self._look_in_spool = True
                        return
        except OSError:
            self._look_in_spool = True  # the rest is looked for in the next round
            raise


def received(arrivals: Iterable[Arrival], *, receiver: str, way: str) -> list[Event]:
    """What came, for the audit trail: an event per study and sender, for it may name one patient alone."""
    groups: dict[tuple[str, str, str], list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        groups[arrival.study_uid, arrival.caller, arrival.address].append(arrival)
    events = []
    for (study_uid, caller, address), group in groups.items():
        classes: dict[str, int] = defaultdict(int)
        for arrival in group:
            classes[arrival.sop_class] += 1
        what = Transfer(study_uid, group[0].patient_id, classes)
        events.append(transferred(what, Act.CREATE, sender=Actor(caller, address, way), receiver=Actor(receiver)))
    return events
