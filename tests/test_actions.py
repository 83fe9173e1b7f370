"""What an administrator does: it takes effect once, is recorded with who did it, and is refused with a reason."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pytest

from node.actions import Actions
from node.audit import Actor, Source, Trail
from node.errors import NodeError, NotNow, Unknown
from node.ledger import DeliveryState, JobState, Ledger, StudyState
from node.worker import unless_drained
from tests.ledgers import STUDY, arrival, claimed, cluster, cluster_template, delivery, ledger, settled, url
from tests.test_cli import run
from tests.workplace import Workplace

__all__ = ["cluster", "cluster_template", "ledger", "url"]
ANNA = Actor("anna", "10.1.2.3", "REST")


@pytest.fixture
def trail(tmp_path: Path) -> Trail:
    return Trail(tmp_path / "audit", Source())


@pytest.fixture
def actions(ledger: Ledger, trail: Trail, tmp_path: Path) -> Actions:
    return Actions(ledger, trail, destinations=("PACS", "ARCHIVE"), path=tmp_path.joinpath)


def outcomes(trail: Trail) -> list[tuple[str, int]]:
    return [(entry.as_json()["types"][-1], entry.as_json()["outcome"]) for entry in reversed(trail.entries())]


def test_a_cancelled_job_is_cancelled_once_and_retried_once(actions: Actions, ledger: Ledger, trail: Trail) -> None:
    (job,) = settled(ledger, arrival())
    did = [actions.cancel(job.id, by=ANNA), actions.cancel(job.id, by=ANNA)]
    did += [actions.retry(job.id, by=ANNA), actions.retry(job.id, by=ANNA)]
    assert [done.changed for done in did] == [True, False, True, False]
    assert ledger.job(job.id).state == JobState.QUEUED
    assert outcomes(trail) == [("cancel", 0), ("cancel", 0), ("retry", 0), ("retry", 0)]
    (entry, *_) = trail.entries()
    assert (entry.study_uid, entry.as_json()["who"][0]["name"]) == (STUDY, "anna")


def test_a_refused_act_is_recorded_as_failed(actions: Actions, ledger: Ledger, trail: Trail) -> None:
    delivery(ledger)
    with pytest.raises(NotNow, match="job 1 is DONE"):
        actions.cancel(1, by=ANNA)
    with pytest.raises(Unknown, match="no job 404"):
        actions.retry(404, by=ANNA)
    with pytest.raises(Unknown, match='no destination "PACKS"; destinations: ARCHIVE, PACS'):
        actions.send_again(1, "PACKS", by=ANNA)
    assert outcomes(trail) == [("cancel", 4), ("retry", 4), ("send again", 4)]


def test_a_quarantined_job_waits_for_a_retry(actions: Actions, ledger: Ledger) -> None:
    (job,) = settled(ledger, arrival())
    assert actions.quarantine(job.id, by=ANNA, reason="takes the whole memory").changed
    assert not actions.quarantine(job.id, by=ANNA).changed
    assert ledger.claim(job.id, owner="w", lease_seconds=60, now=50) is None
    assert "takes the whole memory" in (ledger.job(job.id).reason or "")
    actions.retry(job.id, by=ANNA)
    assert ledger.job(job.id).state == JobState.QUEUED


def test_a_job_that_runs_loses_its_claim_when_it_is_quarantined(actions: Actions, ledger: Ledger) -> None:
    (job,) = settled(ledger, arrival())
    claim = claimed(ledger, job)
    actions.quarantine(job.id, by=ANNA)
    assert not ledger.heartbeat(job.id, claim.owner, claim.attempt, 60, now=21)


def test_what_is_more_urgent_comes_first(actions: Actions, ledger: Ledger) -> None:
    jobs = [settled(ledger, arrival(study=f"{STUDY}.{n}"))[0].id for n in range(3)]
    assert [actions.prioritize(jobs[2], 0, by=ANNA).changed for _ in range(2)] == [True, False]
    assert ledger.ready(now=1e12) == [(jobs[2], 0), (jobs[0], 5), (jobs[1], 5)]
    with pytest.raises(NotNow, match="0, the most urgent, to 9"):
        actions.prioritize(jobs[0], 10, by=ANNA)


def test_all_evidence_goes_again_where_it_was_accepted_before(actions: Actions, ledger: Ledger) -> None:
    (number,) = delivery(ledger)
    claim = ledger.claim_delivery(number, "sender", 60, now=40)
    assert claim is not None
    for one in claim.evidence:
        ledger.record_answer(claim, one.sop_uid, 0, "delivered", now=41)
    ledger.finish_delivery(claim, state=DeliveryState.DELIVERED, verified=True, now=42)
    job = ledger.delivery(number).job_id
    assert [actions.send_again(job, "PACS", by=ANNA).changed for _ in range(2)] == [True, False]
    again = ledger.claim_delivery(number, "sender", 60, now=1e12)
    assert again is not None
    assert again.evidence == claim.evidence


def test_evidence_goes_to_a_destination_that_no_rule_named(actions: Actions, ledger: Ledger) -> None:
    (number,) = delivery(ledger)
    job = ledger.delivery(number).job_id
    actions.send_again(job, "ARCHIVE", by=ANNA)
    history = ledger.study(STUDY)
    assert {one.destination: one.state for one in history.deliveries} == {"PACS": "WAITING", "ARCHIVE": "WAITING"}


def test_there_is_nothing_to_send_of_a_job_that_has_not_been_read(actions: Actions, ledger: Ledger) -> None:
    (job,) = settled(ledger, arrival())
    with pytest.raises(NotNow, match="left no evidence"):
        actions.send_again(job.id, "PACS", by=ANNA)


def test_a_study_is_held_once_and_its_first_reason_stays(actions: Actions, ledger: Ledger) -> None:
    settled(ledger, arrival())
    assert [actions.hold(STUDY, by=ANNA, reason=why).changed for why in ("wrong patient?", "other")] == [True, False]
    assert ledger.entry(STUDY).reason == "wrong patient?"
    assert [actions.release(STUDY, by=ANNA).changed for _ in range(2)] == [True, False]
    assert ledger.entry(STUDY).state == StudyState.SETTLED
    with pytest.raises(Unknown, match=r"no study 1\.9"):
        actions.hold("1.9", by=ANNA)


def test_a_drained_worker_takes_nothing_until_it_is_resumed(actions: Actions, ledger: Ledger) -> None:
    did: list[int] = []
    act = unless_drained(did.append, ledger.is_drained, "ct-node/cpu", threading.Event())
    assert [actions.drain("ct-node/cpu", by=ANNA, reason="new driver").changed for _ in range(2)] == [True, False]
    assert ledger.drained()["ct-node/cpu"].reason == "new driver"
    waiting = threading.Thread(target=act, args=(17,))
    waiting.start()
    waiting.join(0.3)
    assert not did
    assert [actions.resume("ct-node/cpu", by=ANNA).changed for _ in range(2)] == [True, False]
    waiting.join(120)
    assert did == [17]
    with pytest.raises(NotNow, match="host/device"):
        actions.drain("cpu", by=ANNA)


def test_a_drained_worker_can_be_stopped(ledger: Ledger) -> None:
    did: list[int] = []
    stop = threading.Event()
    ledger.drain("ct-node/cpu")
    stop.set()
    unless_drained(did.append, ledger.is_drained, "ct-node/cpu", stop)(17)
    assert not did


def test_an_act_whose_record_cannot_be_written_changes_nothing(ledger: Ledger, tmp_path: Path) -> None:
    (job,) = settled(ledger, arrival())
    (tmp_path / "audit").write_text("a file where the folder should be")
    actions = Actions(ledger, Trail(tmp_path / "audit", Source()), destinations=(), path=tmp_path.joinpath)
    with pytest.raises(NodeError, match="audit trail"):
        actions.cancel(job.id, by=ANNA)
    assert ledger.job(job.id).state == JobState.QUEUED


def test_each_act_is_to_be_had_from_the_command_line(tmp_path: Path) -> None:
    place = Workplace(tmp_path / "data")
    job = place.queued(patient="SYN-7")
    study = place.ledger.job(job).study_uid
    (tmp_path / "settings.toml").write_text(f'[node]\ndata = "{tmp_path / "data"}"\n')
    acts: list[tuple[str, ...]] = [
        ("priority", study, "0"),
        ("hold", study),
        ("release", study),
        ("quarantine", str(job)),
        ("retry", str(job)),
        ("cancel", str(job)),
        ("drain", "cpu"),
    ]
    for act in acts:
        answer = run(*act, "--json", cwd=tmp_path)
        assert answer.returncode == 0, answer.stderr
        assert json.loads(answer.stdout)["changed"] is True
    assert list(place.ledger.drained()) == [f"{socket.gethostname()}/cpu"]
    refused = run("resend", str(job), "PACS", cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert 'no destination "PACS"' in refused.stderr
    shown = json.loads(run("audit", "show", "--study", study, "--json", cwd=tmp_path).stdout)
    assert [one["types"][-1] for one in shown] == [
        *("send again", "cancel", "retry", "quarantine", "release", "hold", "prioritize"),
    ]
    assert all("SYN-7" in one["what"] for one in shown)
    assert run("audit", "verify", cwd=tmp_path).returncode == 0
