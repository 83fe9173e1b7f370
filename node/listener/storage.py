"""C-STORE, C-ECHO and reports on storage commitment: one request of a peer, one status for it (PS3.4 Annex B, A, J).

It answers 0x0000 only for what the spool has made durable. It knows neither sockets nor the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from node import log
from node.errors import CannotUnderstand, DataSetDoesNotMatch, InvalidUid, Refusal
from node.instance import is_uid
from node.listener.association import Association, Message
from node.listener.command import (
    C_CANCEL_RQ,
    C_ECHO_RQ,
    C_STORE_RQ,
    N_EVENT_REPORT_RQ,
    NO_SUCH_EVENT_TYPE,
    PROCESSING_FAILURE,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
    UNRECOGNISED_OPERATION,
)
from node.listener.commitment import CommitmentReport, read_report
from node.listener.negotiation import ProtocolFault
from node.listener.wire import LineIsDead, Stopped
from node.spool import Arrival, Origin, Spool

COMMITMENT_EVENTS = (1, 2)  # PS3.4 Table J.3-3: everything is kept; not everything is

_events = log.get("listener")


@dataclass(frozen=True)
class Answer:
    """A Status (0000,0900) and an Error Comment (0000,0902)."""

    status: int
    comment: str = ""


class Storage:
    """The services that a peer finds here.

    Args:
        largest_bytes: An instance may not be larger; larger ones are read to their end and refused.
        arrived: Is told what was kept, or what a peer says that it keeps, before the peer is answered.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        caller: str,
        address: str,
        largest_bytes: int,
        arrived: Callable[[Arrival | CommitmentReport], None],
    ) -> None:
        self._spool, self._largest, self._arrived = spool, largest_bytes, arrived
        self._caller, self._address = caller, address

    def converse(self, association: Association) -> None:
        """Answer the peer until it releases the association.

        Raises:
            LineIsDead, Stopped, ProtocolFault: It ended otherwise.
        """
        for message in association.messages():
            answer = self.answer(message)
            if answer:
                for _ in message.pieces:  # a refused dataset is read to its end before the answer
                    pass
                association.respond(message, answer.status, answer.comment)

    def answer(self, message: Message) -> Answer | None:
        """Do what is asked; None for C-CANCEL, which has no response."""
        command = message.command
        if command.field == C_CANCEL_RQ:
            return None
        if command.field == C_ECHO_RQ and message.context.abstract_syntax == Verification:
            return Answer(SUCCESS)
        if command.field not in (C_STORE_RQ, N_EVENT_REPORT_RQ) or not command.has_dataset:
            return Answer(UNRECOGNISED_OPERATION)
        is_report = command.field == N_EVENT_REPORT_RQ
        is_commitment = command.sop_class == StorageCommitmentPushModel
        if command.sop_class != message.context.abstract_syntax or is_report != is_commitment:
            return Answer(SOP_CLASS_NOT_SUPPORTED)
        if command.sop_class == Verification:
            return Answer(SOP_CLASS_NOT_SUPPORTED)
        if is_report and command.event_type not in COMMITMENT_EVENTS:
            return Answer(NO_SUCH_EVENT_TYPE)
        try:
            arrival = self._reported(message) if is_report else self._receive(message)
        except Refusal as refusal:
            self._warn(message, refusal.status, str(refusal))
            return Answer(refusal.status, str(refusal))
        except (LineIsDead, Stopped, ProtocolFault):  # what the line does ends the association
            raise
        except Exception as fault:  # a bug of ours: the sender keeps its instance and is told
            self._warn(message, PROCESSING_FAILURE, type(fault).__name__)
            return Answer(PROCESSING_FAILURE, "internal error")
        self._arrived(arrival)
        return Answer(SUCCESS)

    @staticmethod
    def _reported(message: Message) -> CommitmentReport:
        return read_report(message.pieces, message.context.transfer_syntax)

    def _receive(self, message: Message) -> Arrival:
        command, context = message.command, message.context
        if not is_uid(command.sop_uid):
            raise InvalidUid("Affected SOP Instance UID breaks the rules for UIDs")
        with self._spool.receive(
            sop_class=command.sop_class, sop_uid=command.sop_uid, transfer_syntax=context.transfer_syntax
        ) as part:
            for piece in message.pieces:
                part.write(piece)
                if part.size > self._largest:
                    raise CannotUnderstand(f"larger than {self._largest} bytes")
            head = part.head()
            if head.sop_uid != command.sop_uid:
                raise DataSetDoesNotMatch("the dataset's SOP Instance UID is not the command's")
            if head.sop_class != command.sop_class:
                raise DataSetDoesNotMatch("the dataset's SOP Class UID is not the command's")
            return part.keep(head, Origin(self._caller, self._address, time.time()))

    def _warn(self, message: Message, status: int, reason: str) -> None:
        sop_uid = message.command.sop_uid
        _events.warning(
            "refused an instance",
            caller=self._caller,
            address=self._address,
            status=f"{status:04X}",
            reason=reason,
            sop_class=message.context.abstract_syntax,
            sop=sop_uid if is_uid(sop_uid) else None,
        )
