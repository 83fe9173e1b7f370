"""DICOM UPS-RS to a server that looks for everything that a workitem has to have, and keeps its states."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from node.ledger import DeliveryState
from node.notices import Receiver
from tests.noticing import Noticing, noticing
from tests.receivers import Told, receiver
from tests.waiting import PATIENCE

__all__ = ["noticing"]  # fixture


@pytest.fixture
def worklist(tmp_path: Path) -> Iterator[Told]:
    with receiver("worklist", tmp_path / "worklist") as running:
        yield running


def to(told: Told, **others: Any) -> Receiver:
    given = {"url": f"http://127.0.0.1:{told.port}/dicom-web/", "answer_seconds": PATIENCE}
    return Receiver("WORKLIST", "ups", **given | others)


def items(worklist: Told) -> list[Dataset]:
    return [Dataset.from_json(each) for each in json.loads((worklist.folder / "items.json").read_text()).values()]


def test_a_study_that_is_on_no_worklist_is_put_on_it_once(noticing: Noticing, worklist: Told) -> None:
    number = noticing.read()["WORKLIST"]
    assert noticing.tell(number, to(worklist)).state == DeliveryState.DELIVERED, worklist.heard
    (item,) = items(worklist)
    study = noticing.place.ledger.job(noticing.job_id).study_uid
    assert (item.ScheduledProcedureStepPriority, item.ProcedureStepState) == ("HIGH", "SCHEDULED")
    assert (item.WorklistLabel, item.InputReadinessState) == ("READING", "READY")
    assert item.ReferencedRequestSequence[0].StudyInstanceUID == item.StudyInstanceUID == study
    assert item.PatientID == "SYN-1"
    assert "Hemorrhage, certainty 0.97" in item.CommentsOnTheScheduledProcedureStep
    noticing.place.ledger.send_again(noticing.job_id, "WORKLIST")
    assert noticing.tell(number, to(worklist)).state == DeliveryState.DELIVERED
    assert len(items(worklist)) == 1


def test_an_answer_that_was_lost_makes_no_second_workitem(noticing: Noticing, worklist: Told) -> None:
    number = noticing.read()["WORKLIST"]
    noticing.tell(number, to(worklist))
    noticing.place.ledger.send_again(noticing.job_id, "WORKLIST")
    done = noticing.tell(number, to(worklist, worklist="NOT THERE YET"))  # it is made, but the search does not find it
    assert (done.state, len(items(worklist))) == (DeliveryState.DELIVERED, 1)
    assert noticing.answers(number)[-1] == (409, "delivered")


def seed(folder: Path, study: str, *, priority: str, state: str) -> None:
    item, request = Dataset(), Dataset()
    request.StudyInstanceUID = study
    item.SOPInstanceUID, item.ScheduledProcedureStepPriority, item.ProcedureStepState = "2.25.7", priority, state
    item.ReferencedRequestSequence, item.WorklistLabel = [request], "NEURO"
    folder.mkdir()
    (folder / "items.json").write_text(json.dumps({"2.25.7": item.to_json_dict()}))


@pytest.mark.parametrize(
    ("priority", "state", "then", "changes"),
    [
        ("LOW", "SCHEDULED", "HIGH", 1),
        ("MEDIUM", "SCHEDULED", "HIGH", 1),
        ("HIGH", "SCHEDULED", "HIGH", 0),
        ("LOW", "IN PROGRESS", "LOW", 0),  # a reader has it
        ("LOW", "COMPLETED", "LOW", 0),
    ],
)
def test_what_is_scheduled_is_raised_and_what_a_reader_has_is_left(
    noticing: Noticing, tmp_path: Path, priority: str, state: str, then: str, changes: int
) -> None:
    number = noticing.read()["WORKLIST"]
    study = noticing.place.ledger.job(noticing.job_id).study_uid
    seed(tmp_path / "worklist", study, priority=priority, state=state)
    with receiver("worklist", tmp_path / "worklist") as worklist:
        assert noticing.tell(number, to(worklist)).state == DeliveryState.DELIVERED, worklist.heard
    (item,) = items(worklist)
    assert (item.ScheduledProcedureStepPriority, item.ProcedureStepState) == (then, state)
    assert [each["method"] for each in worklist.heard].count("POST") == changes


def test_a_reader_who_takes_it_in_that_moment_keeps_it(noticing: Noticing, tmp_path: Path) -> None:
    number = noticing.read()["WORKLIST"]
    study = noticing.place.ledger.job(noticing.job_id).study_uid
    seed(tmp_path / "worklist", study, priority="LOW", state="SCHEDULED")
    with receiver("worklist", tmp_path / "worklist") as worklist:
        worklist.answers(None, "taken")
        assert noticing.tell(number, to(worklist, worklist="NEURO")).state == DeliveryState.DELIVERED
    assert noticing.answers(number) == [(409, "warning")]


@pytest.mark.parametrize(
    ("said", "state", "reason"),
    [
        ((401,), DeliveryState.DEAD, "the search for a workitem: the credentials are missing, wrong or expired"),
        ((503,), DeliveryState.WAITING, "the search for a workitem: server error (HTTP 503)"),
        (("nonsense",), DeliveryState.WAITING, "answers with no workitems in DICOM JSON"),
        ((None, 400), DeliveryState.DEAD, "the workitem: refused (HTTP 400)"),
    ],
)
def test_what_the_server_says_is_understood(
    noticing: Noticing, tmp_path: Path, said: tuple[Any, ...], state: DeliveryState, reason: str
) -> None:
    number = noticing.read()["WORKLIST"]
    study = noticing.place.ledger.job(noticing.job_id).study_uid
    seed(tmp_path / "worklist", study, priority="LOW", state="SCHEDULED")
    with receiver("worklist", tmp_path / "worklist") as worklist:
        worklist.answers(*said)
        done = noticing.tell(number, to(worklist))
    assert (done.state, reason in (done.reason or "")) == (state, True), done.reason
