"""An association as its acceptor sees it (PS3.8 section 9.2): asked for, accepted or rejected, messages, released.

The PDUs of negotiation are pynetdicom's; P-DATA is taken apart here, fragment by fragment, so that a dataset goes from
the socket to whoever asks for it without ever being whole in memory. One thread reads and answers in turn: a peer that
sends faster than we keep is held back by TCP, and nothing is queued. What the messages mean is no concern of this file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, build_context
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.pdu_primitives import ImplementationVersionNameNotification as VersionNameNotification
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation as RoleSelection
from pynetdicom.presentation import negotiate_as_acceptor
from pynetdicom.sop_class import Verification

from node.errors import NodeError
from node.instance import DEFLATED
from node.listener.command import BadCommand, Command, decode, encode_response
from node.listener.wire import LineIsDead, Wire
from node.spool import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION

_RQ, _P_DATA, _RELEASE_RQ, _ABORT = 0x01, 0x04, 0x05, 0x07
_Fragment = tuple[int, bool, bool, memoryview]  # context, whether of a command, whether the last, bytes

_RELEASE_RP = b"\6\0\0\0\0\4\0\0\0\0"
_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"

LONGEST_REQUEST = 256 << 10  # an A-ASSOCIATE-RQ of 128 contexts with every transfer syntax has about 150 KiB
LONGEST_PDU = 1 << 20  # what we say that we take
_TOLERATED_PDU = 2 << 20  # what we take: some senders count the headers in, some do not
_LONGEST_COMMAND = 64 << 10

# The first that the peer offers too is taken. Explicit VR keeps what implicit loses: the VR of private elements.
TRANSFER_SYNTAXES = sorted(set(ALL_TRANSFER_SYNTAXES) - DEFLATED, key=lambda uid: (uid != "1.2.840.10008.1.2.1", uid))
_SUPPORTED = {
    context.abstract_syntax: build_context(context.abstract_syntax, TRANSFER_SYNTAXES)
    for context in [*AllStoragePresentationContexts, build_context(Verification)]
}


@dataclass(frozen=True)
class Rejection:
    """A-ASSOCIATE-RJ: result, source and reason of PS3.8 Table 9-21, and the sentence for our own log."""

    result: int
    source: int
    reason: int
    why: str


CALLER_UNKNOWN = Rejection(1, 1, 3, "the calling AE title is not one of the peers at that address")
CALLED_UNKNOWN = Rejection(1, 1, 7, "the called AE title is not ours")
CONTEXT_NAME_UNKNOWN = Rejection(1, 1, 2, "the application context is not DICOM's")
VERSION_UNKNOWN = Rejection(1, 2, 2, "the protocol version is not 1")
CONGESTED = Rejection(2, 3, 1, "no room, or about to stop")
TOO_MANY = Rejection(2, 3, 2, "too many associations")


class ProtocolFault(NodeError):
    """The peer broke PS3.8; ``reason`` is that of the A-ABORT that it gets (Table 9-26)."""

    def __init__(self, sentence: str, reason: int = 2) -> None:
        super().__init__(sentence)
        self.reason = reason


class Aborted(LineIsDead):
    """The peer aborted."""


@dataclass(frozen=True)
class Context:
    """An accepted presentation context."""

    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True)
class Request:
    """Who asks for the association."""

    caller: str
    called: str


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
        asked = _decoded_request(struct.pack(">BxL", kind, length) + body)
        self.request = Request(str(asked.calling_ae_title).strip(), str(asked.called_ae_title).strip())
        if not body[1] & 1:  # bit 0 stands for version 1 (PS3.8 Table 9-11)
            self.rejection = VERSION_UNKNOWN
        elif asked.application_context_name != _APPLICATION_CONTEXT:
            self.rejection = CONTEXT_NAME_UNKNOWN
        else:
            self.rejection = judge(self.request)
        if self.rejection:
            fields = (self.rejection.result, self.rejection.source, self.rejection.reason)
            self._wire.send(struct.pack(">BBLBBBB", 0x03, 0, 4, 0, *fields))
            return False
        try:
            answer = self._accept(asked)
        except (TypeError, AttributeError, ValueError, LookupError) as fault:  # items that pynetdicom left half decoded
            raise ProtocolFault("the A-ASSOCIATE-RQ has an item that cannot be used", reason=6) from fault
        self._wire.send(answer)
        self._wire.widen()
        return True

    def _accept(self, asked: Any) -> bytes:
        proposed = asked.presentation_context_definition_list
        supported = [_SUPPORTED[uid] for uid in {context.abstract_syntax for context in proposed} if uid in _SUPPORTED]
        roles = {
            item.sop_class_uid: (item.scu_role, item.scp_role)
            for item in asked.user_information
            if isinstance(item, RoleSelection)
        }
        results, _ = negotiate_as_acceptor(proposed, supported, roles)
        self.contexts = {
            context.context_id: Context(str(context.abstract_syntax), str(context.transfer_syntax[0]))
            for context in results
            if context.result == 0
        }
        answer = A_ASSOCIATE()
        answer.application_context_name = _APPLICATION_CONTEXT
        answer.calling_ae_title, answer.called_ae_title = asked.calling_ae_title, asked.called_ae_title
        answer.result, answer.result_source = 0, 1
        answer.presentation_context_definition_results_list = results
        length, implementation, version = (
            MaximumLengthNotification(),
            ImplementationClassUIDNotification(),
            VersionNameNotification(),
        )
        length.maximum_length_received = LONGEST_PDU
        implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        version.implementation_version_name = IMPLEMENTATION_VERSION
        answer.user_information = [length, implementation, version]
        return bytes(A_ASSOCIATE_AC(answer).encode())

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


def _decoded_request(pdu: bytes) -> Any:
    """The A-ASSOCIATE primitive (PS3.8 section 7.1.1) of an A-ASSOCIATE-RQ PDU."""
    try:
        request = A_ASSOCIATE_RQ()
        request.decode(pdu)
        return request.to_primitive()
    except Exception as fault:  # pynetdicom's decoder lets through whatever struct, int and str raise
        raise ProtocolFault("the A-ASSOCIATE-RQ cannot be decoded", reason=6) from fault
