"""What the node asks of a DICOM peer: C-ECHO, C-STORE, C-FIND, storage commitment (PS3.4 C-STORE as SCU).

The bytes of a file go out as they are: the dataset after the File Meta Information, in the file's own transfer syntax,
never parsed and never encoded again. When to try again is decided elsewhere (answers.py).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom import build_context, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from node.answers import REFUSED, RETRY, Answer, judge
from node.association import Rejected, Unreachable, associate
from node.destinations import Destination, Outgoing, by_series
from node.errors import BadSettings, CannotUnderstand, NodeError, Unavailable

PLAIN = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
MOST_CONTEXTS = 128  # Presentation Context IDs are the odd numbers from 1 to 255 (PS3.8 9.3.2.2)
REQUEST_COMMITMENT = 1  # Action Type ID, PS3.4 Table J.3-1
MOST_UIDS = 50  # in one C-FIND; some peers build one SQL statement of them
WAIT_FOR_COMMITMENT = 10.0  # seconds; a peer that reports later does so on an association of its own


def echo(destination: Destination) -> str | None:
    """None if the peer answers a C-ECHO, else one sentence that says why not."""
    try:
        with associate(destination, [build_context(Verification, PLAIN)]) as association:
            status = association.send_c_echo()
    except NodeError as error:
        return str(error)
    if "Status" not in status:
        return f"{destination.where} accepts the association and does not answer C-ECHO"
    return None if status.Status == 0 else f"{destination.where} answers C-ECHO with 0x{status.Status:04X}"


def store(destination: Destination, objects: Sequence[Outgoing]) -> Iterator[Answer]:
    """Send the objects over one association, in order; one answer each, as it comes."""
    kinds = list(dict.fromkeys((one.sop_class, one.transfer_syntax) for one in objects))
    for first in range(0, len(kinds), MOST_CONTEXTS):  # one round, but for a delivery of 129 kinds
        kind = kinds[first : first + MOST_CONTEXTS]
        these = [one for one in objects if (one.sop_class, one.transfer_syntax) in kind]
        answered = 0
        try:
            with associate(destination, [build_context(*pair) for pair in kind]) as association:
                for one in these:
                    answer = _store_one(association, destination, one, answered + 1)
                    answered += 1
                    yield answer
        except (NodeError, OSError) as error:
            verdict = REFUSED if isinstance(error, Rejected) else RETRY  # settings can be mended
            sentence = str(error) if isinstance(error, NodeError) else f"{destination.where}: {error}"
            yield from (Answer(one.sop_uid, None, verdict, sentence) for one in these[answered:])


def _store_one(association: Association, destination: Destination, one: Outgoing, number: int) -> Answer:
    if not association.is_established:
        raise Unreachable(f"{destination.where} ended the association before every object was sent")
    if not _is_accepted(association, one):
        why = f"{destination.where} accepts no {one.sop_class} in transfer syntax {one.transfer_syntax}"
        return Answer(one.sop_uid, None, REFUSED, why)
    if not one.path.is_file():
        return Answer(one.sop_uid, None, RETRY, f"{one.path.name} is not there to be sent")
    try:
        response = association.send_c_store(one.path, msg_id=(number - 1) % 65535 + 1)
    except (InvalidDicomError, AttributeError, ValueError) as error:
        return Answer(one.sop_uid, None, REFUSED, f"{one.path.name} cannot be sent: {error}")
    if "Status" not in response:
        raise Unreachable(f"{destination.where} did not answer a C-STORE within {destination.dimse_seconds:.0f} s")
    return judge(one.sop_uid, response.Status)


def _is_accepted(association: Association, one: Outgoing) -> bool:
    return any(
        context.abstract_syntax == one.sop_class and context.transfer_syntax[0] == one.transfer_syntax
        for context in association.accepted_contexts
    )


def verify(destination: Destination, objects: Sequence[Outgoing]) -> set[str] | None:
    """The SOP Instance UIDs of these objects that the peer says it has; None if it cannot say.

    By C-FIND, since any archive answers it at once, and by storage commitment where it does not; the other way round
    if the destination has ``commitment``.

    Orthanc answers C-FIND only to AE titles in its DicomModalities (its DicomAlwaysAllowFind is false), and reports a
    commitment on an association of its own, to the host and port that stand there: see ``request_commitment``.
    """
    ways = (_commitment, _find) if destination.commitment else (_find, _commitment)
    for way in ways:
        with contextlib.suppress(Rejected):
            try:
                held = way(destination, objects)
            except (Unavailable, BadSettings, CannotUnderstand, OSError):
                return None
            if held is not None:
                return held
    return None


def _find(destination: Destination, objects: Sequence[Outgoing]) -> set[str] | None:
    """Ask at the IMAGE level, per series (PS3.4 C.6.2.1); None if any question is not answered."""
    held: set[str] = set()
    with associate(destination, [build_context(StudyRootQueryRetrieveInformationModelFind, PLAIN)]) as association:
        for query in _queries(objects):
            for status, match in association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind):
                if "Status" not in status or status.Status not in (0x0000, 0xFF00, 0xFF01):
                    return None
                if match is not None and "SOPInstanceUID" in match:
                    held.add(str(match.SOPInstanceUID))
    return held & {one.sop_uid for one in objects}


def count(destination: Destination, study_uid: str) -> int | None:
    """Number of Study Related Instances (0020,1208) as the peer tells it (PS3.4 Table C.6-5); None if it does not.

    Raises:
        NodeError: If it cannot be asked.
    """
    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    query.StudyInstanceUID, query.NumberOfStudyRelatedInstances = study_uid, None
    told: list[int] = []
    with associate(destination, [build_context(StudyRootQueryRetrieveInformationModelFind, PLAIN)]) as association:
        for status, match in association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind):
            if "Status" not in status:
                raise Unreachable(f"{destination.where} does not answer a C-FIND")
            if status.Status not in (0x0000, 0xFF00, 0xFF01):
                raise NodeError(f"{destination.where} answers a C-FIND with 0x{status.Status:04X}")
            if match is not None and str(match.get("StudyInstanceUID", "")) == study_uid:
                with contextlib.suppress(Exception):  # absent, empty, or no number
                    told.append(int(match.NumberOfStudyRelatedInstances))
    return max(told, default=None)


def _queries(objects: Sequence[Outgoing]) -> Iterator[Dataset]:
    for (study_uid, series_uid), uids in by_series(objects).items():
        for first in range(0, len(uids), MOST_UIDS):
            query = Dataset()
            query.QueryRetrieveLevel = "IMAGE"
            query.StudyInstanceUID, query.SeriesInstanceUID = study_uid, series_uid
            query.SOPInstanceUID = uids[first : first + MOST_UIDS]
            yield query


def _commitment(destination: Destination, objects: Sequence[Outgoing]) -> set[str] | None:
    """Ask for storage commitment and wait for the report on the same association; None if none comes."""
    asked = request_commitment(destination, objects, str(generate_uid()), has_come=lambda: False)
    return asked.held


@dataclass(frozen=True)
class Promise:
    """Whether the peer has taken a request for storage commitment, and what it has reported on the same association."""

    is_taken: bool
    held: set[str] | None = None


def request_commitment(
    destination: Destination, objects: Sequence[Outgoing], transaction_uid: str, *, has_come: Callable[[], bool]
) -> Promise:
    """Ask for storage commitment and wait a while for the report (PS3.4 J.3).

    Args:
        has_come: Whether the report has come another way: the peer may open an association of its own.

    Raises:
        NodeError: If there is no association, or the peer does not offer the service.
    """
    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = [_reference(one) for one in objects]
    report = _Report(transaction_uid)
    # Orthanc does not answer N-ACTION at all to an AE title that it does not know
    soon = replace(destination, dimse_seconds=min(destination.dimse_seconds, WAIT_FOR_COMMITMENT))
    asked = [build_context(StorageCommitmentPushModel, PLAIN)]
    with associate(soon, asked, [(evt.EVT_N_EVENT_REPORT, report.receive)]) as association:
        status, _ = association.send_n_action(
            request, REQUEST_COMMITMENT, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        is_taken = "Status" in status and status.Status == 0
        until = time.monotonic() + (WAIT_FOR_COMMITMENT if is_taken else 0.0)
        while time.monotonic() < until and not report.has_come.wait(0.5) and not has_come():
            pass
    return Promise(is_taken, report.held)


class _Report:
    """The N-EVENT-REPORT on one transaction (PS3.4 Table J.3-3: event type 1 all are held, 2 some are not)."""

    def __init__(self, transaction: str) -> None:
        self.transaction = transaction
        self.held: set[str] | None = None
        self.has_come = threading.Event()

    def receive(self, event: Any) -> tuple[int, None]:
        with contextlib.suppress(Exception):  # a report that cannot be read says nothing about the objects
            report = event.event_information
            if str(report.TransactionUID) == self.transaction:
                self.held = {str(item.ReferencedSOPInstanceUID) for item in report.get("ReferencedSOPSequence", [])}
                self.has_come.set()
        return 0x0000, None


def _reference(one: Outgoing) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = one.sop_class
    item.ReferencedSOPInstanceUID = one.sop_uid
    return item
