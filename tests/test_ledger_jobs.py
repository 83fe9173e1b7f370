"""Jobs in the ledger, on SQLite and on PostgreSQL: who may do which, and how it ended."""

from __future__ import annotations

import pytest

from node.errors import LostClaim, NodeError
from node.ledger import JobState, Ledger, NewJob
from tests.ledgers import STUDY, arrival, claimed, cluster, cluster_template, ledger, made, record, settled, url, wanted

__all__ = ["cluster", "cluster_template", "ledger", "url"]  # fixtures


def test_the_most_urgent_is_first_and_then_the_oldest(ledger: Ledger) -> None:
    order = []
    for number, priority in enumerate((5, 0, 9, 5)):
        study = f"1.2.{number}"
        (job,) = settled(ledger, arrival(study=study), jobs=(wanted(priority=priority),), at=10 + number)
        order.append(job.id)
    assert ledger.ready(50) == [(order[1], 0), (order[0], 5), (order[3], 5), (order[2], 9)]
    assert ledger.ready(50, limit=1) == [(order[1], 0)]


def test_a_job_is_claimed_once(ledger: Ledger) -> None:
    (job,) = settled(ledger, arrival(1))
    claim = claimed(ledger, job)
    assert (claim.attempt, claim.job.state, claim.job.claimed_at) == (1, JobState.RUNNING, 20)
    assert ledger.claim(job.id, owner="other", lease_seconds=60, now=21) is None
    assert ledger.claim(999_999, owner="other", lease_seconds=60, now=21) is None  # a forged or forgotten bell


def test_a_job_whose_lease_ended_can_be_claimed_again(ledger: Ledger) -> None:
    (job,) = settled(ledger, arrival(1))
    first = claimed(ledger, job, owner="a", at=20, lease=10)
    assert ledger.ready(29) == []
    assert ledger.ready(30) == [(job.id, 5)]
    second = claimed(ledger, job, owner="b", at=30)
    assert second.attempt == 2
    assert not ledger.heartbeat(job.id, "a", first.attempt, 60, 31)
    with pytest.raises(LostClaim, match="no longer held by a"):
        ledger.finish(first, outcome="read")
    with pytest.raises(LostClaim):
        ledger.fail(first, reason="late", retry_at=None)
    ledger.finish(second, outcome="read")


def test_the_same_owner_cannot_use_its_earlier_claim(ledger: Ledger) -> None:
    (job,) = settled(ledger, arrival(1))
    first = claimed(ledger, job, owner="a", lease=1)
    claimed(ledger, job, owner="a", at=30)
    with pytest.raises(LostClaim):
        ledger.finish(first, outcome="read")


def test_a_heartbeat_prolongs_the_lease(ledger: Ledger) -> None:
    (job,) = settled(ledger, arrival(1))
    claim = claimed(ledger, job, at=20, lease=10)
    assert ledger.heartbeat(job.id, claim.owner, claim.attempt, 60, 25)
    assert ledger.ready(84) == []
    assert ledger.ready(85) == [(job.id, 5)]


def test_a_job_that_takes_its_worker_along_is_quarantined_and_its_report_is_delivered(ledger: Ledger) -> None:
    (job,) = settled(ledger, arrival(1))
    claims = [claimed(ledger, job, at=20 + 10 * attempt, lease=5) for attempt in range(4)]
    assert [claim.is_last for claim in claims] == [False, False, True, True]
    assert [claim.is_spent for claim in claims] == [False, False, False, True]
    (number,) = ledger.finish(
        claims[-1], state=JobState.QUARANTINED, outcome="failed", reason="lost", evidence=made("sr"), now=60
    )
    assert ledger.ready_deliveries(60) == [(number, 5)]
    assert (ledger.job(job.id).state, ledger.job(job.id).reason) == (JobState.QUARANTINED, "lost")
    assert ledger.ready(999) == []
    ledger.retry(job.id, now=70)
    assert not claimed(ledger, job, at=70).is_last


def test_the_report_of_a_quarantined_job_is_what_a_later_revision_replaces(ledger: Ledger) -> None:
    (old,) = settled(ledger, arrival(1))
    ledger.finish(claimed(ledger, old), state=JobState.QUARANTINED, outcome="failed", evidence=made("sr"), now=30)
    record(ledger, arrival(2, at=40))
    (new,) = ledger.settle(STUDY, [wanted()], now=50)
    assert new.predecessor_key == old.key


def test_a_job_that_takes_its_worker_along_while_the_report_is_written_is_quarantined_without_one(
    ledger: Ledger,
) -> None:
    (job,) = settled(ledger, arrival(1))
    for attempt in range(5):
        claimed(ledger, job, at=20 + 10 * attempt, lease=5)
    assert ledger.claim(job.id, owner="w", lease_seconds=5, now=90) is None
    assert ledger.job(job.id).state is JobState.QUARANTINED
    assert "3 times" in (ledger.job(job.id).reason or "")
    assert ledger.ready(999) == []


def test_a_job_that_fails_waits_for_its_next_attempt_and_the_third_is_the_last(ledger: Ledger) -> None:
    (job,) = settled(ledger, arrival(1))
    ends = []
    for at in (20, 40, 60):
        ends.append(ledger.fail(claimed(ledger, job, at=at), reason="GPU gone", retry_at=at + 20, now=at))
        assert ledger.ready(at + 19) == []
    assert ends == [JobState.QUEUED, JobState.QUEUED, JobState.QUARANTINED]
    assert ledger.job(job.id).reason == "GPU gone"


def test_a_job_that_cannot_work_fails_at_once(ledger: Ledger) -> None:
    (job,) = settled(ledger, arrival(1))
    assert ledger.fail(claimed(ledger, job), reason="no such pipeline", retry_at=None, now=25) is JobState.FAILED
    assert ledger.job(job.id).done_at == 25


def test_what_a_worker_gives_back_does_not_count(ledger: Ledger) -> None:
    (job,) = settled(ledger, arrival(1))
    for at in range(20, 30):
        ledger.give_back(claimed(ledger, job, at=at), now=at)
    assert ledger.ready(30) == [(job.id, 5)]
    assert claimed(ledger, job, at=30).attempt == 11


def test_a_failed_job_starts_afresh_when_it_is_retried(ledger: Ledger) -> None:
    (job,) = settled(ledger, arrival(1))
    for at in (20, 30, 40):
        ledger.fail(claimed(ledger, job, at=at), reason="x", retry_at=at, now=at)
    ledger.retry(job.id, now=50)
    assert claimed(ledger, job, at=50).attempt == 4
    with pytest.raises(NodeError, match="RUNNING"):
        ledger.retry(job.id)


def test_a_job_of_an_older_revision_is_not_retried(ledger: Ledger) -> None:
    (old,) = settled(ledger, arrival(1))
    ledger.cancel(old.id, now=11)
    record(ledger, arrival(2, at=12))
    ledger.settle(STUDY, [wanted()], now=20)
    with pytest.raises(NodeError, match="revision 1"):
        ledger.retry(old.id)


def test_a_job_that_is_cancelled_stops_its_worker(ledger: Ledger) -> None:
    (job,) = settled(ledger, arrival(1))
    claim = claimed(ledger, job)
    ledger.cancel(job.id, now=21)
    assert not ledger.heartbeat(job.id, claim.owner, claim.attempt, 60, 22)
    with pytest.raises(LostClaim):
        ledger.finish(claim, outcome="read")
    with pytest.raises(NodeError, match="CANCELLED"):
        ledger.cancel(job.id)


def test_a_job_finishes_once_and_its_result_is_kept(ledger: Ledger) -> None:
    (job,) = settled(ledger, arrival(1), jobs=(wanted(to=("PACS", "WEB")),))
    claim = claimed(ledger, job)
    runs = '[{"status": "read"}]'
    sent = ledger.finish(
        claim, outcome="read", runs_json=runs, evidence=made("seg", "sr"), stages={"network": 1.5}, now=30
    )
    assert len(sent) == 2
    done = ledger.job(job.id)
    assert (done.state, done.outcome, done.runs, done.stages, done.done_at) == (
        "DONE",
        "read",
        runs,
        {"network": 1.5},
        30,
    )
    with pytest.raises(LostClaim):
        ledger.finish(claim, outcome="read")
    assert [one.path for one in ledger.study(STUDY).evidence[job.id]] == ["1/seg.dcm", "1/sr.dcm"]


def test_a_job_without_evidence_sends_nothing(ledger: Ledger) -> None:
    (job,) = settled(ledger, arrival(1))
    assert ledger.finish(claimed(ledger, job), outcome="failed", reason="mixed identity") == []
    assert ledger.overview().deliveries == {}


def test_what_is_not_there_is_said_by_name(ledger: Ledger) -> None:
    for ask in (ledger.study, ledger.release, lambda uid: ledger.hold(uid, "x"), lambda uid: ledger.settle(uid, [])):
        with pytest.raises(NodeError, match=r"no study 1\.2\.404"):
            ask("1.2.404")
    for ask in (ledger.job, ledger.retry, ledger.cancel):
        with pytest.raises(NodeError, match="no job 404"):
            ask(404)
    with pytest.raises(ValueError, match="priority"):
        NewJob("p", "a:b", 10)


def test_a_reading_that_failed_is_retried_and_only_the_new_report_is_sent(ledger: Ledger) -> None:
    (job,) = settled(ledger, arrival(1))
    (first,) = ledger.finish(claimed(ledger, job), outcome="failed", evidence=made("failed", key="1"), now=30)
    sent = ledger.claim_delivery(first, owner="out", lease_seconds=60, now=31)
    assert sent is not None
    ledger.record_answer(sent, sent.evidence[0].sop_uid, status=0, verdict="delivered", comment="", now=32)
    ledger.finish_delivery(sent, state="DELIVERED", verified=True, retry_at=None, reason=None, now=33)
    ledger.retry(job.id, now=40)
    again = claimed(ledger, job, at=41)
    (second,) = ledger.finish(again, outcome="read", evidence=made("sr", "seg", key="2"), now=50)
    claim = ledger.claim_delivery(second, owner="out", lease_seconds=60, now=51)
    assert claim is not None
    assert {one.sop_uid for one in claim.evidence} == {one.sop_uid for one in made("sr", "seg", key="2")}
    assert len(claim.all_evidence) == 3


def test_evidence_is_found_by_the_key_of_its_job(ledger: Ledger) -> None:
    (job,) = settled(ledger, arrival(1))
    assert ledger.evidence(job.key) == ()
    ledger.finish(claimed(ledger, job), outcome="read", evidence=made("sr"))
    assert ledger.evidence(job.key) == tuple(made("sr"))
    assert ledger.evidence("unknown") == ()


def test_a_study_that_nothing_wants_says_why(ledger: Ledger) -> None:
    record(ledger, arrival(1), settle_at=1)
    ledger.settle(STUDY, (), reason="none of the 2 rules wants it", now=10)
    assert ledger.study(STUDY).study.reason == "none of the 2 rules wants it"


def test_what_is_no_fault_of_the_job_never_ends_in_quarantine(ledger: Ledger) -> None:
    (job,) = settled(ledger, arrival(1))
    for at in range(20, 30):
        claim = claimed(ledger, job, at=at)
        assert ledger.fail(claim, reason="disk full", retry_at=at + 1, counts=False, now=at) is JobState.QUEUED
    for at in (30, 31):
        assert ledger.fail(claimed(ledger, job, at=at), reason="crashed", retry_at=at, now=at) is JobState.QUEUED
    assert ledger.fail(claimed(ledger, job, at=32), reason="crashed", retry_at=32, now=32) is JobState.QUARANTINED


def test_what_is_sent_of_a_retried_job_is_a_delivery_that_begins_anew(ledger: Ledger) -> None:
    (job,) = settled(ledger, arrival(1))
    (first,) = ledger.finish(claimed(ledger, job), outcome="failed", evidence=made("failed"), now=30)
    sent = ledger.claim_delivery(first, owner="out", lease_seconds=60, now=31)
    assert sent is not None
    ledger.finish_delivery(sent, state="WAITING", retry_at=32, reason="off", now=32)
    sent = ledger.claim_delivery(first, owner="out", lease_seconds=60, now=33)
    assert sent is not None
    ledger.finish_delivery(sent, state="DELIVERED", verified=True, reason="late", now=34)
    ledger.retry(job.id, now=40)
    (second,) = ledger.finish(claimed(ledger, job, at=41), outcome="read", evidence=made("sr", key="2"), now=50)
    anew = ledger.delivery(second)
    assert second == first
    assert (anew.state, anew.queued_at, anew.not_before, anew.attempts) == ("WAITING", 50, 50, 2)  # the fencing token
    assert not anew.verified
    times = (anew.first_failed_at, anew.delivered_at, anew.verified_at, anew.lease_until)
    assert (anew.reason, anew.owner, *times) == (None,) * 6


def test_retrying_a_job_sends_its_dead_deliveries_again(ledger: Ledger) -> None:
    (job,) = settled(ledger, arrival(1), jobs=(wanted(to=("PACS", "WEB")),))
    pacs, web = ledger.finish(claimed(ledger, job), outcome="read", evidence=made("sr"), now=30)
    with pytest.raises(NodeError, match="or one with a dead delivery"):
        ledger.retry(job.id)
    for number, state in ((pacs, "DEAD"), (web, "DELIVERED")):
        claim = ledger.claim_delivery(number, owner="out", lease_seconds=60, now=31)
        assert claim is not None
        ledger.finish_delivery(claim, state=state, reason="no such password", now=32)
    ledger.retry(job.id, now=40)
    again = ledger.delivery(pacs)
    assert (again.state, again.not_before, again.first_failed_at, again.reason) == ("WAITING", 40, None, None)
    assert ledger.delivery(web).state == "DELIVERED"
    assert ledger.job(job.id).state is JobState.DONE
    assert ledger.ready_deliveries(40) == [(pacs, 5)]
