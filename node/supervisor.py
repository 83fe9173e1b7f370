"""``wetread up``: the processes of one machine, started, started again when they die, and drained at the end.

A part that dies comes back after 1 s, then 2 s, up to 30 s; one that has lived for a minute begins anew at 1 s. At
the end every part gets SIGTERM, time to finish, and SIGKILL. It knows what the parts are called, and nothing of what
they do.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from node import log
from node.processes import dies_with_parent, how_it_ended

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds
STEADY_SECONDS = 60.0  # who has lived so long is not in a loop of crashes
DRAIN_SECONDS = 30.0
_TICK_SECONDS = 0.1
_LONGEST_LINE = 64 * 1024  # a part that writes without end of line must not fill our memory

_events = log.get("supervisor")


@dataclass(frozen=True)
class Part:
    """One process to keep running.

    Attributes:
        env: Added to our own environment.
        given: Written to its standard input, which then ends: the place for secrets, which neither argv nor the
            environment is.
        needed: The others need it to finish what they do, so it is stopped after them.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    given: bytes = field(default=b"", repr=False)
    needed: bool = False


def supervise(
    parts: Sequence[Part],
    stop: threading.Event,
    *,
    drain_seconds: float = DRAIN_SECONDS,
    labelled: bool = True,
    state_file: Path | None = None,
) -> None:
    """Run the parts until ``stop`` is set, then drain them. To be called from a thread that lives as long as they do.

    Args:
        labelled: Put the part's name before each of its lines; False: its output is ours as it is.
        state_file: Kept up to date with what ``Supervisor.state`` says, for other processes to read.
    """
    supervisor = Supervisor(parts, labelled=labelled)
    shown: dict[str, dict[str, object]] = {}
    try:
        while not stop.is_set():
            supervisor.step()
            if state_file is not None and supervisor.state() != shown:
                shown = supervisor.state()
                _replace(state_file, json.dumps(shown))
            stop.wait(_TICK_SECONDS)
    finally:
        supervisor.drain(drain_seconds)
        if state_file is not None:
            state_file.unlink(missing_ok=True)


def states(state_file: Path) -> dict[str, dict[str, object]]:
    """What ``supervise`` last wrote there, each part's ``state`` as it is now; empty where nothing is supervised."""
    try:
        parts: dict[str, dict[str, object]] = json.loads(state_file.read_text())
    except (OSError, ValueError):
        return {}
    for part in parts.values():
        if part["state"] == "running" and not Path(f"/proc/{part['pid']}").exists():
            part["state"] = "gone"  # the supervisor was killed, too
    return parts


class Supervisor:
    """The parts and how each fares."""

    def __init__(self, parts: Sequence[Part], *, labelled: bool = True) -> None:
        width = max((len(part.name) for part in parts), default=0)
        self._kept = [_Kept(part, f"{part.name:<{width}} │ ".encode() if labelled else None) for part in parts]

    def step(self) -> None:
        """Start what is not running and whose pause is over."""
        for kept in self._kept:
            kept.step()

    def state(self) -> dict[str, dict[str, object]]:
        """Per part: ``state`` (running, waiting, stopped), ``pid``, ``since``, ``restarts`` and ``last_end``."""
        return {kept.part.name: kept.state() for kept in self._kept}

    def drain(self, seconds: float) -> None:
        """SIGTERM, time for all to finish, SIGKILL for who does not; then the same for those that the others need."""
        until = time.monotonic() + seconds
        for needed in (False, True):
            ending = [kept for kept in self._kept if kept.part.needed is needed]
            for kept in ending:
                kept.send(signal.SIGTERM)
            for kept in ending:
                # A needed part whose others took all the time still has some to close its files.
                if not kept.has_ended(max(until - time.monotonic(), 2.0 if needed else 0.0)):
                    _events.warning("a part did not stop in time and is killed", part=kept.part.name)
                    kept.send(signal.SIGKILL)
                    kept.has_ended(5.0)


class _Kept:
    """One part: its process, the thread that passes its lines on, and when it may be started again."""

    def __init__(self, part: Part, label: bytes | None) -> None:
        self.part = part
        self._label = label
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._pause = FIRST_PAUSE
        self._next_start = 0.0  # of time.monotonic
        self._started = 0.0
        self._since = time.time()
        self._restarts = -1
        self._last_end: str | None = None

    def step(self) -> None:
        if self._process is None:
            if time.monotonic() >= self._next_start:
                self._start()
        elif self._process.poll() is not None:
            self._note_the_end(self._process.returncode)

    def _start(self) -> None:
        try:
            self._process = self._popen()
        except OSError as error:
            self._last_end = f"cannot be started: {error}"
            self._wait()
            return
        self._started, self._since = time.monotonic(), time.time()
        self._restarts += 1
        _events.info("a part is started", part=self.part.name, pid=self._process.pid, count=self._restarts)
        if self._process.stdin is not None:
            threading.Thread(target=_give, args=(self._process.stdin, self.part.given), daemon=True).start()
        if self._process.stdout is not None:
            self._reader = threading.Thread(target=_pass_on, args=(self._process.stdout, self._label), daemon=True)
            self._reader.start()

    def _popen(self) -> subprocess.Popen[bytes]:
        labelled = self._label is not None
        return subprocess.Popen(
            self.part.argv,
            env=os.environ | dict(self.part.env),
            stdin=subprocess.PIPE if self.part.given else subprocess.DEVNULL,
            stdout=subprocess.PIPE if labelled else None,
            stderr=subprocess.STDOUT if labelled else None,
            start_new_session=True,  # Ctrl-C is for us: the parts are told in order
            preexec_fn=dies_with_parent(signal.SIGTERM),
        )

    def _note_the_end(self, code: int) -> None:
        lived = time.monotonic() - self._started
        if lived >= STEADY_SECONDS:
            self._pause = FIRST_PAUSE
        self._last_end = how_it_ended(code)
        _events.warning("a part ended and is started again", part=self.part.name, reason=self._last_end, seconds=lived)
        self._process = None
        self._wait()

    def _wait(self) -> None:
        self._since = time.time()
        self._next_start = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def state(self) -> dict[str, object]:
        running = self._process is not None and self._process.poll() is None
        return {
            "state": "running" if running else "waiting",
            "pid": self._process.pid if running and self._process else None,
            "since": self._since,
            "restarts": max(self._restarts, 0),
            "last_end": self._last_end,
        }

    def send(self, number: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        if number == signal.SIGKILL:
            os.killpg(self._process.pid, number)  # and whatever it started in its own session
        else:
            self._process.send_signal(number)

    def has_ended(self, seconds: float) -> bool:
        if self._process is None:
            return True
        try:
            self._process.wait(max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            return False
        if self._reader is not None:
            self._reader.join(1.0)  # a grandchild may hold the pipe open
        return True


def _give(pipe: IO[bytes], given: bytes) -> None:
    try:
        with pipe:
            pipe.write(given)
    except OSError:
        pass  # it died before it had read; it is given the same when it is started again


def _pass_on(pipe: IO[bytes], label: bytes | None) -> None:
    with pipe:
        while line := pipe.readline(_LONGEST_LINE):
            try:
                os.write(sys.stderr.fileno(), (label or b"") + line.rstrip(b"\n") + b"\n")  # one call: lines stay whole
            except OSError:
                continue  # our terminal is gone; the part must not block on a full pipe


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(text)
        part.replace(path)
    except OSError as error:
        _events.warning("the state of the parts cannot be written", path=str(path), error=str(error))
