"""The ledger's database: SQLite or PostgreSQL, transactions that are short and durable, migrations.

Knows no table. A fault of the database is ``Unavailable``; SQL and values never stand in its sentence.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, DisconnectionError, IntegrityError, ProgrammingError

from node.errors import BadSettings, Unavailable

BUSY_SECONDS = 30
UPGRADE_LOCK = 0x77657472  # any number that no one else's advisory lock has: "wetr"


class Database:
    """One pool of connections; a forked child opens its own."""

    def __init__(self, url: str) -> None:
        self.url = _checked(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            _make_private_folder(Path(str(self.url.database)).parent)
            self._engine = create_engine(self.url, hide_parameters=True, connect_args={"timeout": BUSY_SECONDS})
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        else:
            self._engine = create_engine(
                self.url, hide_parameters=True, pool_pre_ping=True, connect_args={"connect_timeout": 10}
            )
        _refuse_inherited_connections(self._engine)
        self._writer = self._engine.execution_options(begin="BEGIN IMMEDIATE")
        # SQLite has one writer at a time; threads of one process queue here, in order, rather than poll the file.
        self._turn = threading.Lock() if self.is_sqlite else nullcontext()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._speaking(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is on disk when the block ends, or has not been."""
        with self._turn, self._speaking(), self._writer.begin() as connection:
            yield connection

    def insert_new(self, table: Table) -> Any:
        """An INSERT that passes over rows that are there already."""
        if self.is_sqlite:
            return sqlite.insert(table).on_conflict_do_nothing()
        return postgresql.insert(table).on_conflict_do_nothing()

    def upgrade(self, to: str = "head") -> None:
        with self.writing() as connection:
            if not self.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
            config = Config()
            config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
            config.attributes["connection"] = connection
            command.upgrade(config, to)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        try:
            yield
        except (DataError, IntegrityError, ProgrammingError):
            raise  # our own mistake, not the database's state
        except DBAPIError as error:
            place = self.url.render_as_string(hide_password=True)
            reason = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
            raise Unavailable(f"the ledger at {place} cannot be used: {reason}") from error


def _checked(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise BadSettings(f"database is not a URL; allowed: {_ALLOWED}") from None
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        raise BadSettings(f"database names {parsed.drivername!r}; allowed: {_ALLOWED}")
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise BadSettings(f"database is SQLite without a file, which forgets; allowed: {_ALLOWED}")
    return parsed


_ALLOWED = "sqlite:////folder/ledger.sqlite, postgresql+psycopg://user:password@host/name"


def _make_private_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"the ledger's folder {folder} cannot be made: {error.strerror}") from error


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver must not begin transactions by itself; _begin_sqlite does
    cursor = connection.cursor()
    # The rollback journal, because WAL can corrupt the file before SQLite 3.51.3. TRUNCATE syncs the emptied journal
    # itself, where DELETE leaves the directory unsynced and a power cut may bring the journal back and undo a commit.
    for pragma in ("busy_timeout = 30000", "journal_mode = TRUNCATE", "synchronous = FULL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes the write lock at once: one that starts as a reader and then writes can meet SQLITE_BUSY at once,
    # whatever the timeout (sqlite.org/lang_transaction.html).
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _refuse_inherited_connections(engine: Engine) -> None:
    """A connection must not cross a fork (SQLAlchemy, "Using Connection Pools with Multiprocessing")."""

    @event.listens_for(engine, "connect")
    def born(_connection: Any, record: Any) -> None:
        record.info["pid"] = os.getpid()

    @event.listens_for(engine, "checkout")
    def taken(_connection: Any, record: Any, proxy: Any) -> None:
        if record.info["pid"] != os.getpid():
            record.dbapi_connection = proxy.dbapi_connection = None
            raise DisconnectionError("this connection belongs to the process before the fork")
