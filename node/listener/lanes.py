"""A process for each association that stands, so that they neither share an interpreter's lock nor fall together.

Processes are forked from one that was itself forked before there were threads, since a fork of a process with threads
may copy a lock that nobody will release. The connection goes there by SCM_RIGHTS once its association is accepted; what
was kept comes back over a socket pair, and the end of that is the end of the association, however it came about. A TLS
session cannot be handed over: those associations are served in threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import os
import pickle
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from node import log
from node.listener.commitment import CommitmentReport
from node.listener.negotiation import Context, Request
from node.spool import Arrival

_LONGEST_HANDOVER = 128 << 10  # 128 contexts have about 20 KiB
_MOST_FILES = 1 << 20
_TAKEN = b"\1"  # the first that a process says of the association that it was handed
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG, prctl(2)
_events = log.get("listener")


@dataclass(frozen=True)
class Handover:
    """An accepted association, and the bytes of it that were read but not yet looked at."""

    request: Request
    contexts: dict[int, Context]
    address: str
    unread: bytes


class Flag:
    """A flag that processes share: once set, set in all of them."""

    def __init__(self) -> None:
        self._byte = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._byte[0] = 1

    def is_set(self) -> bool:
        return self._byte[0] == 1


class Lanes:
    """The process that forks the others.

    Args:
        converse: Sees an association to its end in the process that it was handed to, and calls the last argument
            with all that it kept.
    """

    def __init__(
        self, converse: Callable[[socket.socket, Handover, Callable[[Arrival | CommitmentReport], None]], None]
    ) -> None:
        self._converse = converse
        self._control: socket.socket | None = None
        self._pid = 0

    def start(self) -> None:
        """To be called while the process has no threads."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        if self._pid == 0:
            ours.close()
            _forever_forking(theirs, self._converse)
        theirs.close()
        self._control = ours

    def hand_over(self, connection: socket.socket, handover: Handover) -> Iterator[Arrival | CommitmentReport] | None:
        """What the association brings, as it is kept, to its end; None if no process can be had for it."""
        if self._control is None:
            return None
        reports, to_child = socket.socketpair()
        try:
            fds = [connection.fileno(), to_child.fileno()]
            socket.send_fds(self._control, [pickle.dumps(handover)], fds)
        except OSError as error:
            _events.error("no process for an association", reason=error.strerror)
            reports.close()
            return None
        finally:
            to_child.close()
        lines = reports.makefile("rb")
        reports.close()  # lines keeps the socket open
        with contextlib.suppress(ConnectionError):
            if lines.read(1) == _TAKEN:
                return _reported(lines)
        lines.close()
        _events.error("no process for an association", reason="the forking process died before it took it")
        return None

    def close(self) -> None:
        """No more; associations that still stand are cut off."""
        if self._control is None:
            return
        self._control.close()
        self._control = None
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def _reported(lines: IO[bytes]) -> Iterator[Arrival | CommitmentReport]:
    with lines, contextlib.suppress(EOFError, ConnectionError, pickle.PickleError):
        while True:
            yield pickle.load(lines)  # noqa: S301 - written by a process of our own


def _forever_forking(
    control: socket.socket,
    converse: Callable[[socket.socket, Handover, Callable[[Arrival | CommitmentReport], None]], None],
) -> None:
    """The life of the forking process: it ends when the listener closes the socket, or dies."""
    try:
        # Nothing of the listener's is needed here: not its port, and no object whose end would close a number anew.
        gc.freeze()
        os.closerange(3, control.fileno())
        os.closerange(control.fileno() + 1, _MOST_FILES)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the children
        for stop in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stop, signal.SIG_IGN)  # the listener decides when: an instance that is coming is finished
        while True:
            message, fds, _, _ = socket.recv_fds(control, _LONGEST_HANDOVER, 2)
            if not message:
                break
            if os.fork() == 0:
                control.close()
                _serve_one(message, fds, converse)
            for fd in fds:
                os.close(fd)
    finally:
        os._exit(0)


def _serve_one(
    message: bytes,
    fds: list[int],
    converse: Callable[[socket.socket, Handover, Callable[[Arrival | CommitmentReport], None]], None],
) -> None:
    try:
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        with socket.socket(fileno=fds[0]) as connection, socket.socket(fileno=fds[1]) as reports:
            reports.sendall(_TAKEN)
            # A listener that is gone cannot tell the ledger: then the sender gets no answer either.
            converse(connection, pickle.loads(message), lambda arrival: reports.sendall(pickle.dumps(arrival)))  # noqa: S301
    except Exception as fault:
        _events.error("association failed", reason=type(fault).__name__)
    finally:
        os._exit(0)
