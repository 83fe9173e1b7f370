"""FHIR R4 to a server that validates every resource and knows transactions, conditions and versions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.ledger import DeliveryState
from node.notices import Receiver, fhir
from tests.noticing import Noticing, noticing
from tests.receivers import Told, receiver
from tests.waiting import PATIENCE

__all__ = ["noticing"]  # fixture


@pytest.fixture
def ehr(tmp_path: Path) -> Iterator[Told]:
    with receiver("ehr", tmp_path / "ehr") as running:
        yield running


def to(ehr: Told, **others: Any) -> Receiver:
    return Receiver("EHR", "fhir", **{"url": f"http://127.0.0.1:{ehr.port}/fhir/", "answer_seconds": PATIENCE} | others)


def kept(ehr: Told) -> dict[str, dict[str, Any]]:
    """What the server has, by Type/id."""
    return dict(json.loads((ehr.folder / "kept.json").read_text()))


def one(ehr: Told, kind: str) -> dict[str, Any]:
    (found,) = [resource for name, resource in kept(ehr).items() if name.startswith(f"{kind}/")]
    return found


def test_report_observation_study_and_task_are_there_and_refer_to_each_other(noticing: Noticing, ehr: Told) -> None:
    number = noticing.read()["EHR"]
    assert noticing.tell(number, to(ehr)).state == DeliveryState.DELIVERED, ehr.heard
    study, seen, report, task = (one(ehr, kind) for kind in ("ImagingStudy", "Observation", "DiagnosticReport", "Task"))
    uid = noticing.place.ledger.job(noticing.job_id).study_uid
    assert study["identifier"][0] == {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}
    assert report["imagingStudy"] == [{"reference": f"ImagingStudy/{study['id']}"}]
    assert report["result"] == [{"reference": f"Observation/{seen['id']}"}]
    assert {report["status"], seen["status"]} == {"preliminary"}
    assert seen["code"]["coding"][0]["code"] == "50960005"
    assert seen["component"][0]["valueQuantity"]["value"] == 97.0
    assert (task["priority"], task["focus"]) == ("stat", {"reference": f"ImagingStudy/{study['id']}"})
    assert noticing.answers(number) == [(200, "delivered"), (200, "delivered")]


def test_told_twice_is_told_once(noticing: Noticing, ehr: Told) -> None:
    number = noticing.read()["EHR"]
    noticing.tell(number, to(ehr))
    before = sorted(kept(ehr))
    noticing.place.ledger.send_again(noticing.job_id, "EHR")
    assert noticing.tell(number, to(ehr)).state == DeliveryState.DELIVERED
    assert sorted(kept(ehr)) == before


def seed(folder: Path, study: str, priority: str | None, status: str = "requested") -> None:
    """A server that knows the study, its patient and its task already."""
    subject = {"reference": "Patient/1"}
    identifier = {"system": "urn:dicom:uid", "value": f"urn:oid:{study}"}
    task: dict[str, Any] = {"resourceType": "Task", "id": "3", "status": status, "intent": "order", "note": []}
    there = {
        "Patient/1": {"resourceType": "Patient", "id": "1", "identifier": [{"value": "SYN-1"}]},
        "ImagingStudy/2": {
            "resourceType": "ImagingStudy", "id": "2", "identifier": [identifier], "status": "available",
            "subject": subject,
        },
        "Task/3": task | {"focus": {"reference": "ImagingStudy/2"}} | ({"priority": priority} if priority else {}),
    }  # fmt: skip
    del there["Task/3"]["note"]
    folder.mkdir()
    (folder / "kept.json").write_text(
        json.dumps({name: each | {"meta": {"versionId": "7"}} for name, each in there.items()})
    )


@pytest.mark.parametrize(
    ("priority", "status", "then"),
    [
        (None, "requested", ("stat", "8")),
        ("routine", "in-progress", ("stat", "8")),
        ("asap", "requested", ("stat", "8")),
        ("stat", "requested", ("stat", "7")),  # as urgent already: left alone
        ("routine", "completed", ("routine", "7")),  # read already
    ],
)
def test_the_studys_own_task_is_raised_and_no_other_made(
    noticing: Noticing, tmp_path: Path, priority: str | None, status: str, then: tuple[str, str]
) -> None:
    number = noticing.read()["EHR"]
    seed(tmp_path / "ehr", noticing.place.ledger.job(noticing.job_id).study_uid, priority, status)
    with receiver("ehr", tmp_path / "ehr") as ehr:
        assert noticing.tell(number, to(ehr)).state == DeliveryState.DELIVERED, ehr.heard
    task = one(ehr, "Task")
    assert (task["priority"], task["meta"]["versionId"]) == then
    assert one(ehr, "DiagnosticReport")["subject"]["reference"] == "Patient/1"
    assert one(ehr, "DiagnosticReport")["imagingStudy"] == [{"reference": "ImagingStudy/2"}]


def test_a_task_that_another_changes_meanwhile_is_raised_at_the_next_try(noticing: Noticing, tmp_path: Path) -> None:
    number = noticing.read()["EHR"]
    seed(tmp_path / "ehr", noticing.place.ledger.job(noticing.job_id).study_uid, "routine")
    with receiver("ehr", tmp_path / "ehr") as ehr:
        ehr.answers(None, None, None, None, "change")
        waiting = noticing.tell(number, to(ehr))
        assert waiting.state == DeliveryState.WAITING
        assert waiting.reason == "the task: it was changed by another meanwhile (HTTP 412)"
        assert noticing.again(number, to(ehr)).state == DeliveryState.DELIVERED
    assert one(ehr, "Task")["priority"] == "stat"
    assert [each["path"] for each in ehr.heard].count("/fhir") == 1  # the report was taken the first time


@pytest.mark.parametrize(
    ("said", "state", "reason"),
    [
        ((None, 401), DeliveryState.DEAD, "the report: the credentials are missing, wrong or expired (HTTP 401)"),
        ((None, 422), DeliveryState.DEAD, "the report: refused (HTTP 422)"),
        ((None, 503), DeliveryState.WAITING, "the report: server error (HTTP 503)"),
        ((None, "nonsense"), DeliveryState.WAITING, "the report: taken, without saying what became of it"),
        (("nonsense",), DeliveryState.WAITING, "answers with no Bundle of FHIR"),
        ((None, None, 403), DeliveryState.DEAD, "the search for the study: these credentials may not do this"),
        ((None, None, None, None, 500), DeliveryState.WAITING, "the task: server error (HTTP 500)"),
    ],
)
def test_what_the_server_says_is_understood(
    noticing: Noticing, ehr: Told, said: tuple[Any, ...], state: DeliveryState, reason: str
) -> None:
    number = noticing.read()["EHR"]
    ehr.answers(*said)
    done = noticing.tell(number, to(ehr))
    assert (done.state, reason in (done.reason or "")) == (state, True), done.reason


def test_priorities_are_in_fhirs_order() -> None:
    assert [fhir.rank(each) for each in (None, "routine", "urgent", "asap", "stat", "nonsense", 3)] == [
        0,
        0,
        1,
        2,
        3,
        0,
        0,
    ]
