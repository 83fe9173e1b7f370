"""A finding above its operating point moves a study up, and whoever is named is told; by a signed webhook, to begin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node import broker
from node.errors import BadSettings
from node.ledger import DeliveryState
from node.notices import Receiver
from node.settings import parse
from node.triage.rules import Rule, raised
from node.worker import WorkerOptions
from tests.noticing import BLEEDING, NAMES, Noticing, noticing
from tests.peers import free_port
from tests.receivers import Told, receiver
from tests.test_worker import working
from tests.waiting import PATIENCE
from tests.workplace import Workplace, until

__all__ = ["noticing"]  # fixture


def finding(certainty: float | None, *, present: bool = True, code: str = "Hemorrhage", **more: Any) -> dict[str, Any]:
    base = {"code": ["50960005", "SCT", code], "certainty": certainty, "present": present, "sop_uids": []}
    return base | {"segment": None, "box": None, "measurements": []} | more


def runs(*findings: dict[str, Any], status: str = "read") -> list[dict[str, Any]]:
    return [{"status": status, "version": "1.0.0", "findings": list(findings)}]


@pytest.mark.parametrize(
    ("said", "is_raised"),
    [
        (runs(finding(0.97)), True),
        (runs(finding(0.97, present=False)), False),  # below the operating point
        (runs(finding(0.3)), False),  # above that, below the rule's own
        (runs(finding(0.0)), False),
        (runs(finding(None)), True),
        (runs(finding(0.97, code="Edema")), False),
        (runs(finding(0.97, code="Lesion", segment="hemorrhage")), True),
        (runs(finding(0.97), status="withheld"), False),
        ([], False),
    ],
)
def test_a_finding_counts_above_its_operating_point_and_the_rules_own(said: Any, is_raised: bool) -> None:
    assert (raised([BLEEDING], "bleeds", said) is not None) == is_raised
    assert raised([BLEEDING], "another", said) is None


def test_the_most_urgent_rule_counts_and_all_are_told_once() -> None:
    rules = [Rule("a", "p", (), priority=2, notify=("X", "Y")), Rule("b", "p", ("hemorrhage",), notify=("Y", "Z"))]
    found = raised(rules, "p", runs(finding(0.5), finding(0.9)))
    assert found is not None
    assert (found.priority, found.notify) == (0, ("X", "Y", "Z"))
    assert "Hemorrhage, certainty 0.90: above its operating point (triage.b)" in found.why


def test_a_bleeding_makes_its_job_urgent_and_a_healthy_head_does_not(noticing: Noticing) -> None:
    told = noticing.read(to=("PACS",))
    assert [*told] == [*NAMES, "PACS"]  # who can do something comes before the archive
    assert {priority for _, priority in noticing.rung} == {0}
    job = noticing.place.ledger.job(noticing.job_id)
    assert job.priority == 0
    assert job.why == "a test wants it; Hemorrhage, certainty 0.97: above its operating point (triage.bleeding)"
    assert [*noticing.read("WELL-1", to=("PACS",))] == ["PACS"]
    assert noticing.place.ledger.job(noticing.job_id).priority == 5


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    monkeypatch.setenv("HOOK_SECRET", "a secret of the two")
    with receiver("hook", tmp_path / "hook") as running:
        yield running


def to(hook: Told, **others: Any) -> Receiver:
    given = {
        "url": f"http://127.0.0.1:{hook.port}/urgent",
        "secret_variable": "HOOK_SECRET",
        "answer_seconds": PATIENCE,
    }
    return Receiver("HOOK", "webhook", **given | others)


def test_a_webhook_is_signed_and_says_what_was_found_where(noticing: Noticing, hook: Told) -> None:
    number = noticing.read()["HOOK"]
    assert noticing.tell(number, to(hook, names=False)).state == DeliveryState.DELIVERED
    (heard,) = hook.heard
    assert heard["status"] == 200
    body, job = heard["body"], noticing.place.ledger.job(noticing.job_id)
    assert (body["study_uid"], body["priority"], body["status"]) == (job.study_uid, 0, "preliminary")
    assert body["findings"] == [
        {"code": ["50960005", "SCT", "Hemorrhage"], "certainty": 0.97, "count": 1, "measurements": []}
    ]
    assert body["patient"] == {"id": "SYN-1", "issuer": ""}  # no name, where the settings say so
    report = noticing.place.ledger.evidence(job.key)[0]
    assert body["report_uid"] == report.sop_uid


def test_a_webhook_that_is_away_is_told_later_the_same_notice(noticing: Noticing, hook: Told) -> None:
    number = noticing.read()["HOOK"]
    away = noticing.tell(number, to(hook, url=f"http://127.0.0.1:{free_port()}"))
    assert away.state == DeliveryState.WAITING
    assert "does not answer" in (away.reason or "")
    hook.answers(503)
    before = noticing.place.ledger.now()
    busy = noticing.again(number, to(hook))
    assert (busy.state, busy.reason) == (DeliveryState.WAITING, "the webhook: server error (HTTP 503)")
    assert busy.not_before > before + 100  # it asked for two minutes
    assert noticing.again(number, to(hook)).state == DeliveryState.DELIVERED
    first, second = hook.heard
    assert first["id"] == second["id"]
    assert noticing.answers(number) == [(None, "retry"), (503, "retry"), (200, "delivered")]


@pytest.mark.parametrize("how", ["hang", "drip"])
def test_a_webhook_that_hangs_is_left_in_time(noticing: Noticing, hook: Told, how: str) -> None:
    hook.answers(how)
    stuck = noticing.tell(noticing.read()["HOOK"], to(hook, answer_seconds=1.0))
    assert stuck.state == DeliveryState.WAITING
    assert (stuck.reason or "").endswith("does not answer within 1 s")


@pytest.mark.parametrize("status", [301, 401, 403, 404, 410, 422])
def test_a_webhook_that_refuses_for_good_is_a_dead_letter(noticing: Noticing, hook: Told, status: int) -> None:
    number = noticing.read()["HOOK"]
    hook.answers(status)
    dead = noticing.tell(number, to(hook))
    assert dead.state == DeliveryState.DEAD
    assert f"HTTP {status}" in (dead.reason or "")


def test_a_wrong_secret_is_refused_and_a_missing_one_never_sent(
    noticing: Noticing, hook: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = noticing.read()["HOOK"]
    monkeypatch.setenv("OTHER", "another secret")
    dead = noticing.tell(number, to(hook, secret_variable="OTHER"))
    assert (dead.state, hook.heard[0]["status"]) == (DeliveryState.DEAD, 401)
    monkeypatch.delenv("OTHER")
    dead = noticing.again(number, to(hook, secret_variable="OTHER"))
    assert (dead.state, len(hook.heard)) == (DeliveryState.DEAD, 1)
    assert dead.reason == "notify.HOOK.secret_variable names OTHER, which is not set"


def test_who_is_switched_off_is_not_told(noticing: Noticing, hook: Told) -> None:
    dead = noticing.tell(noticing.read()["HOOK"], to(hook, on=False))
    assert (dead.state, hook.heard) == (DeliveryState.DEAD, [])
    assert dead.reason == "notify.HOOK is switched off in the settings"


def test_a_notice_that_was_taken_is_no_object_that_the_pacs_has(noticing: Noticing, hook: Told) -> None:
    noticing.tell(noticing.read()["HOOK"], to(hook))
    study = noticing.place.ledger.job(noticing.job_id).study_uid
    assert noticing.place.ledger.evidence_elsewhere(study) == 0


def test_from_the_last_image_to_the_webhook_a_worker_does_it_all(hook: Told, tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    with broker.embedded(tmp_path) as url:
        options = place.options(url, "Bleeds", triage=(BLEEDING,), receivers={"HOOK": to(hook)})
        with working(options):
            study = place.arrived()
            until(lambda: hook.heard, 60.0, "the webhook is told")
            told = {one.destination: one for one in place.ledger.study(study).deliveries}
            until(lambda: place.ledger.delivery(told["HOOK"].id).state == DeliveryState.DELIVERED)
    (heard,) = hook.heard
    assert (heard["status"], heard["body"]["study_uid"], heard["body"]["priority"]) == (200, study, 0)


SETTINGS: dict[str, Any] = {
    "pipelines": {"ct_head": {"use": "a:B"}},
    "notify": {"HOOK": {"protocol": "webhook", "url": "https://ris/hook", "secret_variable": "S"}},
    "triage": {"bleeding": {"pipeline": "ct_head", "finding": "hemorrhage", "notify": ["HOOK"]}},
}


def test_settings_become_rules_and_receivers_and_travel_to_the_worker() -> None:
    from node.cli.options import receivers_of, triage_of

    settings = parse(SETTINGS, "here")
    assert triage_of(settings) == (Rule("bleeding", "ct_head", ("hemorrhage",), notify=("HOOK",)),)
    off = SETTINGS | {"notify": {"HOOK": SETTINGS["notify"]["HOOK"] | {"on": False}}}
    assert triage_of(parse(off, "here"))[0].notify == ()
    options = WorkerOptions(
        "sqlite:///l", "redis://", Path("s"), Path("e"), triage=triage_of(settings), receivers=receivers_of(settings)
    )
    back = WorkerOptions.from_json(options.to_json())
    assert (back.triage, back.receivers) == (options.triage, options.receivers)


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        (
            ("triage", "bleeding", "pipeline"),
            "ct_hed",
            r'triage\.bleeding\.pipeline names "ct_hed"; pipelines: ct_head',
        ),
        (("triage", "bleeding", "notify"), ["RIS"], r'triage\.bleeding\.notify names "RIS"; notify: HOOK'),
        (("triage", "bleeding", "findings"), "x", "did you mean finding?"),
        (("notify", "HOOK", "secret_variable"), None, 'protocol = "webhook" needs secret_variable'),
        (("notify", "HOOK", "url"), "https://user:password@ris/", r"notify\.HOOK\.url"),
    ],
)
def test_a_mistake_in_the_settings_is_a_sentence(place: tuple[str, str, str], value: object, sentence: str) -> None:
    table, name, key = place
    wrong = SETTINGS | {table: {name: SETTINGS[table][name] | {key: value}}}
    with pytest.raises(BadSettings, match=sentence):
        parse(wrong, "here")
