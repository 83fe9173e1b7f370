"""HL7 v2 over MLLP to a server of another library, which validates strictly what it gets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hl7
import pytest
from pydicom.valuerep import PersonName

from node.ledger import DeliveryState
from node.notices import Notice, Receiver, hl7v2
from node.notices import notice_of as made_of
from tests.noticing import BLEEDING, Noticing, certificate, noticing
from tests.peers import free_port
from tests.receivers import Told, receiver
from tests.receivers.hl7_faults import fault_of
from tests.waiting import PATIENCE

__all__ = ["noticing"]  # fixture

BOTH = ("ORU^R01", "OMI^O23")


@pytest.fixture
def ris(tmp_path: Path) -> Iterator[Told]:
    with receiver("ris", tmp_path / "ris") as running:
        yield running


def to(port: int, **others: Any) -> Receiver:
    return Receiver("RIS", "hl7", **{"host": "127.0.0.1", "port": port, "answer_seconds": PATIENCE} | others)


def notice_of(noticing: Noticing) -> Notice:
    noticing.read()
    job = noticing.place.ledger.job(noticing.job_id)
    evidence = noticing.place.ledger.evidence(job.key)
    return made_of(job, evidence, noticing.place.evidence, rules=(BLEEDING,), receiver="RIS")


def test_the_ris_gets_a_result_and_an_order_that_is_urgent_now(noticing: Noticing, ris: Told) -> None:
    number = noticing.read()["RIS"]
    done = noticing.tell(number, to(ris.port, application="RIS", facility="HOSPITAL"))
    assert [each["fault"] for each in ris.heard] == [None, None]
    assert done.state == DeliveryState.DELIVERED
    result, order = (hl7.parse(each["text"]) for each in ris.heard)
    study = noticing.place.ledger.job(noticing.job_id).study_uid
    assert (str(result.segment("MSH")(9)), str(order.segment("MSH")(9))) == ("ORU^R01^ORU_R01", "OMI^O23^OMI_O23")
    assert str(result["PID.F3.R1.C1"]) == "SYN-1"
    assert str(result["OBR.F25"]) == "R"  # stored, not yet verified: nobody has seen it
    observed = [[str(each(3)(0)(0)), str(each(5)), str(each(11))] for each in result.segments("OBX")]
    assert ["50960005", "52101004^Present^SCT", "R"] in observed
    assert ["111012", "97", "R"] in observed
    assert ["110180", study, "R"] in observed
    assert (str(order["ORC.F1"]), str(order.segment("TQ1")(9))) == ("XO", "S^Stat^HL70485")
    assert str(order["IPC.F3"]) == study
    assert noticing.answers(number) == [(0, "delivered"), (0, "delivered")]


def test_only_what_was_not_taken_is_sent_again_with_the_same_control_id(noticing: Noticing, ris: Told) -> None:
    number = noticing.read()["RIS"]
    ris.answers({"code": "AA"}, {"code": "AE"})
    waiting = noticing.tell(number, to(ris.port))
    assert (waiting.state, waiting.reason) == (DeliveryState.WAITING, "OMI^O23: application error (AE)")
    assert noticing.again(number, to(ris.port)).state == DeliveryState.DELIVERED
    numbers = [
        (str(hl7.parse(each["text"])["MSH.F9.R1.C1"]), str(hl7.parse(each["text"])["MSH.F10"])) for each in ris.heard
    ]
    assert [kind for kind, _ in numbers] == ["ORU", "OMI", "OMI"]
    assert numbers[1] == numbers[2]


@pytest.mark.parametrize(
    ("said", "state", "reason"),
    [
        ({"code": "AR"}, DeliveryState.WAITING, "ORU^R01: application reject (AR)"),
        ({"code": "AE", "error": 207}, DeliveryState.WAITING, "ORU^R01: application internal error (AE, 207)"),
        ({"code": "AE", "error": 101}, DeliveryState.DEAD, "ORU^R01: required field missing (AE, 101)"),
        ({"code": "AR", "error": 200}, DeliveryState.DEAD, "ORU^R01: unsupported message type (AR, 200)"),
        ({"code": "ZZ"}, DeliveryState.WAITING, "answers ORU^R01 with no acknowledgement of it"),
        ({"code": "AA", "about": "4711"}, DeliveryState.WAITING, "answers ORU^R01 with no acknowledgement of it"),
        ("hang", DeliveryState.WAITING, "does not acknowledge within 1 s"),
        ("close", DeliveryState.WAITING, "ended without a whole acknowledgement"),
    ],
)
def test_every_acknowledgement_is_understood(
    noticing: Noticing, ris: Told, said: Any, state: DeliveryState, reason: str
) -> None:
    number = noticing.read()["RIS"]
    ris.answers(said)
    done = noticing.tell(number, to(ris.port, answer_seconds=1.0))
    assert done.state == state
    assert reason in (done.reason or "")


def test_a_message_that_is_refused_five_times_is_a_dead_letter(noticing: Noticing, ris: Told) -> None:
    number = noticing.read()["RIS"]
    ris.answers(*[{"code": "AE"}] * 5)
    outbox = to(ris.port)
    states = [noticing.tell(number, outbox).state]
    for _ in range(4):
        with noticing.place.ledger._database.writing() as db:  # as if its time had come
            db.exec_driver_sql(f"UPDATE deliveries SET not_before = 0 WHERE id = {number}")
        states.append(noticing.tell(number, outbox).state)
    assert states == [DeliveryState.WAITING] * 4 + [DeliveryState.DEAD]


def test_a_ris_that_is_off_or_speaks_no_hl7_is_tried_later(noticing: Noticing) -> None:
    number = noticing.read()["RIS"]
    off = noticing.tell(number, to(free_port()))
    assert (off.state, "connection refused" in (off.reason or "")) == (DeliveryState.WAITING, True)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def babble() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(1 << 16)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=babble, daemon=True).start()
        strange = noticing.again(number, to(server.getsockname()[1]))
    assert (strange.state, "without a whole" in (strange.reason or "")) == (DeliveryState.WAITING, True)


def test_what_stands_in_a_name_cannot_make_a_segment_or_a_field(noticing: Noticing) -> None:
    notice = notice_of(noticing)
    hostile = replace(notice.patient, id="1|2\rOBX|9", name=PersonName("M^üller\\&~|\rEVIL^A^Dr.^Jr."))
    for name in BOTH:
        text = hl7v2.MESSAGES[name](to(1), replace(notice, patient=hostile, description="x|y"))
        assert fault_of(text) is None
        message = hl7.parse(text)
        assert len(message.segments("PID")) == 1
        assert str(message["PID.F5.R1.C2"]) == "üller\\&~| EVIL"
        assert [str(message[f"PID.F5.R1.C{part}"]) for part in (1, 4, 5)] == ["M", "Jr.", "Dr."]
        assert str(message["PID.F3.R1.C1"]) == "1|2 OBX|9"


def test_without_names_the_patient_is_told_by_id_alone(noticing: Noticing) -> None:
    notice = notice_of(noticing)
    named = replace(notice, patient=replace(notice.patient, name=PersonName("Doe^Jane"), birth_date="19700101"))
    for name in BOTH:
        text = hl7v2.MESSAGES[name](to(1, names=False), named)
        assert fault_of(text) is None
        assert "Doe" not in text
        assert "19700101" not in text
        assert "SYN-1" in text


@pytest.mark.parametrize(("priority", "letter"), [(0, "S"), (1, "A"), (3, "A"), (4, "R"), (9, "R")])
def test_priority_is_told_by_its_letter(priority: int, letter: str) -> None:
    assert hl7v2.urgency(priority) == letter


def test_over_tls_a_certificate_of_nobody_known_gets_nothing(noticing: Noticing, tmp_path: Path) -> None:
    made, ca = certificate(tmp_path)
    number = noticing.read()["RIS"]
    with receiver("ris", tmp_path / "ris", str(made)) as ris:
        secure = to(ris.port, host="localhost", tls="required", messages=("ORU^R01",))
        refused = noticing.tell(number, secure)
        assert (refused.state, ris.heard) == (DeliveryState.WAITING, [])
        assert "certificate verify failed" in (refused.reason or "")
        trusted = noticing.again(number, replace(secure, tls_ca=ca))
        assert (trusted.state, len(ris.heard)) == (DeliveryState.DELIVERED, 1)
