"""Who comes first: urgent work overtakes, the rest ages, and a hundred thousand jobs that wait change neither."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from sqlalchemy import insert, text

from node import broker
from node.analysis import Analysis, Rules
from node.clock import Clock
from node.errors import BadSettings
from node.ledger import JobState, Ledger, Order, tables
from node.routing import Route
from node.tasks import Bell
from node.turns import Turns
from node.urgency import Urgency, urgent
from node.warm import Limits
from tests.ledgers import arrival, claimed, cluster, cluster_template, ledger, settled, url, wanted
from tests.test_worker import working
from tests.workplace import Workplace, until

__all__ = ["cluster", "cluster_template", "ledger", "url"]  # fixtures

ORDER = Order(urgent_up_to=1, aging_seconds=600)
MANY = 100_000


def queued(ledger: Ledger, number: int, priority: int, at: float) -> int:
    (job,) = settled(ledger, arrival(study=f"1.2.{number}"), jobs=(wanted(priority=priority),), at=at)
    return job.id


def test_urgent_work_overtakes_whatever_has_waited_and_however_long(ledger: Ledger) -> None:
    old = queued(ledger, 1, priority=5, at=10)
    triage = queued(ledger, 2, priority=1, at=1_000_000)
    stat = queued(ledger, 3, priority=0, at=1_000_001)
    assert ledger.next_jobs(ORDER, now=1_000_002) == (stat, old)
    claimed(ledger, ledger.job(stat), at=1_000_003)
    assert ledger.next_jobs(ORDER, now=1_000_004) == (triage, old)


def test_a_step_of_priority_is_worth_so_much_waiting_and_no_more(ledger: Ledger) -> None:
    routine = queued(ledger, 1, priority=7, at=10)
    sooner = queued(ledger, 2, priority=5, at=10 + 2 * 600 - 1)
    later = queued(ledger, 3, priority=5, at=10 + 2 * 600 + 1)
    for expected in (sooner, routine, later):
        assert ledger.next_jobs(ORDER, now=9999) == (None, expected)
        claimed(ledger, ledger.job(expected), at=9999)
    assert ledger.next_jobs(ORDER, now=9999) == (None, None)


def test_what_cannot_be_done_now_has_no_turn(ledger: Ledger) -> None:
    held, late, ill, deserted = (queued(ledger, number, priority=0, at=10) for number in range(4))
    ledger.hold("1.2.0", "wrong patient?")
    ledger.fail(claimed(ledger, ledger.job(late), at=20), reason="no room", retry_at=500, counts=False)
    claimed(ledger, ledger.job(deserted), at=20, lease=5)
    assert ledger.next_jobs(ORDER, now=24) == (ill, ill)
    assert ledger.next_jobs(ORDER, passing_over=["pipelines.mr_brain:Reader"], now=24) == (None, None)
    assert ledger.next_jobs(ORDER, now=26) == (ill, ill)
    claimed(ledger, ledger.job(ill), at=26, lease=600)
    assert ledger.next_jobs(ORDER, now=26) == (deserted, deserted)
    claimed(ledger, ledger.job(deserted), at=26, lease=600)
    assert ledger.next_jobs(ORDER, now=499) == (None, None)
    ledger.release("1.2.0")
    assert ledger.next_jobs(ORDER, now=600)[0] == held


CROWD = """
WITH RECURSIVE n(i) AS (SELECT CAST(:first AS INTEGER) UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :last)
INSERT INTO jobs (study_uid, revision, pipeline, use, priority, destinations, why, key, state, attempts,
                  forgiven, not_before, queued_at)
SELECT '1.9', 1, 'p' || i, 'a:B', {priority}, '[]', 'a test', 'crowd ' || i, 'QUEUED', 0, 0, 0, i FROM n
"""


def crowd(ledger: Ledger, first: int, last: int, *, priority: str) -> None:
    """Jobs of one study that wait, one queued each second, as rows, since to settle them takes minutes.

    Args:
        priority: As SQL, of the number ``i``.
    """
    with ledger._database.writing() as db:
        if first == 0:
            times = dict.fromkeys(("first_arrival", "opened_at", "last_arrival", "settle_at", "settle_by"), 0.0)
            new = {"uid": "1.9", "state": "settled", "patient_key": "a", "caller": "CT1", "revision": 1, "arrived": 1}
            db.execute(insert(tables.studies).values(new | times))
        db.execute(text(CROWD.format(priority=priority)), {"first": first, "last": last})


def fastest(act: Callable[[], object], times: int = 5) -> float:
    """Seconds; the least of several, for others use the machine too."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        act()
        taken.append(time.perf_counter() - begun)
    return min(taken)


def test_with_a_hundred_thousand_waiting_stat_is_next_at_once_and_the_oldest_get_their_turn(url: str) -> None:
    now = float(MANY)
    ledger = Ledger(url, clock=lambda: now)
    crowd(ledger, 0, MANY, priority="CASE WHEN i < 10 THEN 9 ELSE 3 + i % 6 END")
    turns = Turns(ledger, Order(urgent_up_to=1, aging_seconds=1), rest_every=5)

    assert fastest(turns) < 5.0
    assert fastest(ledger.ready) < 5.0  # what the clock asks every five seconds
    stat = queued(ledger, 1, priority=0, at=now)
    assert turns() == stat
    assert fastest(lambda: claimed(ledger, ledger.job(stat), at=now), times=1) < 20.0

    crowd(ledger, MANY, MANY + 200, priority="0")  # urgent work that does not end
    done = [claimed(ledger, ledger.job(turns() or 0), at=now).job for _ in range(50)]
    assert Counter(job.priority == 0 for job in done) == {True: 40, False: 10}
    waited = sorted((i + (9 if i < 10 else 3 + i % 6), i) for i in range(100))  # by turn
    assert [job.queued_at for job in done if job.priority] == [i for _, i in waited[:10]]
    assert any(job.priority == 9 for job in done)  # also the least urgent of all
    ledger.close()


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


@pytest.fixture
def analysis(place: Workplace) -> Iterator[Analysis]:
    made = Analysis(
        place.ledger, Limits("cpu", 1, 1 << 30), Rules(place.evidence, "bench"), path=place.spool.path,
        finished=lambda *_: None, again=lambda *_: None, stop=threading.Event(), turn=Turns(place.ledger, ORDER),
    )  # fmt: skip
    yield made
    made.close()


def test_a_worker_does_whose_turn_it_is_whichever_job_is_rung_for(place: Workplace, analysis: Analysis) -> None:
    routine = place.queued("Quick", priority=5)
    stat = place.queued("Quick", priority=0)
    analysis(routine)
    assert (place.ledger.job(stat).state, place.ledger.job(routine).state) == (JobState.DONE, JobState.QUEUED)
    analysis(stat)
    assert place.ledger.job(routine).state == JobState.DONE


def test_a_pipeline_that_cannot_be_loaded_holds_up_no_other(place: Workplace, analysis: Analysis) -> None:
    ill = [place.queued("Missing", priority=0) for _ in range(2)]
    well = place.queued("Quick", priority=5)
    analysis(well)
    assert place.ledger.job(well).state == JobState.DONE
    analysis(ill[1])
    assert [place.ledger.job(number).state for number in ill] == [JobState.QUEUED] * 2
    assert all("Missing" in (place.ledger.job(number).reason or "") for number in ill)


def test_a_stat_study_is_next_at_a_worker_that_has_much_to_do_even_if_nobody_rings_for_it(
    place: Workplace, tmp_path: Path
) -> None:
    routine = [place.queued("Quick", priority=5) for _ in range(12)]
    with broker.embedded(tmp_path) as url:
        bell = Bell(url)
        for number in routine:
            bell.ring_job(number, 5)
        with working(place.options(url, "Quick")):
            until(lambda: place.ledger.overview().jobs.get("DONE", 0) >= 3, what="work has begun")
            stat = place.queued("Quick", priority=0)
            after = place.ledger.now()
            until(lambda: place.ledger.overview().jobs == {"DONE": 13}, what="all is done")
    begun = sorted((job.claimed_at or 0.0, job.id) for job in place.ledger.jobs(50))
    before_stat = [number for at, number in begun if after < at < (place.ledger.job(stat).claimed_at or 0.0)]
    assert len(before_stat) <= 1  # the one that was chosen just then


class Silent:
    def ring_job(self, job_id: int, priority: int) -> bool:
        return True

    ring_delivery = ring_job

    def waiting(self, queue: str) -> dict[int, int]:
        return {}


RULES = {
    "stat": Urgency("stat", {"RequestedProcedurePriority": ["STAT", "HIGH"]}, 0),
    "emergency": Urgency("emergency", {"InstitutionalDepartmentName": "*emergency*", "Modality": "CT"}, 2),
}


def header(**values: object) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def test_the_most_urgent_rule_that_matches_counts_and_says_why() -> None:
    request = header(RequestedProcedurePriority="STAT")
    asked = header(Modality="CT", RequestAttributesSequence=Sequence([request]))
    there = header(Modality="CT", InstitutionalDepartmentName="Emergency Dept.")
    assert urgent([there], RULES) is not None
    found = urgent([there, asked], RULES)
    assert found is not None
    assert found.priority == 0
    assert found.why == ("urgent by the rule stat: RequestedProcedurePriority is one of STAT, HIGH, in 1 of 2 series")
    assert urgent([header(Modality="CT")], RULES) is None


def test_a_rule_without_conditions_or_with_an_unknown_keyword_is_a_mistake() -> None:
    with pytest.raises(BadSettings, match=r"urgency\.all\.when is empty"):
        Urgency("all", {})
    with pytest.raises(BadSettings, match=r"urgency\.stat\.when\.RequestedPriority: .* is no DICOM keyword"):
        Urgency("stat", {"RequestedPriority": "STAT"})


@pytest.mark.parametrize(("own", "expected"), [(5, 2), (1, 1)])
def test_a_rule_raises_the_priority_of_a_studys_jobs_and_lowers_none(place: Workplace, own: int, expected: int) -> None:
    study = place.arrived()
    routes = {"quick": Route("quick", "a:B", {"Modality": "CT"}, priority=own)}
    rules = {"ct": Urgency("ct", {"Modality": "CT"}, 2)}
    Clock(place.ledger, path=place.spool.path, routes=routes, bell=Silent(), rules=rules).settle()
    (job,) = place.ledger.study(study).jobs
    assert job.priority == expected
    assert ("urgent by the rule ct" in job.why) == (expected == 2)
