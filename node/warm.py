"""The parent's side of child.py: asks it, and holds it to its time and its memory.

The child is started when it is first needed and stays, with its pipelines loaded. It is killed when it exceeds a limit
or nobody wants the answer any more, and the next question starts another. Which pipelines there are, what a job is and
what to do after a fault is its caller's to know.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

from node.errors import NodeError
from node.processes import dies_with_parent, how_it_ended

_LOOK_SECONDS = 0.25  # how often memory is looked at and the caller asked whether it still wants the answer
LOAD_SECONDS = 300.0
# A pipeline needs no password: what looks like one does not reach it.
_SECRET = re.compile(r"password|passwd|secret|token|credential|private|database_url|broker", re.IGNORECASE)


class ChildFault(NodeError):
    """The child gave no answer."""


class Died(ChildFault):
    """It crashed, or was killed by others."""


class TookTooLong(ChildFault):
    """It was killed at its time limit."""


class TookTooMuch(ChildFault):
    """It was killed at its memory limit."""


class NotWanted(ChildFault):
    """It was killed because the caller did not want the answer any more."""


class PipelineFault(NodeError):
    """The pipeline cannot be loaded: its weights are damaged, a library is missing, the name is wrong."""


class StudyFault(NodeError):
    """The pipeline is well, but the study could not be given to it."""


@dataclass(frozen=True)
class Limits:
    """What a child may use.

    Attributes:
        device: ``cpu``, or ``cuda:N``: the one GPU that it sees.
        threads: Of one operation; what torch, OpenMP and BLAS are told.
        memory_bytes: Of main memory.
    """

    device: str = "cpu"
    threads: int = 1
    memory_bytes: int = 8 << 30

    def environment(self) -> dict[str, str]:
        """Our own, less what is secret, and with the device and the threads."""
        kept = {key: value for key, value in os.environ.items() if not _SECRET.search(key)}
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            kept[variable] = str(self.threads)
        kept["OMP_WAIT_POLICY"] = "PASSIVE"
        kept["CUDA_VISIBLE_DEVICES"] = self._visible_gpu()
        return kept

    def _visible_gpu(self) -> str:
        if not self.device.startswith("cuda"):
            return ""
        number = int(self.device.partition(":")[2] or 0)
        given = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
        return given[number] if number < len(given) else str(number)


class Child:
    """A lasting child process. Not for several threads at once; the one that asks first must outlive it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._replies = -1
        self._rest = b""
        self._loaded: dict[str, dict[str, Any]] = {}

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.poll() is None else None

    def load(self, use: str, wanted: Callable[[], bool] = lambda: True) -> dict[str, Any]:
        """Have the pipeline ready. Returns what it says of itself: ``algorithm``, and ``precision`` or None.

        Raises:
            PipelineFault: If it cannot be loaded, or takes the child along.
            NotWanted: If ``wanted``, which is asked several times a second meanwhile, says so.
        """
        if use in self._loaded and self.pid is not None:
            return self._loaded[use]
        try:
            reply = self._ask({"do": "load", "use": use}, LOAD_SECONDS, wanted)
        except NotWanted:
            raise
        except ChildFault as fault:
            raise PipelineFault(f"{use} cannot be loaded: {fault}") from fault
        if "fault" in reply:
            raise PipelineFault(f"{use} cannot be loaded: {reply['fault']}")
        self._loaded[use] = reply
        return reply

    def read(self, ask: dict[str, Any], *, seconds: float, wanted: Callable[[], bool]) -> dict[str, Any]:
        """Have a study read; ``wanted`` is asked several times a second whether to go on.

        Raises:
            PipelineFault, StudyFault, ChildFault: One sentence each.
        """
        self.load(ask["use"], wanted)
        return self._do("read", ask, seconds, wanted)

    def report(self, ask: dict[str, Any], *, seconds: float, wanted: Callable[[], bool]) -> dict[str, Any]:
        """Have a report written that says, with the ``reason`` in ``ask``, why the study is not read.

        The pipeline is not loaded for it; ``ask`` holds its ``algorithm``, as ``load`` returned it.

        Raises:
            StudyFault, ChildFault: One sentence each.
        """
        return self._do("report", ask, seconds, wanted)

    def _do(self, what: str, ask: dict[str, Any], seconds: float, wanted: Callable[[], bool]) -> dict[str, Any]:
        reply = self._ask({"do": what} | ask, seconds, wanted)
        if "fault" in reply:
            raise StudyFault(reply["fault"])
        return reply

    def close(self) -> None:
        """Kill the child, and what it started; there is nothing of ours in it to lose."""
        if self._process is None:
            return
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):  # what it never read
                self._process.stdin.close()
        os.close(self._replies)
        self._process, self._replies, self._rest = None, -1, b""
        self._loaded.clear()

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        self._replies, theirs = os.pipe()
        # On a GPU RLIMIT_DATA would count what CUDA maps; there the parent's look at the resident memory has to do.
        data_limit = self.limits.memory_bytes if self.limits.device == "cpu" else 0
        argv = [sys.executable, "-m", "node.child", str(theirs), str(self.limits.threads), str(data_limit)]
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=2,
                env=self.limits.environment(),
                pass_fds=(theirs,),
                start_new_session=True,
                preexec_fn=dies_with_parent(signal.SIGKILL),
            )
        except OSError as error:
            os.close(self._replies)
            raise Died(f"no process can be started: {error}") from error
        finally:
            os.close(theirs)
        return self._process

    def _ask(self, ask: dict[str, Any], seconds: float, wanted: Callable[[], bool]) -> dict[str, Any]:
        process = self._start()
        until = time.monotonic() + seconds
        try:
            reply: dict[str, Any] = json.loads(self._exchange(process, json.dumps(ask).encode() + b"\n", until, wanted))
        except TookTooLong:
            raise TookTooLong(f"it took longer than the limit of {seconds:g} s") from None
        except json.JSONDecodeError as error:
            self.close()
            raise Died(f"it answered what cannot be understood: {error}") from error
        return reply

    def _exchange(
        self, process: subprocess.Popen[bytes], text: bytes, until: float, wanted: Callable[[], bool]
    ) -> bytes:
        """Write the question and wait for one line; whatever goes wrong, the child is gone afterwards."""
        assert process.stdin is not None  # Popen was given PIPE
        asking = process.stdin.fileno()
        os.set_blocking(asking, False)  # a child that hangs must not hang us
        with selectors.DefaultSelector() as selector:
            selector.register(self._replies, selectors.EVENT_READ)
            selector.register(asking, selectors.EVENT_WRITE)
            next_look = 0.0
            try:
                while b"\n" not in self._rest:
                    for key, _ in selector.select(_LOOK_SECONDS):
                        if key.fd == self._replies:
                            self._hear(process)
                        else:
                            text = text[os.write(asking, text[:65536]) :]
                            if not text:
                                selector.unregister(asking)
                    if time.monotonic() >= next_look:
                        next_look = time.monotonic() + _LOOK_SECONDS
                        self._hold_to_limits(process, until, wanted)
            except BaseException as error:
                if isinstance(error, BrokenPipeError):
                    error = self._died(process)
                self.close()
                raise error from None
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _hear(self, process: subprocess.Popen[bytes]) -> None:
        piece = os.read(self._replies, 1 << 20)
        if not piece:
            raise self._died(process)
        self._rest += piece

    def _died(self, process: subprocess.Popen[bytes]) -> Died:
        try:
            code = process.wait(5.0)
        except subprocess.TimeoutExpired:
            return Died("its process closed the line and went on")
        perhaps = ", perhaps by the system for want of memory" if code == -signal.SIGKILL else ""
        return Died(
            f"its process was {how_it_ended(code)}{perhaps}" if code < 0 else f"its process {how_it_ended(code)}"
        )

    def _hold_to_limits(self, process: subprocess.Popen[bytes], until: float, wanted: Callable[[], bool]) -> None:
        if time.monotonic() > until:
            raise TookTooLong
        limit = self.limits.memory_bytes
        if _resident(process.pid) > limit:
            raise TookTooMuch(f"it took more memory than the limit of {limit / 2**30:.3g} GiB")
        if not wanted():
            raise NotWanted("nobody waits for the result any more")


def _resident(pid: int) -> int:
    """Bytes of main memory that the process and what it started hold."""
    try:
        process = psutil.Process(pid)
        return sum(int(each.memory_info().rss) for each in (process, *process.children(recursive=True)))
    except psutil.Error:
        return 0
