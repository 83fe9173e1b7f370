"""One delivery from claim to what the destination said, with real peers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from node import asking
from node.delivery import Destination
from node.ledger import Delivery, DeliveryState, tables
from node.outbox import Lanes, Outbox
from tests import peers, scripted
from tests.test_analysis import Bench
from tests.waiting import PATIENCE
from tests.workplace import pacs, until


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("outbox"))
    yield bench
    bench.close()


@pytest.fixture
def bench(made: Bench) -> Bench:
    made.rung.clear()
    return made


def outbox(bench: Bench, *destinations: Destination) -> Outbox:
    named = {one.name: one for one in destinations}
    return Outbox(
        bench.place.ledger,
        evidence=bench.place.evidence,
        destinations=named,
        owner="outbox",
        stop=threading.Event(),
    )


_ANALYSES: dict[int, object] = {}


def deliveries(bench: Bench, *to: str) -> list[int]:
    """The ids of the deliveries of a job that is done."""
    analysis = _ANALYSES.setdefault(id(bench), bench.analysis())
    before = len(bench.rung)
    analysis(bench.place.queued("Quick", to=to))  # type: ignore[operator]
    return bench.rung[before:]


def scp(folder: Path, **script: Any) -> AbstractContextManager[scripted.Scp]:
    """A peer that takes reports."""
    return scripted.scp(folder, classes={"1.2.840.10008.5.1.4.1.1.88.34": ["1.2.840.10008.1.2.1"]}, **script)


def entry(bench: Bench, number: int) -> Delivery:
    return bench.place.ledger.delivery(number)


def evidence_uids(bench: Bench, number: int) -> list[str]:
    job = bench.place.ledger.job(entry(bench, number).job_id)
    return [one.sop_uid for one in bench.place.ledger.study(job.study_uid).evidence[job.id]]


@peers.needs("storescp")
def test_evidence_arrives_and_is_delivered(bench: Bench, tmp_path: Path) -> None:
    (number,) = deliveries(bench, "STORESCP")
    with peers.storescp(tmp_path / "pacs") as peer:
        outbox(bench, pacs("STORESCP", peer.dicom_port))(number)
        assert len(peer.files) == 1
    done = entry(bench, number)
    assert (done.state, done.verified, done.attempts) == (DeliveryState.DELIVERED, False, 1)  # it cannot be asked


def test_delivered_and_found_when_asked_is_verified(bench: Bench, tmp_path: Path) -> None:
    (number,) = deliveries(bench, "PACS")
    with scp(tmp_path, held=evidence_uids(bench, number)) as peer:
        outbox(bench, pacs("PACS", peer.port))(number)
    assert (entry(bench, number).state, entry(bench, number).verified) == (DeliveryState.DELIVERED, True)


def test_accepted_but_not_found_when_asked_is_asked_again_and_not_sent_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PAUSES", (0.0,))
    (number,) = deliveries(bench, "PACS")
    with scp(tmp_path, held=[]) as peer:
        out = outbox(bench, pacs("PACS", peer.port))
        out(number)
        waiting = entry(bench, number)
        assert waiting.state == DeliveryState.WAITING
        assert "does not find 1 of them when asked" in (waiting.reason or "")
        bench.place.ledger.retry_delivery(number)
        out(number)
        assert len([event for event in peer.events if event.startswith("store")]) == 1
        assert len([event for event in peer.events if event.startswith("find")]) == 2


def test_a_pacs_that_is_off_is_tried_later_and_gets_it_then(bench: Bench, tmp_path: Path) -> None:
    (number,) = deliveries(bench, "PACS")
    out, before = outbox(bench, pacs("PACS", peers.free_port())), bench.place.ledger.now()
    out(number)
    waiting = entry(bench, number)
    assert waiting.state == DeliveryState.WAITING
    assert "does not answer" in (waiting.reason or "")
    assert before + 10 <= waiting.not_before <= bench.place.ledger.now() + 20
    out(number)  # rung too early
    assert entry(bench, number).attempts == 1
    bench.place.ledger.retry_delivery(number)
    with scp(tmp_path, held=evidence_uids(bench, number)) as peer:
        outbox(bench, pacs("PACS", peer.port))(number)
    assert entry(bench, number).state == DeliveryState.DELIVERED


def test_what_is_refused_for_good_is_dead_and_says_why(bench: Bench, tmp_path: Path) -> None:
    (number,) = deliveries(bench, "PACS")
    (uid,) = evidence_uids(bench, number)
    with scp(tmp_path, status={uid: 0xC000}) as peer:
        outbox(bench, pacs("PACS", peer.port))(number)
    dead = entry(bench, number)
    assert dead.state == DeliveryState.DEAD
    assert "cannot understand (0xC000)" in (dead.reason or "")


def test_a_destination_that_the_settings_no_longer_have_is_dead(bench: Bench) -> None:
    (number,) = deliveries(bench, "GONE")
    outbox(bench)(number)
    assert entry(bench, number).state == DeliveryState.DEAD
    assert entry(bench, number).reason == "the settings have no destination GONE"


def test_evidence_that_was_changed_on_disk_is_not_sent(bench: Bench, tmp_path: Path) -> None:
    (number,) = deliveries(bench, "PACS")
    job = bench.place.ledger.job(entry(bench, number).job_id)
    (evidence,) = bench.place.ledger.study(job.study_uid).evidence[job.id]
    path = bench.place.evidence / evidence.path
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with scp(tmp_path) as peer:
        outbox(bench, pacs("PACS", peer.port))(number)
        assert peer.events == []
    assert entry(bench, number).state == DeliveryState.DEAD
    assert "was changed on disk" in (entry(bench, number).reason or "")


@pytest.mark.parametrize("fault", ["a folder that is away", "an error of the disk"])
def test_evidence_that_cannot_be_read_now_is_sent_when_it_can(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    (number,) = deliveries(bench, "PACS")
    job = bench.place.ledger.job(entry(bench, number).job_id)
    (evidence,) = bench.place.ledger.evidence(job.key)
    folder = (bench.place.evidence / evidence.path).parent
    away = folder.with_name("away")
    folder.rename(away)
    if fault == "an error of the disk":
        folder.symlink_to(folder)  # ELOOP, an errno that opening gives like EIO
    with scp(tmp_path, held=evidence_uids(bench, number)) as peer:
        out = outbox(bench, pacs("PACS", peer.port))
        out(number)
        waiting = entry(bench, number)
        assert waiting.state == DeliveryState.WAITING
        assert f"the evidence {evidence.path} cannot be read" in (waiting.reason or "")
        assert peer.events == []
        if folder.is_symlink():
            folder.unlink()
        away.rename(folder)
        _at_once(bench, number)
        out(number)
    assert (entry(bench, number).state, entry(bench, number).attempts) == (DeliveryState.DELIVERED, 2)


def test_a_slow_destination_holds_up_itself_alone(bench: Bench, tmp_path: Path) -> None:
    slow = [deliveries(bench, "SLOW")[0] for _ in range(3)]
    (quick,) = deliveries(bench, "QUICK")
    uids = [evidence_uids(bench, number)[0] for number in slow]
    with contextlib.ExitStack() as stack:
        answering = stack.enter_context(scp(tmp_path / "quick", held=evidence_uids(bench, quick)))
        hanging = stack.enter_context(scp(tmp_path / "slow", hang=uids))
        out = outbox(bench, pacs("SLOW", hanging.port, dimse_seconds=10 * PATIENCE), pacs("QUICK", answering.port))
        first = threading.Thread(target=out, args=(slow[0],))
        first.start()
        until(lambda: entry(bench, slow[0]).state == DeliveryState.SENDING)
        for number in (*slow[1:], quick):  # one thread is enough for all of these
            out(number)
        assert entry(bench, quick).state == DeliveryState.DELIVERED
        assert [entry(bench, number).state for number in slow[1:]] == [DeliveryState.WAITING] * 2
    first.join(PATIENCE)  # its peer is gone
    assert all(entry(bench, number).attempts == 1 for number in slow)  # its thread went on with the others


def test_a_lane_is_served_by_one_thread_at_a_time() -> None:
    lanes = Lanes()
    served: list[int] = []
    for number in lanes.through("PACS", 1, 5):
        served.append(number)
        if number == 1:
            assert list(lanes.through("PACS", 3, 5)) == []
            assert list(lanes.through("PACS", 2, 5)) == []
            assert list(lanes.through("PACS", 8, 0)) == []  # the most urgent, though it came last
            assert list(lanes.through("WEB", 9, 5)) == [9]
    assert served == [1, 8, 2, 3]
    assert list(lanes.through("PACS", 4, 5)) == [4]


def test_an_hour_of_a_pacs_that_was_off_does_not_count_as_answers(bench: Bench, tmp_path: Path) -> None:
    (number,) = deliveries(bench, "PACS")
    (uid,) = evidence_uids(bench, number)
    off = outbox(bench, pacs("PACS", peers.free_port()))
    for _ in range(6):
        off(number)
        _at_once(bench, number)
    assert entry(bench, number).attempts == 6
    with scp(tmp_path, status={uid: 0x0110}) as peer:
        out = outbox(bench, pacs("PACS", peer.port))
        for attempt in range(7, 11):
            out(number)
            assert (entry(bench, number).state, entry(bench, number).attempts) == (DeliveryState.WAITING, attempt)
            _at_once(bench, number)
        out(number)
    assert entry(bench, number).state == DeliveryState.DEAD


def test_asking_back_is_given_up_after_the_fifth_time_and_not_the_fifth_attempt(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PAUSES", (0.0,))
    (number,) = deliveries(bench, "PACS")
    off = outbox(bench, pacs("PACS", peers.free_port()))
    for _ in range(5):
        off(number)
        _at_once(bench, number)
    with scp(tmp_path, held=[]) as peer:
        out = outbox(bench, pacs("PACS", peer.port))
        for _ in range(4):
            out(number)
            assert entry(bench, number).state == DeliveryState.WAITING
            _at_once(bench, number)
        out(number)
    dead = entry(bench, number)
    assert (dead.state, dead.attempts) == (DeliveryState.DEAD, 10)


def _at_once(bench: Bench, number: int) -> None:
    """As if the pause were over."""
    with bench.place.ledger._database.writing() as db:
        db.execute(update(tables.deliveries).where(tables.deliveries.c.id == number).values(not_before=0.0))


def test_a_credential_that_was_missing_costs_no_delivery(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (number,) = deliveries(bench, "WEB")
    web = Destination("WEB", "dicomweb", url="http://127.0.0.1:1/dicom-web", token_variable="NO_SUCH_VARIABLE_HERE")
    outbox(bench, web)(number)
    assert entry(bench, number).state == DeliveryState.WAITING
    assert "NO_SUCH_VARIABLE_HERE" in (entry(bench, number).reason or "")
