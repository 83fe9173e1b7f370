"""What processes need of each other: children that die with their parent, a lock that they share, an end on a signal.

It starts and watches nothing by itself.
"""

from __future__ import annotations

import _thread
import ctypes
import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # prctl(2)
# Loaded here, once: between fork and exec only a plain call is safe when other threads hold locks.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def dies_with_parent(number: signal.Signals) -> Callable[[], None]:
    """For ``preexec_fn``: the new process gets the signal ``number`` when the *thread* that started it ends (prctl(2)).

    So whoever starts a process with this does it from a thread that lives as long as the process should.
    """
    parent = os.getpid()

    def tie() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
            if os.getppid() != parent:  # it died before the tie was made
                os._exit(1)

    return tie


def locked(path: Path, *, seconds: float) -> int | None:
    """A descriptor that holds the lock on the file ``path``, or None when another holds it for longer than ``seconds``.

    flock(2) belongs to the open file, not to the process: a child that inherits the descriptor goes on holding it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > until:
                os.close(descriptor)
                return None
            time.sleep(0.05)


def how_it_ended(code: int) -> str:
    """A return code in words: ``ended with status 1``, ``killed by SIGSEGV``."""
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def on_signal(stop: threading.Event) -> Callable[..., None]:
    """A signal handler that sets ``stop``: by a thread, for the main one, which it interrupts, may hold its lock.

    Who waits for ``stop`` in the main thread does so a while at a time: a signal that comes just before it sleeps does
    not wake it.
    """

    def handler(*_: object) -> None:
        _thread.start_new_thread(stop.set, ())  # threading.Thread has locks of its own

    return handler
