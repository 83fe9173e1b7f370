"""What an association is agreed to be (PS3.8 section 7.1.1, PS3.7 Annex D.3): who, which SOP classes and roles, or no.

The PDUs are pynetdicom's. Every storage SOP class and Verification are accepted with the peer as SCU; Storage
Commitment with the peer as SCP, for a report on what we asked it to keep (PS3.4 J.3.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, build_context
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.pdu_primitives import ImplementationVersionNameNotification as VersionNameNotification
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation as RoleSelection
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from node.errors import NodeError
from node.instance import DEFLATED
from node.spool import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
LONGEST_REQUEST = 256 << 10  # an A-ASSOCIATE-RQ of 128 contexts with every transfer syntax has about 150 KiB
LONGEST_PDU = 1 << 20  # what we say that we take

# The first that the peer offers too is taken. Explicit VR keeps what implicit loses: the VR of private elements.
TRANSFER_SYNTAXES = sorted(set(ALL_TRANSFER_SYNTAXES) - DEFLATED, key=lambda uid: (uid != "1.2.840.10008.1.2.1", uid))


def _commitment() -> PresentationContext:
    context = build_context(StorageCommitmentPushModel, ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"])
    context.scu_role, context.scp_role = False, True  # of the peer
    return context


STORAGE_CLASSES = frozenset(str(context.abstract_syntax) for context in AllStoragePresentationContexts)

_SUPPORTED = {
    context.abstract_syntax: build_context(context.abstract_syntax, TRANSFER_SYNTAXES)
    for context in [*AllStoragePresentationContexts, build_context(Verification)]
} | {StorageCommitmentPushModel: _commitment()}


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


def objection(asked: Any, body: bytes) -> Rejection | None:
    """What speaks against the request whoever asks; ``body`` is the PDU's after its length."""
    if not body[1] & 1:  # bit 0 stands for version 1 (PS3.8 Table 9-11)
        return VERSION_UNKNOWN
    return CONTEXT_NAME_UNKNOWN if asked.application_context_name != APPLICATION_CONTEXT else None


def accepted(asked: Any) -> tuple[dict[int, Context], bytes]:
    """The presentation contexts that stand, by their ID, and the A-ASSOCIATE-AC that says so.

    Raises:
        ProtocolFault: If the request has an item that cannot be used.
    """
    try:
        return _accepted(asked)
    except (TypeError, AttributeError, ValueError, LookupError) as fault:  # items that pynetdicom left half decoded
        raise ProtocolFault("the A-ASSOCIATE-RQ has an item that cannot be used", reason=6) from fault


def _accepted(asked: Any) -> tuple[dict[int, Context], bytes]:
    proposed = asked.presentation_context_definition_list
    supported = [_SUPPORTED[uid] for uid in {context.abstract_syntax for context in proposed} if uid in _SUPPORTED]
    roles = {
        item.sop_class_uid: (item.scu_role, item.scp_role)
        for item in asked.user_information
        if isinstance(item, RoleSelection)
    }
    results, agreed = negotiate_as_acceptor(proposed, supported, roles)
    contexts = {
        context.context_id: Context(str(context.abstract_syntax), str(context.transfer_syntax[0]))
        for context in results
        if context.result == 0
    }
    answer = A_ASSOCIATE()
    answer.application_context_name = APPLICATION_CONTEXT
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
    answer.user_information = [length, implementation, version, *agreed]
    return contexts, bytes(A_ASSOCIATE_AC(answer).encode())


def decoded_request(pdu: bytes) -> Any:
    """The A-ASSOCIATE primitive (PS3.8 section 7.1.1) of an A-ASSOCIATE-RQ PDU."""
    try:
        request = A_ASSOCIATE_RQ()
        request.decode(pdu)
        return request.to_primitive()
    except Exception as fault:  # pynetdicom's decoder lets through whatever struct, int and str raise
        raise ProtocolFault("the A-ASSOCIATE-RQ cannot be decoded", reason=6) from fault
