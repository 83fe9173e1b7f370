"""The ledger's time: a machine whose clock is set by an hour, in the middle of everything. Its clocks are ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.ledger import Ledger, Machine, NewJob, StudyState
from node.listener import listening
from node.spool import Spool
from tests.ledgers import STUDY, arrival, upgraded_file, wanted
from tests.senders import ct, options, store
from tests.test_listener import STUDY as SENT_STUDY
from tests.workplace import until

HOUR = 3600.0
STEPS = pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["an hour forward", "an hour back"])


class Clocks:
    """A machine's clocks, which stand still unless the test moves them."""

    def __init__(self) -> None:
        self.wall, self.since_boot, self.boot = 1_000_000.0, 50.0, "first boot"

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.since_boot += seconds

    def reboots(self) -> None:
        self.boot, self.since_boot = "second boot", 10.0

    @property
    def machine(self) -> Machine:
        return Machine(wall=lambda: self.wall, since_boot=lambda: self.since_boot, boot=lambda: self.boot)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def url(tmp_path: Path) -> str:
    (tmp_path / "ledger.sqlite").write_bytes(upgraded_file())
    return f"sqlite:///{tmp_path / 'ledger.sqlite'}"


def receive(ledger: Ledger, clocks: Clocks, *, quiet: float, longest: float = 900.0) -> None:
    one = arrival(1, at=clocks.wall)
    ledger.record([one], settle_at=ledger.now() + quiet, settle_by_seconds=longest)


def queued(ledger: Ledger, clocks: Clocks, job: NewJob) -> int:
    receive(ledger, clocks, quiet=0.0)
    (made,) = ledger.settle(STUDY, [job])
    return made.id


@STEPS
def test_a_lease_lasts_as_long_as_it_was_given_and_no_second_worker_runs_the_job(
    clocks: Clocks, url: str, step: float
) -> None:
    ours, other = Ledger(url, machine=clocks.machine), Ledger(url, machine=clocks.machine)
    number = queued(ours, clocks, wanted())
    assert other.ready() == [(number, 5)]
    claim = ours.claim(number, owner="ours", lease_seconds=30)
    assert claim is not None
    clocks.wall += step
    started_since = Ledger(url, machine=clocks.machine)
    for _ in range(4):
        clocks.passes(6)
        for ledger in (other, started_since):
            assert ledger.ready() == []
            assert ledger.claim(number, owner="other", lease_seconds=30) is None
    assert ours.heartbeat(number, "ours", claim.attempt, 30)
    clocks.passes(25)
    assert other.ready() == []
    clocks.passes(9)  # 34 s for 30: a clock that nears the wall clock runs a tenth slower at most
    assert other.ready() == started_since.ready() == [(number, 5)]


@STEPS
def test_a_study_settles_after_its_quiet_time_and_not_before(clocks: Clocks, url: str, step: float) -> None:
    listener, clock = Ledger(url, machine=clocks.machine), Ledger(url, machine=clocks.machine)
    assert clock.due() == []
    receive(listener, clocks, quiet=10.0)
    clocks.wall += step
    clocks.passes(6)
    assert clock.due() == []
    listener.settle_at([STUDY], listener.now() + 10.0)  # its association is released
    clocks.passes(8)
    assert clock.due() == []
    clocks.passes(4)
    assert clock.due() == [STUDY]


@STEPS
def test_the_longest_wait_is_no_longer_and_no_shorter(clocks: Clocks, url: str, step: float) -> None:
    ledger = Ledger(url, machine=clocks.machine)
    receive(ledger, clocks, quiet=9999.0, longest=900.0)
    clocks.wall += step
    clocks.passes(800)
    assert ledger.due() == []
    clocks.passes(200)
    assert ledger.due() == [STUDY]


@STEPS
def test_a_delivery_that_waits_is_sent_when_its_pause_is_over(clocks: Clocks, url: str, step: float) -> None:
    ledger = Ledger(url, machine=clocks.machine)
    from tests.ledgers import made

    number = queued(ledger, clocks, wanted())
    claim = ledger.claim(number, owner="ours", lease_seconds=30)
    assert claim is not None
    (delivery,) = ledger.finish(claim, outcome="read", evidence=made("sr"))
    sending = ledger.claim_delivery(delivery, "ours", 60)
    assert sending is not None
    ledger.finish_delivery(sending, state="WAITING", retry_at=ledger.now() + 100, reason="off")
    clocks.wall += step
    clocks.passes(80)
    assert ledger.ready_deliveries() == []
    clocks.passes(35)
    assert ledger.ready_deliveries() == [(delivery, 5)]


@STEPS
def test_the_ledgers_time_nears_the_wall_clock_evenly_and_stays_with_it(clocks: Clocks, url: str, step: float) -> None:
    ledger = Ledger(url, machine=clocks.machine)
    before = ledger.now()
    assert before == clocks.wall
    clocks.wall += step
    for seconds in (*[120] * 295, *[5] * 150):  # ten hours
        clocks.passes(seconds)
        assert 0.89 * seconds < ledger.now() - before < 1.11 * seconds
        before = ledger.now()
    assert abs(before - clocks.wall) < 1
    clocks.passes(HOUR)
    assert abs(ledger.now() - clocks.wall) < 1


@STEPS
def test_a_reboot_in_the_middle_of_nearing_does_not_jump_either(clocks: Clocks, url: str, step: float) -> None:
    ledger = Ledger(url, machine=clocks.machine)
    ledger.now()
    clocks.wall += step
    clocks.passes(10)
    ledger.now()
    clocks.passes(600)
    told = ledger.now()
    clocks.reboots()
    clocks.passes(20)
    assert 15 < Ledger(url, machine=clocks.machine).now() - told < 25


def test_a_ledger_that_cannot_be_read_for_a_while_does_not_stop_its_time(
    clocks: Clocks, url: str, tmp_path: Path
) -> None:
    ledger = Ledger(url, machine=clocks.machine)
    before = ledger.now()
    (tmp_path / "ledger.sqlite").rename(tmp_path / "away.sqlite")
    ledger.close()
    clocks.passes(60)
    assert ledger.now() == before + 60


@STEPS
def test_what_a_listener_receives_while_the_clock_is_set_settles_as_usual(
    tmp_path: Path, url: str, step: float
) -> None:
    import time

    offset = [0.0]
    machine = Machine(wall=lambda: time.time() + offset[0])
    received, clock = Ledger(url, machine=machine), Ledger(url, machine=machine)
    with listening(options(quiet_seconds=1.5), Spool(tmp_path / "spool", reserve_bytes=0), received) as running:
        begun = time.monotonic()
        assert store(running.port, [ct(1)]) == [0]
        offset[0] = step
        until(lambda: clock.due() == [SENT_STUDY], what="the study is due")
        assert 1.4 < time.monotonic() - begun < 600
        assert clock.entry(SENT_STUDY).state == StudyState.RECEIVING
