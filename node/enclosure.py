"""Runs a server that insists on listening on every interface inside a network namespace of its own.

Orthanc cannot be told an address to bind to. In a namespace, "every interface" is a loopback that no other machine
sees; this process carries chosen ports of the real loopback into it. Where namespaces are not allowed, ``command``
says so and the server runs unenclosed.

    python -m node.enclosure FD:PORT[,FD:PORT…] COMMAND…     (inside the namespace; FD are sockets opened outside)
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO

_SIOCSIFFLAGS, _UP_AND_RUNNING = 0x8914, 0x1 | 0x40
_PR_SET_PDEATHSIG = 1


@functools.cache
def unshare() -> tuple[str, ...] | None:
    """The command that gives another a network namespace; None where that is not allowed."""
    program = shutil.which("unshare")
    for command in ((program, "--net"), (program, "--net", "--map-root-user")) if program else ():
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    return None


def start(command: Sequence[str], ports: Mapping[int, int], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start ``command`` enclosed; ``ports`` are {port on our loopback: port that it listens on}.

    Raises:
        OSError: If a port of our loopback is taken.
    """
    prefix = unshare()
    if prefix is None:
        raise OSError("network namespaces are not allowed here")
    with contextlib.ExitStack() as doors:
        open_doors = {doors.enter_context(socket.create_server(("127.0.0.1", o))): i for o, i in ports.items()}
        carried = ",".join(f"{door.fileno()}:{inner}" for door, inner in open_doors.items())
        line = [*prefix, sys.executable, "-m", "node.enclosure", carried, *command]
        return subprocess.Popen(
            line,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[d.fileno() for d in open_doors],
            start_new_session=True,
        )


def _accept(door: socket.socket, port: int) -> None:
    while True:
        outer, _ = door.accept()
        try:
            inner = socket.create_connection(("127.0.0.1", port))
        except OSError:
            outer.close()
            continue
        for one, other in ((outer, inner), (inner, outer)):
            # Without it each small PDU waits for the other side's delayed acknowledgement (44 ms).
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_carry, args=(one, other), daemon=True).start()


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(1 << 18):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)  # forgotten after each packet: tcp(7)
            sink.sendall(chunk)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def main(arguments: Sequence[str]) -> int:
    _end_with_parent()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:  # the loopback of a new namespace is down
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _UP_AND_RUNNING))
    server = subprocess.Popen(arguments[1:], preexec_fn=_end_with_parent)
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    for pair in arguments[0].split(","):
        door, port = map(int, pair.split(":"))
        threading.Thread(target=_accept, args=(socket.socket(fileno=door), port), daemon=True).start()
    return server.wait()


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]) & 0xFF)
