"""FHIR R4 by REST: what was found as a report that is preliminary, and the study's task made urgent.

    report   one transaction: ImagingStudy (made where there is none), an Observation per finding, DiagnosticReport
    task     every open Task whose focus is the ImagingStudy gets the priority; where there is none, one is made

Whatever is written has an identifier that derives from the notice and is written by it (conditional create and update,
http.html#ccreate, #cond-update), so that told twice is told once; a Task that another has changed meanwhile is left to
the next try (If-Match). Patients are named by a reference where the server knows exactly one of the ID.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from node.answers import DELIVERED, FEW, RETRY, Answer
from node.errors import Unavailable
from node.notices.http import Line, Reply, judge
from node.notices.notice import Notice
from node.notices.receiver import Receiver
from node.triage.rules import Said

Resource = dict[str, Any]

MIME = "application/fhir+json"
REPORT, TASK = "fhir", "fhir task"  # the messages
SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "LN": "http://loinc.org",
    "UCUM": "http://unitsofmeasure.org",
}
PRIORITIES = ("routine", "urgent", "asap", "stat")  # valueset-request-priority, the least urgent first
ENDED = frozenset(("completed", "cancelled", "rejected", "failed", "entered-in-error"))


def tell(receiver: Receiver, notice: Notice, accepted: Collection[str]) -> Iterator[Answer]:
    """Write the report, then the task; what was taken already is not written again."""
    with Line(receiver) as line:
        server = _Server(receiver, line)
        if (uid := notice.uid(REPORT)) not in accepted:
            told = server.write("POST", "", transaction(notice, server.patient(notice)))
            yield _of_transaction(judge(uid, told, "the report"), told)
        if (uid := notice.uid(TASK)) not in accepted:
            yield _task(server, notice, uid)


class _Server:
    """A FHIR server's REST API, below its base."""

    def __init__(self, receiver: Receiver, line: Line) -> None:
        self._receiver, self._line = receiver, line
        self._base = str(receiver.url).rstrip("/")

    def write(self, method: str, path: str, resource: Resource, **headers: str) -> Reply:
        named = {"Content-Type": MIME, "Accept": MIME, **{key.replace("_", "-"): said for key, said in headers.items()}}
        url = f"{self._base}/{path}" if path else self._base
        return self._line.ask(method, url, content=json.dumps(resource).encode(), headers=named)

    def search(self, kind: str, **keys: str) -> tuple[Reply, list[Resource]]:
        """The reply, and what it found.

        Raises:
            Unavailable: If it answers with 2xx and no Bundle.
        """
        reply = self._line.ask("GET", f"{self._base}/{kind}?{urlencode(keys)}", headers={"Accept": MIME})
        if not 200 <= reply.status < 300:
            return reply, []
        found = [entry.get("resource") for entry in self.bundle(reply).get("entry") or ()]
        return reply, [one for one in found if isinstance(one, dict) and one.get("resourceType") == kind]

    def bundle(self, reply: Reply) -> Resource:
        try:
            bundle = json.loads(reply.body)
            if bundle["resourceType"] == "Bundle":
                return dict(bundle)
        except (ValueError, LookupError, TypeError):
            pass
        raise Unavailable(f"{self._receiver.where} answers with no Bundle of FHIR")

    def patient(self, notice: Notice) -> Resource:
        """The reference to the patient."""
        identifier = {"value": notice.patient.id or "unknown"}
        _, found = self.search("Patient", identifier=notice.patient.id) if notice.patient.id else (None, [])
        if len(found) == 1 and "id" in found[0]:
            return {"reference": f"Patient/{found[0]['id']}", "identifier": identifier}
        return {"identifier": identifier, "type": "Patient"}


def _of_transaction(answer: Answer, reply: Reply) -> Answer:
    """A server may say 200, and of an entry that it was not written."""
    if not answer.is_accepted:
        return answer
    try:
        said = [str(entry["response"]["status"]) for entry in json.loads(reply.body)["entry"]]
    except (ValueError, LookupError, TypeError):
        return replace(answer, verdict=RETRY, comment="the report: taken, without saying what became of it", tries=FEW)
    wrong = next((status for status in said if not status.startswith("2")), None)
    if wrong is None:
        return answer
    return replace(answer, verdict=RETRY, comment=f"the report: an entry was not written ({wrong[:3]})", tries=FEW)


def _task(server: _Server, notice: Notice, uid: str) -> Answer:
    reply, studies = server.search("ImagingStudy", identifier=f"urn:dicom:uid|urn:oid:{notice.study_uid}")
    if not studies:
        said = judge(uid, reply, "the search for the study")
        if not said.is_accepted:
            return said
        return replace(said, verdict=RETRY, comment="it does not find the study that it was told of", tries=FEW)
    focus = f"ImagingStudy/{studies[0]['id']}"
    reply, tasks = server.search("Task", focus=focus)
    if not 200 <= reply.status < 300:
        return judge(uid, reply, "the search for the task")
    if not tasks:
        made = server.write("POST", "Task", task(notice, focus), If_None_Exist=f"identifier={RFC3986}|{_oid(uid)}")
        return judge(uid, made, "the task")
    for one in tasks:
        if one.get("status") in ENDED or rank(one.get("priority")) >= rank(priority_of(notice)):
            continue
        version = str(one.get("meta", {}).get("versionId", ""))
        match = {"If_Match": f'W/"{version}"'} if version else {}
        raised = server.write("PUT", f"Task/{one['id']}", one | {"priority": priority_of(notice)}, **match)
        if not 200 <= raised.status < 300:
            return judge(uid, raised, "the task")
    return Answer(uid, 200, DELIVERED)


RFC3986 = "urn:ietf:rfc3986"


def transaction(notice: Notice, patient: Resource) -> Resource:
    """The Bundle with the study, what was found and the report."""
    study = f"urn:dicom:uid|urn:oid:{notice.study_uid}"
    places = [f"urn:oid:{notice.uid(f'observation {number}')}" for number in range(len(notice.findings))]
    parts = [(observation(notice, one, patient, at), at) for one, at in zip(notice.findings, places, strict=True)]
    whole = report(notice, patient, places)
    made = {"method": "POST", "url": "ImagingStudy", "ifNoneExist": f"identifier={study}"}
    entries = [{"fullUrl": _urn(notice), "resource": imaging_study(notice, patient), "request": made}]
    for resource, at in [*parts, (whole, _oid(notice.uid(REPORT)))]:
        kind = resource["resourceType"]
        request = {"method": "PUT", "url": f"{kind}?identifier={RFC3986}|{at}"}
        entries.append({"fullUrl": at, "resource": resource, "request": request})
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def imaging_study(notice: Notice, patient: Resource) -> Resource:
    """As far as the evidence tells of it."""
    identifiers: list[Resource] = [{"system": "urn:dicom:uid", "value": f"urn:oid:{notice.study_uid}"}]
    if notice.accession:
        kind = {"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}
        identifiers.append({"type": {"coding": [kind]}, "value": notice.accession})
    study = {"resourceType": "ImagingStudy", "identifier": identifiers, "status": "available", "subject": patient}
    return study | ({"started": date} if (date := _date(notice)) else {})


def observation(notice: Notice, one: Said, patient: Resource, at: str) -> Resource:
    """One finding: it is there, how certain, how large."""
    parts = []
    if one.certainty is not None:
        percent = {"value": round(one.certainty * 100, 1), "unit": "%", "system": SYSTEMS["UCUM"], "code": "%"}
        parts.append({"code": _concept("111012", "DCM", "Certainty of Finding"), "valueQuantity": percent})
    for name, value, unit in one.measurements:
        said = {"value": value, "unit": unit, "system": SYSTEMS["UCUM"], "code": unit}
        parts.append({"code": _concept(*name), "valueQuantity": said})
    kind = {"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "imaging"}
    made: Resource = {
        "resourceType": "Observation",
        "identifier": [{"system": RFC3986, "value": at}],
        "status": "preliminary",  # nobody has seen it
        "category": [{"coding": [kind]}],
        "code": _concept(*one.code),
        "subject": patient,
        "issued": notice.found_at.isoformat(timespec="seconds"),
        "valueCodeableConcept": _concept("52101004", "SCT", "Present"),
        "device": {"display": f"wetread {notice.pipeline} {notice.version}"},
    }
    return made | ({"component": parts} if parts else {})


def report(notice: Notice, patient: Resource, observations: list[str]) -> Resource:
    """The report: preliminary, of this study, with these observations."""
    section = {"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "RAD"}
    made: Resource = {
        "resourceType": "DiagnosticReport",
        "identifier": [{"system": RFC3986, "value": _oid(notice.uid(REPORT))}],
        "status": "preliminary",
        "category": [{"coding": [section]}],
        "code": _concept("18748-4", "LN", "Diagnostic imaging study"),
        "subject": patient,
        "issued": notice.found_at.isoformat(timespec="seconds"),
        "imagingStudy": [{"reference": _urn(notice)}],
        "result": [{"reference": at} for at in observations],
        "conclusion": notice.impression,
    }
    return made | ({"effectiveDateTime": date} if (date := _date(notice)) else {})


def task(notice: Notice, focus: str) -> Resource:
    """A proposal to read the study soon."""
    return {
        "resourceType": "Task",
        "identifier": [{"system": RFC3986, "value": _oid(notice.uid(TASK))}],
        "status": "requested",
        "intent": "proposal",
        "priority": priority_of(notice),
        "code": {"text": "Read the study"},
        "description": notice.impression,
        "focus": {"reference": focus},
        "authoredOn": notice.found_at.isoformat(timespec="seconds"),
    }


def priority_of(notice: Notice) -> str:
    return "stat" if notice.priority == 0 else "asap" if notice.priority <= 3 else "routine"


def rank(priority: object) -> int:
    """How urgent; none and an unknown one are routine (Task.priority)."""
    return PRIORITIES.index(priority) if isinstance(priority, str) and priority in PRIORITIES else 0


def _concept(value: str, scheme: str, meaning: str) -> Resource:
    system = {"system": SYSTEMS[scheme]} if scheme in SYSTEMS else {}  # a code of our own has none
    return {"coding": [system | {"code": value, "display": meaning}], "text": meaning}


def _date(notice: Notice) -> str | None:
    date = notice.study_date
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 and date.isdigit() else None


def _urn(notice: Notice) -> str:
    return _oid(notice.uid("imaging study"))


def _oid(uid: str) -> str:
    return f"urn:oid:{uid}"
