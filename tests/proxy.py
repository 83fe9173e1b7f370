"""A TCP proxy in user space: passes bytes on, and delays, throttles, cuts or swallows them when a test asks.

In a process of its own it also carries connections into a network namespace: started inside the namespace, it is
handed listening sockets that were opened outside; and out of one, to a socket that has a path. It knows nothing of
DICOM or HTTP.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHUNK = 65536


@dataclass
class Faults:
    """What the line does to the bytes from the client to the server; set by the test, also while they pass.

    Attributes:
        delay: Seconds before each chunk is passed on.
        rate: Bytes per second at most; 0 is no limit.
        cut_after: Both ends are reset once so many bytes of one connection have passed.
        blackhole_after: From so many bytes on, nothing passes in either direction, and nothing is closed.
    """

    delay: float = 0.0
    rate: float = 0.0
    cut_after: int | None = None
    blackhole_after: int | None = None


class Proxy:
    """Carries every connection from ``listener`` to ``target``, through ``faults``."""

    def __init__(
        self, target: tuple[str, int] | str, faults: Faults | None = None, listener: socket.socket | None = None
    ):
        self.target = target
        self.faults = faults or Faults()
        self.listener = listener or socket.create_server(("127.0.0.1", 0))
        if listener is None:  # a small buffer, which its connections inherit: what the proxy has not read is not taken
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CHUNK)
        is_named = self.listener.family == socket.AF_UNIX
        self.port: int = 0 if is_named else self.listener.getsockname()[1]
        self.sent = 0  # bytes passed on to the server, all connections together
        self.connections = 0
        self._open: list[socket.socket] = []
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        try:
            server = _connected(self.target)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        for end in (client, server):
            if end.family != socket.AF_UNIX:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.append(end)
        silent = threading.Event()
        back = threading.Thread(target=self._answers, args=(server, client, silent), daemon=True)
        back.start()
        self._requests(client, server, silent)

    def _requests(self, client: socket.socket, server: socket.socket, silent: threading.Event) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while chunk := client.recv(CHUNK):
                faults = self.faults
                if faults.blackhole_after is not None and passed + len(chunk) > faults.blackhole_after:
                    silent.set()
                    self._closed.wait()  # neither reads nor closes: the sender's window fills up
                    return
                if faults.cut_after is not None and passed + len(chunk) > faults.cut_after:
                    server.sendall(chunk[: faults.cut_after - passed])
                    _reset(client, server)
                    return
                pause = faults.delay + (len(chunk) / faults.rate if faults.rate else 0.0)
                if pause:
                    time.sleep(pause)
                server.sendall(chunk)
                passed += len(chunk)
                self.sent += len(chunk)
            server.shutdown(socket.SHUT_WR)

    def _answers(self, server: socket.socket, client: socket.socket, silent: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while chunk := server.recv(CHUNK):
                if server.family != socket.AF_UNIX:
                    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)  # else the server waits (Nagle)
                if silent.is_set():
                    return
                client.sendall(chunk)
            if not silent.is_set():
                client.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._closed.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for end in self._open:
            end.close()


def _connected(target: tuple[str, int] | str) -> socket.socket:
    if not isinstance(target, str):
        return socket.create_connection(target, timeout=10)
    server = socket.socket(socket.AF_UNIX)
    server.settimeout(10)
    server.connect(target)
    return server


def _reset(*ends: socket.socket) -> None:
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() sends RST
        end.close()


@contextlib.contextmanager
def way_out(path: Path, port: int) -> Iterator[None]:
    """Who is in a namespace of its own, and is told to carry a port to ``path``, reaches ``port`` of our loopback."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    running = Proxy(("127.0.0.1", port), listener=listener)
    try:
        yield
    finally:
        running.close()


@contextlib.contextmanager
def proxy(port: int, *, host: str = "127.0.0.1", faults: Faults | None = None) -> Iterator[Proxy]:
    """A proxy in front of ``host:port``, on a free port of loopback."""
    running = Proxy((host, port), faults)
    try:
        yield running
    finally:
        running.close()


def _die_with_parent() -> None:
    """PR_SET_PDEATHSIG: no server outlives the test that started it, however that test dies."""
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)


def _raise_loopback() -> None:
    """Bring up ``lo``, which is down in a new namespace (SIOCSIFFLAGS, IFF_UP | IFF_RUNNING)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))


def main(arguments: list[str]) -> int:
    """``proxy.py FD:PORT[,…][,PORT:PATH] COMMAND…``: run COMMAND here, and carry each listening FD to its PORT here.

    A PORT here is carried to the socket at PATH.
    """
    _die_with_parent()
    _raise_loopback()
    command = subprocess.Popen(arguments[1:], preexec_fn=_die_with_parent)
    signal.signal(signal.SIGTERM, lambda *_: command.terminate())
    for pair in arguments[0].split(","):
        fd, _, end = pair.partition(":")
        if end.isdigit():
            Proxy(("127.0.0.1", int(end)), listener=socket.socket(fileno=int(fd)))
        else:
            Proxy(end, listener=socket.create_server(("127.0.0.1", int(fd))))
    return command.wait()


if __name__ == "__main__":
    code = main(sys.argv[1:])
    os._exit(code if code >= 0 else 128 - code)
