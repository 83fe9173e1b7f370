"""A pipeline that a person switches: off reads nothing, in shadow sends nothing and moves nothing, as set is as set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from node.actions import Actions
from node.audit import Actor, Source, Trail
from node.clock import Clock
from node.errors import NotNow, Unknown
from node.ledger import JobState, Ledger, Mode, StudyState
from node.routing import Route
from node.web.order import in_order
from tests.ledgers import STUDY, arrival, claimed, cluster, cluster_template, ledger, made, record, settled, url, wanted
from tests.test_cli import run
from tests.test_turns import Silent
from tests.workplace import Workplace

__all__ = ["cluster", "cluster_template", "ledger", "url"]
ANNA = Actor("anna", "10.1.2.3", "REST")
USUAL = {"mr_brain": Mode.ON, "enhance": Mode.OFF}


@pytest.fixture
def trail(tmp_path: Path) -> Trail:
    return Trail(tmp_path / "audit", Source())


@pytest.fixture
def actions(ledger: Ledger, trail: Trail, tmp_path: Path) -> Actions:
    return Actions(ledger, trail, destinations=("PACS",), path=tmp_path.joinpath, pipelines=USUAL)


def test_a_switch_is_asked_for_once_recorded_and_survives_a_restart(
    actions: Actions, ledger: Ledger, trail: Trail, url: str
) -> None:
    did = [actions.switch("mr_brain", mode, by=ANNA, reason="new scanner") for mode in ("shadow", "shadow")]
    assert [done.changed for done in did] == [True, False]
    ledger.close()
    again = Ledger(url)
    switched = again.switched()["mr_brain"]
    again.close()
    assert (switched.mode, switched.reason) == (Mode.SHADOW, "new scanner")
    (entry, _) = trail.entries(2)
    told = entry.as_json()
    assert (told["types"][-1], told["who"][0]["name"], told["what"]) == ("switch", "anna", ["pipeline mr_brain"])


def test_as_the_settings_say_is_to_have_no_switch(actions: Actions, ledger: Ledger) -> None:
    for mode, changed in (("on", False), ("off", True), ("settings", True), ("settings", False)):
        assert actions.switch("mr_brain", mode, by=ANNA).changed is changed
    assert actions.switch("enhance", "on", by=ANNA).changed
    assert not actions.switch("enhance", "on", by=ANNA).changed
    assert actions.switch("enhance", "off", by=ANNA).changed  # which is what its settings say
    assert ledger.switched() == {}


def test_what_is_no_pipeline_or_no_mode_is_refused_with_a_sentence(actions: Actions, ledger: Ledger) -> None:
    with pytest.raises(Unknown, match='no pipeline "ct_hed"; in the settings: mr_brain, enhance'):
        actions.switch("ct_hed", "off", by=ANNA)
    with pytest.raises(NotNow, match="'dark' is no way to switch mr_brain; allowed: on, off, shadow, settings"):
        actions.switch("mr_brain", "dark", by=ANNA)
    assert ledger.switched() == {}


def test_what_waits_for_a_pipeline_that_is_switched_off_is_cancelled_until_it_is_on(
    actions: Actions, ledger: Ledger
) -> None:
    (job, other) = settled(ledger, arrival(), jobs=(wanted(), wanted("ct_head")))
    actions.switch("mr_brain", "off", by=ANNA)
    assert ledger.claim(job.id, owner="w", lease_seconds=60, now=50) is None
    assert ledger.job(job.id).reason == "mr_brain was switched off"
    assert ledger.job(other.id).state is JobState.QUEUED
    with pytest.raises(NotNow, match="mr_brain is switched off; switch it on first"):
        actions.retry(job.id, by=ANNA)
    actions.switch("mr_brain", "on", by=ANNA)
    actions.retry(job.id, by=ANNA)
    assert ledger.job(job.id).state is JobState.QUEUED


@pytest.mark.parametrize("switched_while", ["it waits", "it is read"])
def test_what_is_read_in_shadow_is_kept_sent_nowhere_and_moves_nothing(
    actions: Actions, ledger: Ledger, switched_while: str
) -> None:
    (job,) = settled(ledger, arrival())
    if switched_while == "it waits":
        actions.switch("mr_brain", "shadow", by=ANNA)
    claim = claimed(ledger, job)
    actions.switch("mr_brain", "shadow", by=ANNA)
    found = [{"status": "read", "findings": [{"code": ["1", "99", "bleeding"], "present": True, "certainty": 0.9,
              "sop_uids": [], "measurements": []}]}]  # fmt: skip
    sent = ledger.finish(
        claim, outcome="read", runs_json=json.dumps(found), evidence=made("seg"), notify=("RIS",), priority=0,
        why="bleeding", now=30,
    )  # fmt: skip
    history = ledger.study(STUDY)
    assert (sent, history.deliveries, len(history.evidence[job.id])) == ([], (), 1)
    assert (history.jobs[0].priority, history.jobs[0].why, history.jobs[0].shadow) == (5, "Modality is MR", True)
    assert in_order([history.study], {STUDY: list(history.jobs)}, ())[0].found == ()
    with pytest.raises(NotNow, match="read in shadow: nothing of it is sent"):
        actions.send_again(job.id, "PACS", by=ANNA)
    assert [one.key for one in ledger.expired_images(1e12)] == [STUDY]  # it waits for no destination
    assert [one.key for one in ledger.expired_evidence(1e12)] == [job.key]


def test_what_was_read_in_shadow_is_no_predecessor_of_what_is_sent(actions: Actions, ledger: Ledger) -> None:
    actions.switch("mr_brain", "shadow", by=ANNA)
    (job,) = settled(ledger, arrival(), jobs=(wanted(),))
    actions.switch("mr_brain", "off", by=ANNA)
    actions.switch("mr_brain", "shadow", by=ANNA)
    actions.retry(job.id, by=ANNA)
    ledger.finish(claimed(ledger, job, at=1e11), outcome="read", evidence=made("seg"), now=1e11)
    actions.switch("mr_brain", "on", by=ANNA)
    record(ledger, arrival(2))
    (late,) = ledger.settle(STUDY, (wanted(),), now=1e11 + 50)
    claim = claimed(ledger, late, at=1e11 + 60)
    assert (claim.job.predecessor_key, claim.job.shadow) == (None, False)
    assert len(ledger.finish(claim, outcome="read", evidence=made("seg", key="2"), now=1e11 + 70)) == 1


@pytest.mark.parametrize(
    ("mode", "state", "shadow"),
    [("settings", "settled", [False]), ("off", "unrouted", []), ("shadow", "settled", [True])],
)
def test_what_settles_goes_by_the_switch(tmp_path: Path, mode: str, state: str, shadow: list[bool]) -> None:
    place = Workplace(tmp_path)
    routes = {
        name: Route(name, f"a:{name}", {"Modality": "CT"}, automatic=name == "usual") for name in ("usual", "odd")
    }
    usual = {"usual": Mode.ON, "odd": Mode.OFF}
    actions = Actions(place.ledger, Trail(tmp_path / "audit", Source()), destinations=(), path=tmp_path.joinpath,
                      pipelines=usual)  # fmt: skip
    actions.switch("usual", mode, by=ANNA)
    clock = Clock(place.ledger, path=place.spool.path, routes=routes, bell=Silent())
    study = place.arrived()
    clock.settle()
    history = place.ledger.study(study)
    assert history.study.state == StudyState(state)
    assert [job.shadow for job in history.jobs] == shadow
    if mode == "off":
        assert history.study.reason == "none of the 2 rules wants it; switched off: usual"
        actions.switch("odd", "on", by=ANNA)
        place.ledger.release(study)
        clock.settle()
        assert [job.pipeline for job in place.ledger.study(study).jobs] == ["odd"]


def test_a_pipeline_is_switched_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(f'[node]\ndata = "{tmp_path / "data"}"\n')
    Workplace(tmp_path / "data")
    answer = run("pipelines", "switch", "ct_head", "shadow", "--reason", "new scanner", "--json", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["changed"] is True
    told = {one["name"]: one for one in json.loads(run("pipelines", "list", "--json", cwd=tmp_path).stdout)}
    assert (told["ct_head"]["mode"], told["mr_brain"]["mode"], told["enhance"]["mode"]) == ("shadow", "on", "off")
    refused = run("pipelines", "switch", "ct_hed", "off", cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert 'no pipeline "ct_hed"' in refused.stderr
