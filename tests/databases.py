"""Databases for the tests: a SQLite file, or a database of a real PostgreSQL cluster that lives as long as the tests.

The cluster is Debian's PostgreSQL in a folder of its own, on a Unix socket in that folder, run as the user
``postgres`` (it refuses root). It opens no port and touches no cluster of the machine.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

_numbers = count(1)


@dataclass(frozen=True)
class Cluster:
    """A running PostgreSQL."""

    folder: Path

    def log(self) -> str:
        file = self.folder / "log"
        return file.read_text(errors="replace") if file.exists() else "it wrote no log"

    def new_database(self, template: str | None = None) -> str:
        """The URL of an empty database, or of a copy of that at the URL ``template``."""
        name = f"ledger_{next(_numbers)}"
        copied = f' TEMPLATE "{_name(template)}"' if template else ""
        self.execute(f'CREATE DATABASE "{name}"{copied}')
        return f"postgresql+psycopg://postgres@/{name}?host={self.folder}"

    def drop(self, url: str) -> None:
        self.execute(f'DROP DATABASE "{_name(url)}" WITH (FORCE)')

    def execute(self, sql: str) -> None:
        with psycopg.connect(host=str(self.folder), user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute(sql.encode())


def _name(url: str) -> str:
    return url.split("@/")[1].split("?")[0]


def why_no_postgres() -> str | None:
    """What is missing to run PostgreSQL here, or None."""
    if _programs() is None:
        return "PostgreSQL is not installed (Debian: apt-get install postgresql)"
    if os.geteuid() == 0 and not _has_user("postgres"):
        return "PostgreSQL does not run as root, and there is no user postgres"
    return None


@contextmanager
def postgres() -> Iterator[Cluster]:
    """A fresh cluster; stopped and removed at the end, also when the tests are killed."""
    folder = Path(tempfile.mkdtemp(prefix="wr-pg-", dir="/tmp"))  # a Unix socket's path has at most 107 characters
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    data, cluster = str(folder / "data"), Cluster(folder)
    try:
        arguments = ["-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        made = subprocess.run([_program("initdb"), *arguments], capture_output=True, cwd="/", **_as_postgres())
        assert made.returncode == 0, made.stderr.decode(errors="replace")
        command = [_program("postgres"), "-D", data, "-k", str(folder), *OPTIONS]
        guarded = ["sh", "-c", GUARD, "sh", str(folder), *command]
        with subprocess.Popen(guarded, stdin=subprocess.PIPE, cwd="/", **_as_postgres()) as server:
            _wait_for(cluster, server)
            yield cluster
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# What PostgreSQL does at a power cut is not what is tested, so it need not wait for the disk.
OPTIONS = [
    word
    for setting in ("listen_addresses=", "max_connections=60", "shared_buffers=32MB", "fsync=off")
    for word in ("-c", setting)
]
# Reads from us until we end, however that comes about; then ends the server and removes its folder.
GUARD = 'folder=$1; shift; "$@" >"$folder/log" 2>&1 & read -r _; kill -QUIT $!; wait $!; rm -rf "$folder"'


def _as_postgres() -> dict[str, Any]:
    return {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}


def _wait_for(cluster: Cluster, server: subprocess.Popen[bytes]) -> None:
    for _ in range(1200):
        try:
            return cluster.execute("SELECT 1")
        except psycopg.OperationalError:
            assert server.poll() is None, cluster.log()
            time.sleep(0.1)
    raise AssertionError(f"PostgreSQL does not answer: {cluster.log()}")


def _program(name: str) -> str:
    folder = _programs()
    assert folder is not None, why_no_postgres()
    return str(folder / name)


def _programs() -> Path | None:
    """Where Debian puts them: not on the PATH, one folder per version."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if versions:
        return versions[-1].parent
    found = shutil.which("initdb")
    return Path(found).parent if found else None


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
