"""The door: it accepts connections, gives each a thread, and keeps any one address from filling the house.

A connection that has not yet been accepted as an association costs little and may be closed when too many wait: the
oldest of its address goes first, so that a flood of silent ones (reliability: P1, P4) does not lock out a good sender,
who needs milliseconds. TLS is negotiated in the connection's own thread (P2). It knows nothing of DICOM.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from node import log
from node.errors import BadSettings, Unavailable
from node.listener.wire import tune

_BACKLOG = 128  # socketserver's 5 drops the sixth of a burst (P5)
_events = log.get("listener")


@dataclass(frozen=True)
class Tls:
    """Secure transport (BCP 195, PS3.15 B.12): TLS 1.2 or later.

    Attributes:
        client_ca: Who signs the callers' certificates; None if callers need none.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Raises: BadSettings."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key)
            if self.client_ca:
                context.load_verify_locations(self.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ssl.SSLError) as error:
            raise BadSettings(f"node.tls: the certificate or key cannot be used: {error}") from error
        return context


@dataclass(eq=False)
class Guest:
    """A connection and where it comes from.

    Attributes:
        due: Monotonic time by which the peer must have introduced itself.
    """

    connection: socket.socket
    address: str
    due: float

    def turn_away(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)  # its thread sees the end of the line


class Waiting:
    """The guests who have not introduced themselves, the oldest of each address first."""

    def __init__(self, *, most: int, most_per_address: int) -> None:
        self._most, self._most_per_address = most, most_per_address
        self._by_address: dict[str, dict[Guest, None]] = defaultdict(dict)
        self._lock = threading.Lock()

    def add(self, guest: Guest) -> None:
        """Let one in, at the cost of the oldest of the same address, or of the address that has most."""
        with self._lock:
            self._by_address[guest.address][guest] = None
            if len(self._by_address[guest.address]) > self._most_per_address:
                self._drop(guest.address)
            elif sum(map(len, self._by_address.values())) > self._most:
                self._drop(max(self._by_address, key=lambda address: len(self._by_address[address])))

    def _drop(self, address: str) -> None:
        oldest = next(iter(self._by_address[address]))
        del self._by_address[address][oldest]
        oldest.turn_away()
        _events.warning("closed the oldest of too many silent connections", address=address)

    def remove(self, guest: Guest) -> None:
        with self._lock:
            self._by_address[guest.address].pop(guest, None)
            if not self._by_address[guest.address]:
                del self._by_address[guest.address]


class Places:
    """The associations that stand, per address and in all."""

    def __init__(self, *, most: int, most_per_address: int) -> None:
        self._most, self._most_per_address = most, most_per_address
        self._taken: dict[str, int] = defaultdict(int)
        self._lock = threading.Lock()

    def take(self, address: str) -> bool:
        with self._lock:
            if sum(self._taken.values()) >= self._most or self._taken[address] >= self._most_per_address:
                return False
            self._taken[address] += 1
            return True

    def leave(self, address: str) -> None:
        with self._lock:
            self._taken[address] -= 1
            if not self._taken[address]:
                del self._taken[address]


class Server:
    """Accepts connections until told to stop, then sees the open ones out.

    Args:
        attend: Is called in a thread of its own with each guest, and a callable to say that the guest has introduced
            itself. The connection is closed when it returns.

    Raises:
        Unavailable: The port is taken, or the address is not this machine's.
    """

    def __init__(
        self,
        bind: tuple[str, int],
        attend: Callable[[Guest, Callable[[], None]], None],
        *,
        tls: Tls | None,
        waiting: Waiting,
        request_seconds: float,
        dead_after_seconds: int = 60,
    ) -> None:
        self._attend, self._request_seconds, self._dead_after = attend, request_seconds, dead_after_seconds
        self._tls = tls.context() if tls else None
        self._waiting = waiting
        self._threads: set[threading.Thread] = set()
        self._socket = _listening_socket(bind)
        self.port: int = self._socket.getsockname()[1]
        self._closing = threading.Event()
        self._accepting = threading.Thread(target=self._accept, name="door", daemon=True)

    def start(self) -> None:
        self._accepting.start()

    def close(self, seconds: float) -> bool:
        """Wait for the open connections, still answering new ones; whether all have gone in time."""
        end = time.monotonic() + seconds
        while self._threads and time.monotonic() < end:
            time.sleep(0.05)  # one that is about to start cannot be joined
        self._closing.set()
        self._accepting.join(2)
        self._socket.close()
        return not self._threads

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, peer = self._socket.accept()
            except TimeoutError:
                continue
            except OSError as error:
                # Out of file descriptors, or the peer is gone again: the door stays open.
                _events.error("cannot accept a connection", reason=error.strerror)
                time.sleep(0.1)
                continue
            due = time.monotonic() + self._request_seconds
            guest = Guest(connection, peer[0].removeprefix("::ffff:"), due)
            thread = threading.Thread(target=self._serve, args=(guest,), daemon=True)
            self._threads.add(thread)
            try:
                thread.start()
            except RuntimeError as error:
                self._threads.discard(thread)
                connection.close()
                _events.error("cannot serve a connection", address=guest.address, reason=str(error))

    def _serve(self, guest: Guest) -> None:
        self._waiting.add(guest)
        try:
            tune(guest.connection, dead_after_seconds=self._dead_after)
            if self._tls:
                guest.connection.settimeout(self._request_seconds)
                guest.connection = self._tls.wrap_socket(
                    guest.connection, server_side=True, do_handshake_on_connect=False
                )
                guest.connection.do_handshake()
            self._attend(guest, lambda: self._waiting.remove(guest))
        except OSError as error:  # the handshake failed, or the peer went before it began
            _events.warning("connection failed", address=guest.address, reason=str(error.strerror or error))
        finally:
            self._waiting.remove(guest)
            with contextlib.suppress(OSError):
                guest.connection.close()
            self._threads.discard(threading.current_thread())


def _listening_socket(bind: tuple[str, int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in bind[0] else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(bind)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be opened: {error.strerror}"
        raise Unavailable(f"port {bind[1]} of {bind[0]} {why}; node.dicom_port and node.bind name it") from error
    listening.settimeout(0.25)
    return listening
