"""A FHIR R4 server in memory: transactions, conditional create and update, If-Match; every resource validated.

python -m tests.receivers.ehr FOLDER
"""

from __future__ import annotations

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fhir.resources.R4B import get_fhir_model_class
from pydantic import ValidationError

from tests.receivers import hear, next_answer

FOLDER = Path(sys.argv[1])
KEPT: dict[str, dict[str, Any]] = {}  # by Type/id


class Wrong(Exception):
    """What is refused, and with which status."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def checked(resource: dict[str, Any]) -> dict[str, Any]:
    try:
        get_fhir_model_class(resource["resourceType"]).model_validate(resource)
    except (ValidationError, LookupError) as error:
        raise Wrong(422, str(error)) from error
    return resource


def found(kind: str, query: str) -> list[dict[str, Any]]:
    keys = parse_qs(query, strict_parsing=True)
    if not keys or set(keys) - {"identifier", "focus"}:
        raise Wrong(400, f"cannot search by {query}")
    return [one for name, one in KEPT.items() if name.startswith(f"{kind}/") and is_meant(one, keys)]


def is_meant(one: dict[str, Any], keys: dict[str, list[str]]) -> bool:
    if "focus" in keys and one.get("focus", {}).get("reference") != keys["focus"][0]:
        return False
    if "identifier" in keys:
        *system, value = keys["identifier"][0].split("|")
        same = [each for each in one.get("identifier", []) if each["value"] == value]
        return any(not system or each.get("system") == system[0] for each in same)
    return True


def keep(resource: dict[str, Any], number: str | None = None) -> dict[str, Any]:
    kind = resource["resourceType"]
    number = number or f"{len(KEPT) + 1}"
    version = int(KEPT.get(f"{kind}/{number}", {"meta": {"versionId": "0"}})["meta"]["versionId"]) + 1
    KEPT[f"{kind}/{number}"] = resource | {"id": number, "meta": {"versionId": str(version)}}
    return KEPT[f"{kind}/{number}"]


def transact(bundle: dict[str, Any]) -> dict[str, Any]:
    """All or nothing; references to full URLs become references to what they have become (http.html#trules)."""
    if bundle["type"] != "transaction":
        raise Wrong(400, "a transaction is wanted")
    checked(bundle)
    before, placed, told = dict(KEPT), {}, []
    try:
        for entry in bundle["entry"]:
            resource, request = checked(entry["resource"]), entry["request"]
            kind, _, query = request["url"].partition("?")
            query = request.get("ifNoneExist", query)
            there = found(kind, query)
            if len(there) > 1:
                raise Wrong(412, "several match")
            if request["method"] == "POST" and there:
                kept, status = there[0], "200 OK"
            else:
                text = re.sub(r'"reference": "(urn:[^"]+)"', lambda m: refer(m, placed), json.dumps(resource))
                kept = keep(json.loads(text), there[0]["id"] if there else None)
                status = "200 OK" if there else "201 Created"
            placed[entry["fullUrl"]] = f"{kind}/{kept['id']}"
            told.append({"response": {"status": status, "location": placed[entry["fullUrl"]]}})
    except Wrong:
        KEPT.clear()
        KEPT.update(before)
        raise
    return {"resourceType": "Bundle", "type": "transaction-response", "entry": told}


def refer(match: re.Match[str], placed: dict[str, str]) -> str:
    if match[1] not in placed:
        raise Wrong(422, f"nothing is at {match[1]}")
    return f'"reference": "{placed[match[1]]}"'


class Ehr(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.act(lambda _: self.bundle(found(url.path.split("/")[-1], url.query)))

    def do_POST(self) -> None:
        self.act(self.create)

    def do_PUT(self) -> None:
        self.act(self.change)

    def bundle(self, there: list[dict[str, Any]]) -> dict[str, Any]:
        return {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": one} for one in there]}

    def create(self, resource: dict[str, Any]) -> dict[str, Any]:
        if resource["resourceType"] == "Bundle":
            return transact(resource)
        there = found(resource["resourceType"], self.headers["If-None-Exist"])
        return there[0] if there else keep(checked(resource))

    def change(self, resource: dict[str, Any]) -> dict[str, Any]:
        kind, number = self.path.split("/")[-2:]
        if self.headers["If-Match"] != f'W/"{KEPT[f"{kind}/{number}"]["meta"]["versionId"]}"':
            raise Wrong(412, "another has changed it")
        return keep(checked(resource), number)

    def act(self, act: Any) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        resource = json.loads(body) if body else {}
        said = next_answer(FOLDER)
        if said == "change":  # somebody else changes every task just before
            for name, one in KEPT.items():
                if name.startswith("Task/"):
                    KEPT[name] = one | {"meta": {"versionId": str(int(one["meta"]["versionId"]) + 1)}}
        status, answer, why = 200, {}, None
        try:
            if isinstance(said, int):
                raise Wrong(said, "a test wants it so")
            if self.headers["Accept"] != "application/fhir+json":
                raise Wrong(406, "FHIR as JSON is wanted")
            if body and self.headers["Content-Type"] != "application/fhir+json":
                raise Wrong(415, "FHIR as JSON is wanted")
            answer = act(resource)
        except Wrong as wrong:
            status, why = wrong.status, str(wrong)
            answer = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "invalid"}]}
        if said == "nonsense":
            answer = {"resourceType": "Patient"}
        hear(FOLDER, method=self.command, path=self.path, status=status, why=why)
        (FOLDER / "kept.json").write_text(json.dumps(KEPT))
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/fhir+json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


if (FOLDER / "kept.json").exists():
    KEPT |= json.loads((FOLDER / "kept.json").read_text())
server = ThreadingHTTPServer(("127.0.0.1", 0), Ehr)
sys.stdout.write(f"{server.server_address[1]}\n")
sys.stdout.flush()
server.serve_forever()
