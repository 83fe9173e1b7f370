"""A UPS-RS origin server in memory: what N-CREATE has to have is looked for, and the state decides (PS3.4 CC.2.5).

python -m tests.receivers.worklist FOLDER
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pydicom.dataset import Dataset
from pydicom.tag import Tag

from tests.receivers import hear, next_answer

FOLDER = Path(sys.argv[1])
ITEMS: dict[str, Any] = {}
MIME = "application/dicom+json"
# Table CC.2.5-3, N-CREATE: with a value; and there, if empty
WITH_VALUE = (
    "ScheduledProcedureStepPriority", "ProcedureStepLabel", "WorklistLabel", "ScheduledProcedureStepStartDateTime",
    "InputReadinessState", "ProcedureStepState",
)  # fmt: skip
THERE = (
    "TransactionUID", "ScheduledProcessingParametersSequence", "ScheduledStationNameCodeSequence",
    "ScheduledStationClassCodeSequence", "ScheduledStationGeographicLocationCodeSequence",
    "ScheduledWorkitemCodeSequence", "CommentsOnTheScheduledProcedureStep", "InputInformationSequence", "PatientName",
    "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "AdmissionID", "IssuerOfAdmissionIDSequence",
    "AdmittingDiagnosesDescription", "AdmittingDiagnosesCodeSequence", "ReferencedRequestSequence",
    "ProcedureStepProgressInformationSequence", "UnifiedProcedureStepPerformedProcedureSequence",
)  # fmt: skip
OF_REQUEST = (
    "AccessionNumber", "IssuerOfAccessionNumberSequence", "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest", "RequestedProcedureID", "RequestedProcedureDescription",
    "RequestedProcedureCodeSequence",
)  # fmt: skip


class Wrong(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def one(body: bytes) -> Dataset:
    """The dataset of a body; written and read again, so that every value is one of its VR."""
    try:
        (plain,) = json.loads(body)
        dataset = Dataset.from_json(plain)
        for element in dataset.iterall():
            assert element.tag.is_private is False
            assert plain.get(f"{element.tag:08X}", {"vr": element.VR})["vr"] == element.VR
        return dataset
    except Exception as error:
        raise Wrong(400, f"{type(error).__name__}: {error}") from error


def create(uid: str, item: Dataset) -> int:
    for keyword in WITH_VALUE:
        if not item.get(keyword):
            raise Wrong(400, f"{keyword} has no value")
    missing = [keyword for keyword in THERE if keyword not in item]
    for request in item.get("ReferencedRequestSequence") or ():
        missing += [keyword for keyword in OF_REQUEST if keyword not in request]
        if not request.get("StudyInstanceUID"):
            raise Wrong(400, "a request without a study")
    if missing:
        raise Wrong(400, f"missing: {missing}")
    if item.ProcedureStepState != "SCHEDULED" or item.TransactionUID:
        raise Wrong(400, "a new workitem is SCHEDULED, and nobody's")
    if "SOPInstanceUID" in item or uid in ITEMS:
        raise Wrong(409 if uid in ITEMS else 400, "the UID")
    item.SOPInstanceUID = uid
    ITEMS[uid] = item.to_json_dict()
    return 201


def change(uid: str, changes: Dataset) -> int:
    if uid not in ITEMS:
        raise Wrong(404, "no such workitem")
    item = Dataset.from_json(ITEMS[uid])
    if item.ProcedureStepState != "SCHEDULED":
        raise Wrong(409, "it is somebody's")
    if {element.keyword for element in changes} - {"ScheduledProcedureStepPriority", "ProcedureStepLabel"}:
        raise Wrong(400, "that is not to be changed")
    item.update(changes)
    ITEMS[uid] = item.to_json_dict()
    return 200


def found(query: dict[str, list[str]]) -> list[Any]:
    known = {"ReferencedRequestSequence.StudyInstanceUID", "includefield", "WorklistLabel"}
    if set(query) - known:
        raise Wrong(400, f"cannot search by {set(query) - known}")
    matches = []
    for plain in ITEMS.values():
        item = Dataset.from_json(plain)
        studies = [request.StudyInstanceUID for request in item.ReferencedRequestSequence]
        labels = query.get("WorklistLabel", [item.get("WorklistLabel")])
        if query["ReferencedRequestSequence.StudyInstanceUID"][0] in studies and item.get("WorklistLabel") in labels:
            wanted = (Tag("SOPInstanceUID"), Tag("ProcedureStepState"), Tag("ScheduledProcedureStepPriority"))
            matches.append({f"{tag:08X}": plain[f"{tag:08X}"] for tag in wanted if f"{tag:08X}" in plain})
    return matches


class Worklist(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query, strict_parsing=True)
        self.act(lambda _: found(query))

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        *_, last = url.path.split("/")
        made = (lambda body: create(unquote(url.query), one(body))) if last == "workitems" else None
        self.act(made or (lambda body: change(last, one(body))))

    def act(self, act: Any) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        said = next_answer(FOLDER)
        if said == "taken":  # a reader claims all, just before
            for item in ITEMS.values():
                item["00741000"]["Value"] = ["IN PROGRESS"]
        status, answer, why = 200, [], None
        try:
            if isinstance(said, int):
                raise Wrong(said, "a test wants it so")
            if self.headers["Accept"] != MIME or (body and self.headers["Content-Type"] != MIME):
                raise Wrong(415, "DICOM JSON is wanted")
            result = act(body)
            status, answer = (result, []) if isinstance(result, int) else (200 if result else 204, result)
        except Wrong as wrong:
            status, why = wrong.status, str(wrong)
        hear(FOLDER, method=self.command, path=self.path, status=status, why=why)
        (FOLDER / "items.json").write_text(json.dumps(ITEMS))
        text = b"" if status == 204 else b"{}" if said == "nonsense" else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", MIME)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


if (FOLDER / "items.json").exists():
    ITEMS |= json.loads((FOLDER / "items.json").read_text())
server = ThreadingHTTPServer(("127.0.0.1", 0), Worklist)
sys.stdout.write(f"{server.server_address[1]}\n")
sys.stdout.flush()
server.serve_forever()
