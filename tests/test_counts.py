"""Whether a study is whole, as the PACS counts it: with Orthanc, and with a peer whose count grows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node import counts, delivery
from node.clock import Clock
from node.counts import Counts, Pending
from node.destinations import Destination, outgoing
from node.errors import NodeError
from node.ledger import StudyState
from node.routing import Route
from node.spool import Arrival
from tests import peers, scripted
from tests.test_tasks import Counter
from tests.waiting import PATIENCE
from tests.workplace import Workplace, pacs, study_files, until, use

CALLER = "CT1"


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer may be slow to answer on a busy machine; one that is silent is not waited for here."""
    monkeypatch.setattr(counts, "ANSWER_SECONDS", PATIENCE)


class Study:
    """A study whose images come one by one from CALLER; it is quiet at once, and the longest wait is long."""

    def __init__(self, place: Workplace, *, count: int) -> None:
        self._place = place
        self._left = [place.spool.add(file) for file in study_files(place.folder / "sent", count=count)]
        self.uid = self._left[0].study_uid

    def comes(self, count: int, *, longest: float = 900.0) -> None:
        these = [_from(CALLER, one) for one in self._left[:count]]
        del self._left[:count]
        self._place.ledger.record(these, settle_at=0.0, settle_by_seconds=longest)

    @property
    def state(self) -> StudyState:
        return self._place.ledger.entry(self.uid).state

    @property
    def expected(self) -> int | None:
        return self._place.ledger.entry(self.uid).expected

    @property
    def revisions(self) -> list[int]:
        """How many instances each has."""
        return [one.instances for one in self._place.ledger.study(self.uid).revisions]


def _from(caller: str, arrival: Arrival) -> Arrival:
    return Arrival(**vars(arrival) | {"caller": caller})


@contextmanager
def clock(place: Workplace, destination: Destination) -> Iterator[Clock]:
    asked = Counts({CALLER: destination})
    routes = {"quick": Route("quick", use("Quick"), {"Modality": "CT"})}
    yield Clock(place.ledger, path=place.spool.path, routes=routes, bell=Counter(), counts=asked)
    asked.close()


def waits(ticker: Clock, study: Study) -> bool:
    """Whether the clock has not settled the study after a while."""
    end = time.monotonic() + 1.0
    while study.state == StudyState.RECEIVING and time.monotonic() < end:
        ticker.settle()
        time.sleep(0.05)
    return study.state == StudyState.RECEIVING


def settles(ticker: Clock, study: Study) -> bool:
    def ticks() -> bool:
        ticker.settle()
        return study.state == StudyState.SETTLED

    return bool(until(ticks, what="the study is settled"))


def expects(ticker: Clock, study: Study, count: int) -> bool:
    """Whether so many instances of the study are waited for once the PACS has told."""

    def ticks() -> bool:
        ticker.settle()
        return study.expected == count

    return bool(until(ticks, what=f"{count} are expected")) and waits(ticker, study)


def test_a_study_waits_for_what_the_pacs_has_and_is_read_once(place: Workplace, tmp_path: Path) -> None:
    study = Study(place, count=5)
    with scripted.scp(tmp_path / "pacs", counts=[5]) as peer, clock(place, pacs("PACS", peer.port)) as ticker:
        study.comes(2)
        assert expects(ticker, study, 5)
        study.comes(2)
        assert waits(ticker, study)
        study.comes(1)
        assert settles(ticker, study)
    assert study.revisions == [5]


def test_a_count_that_grows_while_the_pacs_is_filled_raises_what_is_waited_for(
    place: Workplace, tmp_path: Path
) -> None:
    study = Study(place, count=4)
    with scripted.scp(tmp_path / "pacs", counts=[3, 4]) as peer, clock(place, pacs("PACS", peer.port)) as ticker:
        study.comes(2)
        assert expects(ticker, study, 3)
        study.comes(1)  # as many as it had, and by now it has more
        assert expects(ticker, study, 4)
        study.comes(1)
        assert settles(ticker, study)
    assert study.revisions == [4]


def test_a_count_below_what_has_come_is_no_evidence_and_the_quiet_time_decides(
    place: Workplace, tmp_path: Path
) -> None:
    study = Study(place, count=3)
    with scripted.scp(tmp_path / "pacs", counts=[1]) as peer, clock(place, pacs("PACS", peer.port)) as ticker:
        study.comes(3)
        place.ledger.settle_at([study.uid], time.time() + 3600)
        assert waits(ticker, study)  # one image in the PACS ends no quiet time
        place.ledger.settle_at([study.uid], time.time())
        assert settles(ticker, study)


@pytest.mark.parametrize("fault", ["off", "refuses"])
def test_a_pacs_that_does_not_tell_holds_nothing_up_and_is_not_asked_for_every_study(
    place: Workplace, tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    study = Study(place, count=1)
    with scripted.scp(tmp_path / "pacs", find_status=0xC001) as peer:
        port = peer.port if fault == "refuses" else peers.free_port()
        with clock(place, pacs("PACS", port)) as ticker:
            study.comes(1)
            assert settles(ticker, study)
        asked = Counts({CALLER: pacs("PACS", port)})
        until(lambda: _answer(asked, "1.2.3") is None, what="it is known to be silent")
        assert asked.of("1.2.4", CALLER) is None  # at once, without Pending
        asked.close()
    assert "it does not tell how many instances there are" in caplog.text


def _answer(asked: Counts, study_uid: str) -> int | str | None:
    try:
        return asked.of(study_uid, CALLER)
    except Pending:
        return "pending"


def test_when_the_longest_wait_is_over_a_study_settles_with_what_it_has(place: Workplace, tmp_path: Path) -> None:
    study = Study(place, count=2)
    with scripted.scp(tmp_path / "pacs", counts=[2]) as peer, clock(place, pacs("PACS", peer.port)) as ticker:
        study.comes(1, longest=0.0)
        assert settles(ticker, study)
        assert peer.events == []


def test_studies_of_other_senders_are_not_asked_about(place: Workplace) -> None:
    asked = Counts({CALLER: pacs("PACS", peers.free_port())})
    assert asked.of("1.2.3", "MR7") is None
    asked.close()


def test_our_own_evidence_in_the_pacs_is_no_image_that_is_missing(place: Workplace, tmp_path: Path) -> None:
    study = Study(place, count=3)
    with scripted.scp(tmp_path / "pacs", counts=[2, 4]) as peer, clock(place, pacs("PACS", peer.port)) as ticker:
        study.comes(2)
        assert settles(ticker, study)
        _deliver(place, study)  # one object: the PACS has three now, and soon the late image
        study.comes(1)
        assert settles(ticker, study)
    assert study.revisions == [2, 3]


def _deliver(place: Workplace, study: Study) -> None:
    from tests.ledgers import made

    ledger = place.ledger
    (job,) = ledger.study(study.uid).jobs
    claim = ledger.claim(job.id, owner="worker", lease_seconds=60)
    assert claim is not None
    with ledger._database.writing() as db:
        from node.ledger.tables import jobs

        db.execute(jobs.update().values(destinations=["PACS"]))
    (number,) = ledger.finish(claim, outcome="read", evidence=made("sr"))
    sending = ledger.claim_delivery(number, "outbox", 60)
    assert sending is not None
    ledger.record_answer(sending, sending.evidence[0].sop_uid, 0, "delivered")


@pytest.mark.parametrize("protocol", ["dimse", "dicomweb"])
def test_orthanc_tells_how_many_instances_a_study_has(tmp_path: Path, protocol: str) -> None:
    files = study_files(tmp_path / "study", count=3)
    with peers.orthanc(tmp_path / "orthanc") as orthanc:
        sent = pacs("ORTHANC", orthanc.dicom_port)
        asked = sent if protocol == "dimse" else Destination("WEB", "dicomweb", url=orthanc.dicom_web)
        objects = [outgoing(file) for file in files]
        assert delivery.count(asked, objects[0].study_uid) is None  # it knows no such study
        for count in (1, 3):
            assert all(answer.is_accepted for answer in delivery.send(sent, objects[:count]))
            assert delivery.count(asked, objects[0].study_uid) == count


def test_a_peer_that_does_not_answer_a_question_about_counts_is_an_error(tmp_path: Path) -> None:
    with (
        scripted.scp(tmp_path, find_status=0xA700) as peer,
        pytest.raises(NodeError, match="answers a C-FIND with 0xA700"),
    ):
        delivery.count(pacs("PACS", peer.port), "1.2.3")
