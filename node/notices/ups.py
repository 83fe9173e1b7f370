"""DICOM UPS-RS: the study's reading is moved up on a worklist, or put on it (PS3.18 chapter 11, PS3.4 Annex CC).

    a workitem of the study is SCHEDULED, less urgent     its priority is raised (Update Workitem, 11.6)
    it is as urgent already, in progress or ended         nothing: a reader has it, or will have it soon
    there is none                                         one is made (Create Workitem, 11.4), with a UID of the notice

A workitem is found by the Study Instance UID in its Referenced Request Sequence. No one's claim is touched: only what
is SCHEDULED can be changed without its Transaction UID (PS3.4 CC.2.1).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from pydicom.dataset import Dataset

from node.answers import CONFLICT, DELIVERED, WARNING, Answer
from node.errors import Unavailable
from node.notices.http import Line, judge
from node.notices.notice import Notice
from node.notices.receiver import Receiver

MIME = "application/dicom+json"
STATE, PRIORITY, SOP_UID = "00741000", "00741200", "00080018"
PRIORITIES = ("LOW", "MEDIUM", "HIGH")  # Scheduled Procedure Step Priority, PS3.3 C.30.2
LABEL = "READING"  # Worklist Label, where the settings name none
# Of Table CC.2.5-3: N-CREATE, Type 2, nothing to say
EMPTY = (
    "TransactionUID", "ScheduledProcessingParametersSequence", "ScheduledStationNameCodeSequence",
    "ScheduledStationClassCodeSequence", "ScheduledStationGeographicLocationCodeSequence",
    "ScheduledWorkitemCodeSequence", "InputInformationSequence", "AdmissionID", "IssuerOfAdmissionIDSequence",
    "AdmittingDiagnosesDescription", "AdmittingDiagnosesCodeSequence", "ProcedureStepProgressInformationSequence",
    "UnifiedProcedureStepPerformedProcedureSequence",
)  # fmt: skip
EMPTY_OF_REQUEST = (
    "IssuerOfAccessionNumberSequence", "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest", "RequestedProcedureID", "RequestedProcedureDescription",
    "RequestedProcedureCodeSequence",
)  # fmt: skip


def tell(receiver: Receiver, notice: Notice, accepted: Collection[str]) -> Iterator[Answer]:
    """Raise what is scheduled, or make it."""
    uid = notice.uid("ups")
    if uid in accepted:
        return
    base = str(receiver.url).rstrip("/")
    with Line(receiver) as line:
        keys = {"ReferencedRequestSequence.StudyInstanceUID": notice.study_uid, "includefield": PRIORITY}
        keys |= {"WorklistLabel": receiver.worklist} if receiver.worklist else {}
        found = line.ask("GET", f"{base}/workitems?{urlencode(keys)}", headers={"Accept": MIME})
        if not 200 <= found.status < 300:
            yield judge(uid, found, "the search for a workitem")
            return
        items = _datasets(receiver, found.body)
        yield _raised(line, base, items, notice, uid) if items else _made(line, base, receiver, notice, uid)


def _raised(line: Line, base: str, items: list[dict[str, Any]], notice: Notice, uid: str) -> Answer:
    wanted = priority_of(notice)
    for item in items:
        if _value(item, STATE) != "SCHEDULED" or rank(_value(item, PRIORITY)) >= rank(wanted):
            continue
        change = Dataset()
        change.ScheduledProcedureStepPriority = wanted
        said = line.ask("POST", f"{base}/workitems/{_value(item, SOP_UID)}", content=_json(change), headers=_HEADERS)
        answer = judge(uid, said, "the workitem")
        if answer.verdict == CONFLICT:  # 11.6.2: its state does not allow it any more
            return replace(answer, verdict=WARNING, comment="a reader has just taken it")
        if not answer.is_accepted:
            return answer
    return Answer(uid, 200, DELIVERED)


def _made(line: Line, base: str, receiver: Receiver, notice: Notice, uid: str) -> Answer:
    said = line.ask("POST", f"{base}/workitems?{uid}", content=_json(workitem(receiver, notice)), headers=_HEADERS)
    answer = judge(uid, said, "the workitem")
    if answer.verdict == CONFLICT:  # 11.4.2: of an answer that was lost
        return replace(answer, verdict=DELIVERED, comment="it was there already")
    return answer


def workitem(receiver: Receiver, notice: Notice) -> Dataset:
    """A reading that is scheduled now, ready to begin (PS3.4 Table CC.2.5-3, N-CREATE)."""
    item = Dataset()
    item.SpecificCharacterSet = "ISO_IR 192"
    for keyword in EMPTY:
        _clear(item, keyword)
    item.ScheduledProcedureStepPriority = priority_of(notice)
    item.ProcedureStepLabel = notice.impression[:64]
    item.WorklistLabel = receiver.worklist or LABEL
    item.ScheduledProcedureStepStartDateTime = notice.found_at.strftime("%Y%m%d%H%M%S%z")
    item.CommentsOnTheScheduledProcedureStep = notice.impression
    item.InputReadinessState = "READY"
    item.ProcedureStepState = "SCHEDULED"
    item.StudyInstanceUID = notice.study_uid
    patient = notice.patient
    item.PatientID, item.IssuerOfPatientID, item.PatientSex = patient.id, patient.issuer, patient.sex
    item.PatientName = patient.name if receiver.names else ""
    item.PatientBirthDate = patient.birth_date if receiver.names else ""
    request = Dataset()
    for keyword in EMPTY_OF_REQUEST:
        _clear(request, keyword)
    request.StudyInstanceUID, request.AccessionNumber = notice.study_uid, notice.accession
    item.ReferencedRequestSequence = [request]
    return item


def priority_of(notice: Notice) -> str:
    return "HIGH" if notice.priority <= 3 else "MEDIUM" if notice.priority <= 6 else "LOW"


def rank(priority: object) -> int:
    """How urgent; what is not known is the least."""
    return PRIORITIES.index(priority) if isinstance(priority, str) and priority in PRIORITIES else -1


_HEADERS = {"Content-Type": MIME, "Accept": MIME}


def _clear(item: Dataset, keyword: str) -> None:
    setattr(item, keyword, [] if keyword.endswith("Sequence") else "")


def _json(dataset: Dataset) -> bytes:
    return json.dumps([dataset.to_json_dict()]).encode()


def _datasets(receiver: Receiver, body: bytes) -> list[dict[str, Any]]:
    """What the search found; nothing for 204.

    Raises:
        Unavailable: If it is no DICOM JSON.
    """
    try:
        found = json.loads(body or b"[]")
        if isinstance(found, list) and all(isinstance(item, dict) and _value(item, SOP_UID) for item in found):
            return found
    except (ValueError, AttributeError, TypeError):
        pass
    raise Unavailable(f"{receiver.where} answers with no workitems in DICOM JSON")


def _value(item: dict[str, Any], tag: str) -> str | None:
    values = item.get(tag, {}).get("Value") or [None]
    return None if values[0] is None else str(values[0])
