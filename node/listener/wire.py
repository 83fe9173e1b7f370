"""One TCP connection, read against deadlines: nobody holds it longer than agreed by saying nothing, or little.

It knows bytes, not PDUs. What it hands out are views of one buffer that is filled straight from the socket.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator

TICK_SECONDS = 0.25  # how late a deadline or the order to stop may be noticed
_SMALL, _LARGE = 4096, 262144


class LineIsDead(Exception):
    """The peer closed the connection, or it broke."""


class TooSlow(LineIsDead):
    """The peer missed a deadline."""


class Stopped(Exception):
    """The listener stops, and the peer has nothing under way."""


class Wire:
    """The two directions of a connection.

    Attributes:
        deadline: Monotonic time after which a read raises TooSlow, however much has come.
        may_stop: Whether nothing is under way, so that a read may raise Stopped.
    """

    def __init__(
        self, connection: socket.socket, *, stopping: Callable[[], bool], unread: bytes = b"", send_seconds: float = 30
    ) -> None:
        self._socket, self._stopping, self._send_seconds = connection, stopping, send_seconds
        self._view = memoryview(bytearray(_SMALL))
        self._view[: len(unread)] = unread
        self._next, self._end = 0, len(unread)  # what lies in the buffer and was not yet handed out
        self.deadline = time.monotonic()
        self.may_stop = False
        self._is_tls = isinstance(connection, ssl.SSLSocket)
        self._set_timeouts()

    def _set_timeouts(self) -> None:
        if self._is_tls:
            self._socket.settimeout(TICK_SECONDS)
            return
        # The kernel's timeouts: Python's own cost a poll() per read, and two ioctl() per answer.
        self._socket.settimeout(None)
        for option, seconds in ((socket.SO_RCVTIMEO, TICK_SECONDS), (socket.SO_SNDTIMEO, self._send_seconds)):
            interval = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
            self._socket.setsockopt(socket.SOL_SOCKET, option, interval)

    def allow(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds

    @property
    def unread(self) -> bytes:
        return bytes(self._view[self._next : self._end])

    def widen(self) -> None:
        """Take a large buffer: worth it only once the peer is known."""
        rest = self.unread
        self._view = memoryview(bytearray(_LARGE))
        self._view[: len(rest)] = rest
        self._next, self._end = 0, len(rest)

    def read(self, count: int) -> bytes:
        """Exactly ``count`` bytes: for what is short.

        Raises:
            LineIsDead: Fewer came, or not in time.
        """
        place = self._next
        if self._end - place >= count:
            self._next = place + count
            return bytes(self._view[place : self._next])
        return b"".join(bytes(piece) for piece in self.pieces(count))

    def pieces(self, count: int) -> Iterator[memoryview]:
        """Exactly ``count`` bytes, each piece valid until the next is asked for.

        Raises:
            LineIsDead: Fewer came, or not in time.
        """
        while count:
            if self._next == self._end:
                self._fill()
            place = self._next
            self._next = min(self._end, place + count)
            count -= self._next - place
            yield self._view[place : self._next]

    def _fill(self) -> None:
        while True:
            try:
                self._next, self._end = 0, self._socket.recv_into(self._view)
            except (TimeoutError, BlockingIOError):
                self._end = -1
            except OSError as error:
                raise LineIsDead(f"the connection broke: {error.strerror}") from error
            if self._end == 0:
                raise LineIsDead("the peer closed the connection")
            if time.monotonic() > self.deadline:
                self._next = self._end = 0
                raise TooSlow("the peer missed the deadline")
            if self._end > 0:
                return
            self._end = 0
            if self.may_stop and self._stopping():
                raise Stopped

    def send(self, message: bytes) -> None:
        """Raises: LineIsDead."""
        try:
            if self._is_tls:
                self._socket.settimeout(self._send_seconds)
            self._socket.sendall(message)
            if self._is_tls:
                self._socket.settimeout(TICK_SECONDS)
        except OSError as error:
            raise LineIsDead(f"the connection broke: {error.strerror or error}") from error

    def close_after_peer(self, seconds: float = 2) -> None:
        """Close without destroying what the peer has yet to read: it shall close first (PS3.8 state Sta13)."""
        self.allow(seconds)
        with contextlib.suppress(OSError, LineIsDead, Stopped):
            self._socket.shutdown(socket.SHUT_WR)
            self._next = self._end = 0
            while True:
                self._fill()


def tune(connection: socket.socket, *, dead_after_seconds: int) -> None:
    """Answers leave at once, and a line that was cut is noticed (RFC 9293 section 3.8.3, RFC 1122 section 4.2.3.6)."""
    # Without it a sender with Nagle's algorithm waits 40 ms per image for an acknowledgement.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, dead_after_seconds * 1000)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, dead_after_seconds // 2))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, dead_after_seconds // 6))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
