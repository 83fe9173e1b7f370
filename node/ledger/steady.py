"""The ledger's time: it runs on evenly when the machine's clock is set, and nears that by a tenth, not by a jump.

    time = told + rate × (seconds since boot - since_boot)          rate: 1, or 0.9 to 1.1 while it nears the wall clock

Leases and settle times are kept in it, so that an hour forward ends no lease and an hour back stops no study. Every
process of a boot reads the same three numbers in the ledger, whenever it started. It goes back for none of them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, select, update

from node import log
from node.errors import Unavailable
from node.ledger.database import Database
from node.ledger.tables import clocks

LOOK_SECONDS = 5.0  # how often the wall clock is compared and the numbers are read again
OFF_SECONDS, NEAR_SECONDS = 1.0, 0.5  # from which difference it nears the wall clock, and to which
SLEW = 0.1

_events = log.get("ledger")


def _seconds_since_boot() -> float:
    """With the time that the machine slept (clock_gettime(2)): the same for all of its processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _boot() -> str:
    """Which boot this is, and which count of seconds since: a container may have its own (time_namespaces(7))."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/time').readlink()}"
    except OSError:
        return f"process {os.getpid()}"  # not Linux: nothing that processes share can be told apart from the wall clock


@dataclass(frozen=True)
class Machine:
    """The clocks of a machine."""

    wall: Callable[[], float] = time.time
    since_boot: Callable[[], float] = _seconds_since_boot
    boot: Callable[[], str] = _boot


@dataclass(frozen=True)
class _Anchor:
    """At ``since_boot`` the ledger's time was ``told`` and the wall clock said ``wall``."""

    since_boot: float
    told: float
    wall: float
    rate: float

    def at(self, since_boot: float) -> float:
        return self.told + self.rate * max(0.0, since_boot - self.since_boot)

    @property
    def is_slewing(self) -> bool:
        return self.rate != 1.0


class Steady:
    """The ledger's time in seconds since the epoch, by calling it.

    Raises:
        Unavailable: If the ledger cannot be read and never could; not inside a transaction of the ledger.
    """

    def __init__(self, database: Database, machine: Machine) -> None:
        self._database, self._machine = database, machine
        self._anchor: _Anchor | None = None
        self._last = 0.0
        self._look_at = 0.0  # seconds since boot
        self._looking = threading.Lock()

    def __call__(self) -> float:
        since_boot = self._machine.since_boot()
        if self._anchor is None:
            with self._looking:
                self._anchor = self._anchor or self._look()
        elif since_boot >= self._look_at and self._looking.acquire(blocking=False):
            try:
                self._anchor = self._look()
            except Unavailable:
                self._look_at = since_boot + LOOK_SECONDS  # the numbers that we have are as good
            finally:
                self._looking.release()
        # Between two looks another process may have slowed it down: what this one has told it does not take back.
        self._last = max(self._last, self._anchor.at(self._machine.since_boot()))
        return self._last

    def _look(self) -> _Anchor:
        boot = self._machine.boot()
        with self._database.reading() as db:
            anchor = _read(db, boot)
        if anchor is None or self._rate(anchor) != anchor.rate:
            with self._database.writing() as db:
                anchor = self._written(db, boot)
        self._look_at = self._machine.since_boot() + LOOK_SECONDS
        return anchor

    def _rate(self, anchor: _Anchor) -> float:
        """How fast it is to run from now on."""
        off = self._machine.wall() - anchor.at(self._machine.since_boot())
        if abs(off) < (NEAR_SECONDS if anchor.is_slewing else OFF_SECONDS):
            return 1.0
        return 1.0 + SLEW if off > 0 else 1.0 - SLEW

    def _written(self, db: Connection, boot: str) -> _Anchor:
        """Set the three numbers anew, if no other process has done so meanwhile."""
        wall, since_boot = self._machine.wall(), self._machine.since_boot()
        before = _read(db, boot, for_update=True)
        if before is None:
            told = wall - _left_to_slew(db, wall)
            first = {"boot": boot, "since_boot": since_boot, "told": told, "wall": wall, "rate": 1.0}
            db.execute(self._database.insert_new(clocks).values(first))
            before = _read(db, boot, for_update=True)
            assert before is not None  # it was inserted, by us or by another
        rate = self._rate(before)
        if rate == before.rate:
            return before
        anchor = _Anchor(since_boot, before.at(since_boot), wall, rate)
        db.execute(update(clocks).where(clocks.c.boot == boot).values(vars(anchor)))
        _events.warning("the machine's clock was set", seconds=round(wall - anchor.told, 1))
        return anchor


def _read(db: Connection, boot: str, *, for_update: bool = False) -> _Anchor | None:
    query = select(clocks).where(clocks.c.boot == boot)
    row = db.execute(query.with_for_update() if for_update else query).one_or_none()
    return None if row is None else _Anchor(row.since_boot, row.told, row.wall, row.rate)


def _left_to_slew(db: Connection, wall: float) -> float:
    """How far the wall clock was ahead of the ledger's time when the last boot ended, as far as that can be known."""
    row = db.execute(select(clocks).order_by(clocks.c.wall.desc()).limit(1)).one_or_none()
    if row is None or row.rate == 1.0:
        return 0.0
    off: float = row.wall - row.told
    slewed: float = SLEW * max(0.0, wall - row.wall)
    return max(0.0, off - slewed) if off > 0 else min(0.0, off + slewed)
