"""An association as its acceptor sees it (PS3.8 section 9.2): asked for, accepted or rejected, messages, released.

What is agreed on stands in negotiation.py; P-DATA is taken apart here, fragment by fragment, so that a dataset goes
from the socket to whoever asks for it without ever being whole in memory. One thread reads and answers in turn: a peer
that sends faster than we keep is held back by TCP, and nothing is queued. What the messages mean is no concern of this
file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from node.listener.command import BadCommand, Command, decode, encode_response
from node.listener.negotiation import (
    LONGEST_PDU,
    LONGEST_REQUEST,
    Context,
    ProtocolFault,
    Rejection,
    Request,
    accepted,
    decoded_request,
    objection,
)
from node.listener.wire import LineIsDead, Wire

_RQ, _P_DATA, _RELEASE_RQ, _ABORT = 0x01, 0x04, 0x05, 0x07
_Fragment = tuple[int, bool, bool, memoryview]  # context, whether of a command, whether the last, bytes

_RELEASE_RP = b"\6\0\0\0\0\4\0\0\0\0"

_TOLERATED_PDU = 2 << 20  # what we take: some senders count the headers in, some do not
_LONGEST_COMMAND = 64 << 10


class Aborted(LineIsDead):
    """The peer aborted."""


@dataclass
class Message:
    """A request of the peer; its dataset, if it has one, is to be read through ``pieces`` as it arrives."""

    context_id: int
    context: Context
    command: Command
    pieces: Iterator[memoryview] = field(repr=False)


@dataclass(frozen=True)
class Patience:
    """How long to wait for what, in seconds."""

    request: float = 20  # from the connection to the whole A-ASSOCIATE-RQ, the TLS handshake included
    idle: float = 120  # between messages
    pdu: float = 60  # from the first byte of a PDU to its last: at 1 MiB, a line of 17 KiB/s


class Association:
    """One association on one connection; with ``request`` and ``contexts`` one that was negotiated before."""

    def __init__(
        self,
        wire: Wire,
        *,
        patience: Patience,
        request: Request | None = None,
        contexts: dict[int, Context] | None = None,
    ) -> None:
        self._wire, self._patience = wire, patience
        self.request = request or Request("", "")
        self.contexts = contexts or {}
        self.rejection: Rejection | None = None

    def negotiate(self, judge: Callable[[Request], Rejection | None]) -> bool:
        """Answer the A-ASSOCIATE-RQ; whether the association stands.

        Args:
            judge: Says why it is not to be, or None. It is asked once.

        Raises:
            LineIsDead, Stopped, ProtocolFault
        """
        kind, length = struct.unpack(">BxL", self._wire.read(6))
        if kind != _RQ:
            raise ProtocolFault(f"the first PDU is of type {kind}, not an A-ASSOCIATE-RQ")
        if length > LONGEST_REQUEST:
            raise ProtocolFault(f"an A-ASSOCIATE-RQ of {length} bytes", reason=6)
        body = self._wire.read(length)
        asked = decoded_request(struct.pack(">BxL", kind, length) + body)
        self.request = Request(str(asked.calling_ae_title).strip(), str(asked.called_ae_title).strip())
        self.rejection = objection(asked, body) or judge(self.request)
        if self.rejection:
            fields = (self.rejection.result, self.rejection.source, self.rejection.reason)
            self._wire.send(struct.pack(">BBLBBBB", 0x03, 0, 4, 0, *fields))
            return False
        self.contexts, answer = accepted(asked)
        self._wire.send(answer)
        self._wire.widen()
        return True

    def messages(self) -> Iterator[Message]:
        """The requests of the peer until it releases the association, which is answered.

        The rest of a dataset that nobody read is drained before the next message.

        Raises:
            LineIsDead, Stopped, ProtocolFault
        """
        self._wire.widen()
        fragments = self._fragments()
        self._expect_message()
        for context_id, is_command, is_last, piece in fragments:
            if not is_command:
                raise ProtocolFault("a dataset without a command")
            raw = bytearray(piece)
            while not is_last:
                same, is_command, is_last, piece = _next(fragments)
                raw += piece
                if not is_command or same != context_id or len(raw) > _LONGEST_COMMAND:
                    raise ProtocolFault("a command set that does not end")
            if context_id not in self.contexts:
                raise ProtocolFault(f"presentation context {context_id} was not accepted", reason=6)
            try:
                command = decode(bytes(raw))
            except BadCommand as fault:
                raise ProtocolFault(str(fault), reason=6) from fault
            pieces = _dataset(fragments, context_id) if command.has_dataset else iter(())
            yield Message(context_id, self.contexts[context_id], command, pieces)
            for _ in pieces:
                pass
            self._expect_message()

    def _expect_message(self) -> None:
        self._wire.allow(self._patience.idle)
        self._wire.may_stop = True

    def _fragments(self) -> Iterator[_Fragment]:
        """Context, whether of a command, whether the last of it, and some bytes (PS3.8 section 9.3.5, Annex E)."""
        wire = self._wire
        while True:
            kind, left = self._header()
            if kind == _RELEASE_RQ:
                wire.read(min(left, 4))
                wire.send(_RELEASE_RP)
                return
            if kind == _ABORT:
                raise Aborted("the peer aborted")
            if kind != _P_DATA:
                raise ProtocolFault(f"a PDU of type {kind} in an association", reason=2 if kind < 8 else 1)
            if left > _TOLERATED_PDU:
                raise ProtocolFault(f"a PDU of {left} bytes; at most {LONGEST_PDU} were agreed", reason=6)
            while left:
                if left < 6:
                    raise ProtocolFault("a P-DATA-TF PDU with half an item", reason=6)
                length, context_id, control = struct.unpack(">LBB", wire.read(6))
                left -= 4 + length
                length -= 2
                if left < 0 or length < 0:
                    raise ProtocolFault("a presentation data value that is longer than its PDU", reason=6)
                is_command, is_last = bool(control & 1), bool(control & 2)
                if not length:
                    yield context_id, is_command, is_last, memoryview(b"")
                for piece in wire.pieces(length):
                    length -= len(piece)
                    yield context_id, is_command, is_last and not length, piece

    def _header(self) -> tuple[int, int]:
        """Type and length of the next PDU: waited for between messages, due inside one."""
        if not self._wire.may_stop:
            self._wire.allow(self._patience.pdu)
        kind = self._wire.read(1)[0]
        self._wire.may_stop = False
        self._wire.allow(self._patience.pdu)
        return kind, struct.unpack(">xL", self._wire.read(5))[0]

    def respond(self, message: Message, status: int, comment: str = "") -> None:
        """Answer a message. Raises: LineIsDead."""
        body = encode_response(message.command, status, comment)
        item = struct.pack(">LBB", len(body) + 2, message.context_id, 0b11) + body
        self._wire.send(struct.pack(">BBL", _P_DATA, 0, len(item)) + item)

    def abort(self, source: int, reason: int) -> None:
        """A-ABORT: source 0 the user, 2 the provider. Raises: LineIsDead."""
        self._wire.send(struct.pack(">BBLBBBB", _ABORT, 0, 4, 0, 0, source, reason))


def _next(fragments: Iterator[_Fragment]) -> _Fragment:
    for fragment in fragments:
        return fragment
    raise LineIsDead("the peer released the association inside a message")


def _dataset(fragments: Iterator[_Fragment], context_id: int) -> Iterator[memoryview]:
    is_last = False
    while not is_last:
        same, is_command, is_last, piece = _next(fragments)
        if is_command or same != context_id:
            raise ProtocolFault("a command inside a dataset")
        yield piece
