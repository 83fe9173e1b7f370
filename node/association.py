"""An association that the node asks for: connect, TLS, deadlines at every step, and the reason when it fails.

pynetdicom's requestor forgets its time-outs once connected, logs why a connection failed instead of saying it, and
reads a whole object into its queue before the first byte leaves. ``Line`` and ``_pace`` mend the three. What is said
over the association stands in dimse.py.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from typing import Any

from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import T_CONNECT, AssociationSocket

from node.destinations import Destination
from node.errors import NodeError, Unavailable

_config.LOG_HANDLER_LEVEL = "none"  # its default handlers log what is in a message (PS3.15: no PHI in logs)
_config.STORE_SEND_CHUNKED_DATASET = True  # send_c_store(path): the bytes of the file, unparsed

LARGEST_SENT = 256 * 1024  # bytes of a PDU, where the peer takes as much or names no limit
LARGEST_RECEIVED = 1024 * 1024  # a longer PDU is a fault or an attack: answers are a few hundred bytes
QUEUED = 16  # P-DATA that wait for the socket: no more of an object than this is in memory
IN_KERNEL = 512 * 1024  # bytes that wait in the socket; with megabytes there, nobody sees how fast a peer takes them
REJECTED_PERMANENT = 1  # PS3.8 Table 9-21


class Unreachable(Unavailable):
    """No association with the peer now: it is off, too slow, not who it should be, or has no room. Try again."""


class Rejected(NodeError):
    """The peer will not talk to us as we are set up; only a person can change that."""


class Line(AssociationSocket):  # type: ignore[misc]  # pynetdicom is not typed
    """The connection itself: every read and write has a deadline, and ``failure`` says why it could not be made."""

    destination: Destination
    context: ssl.SSLContext | None
    socket: Any  # None while there is no connection
    failure: str | None = None

    def connect(self, primitive: T_CONNECT) -> None:
        """Called by pynetdicom's thread: make the connection, TLS included, and tell it how that went."""
        self.socket.close()  # pynetdicom's own, which is bound to IPv4 or IPv6 before the name is resolved
        try:
            self.socket = self._open()
        except Exception as error:
            self.socket = None
            self.failure = self.destination.unreachable(error)
            primitive.result = "Evt17"  # PS3.8 Table 9-10: transport connection closed
        else:
            self._is_connected = True
            primitive.result = "Evt2"
        self.provider_queue.put(primitive)
        self._ready.set()

    def _open(self) -> socket.socket:
        to, context = self.destination, self.context
        line: socket.socket = socket.create_connection((to.host, to.port), timeout=to.connect_seconds)
        try:
            if context is not None:  # the time-out above also ends a handshake that is not answered
                line = context.wrap_socket(line, server_hostname=to.host)
            line.settimeout(to.dimse_seconds)
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # Nagle waits 40 ms for a delayed ACK
            line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, IN_KERNEL)
            if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux: a cable that was pulled shows here, not in two hours
                line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(to.dimse_seconds * 1000))
        except BaseException:
            line.close()
            raise
        return line

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly so many bytes, within one deadline: a peer that sends a byte a minute is dead, too."""
        if nr_bytes > LARGEST_RECEIVED:
            raise OSError(f"{self.destination.where} announces a PDU of {nr_bytes} bytes")
        line, received = self.socket, bytearray()
        deadline = time.monotonic() + self.destination.dimse_seconds
        try:
            while len(received) < nr_bytes:
                line.settimeout(max(deadline - time.monotonic(), 0.001))
                if not (some := line.recv(nr_bytes - len(received))):
                    break
                _acknowledge(line)
                received += some
        finally:
            with contextlib.suppress(OSError):
                line.settimeout(self.destination.dimse_seconds)
        return received

    def drop(self) -> None:
        """Cut the connection, whichever thread hangs on it."""
        with contextlib.suppress(OSError, AttributeError):
            self.socket.shutdown(socket.SHUT_RDWR)


def _acknowledge(line: socket.socket) -> None:
    """Now: a peer that writes an answer in two pieces (Nagle) waits 40 ms for Linux to acknowledge the first."""
    if hasattr(socket, "TCP_QUICKACK"):  # forgotten after each packet: tcp(7)
        with contextlib.suppress(OSError):
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class _Caller(AE):  # type: ignore[misc]
    """An application entity whose connections are Lines."""

    def __init__(self, destination: Destination) -> None:
        super().__init__(destination.calling_ae_title or "WETREAD")
        self.destination = destination
        self.context = destination.ssl_context() if destination.tls == "required" else None
        self.acse_timeout = destination.acse_seconds
        self.dimse_timeout = destination.dimse_seconds
        self.network_timeout = None  # an association that waits for us is not idle; each wait has its own deadline

    def _create_socket(self, assoc: Association, address: Any, _tls_args: Any) -> Line:
        line = Line(assoc, address=address)
        line.destination, line.context = self.destination, self.context
        return line


class _Dimse(DIMSEServiceProvider):  # type: ignore[misc]
    """pynetdicom's own, but for the size of PDUs, and for whom an answer is."""

    @property
    def maximum_pdu_size(self) -> int:
        """A peer that names no limit, or 4 GiB, gets PDUs of a sensible size all the same (PS3.8 D.1.1)."""
        return min(super().maximum_pdu_size or LARGEST_SENT, LARGEST_SENT)

    def get_msg(self, block: bool = False) -> tuple[int | None, Any]:
        """The next message; without ``block`` only a request, for then pynetdicom's reactor asks.

        On a busy machine it asks also while another thread waits for an answer: it says that it has paused before it
        has, and what it takes then is lost.
        """
        if block:
            return super().get_msg(block)  # type: ignore[no-any-return]
        with self.msg_queue.mutex:
            waiting = self.msg_queue.queue
            if waiting and waiting[0][1] is not None and waiting[0][1].is_valid_request:
                return waiting.popleft()  # type: ignore[no-any-return]
        return None, None


def _pace(association: Association, seconds: float) -> None:
    """Let the socket set the pace, and give up when it takes nothing for so many seconds.

    The answer may take as long as the object did, and those seconds on top: a slow peer still has its buffers to empty.
    """
    dul, put = association.dul, association.dul.send_pdu
    began = time.monotonic()

    def send_pdu(primitive: object) -> None:
        nonlocal began
        waiting, since = dul.to_provider_queue.qsize(), time.monotonic()
        if waiting == 0:
            began = since
        association.dimse_timeout = seconds + (since - began)
        while isinstance(primitive, P_DATA) and waiting >= QUEUED:
            time.sleep(0.0005)
            left = dul.to_provider_queue.qsize()
            if left < waiting:
                since = time.monotonic()
            waiting = left
            if not dul.is_alive() or not association.is_established:
                raise ConnectionError("the connection was lost in the middle of an object")
            if time.monotonic() - since > seconds:
                raise TimeoutError(f"nothing was taken for {seconds:.0f} s in the middle of an object")
        put(primitive)

    dul.send_pdu = send_pdu


@contextlib.contextmanager
def associate(
    destination: Destination, contexts: Sequence[PresentationContext], handlers: Sequence[tuple[Any, ...]] = ()
) -> Iterator[Association]:
    """An established association, released at the end, or aborted if the block ends with an exception.

    Raises:
        Unreachable: If there is no association now.
        Rejected: If the peer rejects us for good, or accepts none of the contexts.
        BadSettings: If a certificate that the settings name cannot be used.
    """
    ae = _Caller(destination)
    to = (destination.host, destination.port)
    try:
        association = ae.associate(*to, list(contexts), destination.ae_title, evt_handlers=list(handlers))
    except OSError as error:  # the host's name cannot be resolved
        raise Unreachable(destination.unreachable(error)) from error
    if not association.is_established:
        raise _why_not(association, destination)
    association.dimse = _Dimse(association)
    _pace(association, destination.dimse_seconds)
    try:
        yield association
    except BaseException:
        association.dul.socket.drop()
        association.abort()
        raise
    if association.is_established:
        association.release()


def _why_not(association: Association, to: Destination) -> NodeError:
    line = association.dul.socket
    if isinstance(line, Line) and line.failure:
        return Unreachable(line.failure)
    answer = association.acceptor.primitive
    if association.is_rejected:
        why = f"{to.where} rejects the association: {answer.reason_str} ({answer.result_str}, {answer.source_str})"
        return Rejected(why) if answer.result == REJECTED_PERMANENT else Unreachable(why)
    if answer is not None and answer.result == 0 and not association.accepted_contexts:
        return Rejected(f"{to.where} accepts none of the SOP classes and transfer syntaxes that we offer")
    return Unreachable(f"{to.where} does not answer an association request as a DICOM peer within the time")
