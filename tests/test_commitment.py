"""Reports on storage commitment that come on an association of the PACS's own, from a program of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node import asking, dimse
from node.ledger import DeliveryState
from node.listener import Listener, listening
from tests.peers import needs, orthanc
from tests.senders import options
from tests.steady import steady
from tests.test_analysis import Bench
from tests.test_outbox import _at_once, deliveries, entry, evidence_uids, outbox, scp
from tests.workplace import pacs, until


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("commitment"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def listener(bench: Bench) -> Iterator[Listener]:
    with listening(options(), bench.place.spool, bench.place.ledger) as running:
        yield running


@pytest.fixture
def number(bench: Bench) -> int:
    """A delivery for PACS."""
    return deliveries(bench, "PACS")[0]


def script(listener: Listener, held: list[str], *, after: float | None = 0.2, roles: bool = True) -> dict[str, Any]:
    return {"held": held, "can_commit": True, "report_to": {"port": listener.port, "after": after, "roles": roles}}


@pytest.mark.parametrize("roles", [True, False])
def test_a_report_on_another_association_verifies_the_delivery(
    bench: Bench, listener: Listener, number: int, tmp_path: Path, roles: bool
) -> None:
    with scp(tmp_path, **script(listener, evidence_uids(bench, number), roles=roles)) as peer:
        outbox(bench, pacs("PACS", peer.port, commitment=True))(number)
        until(lambda: "reported 0" in peer.events, what="the report is answered")
        assert "find" not in peer.events
        if roles:
            assert "as SCP True, as SCU False" in peer.events
    done = entry(bench, number)
    assert (done.state, done.verified, done.attempts) == (DeliveryState.DELIVERED, True, 1)


@needs("Orthanc")
def test_orthanc_commits_itself_on_an_association_of_its_own(bench: Bench, listener: Listener, tmp_path: Path) -> None:
    (number,) = deliveries(bench, "ORTHANC")
    known = {"WETREAD": ("127.0.0.1", listener.port)}
    with orthanc(tmp_path / "pacs", modalities=known, calls=listener.port) as archive:
        outbox(bench, pacs("ORTHANC", archive.dicom_port, commitment=True))(number)
        until(lambda: entry(bench, number).state == DeliveryState.DELIVERED, what="the report has come")
        jobs = archive.json("/jobs?expand")
    assert (entry(bench, number).verified, entry(bench, number).attempts) == (True, 1)
    assert [(job["Type"], job["State"]) for job in jobs] == [("StorageCommitmentScp", "Success")]


def test_a_delivery_waits_for_a_report_that_takes_its_time_and_holds_up_nobody(
    bench: Bench, listener: Listener, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dimse, "WAIT_FOR_COMMITMENT", 0.3)
    with scp(tmp_path, **script(listener, evidence_uids(bench, number), after=None)) as peer:
        outbox(bench, pacs("PACS", peer.port, commitment=True))(number)
        waiting = entry(bench, number)
        assert waiting.state == DeliveryState.WAITING
        assert "is to report that it keeps it" in (waiting.reason or "")
        peer.report()
        until(lambda: entry(bench, number).state == DeliveryState.DELIVERED, what="the report has come")
    assert (entry(bench, number).verified, entry(bench, number).attempts) == (True, 1)


def test_without_a_report_the_pacs_is_asked_what_it_has(
    bench: Bench, listener: Listener, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dimse, "WAIT_FOR_COMMITMENT", 0.3)
    monkeypatch.setattr(asking, "COMMITMENT_SECONDS", 300.0)
    with scp(tmp_path, **script(listener, evidence_uids(bench, number), after=None)) as peer:
        out = outbox(bench, pacs("PACS", peer.port, commitment=True))
        out(number)
        assert entry(bench, number).state == DeliveryState.WAITING
        assert 100 < entry(bench, number).not_before - bench.place.ledger.now() <= 300
        _at_once(bench, number)
        out(number)
        assert [event for event in peer.events if event in ("commit", "find")] == ["commit", "find"]
        assert len([event for event in peer.events if event.startswith("store")]) == 1
    done = entry(bench, number)
    assert (done.state, done.verified) == (DeliveryState.DELIVERED, True)


def test_a_report_that_an_object_is_not_kept_does_not_verify(
    bench: Bench, listener: Listener, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PAUSES", (0.0,))
    with scp(tmp_path, **script(listener, [])) as peer:
        outbox(bench, pacs("PACS", peer.port, commitment=True))(number)
    waiting = entry(bench, number)
    assert (waiting.state, waiting.verified) == (DeliveryState.WAITING, False)
    assert "does not find 1 of them" in (waiting.reason or "")


def test_a_report_that_cannot_be_read_is_refused_and_the_listener_goes_on(listener: Listener) -> None:
    from pydicom import Dataset
    from pynetdicom import AE, build_role
    from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance, Verification

    ae = AE("PACS")
    ae.add_requested_context(StorageCommitmentPushModel)
    ae.add_requested_context(Verification)
    roles = [build_role(StorageCommitmentPushModel, scp_role=True)]
    association = steady(ae.associate("127.0.0.1", listener.port, ext_neg=roles, ae_title="WETREAD"))
    assert association.is_established
    nameless, strange = Dataset(), Dataset()
    nameless.ReferencedSOPSequence = []
    strange.TransactionUID = "1.2.3"
    what = (StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
    assert association.send_n_event_report(nameless, 1, *what)[0].Status == 0xC000
    assert association.send_n_event_report(strange, 3, *what)[0].Status == 0x0113
    assert association.send_n_event_report(strange, 1, *what)[0].Status == 0x0000
    assert association.send_c_echo().Status == 0x0000
    association.release()
