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

import psycopg

_numbers = count(1)


@dataclass(frozen=True)
class Cluster:
    """A running PostgreSQL."""

    folder: Path

    def log(self) -> str:
        file = self.folder / "log"
        return file.read_text(errors="replace") if file.exists() else "it wrote no log"

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"ledger_{next(_numbers)}"
        self.execute(f'CREATE DATABASE "{name}"')
        return f"postgresql+psycopg://postgres@/{name}?host={self.folder}"

    def drop(self, url: str) -> None:
        name = url.split("/@/")[-1].split("@/")[-1].split("?")[0]
        self.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def execute(self, sql: str) -> None:
        with psycopg.connect(host=str(self.folder), user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute(sql.encode())


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
    cluster = Cluster(folder)
    try:
        with _as_postgres(
            "initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", folder
        ) as made:
            assert made.wait(120) == 0, cluster.log()
        with _as_postgres("postgres", "-k", folder, *OPTIONS, folder) as server:
            _wait_for(cluster, server)
            yield cluster
            server.stdin.close()
            server.wait(60)
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


def _as_postgres(program: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
    *options, folder = arguments
    binaries = _programs()
    assert binaries is not None, why_no_postgres()
    command = [str(binaries / program), "-D", f"{folder}/data", *map(str, options)]
    if program == "postgres":
        command = ["sh", "-c", GUARD, "sh", str(folder), *command]
    user = "postgres" if os.geteuid() == 0 else None
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, user=user, group=user, cwd="/")


def _wait_for(cluster: Cluster, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            return cluster.execute("SELECT 1")
        except psycopg.OperationalError:
            assert server.poll() is None, cluster.log()
            time.sleep(0.1)
    raise AssertionError(f"PostgreSQL does not answer: {cluster.log()}")


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
