"""The audit trail on disk: records in order, each bound to the one before it by a keyed digest.

    audit/trail.sqlite   the records, the mark of the last one, and of the last one that was purged
    audit/key            32 random bytes, for their owner alone

The digest of record n is HMAC-SHA-256(key, digest of n-1, n, message). Who has the file but not the key can neither
change, insert, reorder nor remove a record unseen, and the marks are keyed as well, so neither can the end be cut off.
An older copy of the whole folder only a collector unmasks, or a digest that was noted down (``Verdict.head``).

Any process of the machine may record at any time; it is on disk when the call returns.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from node import log
from node.audit.messages import Event, Source
from node.audit.records import NOTHING, Entry, digest_of, seal_of
from node.audit.verification import Verdict, Verification
from node.errors import Unavailable

BUSY_SECONDS = 30.0
_events = log.get("audit")
_TABLES = """
CREATE TABLE IF NOT EXISTS records (n INTEGER PRIMARY KEY, at REAL NOT NULL, event TEXT NOT NULL, study TEXT,
                                    message TEXT NOT NULL, digest TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS records_study ON records (study) WHERE study IS NOT NULL;
CREATE INDEX IF NOT EXISTS records_event ON records (event);
CREATE TABLE IF NOT EXISTS marks (name TEXT PRIMARY KEY, n INTEGER NOT NULL, digest TEXT NOT NULL, seal TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sent (collector TEXT PRIMARY KEY, n INTEGER NOT NULL);
"""


class Trail:
    """The audit trail of one machine.

    Args:
        folder: Made if it is not there, for its owner only.
        source: Who reports.
    """

    def __init__(self, folder: Path, source: Source, *, clock: Callable[[], float] = time.time) -> None:
        self.folder, self.source, self._clock = folder, source, clock
        self._file, self._key_file = folder / "trail.sqlite", folder / "key"

    def now(self) -> float:
        """The trail's time, in seconds since the epoch."""
        return self._clock()

    def record(self, *events: Event) -> None:
        """Write the events down, in order.

        Raises:
            Unavailable: They cannot be written.
        """
        if events:
            with self._writing() as (db, key):
                self._append(db, key, events)

    @contextlib.contextmanager
    def recording(self) -> Iterator[Callable[[Event], None]]:
        """A state in which an act may be done and said: what cannot be recorded is not done.

        The trail is locked and writable before the act begins; what is said is on disk when the ``with`` ends, also
        where it ends in an error.
        """
        said: list[Event] = []
        failure: BaseException | None = None
        with self._writing() as (db, key):
            try:
                yield said.append
            except BaseException as error:
                failure = error
            self._append(db, key, said)
        if failure is not None:
            raise failure

    def entries(
        self, limit: int = 50, *, before: int | None = None, study_uid: str | None = None, event: str | None = None
    ) -> list[Entry]:
        """The newest records first; those before number ``before``, of a study, of an event by its meaning."""
        conditions = {"n < ?": before, "study = ?": study_uid, "event = ?": event}
        asked = {sql: value for sql, value in conditions.items() if value is not None}
        where = f" WHERE {' AND '.join(asked)}" if asked else ""
        with self._reading() as db:
            query = f"SELECT n, at, event, study, message, digest FROM records{where} ORDER BY n DESC LIMIT ?"  # noqa: S608
            return [Entry(*row) for row in db.execute(query, (*asked.values(), limit))]

    def after(self, n: int, limit: int = 100) -> list[Entry]:
        """The records that follow number ``n``, in order."""
        with self._reading() as db:
            query = "SELECT n, at, event, study, message, digest FROM records WHERE n > ? ORDER BY n LIMIT ?"
            return [Entry(*row) for row in db.execute(query, (n, limit))]

    def sent(self, collector: str) -> int:
        """The number of the last record that the collector has; 0: none yet."""
        with self._reading() as db:
            row = db.execute("SELECT n FROM sent WHERE collector = ?", (collector,)).fetchone()
            return int(row[0]) if row else 0

    def mark_sent(self, collector: str, n: int) -> None:
        with self._writing() as (db, _):
            db.execute("INSERT OR REPLACE INTO sent VALUES (?, ?)", (collector, n))

    def purgeable(self, before: float) -> int:
        """How many records are older than that time, and followed by others that stay."""
        with self._reading() as db:
            return int(db.execute(*_older(before, "SELECT count(*)")).fetchone()[0])

    def purge(self, before: float) -> int:
        """Remove the records that are older than that time, but for the last; returns how many."""
        if not self.purgeable(before):
            return 0
        with self._writing() as (db, key):
            row = db.execute(*_older(before, "SELECT max(n)")).fetchone()
            if row[0] is None:
                return 0
            last = db.execute("SELECT n, digest FROM records WHERE n = ?", row).fetchone()
            _set_mark(db, key, "base", *last)
            return db.execute("DELETE FROM records WHERE n <= ?", row).rowcount

    def verify(self, against: str | None = None) -> Verdict:
        """Read every record and check it; ``against`` is a head that was noted down, as ``N:DIGEST``.

        Raises:
            Unavailable: The trail cannot be read at all.
        """
        if not self._key_file.exists() and not self._file.exists():
            return Verdict(0, 1, 0, 1 if against else None, "there is no trail" if against else "", "")
        if not self._key_file.exists():
            return Verdict(0, 1, 0, 1, f"the key is gone: {self._key_file}", "")
        with self._reading() as db:
            try:
                return Verification(db, self._key_file.read_bytes(), against).verdict()
            except sqlite3.DatabaseError as error:
                raise Unavailable(f"the audit trail {self._file} is damaged: {error}") from error

    def _append(self, db: sqlite3.Connection, key: bytes, events: Sequence[Event]) -> None:
        row = db.execute("SELECT n, digest FROM marks WHERE name = 'head'").fetchone()
        n, digest = row or (0, NOTHING)
        for event in events:
            n, at = n + 1, self._clock()
            message = event.xml(self.source, at)
            digest = digest_of(key, digest, n, message)
            values = (n, at, event.id.meaning, event.study_uid, message, digest)
            db.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", values)
        if events:
            _set_mark(db, key, "head", n, digest)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[tuple[sqlite3.Connection, bytes]]:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            key = self._key()
            with self._connected() as db:
                db.execute("BEGIN IMMEDIATE")
                yield db, key
                db.execute("COMMIT")  # an error before it: closing rolls back
        except (OSError, sqlite3.Error) as error:
            raise Unavailable(f"the audit trail in {self.folder} cannot be written: {error}") from error

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._connected() as db:
                db.execute("BEGIN")
                yield db
        except (OSError, sqlite3.OperationalError) as error:
            raise Unavailable(f"the audit trail in {self.folder} cannot be read: {error}") from error

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        fresh = not self._file.exists()
        db = sqlite3.connect(self._file, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            # As the ledger's (database.py): no WAL, and the journal emptied durably.
            for pragma in ("journal_mode = TRUNCATE", "synchronous = FULL"):
                db.execute(f"PRAGMA {pragma}")
            if fresh:
                self._file.chmod(0o600)
            db.executescript(_TABLES) if fresh or not _has_tables(db) else None
            yield db
        finally:
            db.close()

    def _key(self) -> bytes:
        """The key; made where there is neither a key nor a trail yet."""
        with contextlib.suppress(FileNotFoundError):
            return self._key_file.read_bytes()
        if self._file.exists() and self._file.stat().st_size:
            with contextlib.closing(sqlite3.connect(self._file)) as db:
                if _has_tables(db) and db.execute("SELECT 1 FROM marks LIMIT 1").fetchone():
                    raise Unavailable(f"the key of the audit trail is gone: {self._key_file}")
        part = self._key_file.with_name(f"key.{os.getpid()}.part")
        file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(file, os.urandom(32))
            os.fsync(file)
        finally:
            os.close(file)
        with contextlib.suppress(FileExistsError):  # another process was first
            os.link(part, self._key_file)
        part.unlink()
        return self._key_file.read_bytes()


class Audited(Protocol):
    """Is told what happened."""

    def __call__(self, *events: Event) -> None: ...


def unrecorded(*_: Event) -> None:
    """For a part that runs without an audit trail."""


class Seldom:
    """Whether something is to be said again: once in so many seconds of each kind, so that a flood fills no disk."""

    def __init__(self, seconds: float = 60.0, *, most: int = 1000) -> None:
        self._seconds, self._most = seconds, most
        self._said: dict[str, float] = {}  # of time.monotonic

    def __call__(self, kind: str) -> bool:
        now = time.monotonic()
        if now - self._said.get(kind, -self._seconds) < self._seconds:
            return False
        if len(self._said) >= self._most:
            self._said = {key: at for key, at in self._said.items() if now - at < self._seconds}
            if len(self._said) >= self._most:
                return False
        self._said[kind] = now
        return True


def quietly(trail: Trail) -> Audited:
    """``trail.record`` for what happens anyway: where it cannot be written, the log says so and the work goes on."""

    def record(*events: Event) -> None:
        try:
            trail.record(*events)
        except Unavailable as fault:
            _events.error("the audit trail cannot be written", count=len(events), reason=str(fault))

    return record


def _set_mark(db: sqlite3.Connection, key: bytes, name: str, n: int, digest: str) -> None:
    values = (name, n, digest, seal_of(key, name, n, digest))
    db.execute("INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?)", values)


def _older(before: float, what: str) -> tuple[str, tuple[float]]:
    # An unbroken stretch from the beginning: a record whose time is older than its predecessor's stays with it.
    younger = "(SELECT coalesce(min(n), (SELECT max(n) FROM records)) FROM records WHERE at >= ?)"
    return f"{what} FROM records WHERE n < {younger}", (before,)


def _has_tables(db: sqlite3.Connection) -> bool:
    query = "SELECT count(*) FROM sqlite_master WHERE name IN ('records', 'marks', 'sent')"
    return bool(db.execute(query).fetchone()[0] == 3)
