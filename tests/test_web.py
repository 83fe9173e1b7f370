"""The web server over real sockets, on a real ledger: who may do what, and that nothing is done for anybody else."""

from __future__ import annotations

import asyncio
import io
import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from PIL import Image
from sqlalchemy import literal, select

from node.accounts import Accounts, Role
from node.actions import Actions
from node.cli.site import shown, where
from node.drawing import COLOUR
from node.errors import NodeError, Unavailable
from node.ledger import DeliveryState, JobState, Mode, StudyState
from node.ledger.tables import studies
from node.settings import parse
from node.triage.rules import Rule
from node.web.app import STATIC, WebOptions, make_app, serve
from node.web.buttons import BUTTONS
from node.web.charts import bars
from node.web.findings import findings
from node.web.guard import COOKIE, Doors
from node.web.metrics import METRICS
from node.web.places import throughput
from node.web.sessions import Allowance, Sessions
from node.web.site import disk_check
from node.web.view import PAGES as VIEW_PAGES
from node.web.watch import Watch
from tests.peers import ROOT
from tests.site import (
    DEAD,
    FAILED,
    HELD,
    PATIENCE,
    READ,
    SCRIPT,
    UNROUTED,
    WAITING,
    Home,
    furnished,
    get,
    post,
    serving,
    site_of,
)

PASSWORD = "correct horse battery"
PAGES = (*(path for path, _ in VIEW_PAGES), f"/studies/{READ}", f"/studies/{HELD}", "/sign-in")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """With a user of each role; made once, for it takes seconds."""
    home = furnished(tmp_path_factory.mktemp("template") / "node")
    for role in Role:
        home.accounts.set_user(role.word, role, PASSWORD)
    return home


@pytest.fixture
def home(template: Home, tmp_path: Path) -> Home:
    """Without users."""
    shutil.copytree(template.folder, tmp_path / "node")
    (tmp_path / "node" / "accounts.json").unlink()
    return Home(tmp_path / "node")


@pytest.fixture
def site(home: Home) -> Iterator[str]:
    with serving(home) as url:
        yield url


@pytest.fixture
def people(template: Home, home: Home) -> dict[Role, str]:
    """A token per role; there is a user of each role, too."""
    shutil.copy(template.folder / "accounts.json", home.folder / "accounts.json")
    return {role: home.accounts.add_token(role.word, role, time.time() + 3600) for role in Role}


def signed_in(url: str, name: str, password: str = PASSWORD) -> httpx.Client:
    """A browser that is signed in; its cookie is one for HTTPS alone, as loopback counts as safe for browsers."""
    client = httpx.Client(base_url=url, timeout=PATIENCE)
    answer = client.post("/sign-in", data={"name": name, "password": password, "next": "/queue"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/queue")
    cookie = answer.headers["set-cookie"]
    assert all(part in cookie for part in ("HttpOnly", "Secure", "SameSite=lax", "Path=/"))
    client.headers["cookie"] = f"{COOKIE}={re.search(f'{COOKIE}=([^;]+)', cookie)[1]}"  # type: ignore[index]
    return client


def csrf(client: httpx.Client) -> str:
    return re.search('name="csrf" value="([^"]+)"', client.get("/queue").text)[1]  # type: ignore[index]


def test_health_is_ready_when_every_check_is_well(site: str) -> None:
    answer = get(f"{site}/health")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "checks": {"disk": "ok"}}


def test_health_names_what_is_wrong_and_so_does_the_overview(home: Home) -> None:
    with serving(home, site=site_of(home, checks={"broker": lambda: "the broker does not answer"})) as url:
        answer = get(f"{url}/health")
        assert answer.status_code == 503
        assert answer.json()["checks"]["broker"] == "the broker does not answer"
        assert get(f"{url}/health/live").status_code == 200
        text = get(url).text
        assert "Something stands still" in text
        assert "start wetread up again" in text


def test_metrics_count_what_the_ledger_holds(site: str) -> None:
    text = get(f"{site}/metrics").text
    assert 'wetread_studies{state="held"} 1' in text
    assert 'wetread_deliveries{state="DEAD"} 1' in text
    assert 'wetread_check_ok{check="disk"} 1' in text
    assert set(re.findall(r"^# TYPE (\w+) gauge$", text, re.MULTILINE)) == set(METRICS)


def test_the_grafana_dashboard_and_the_alerts_use_what_is_told_and_nothing_else() -> None:
    board = json.loads((ROOT / "deploy" / "grafana" / "wetread.json").read_text())
    alerts = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
    shown = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    watched = [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    assert set(re.findall(r"wetread_\w+", " ".join(shown))) == set(METRICS)
    assert set(re.findall(r"wetread_\w+", " ".join(watched))) <= set(METRICS)
    states = {*JobState, *DeliveryState, *StudyState}
    for expression in shown + watched:
        for named in re.findall(r'state=~?"([^"]+)"', expression):
            assert set(named.split("|")) <= states
    assert all(
        {"summary", "action"} == set(rule["annotations"]) for group in alerts["groups"] for rule in group["rules"]
    )


def test_a_port_that_is_taken_is_named(site: str, home: Home) -> None:
    port = int(site.rsplit(":", 1)[1])
    with pytest.raises(Unavailable, match=str(port)):
        serve(WebOptions("127.0.0.1", port, site_of(home), home.accounts), threading.Event())


def test_a_full_disk_is_not_well(tmp_path: Path) -> None:
    assert disk_check(tmp_path, 0)() is None
    assert "the reserve is" in (disk_check(tmp_path, 2**60)() or "")


def test_the_overview_says_what_is_to_be_done(site: str) -> None:
    text = get(site).text
    for sentence in ("1 study is held", "1 job failed in the last 24 hours", "1 delivery was given up"):
        assert sentence in text
    assert text.count('<svg class="bars"') == 5


@pytest.mark.parametrize("path", PAGES)
def test_no_page_runs_what_a_patient_is_called(site: str, path: str) -> None:
    answer = get(site + path, follow_redirects=True)
    assert answer.status_code == 200
    assert SCRIPT not in answer.text
    assert "&lt;script&gt;alert(1)" in answer.text or path != f"/studies/{READ}"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(
        r"<script(?! src=\"/static/)|<style| style=|\son\w+=|https?://(?!127\.0\.0\.1)",
        answer.text.replace("http://www.w3.org/2000/svg", ""),
    )


def test_a_study_shows_its_steps_findings_and_what_to_do(site: str) -> None:
    text = get(f"{site}/studies/{READ}").text
    for word in ("Arrives", "mr_brain reads", "Sent to PACS", "FLAIR abnormality", "41.2 ml", "97 %", "2 objects"):
        assert word in text
    assert "not evaluated" in get(f"{site}/triage").text  # FAILED: silence is not an answer
    assert "Raise worker.time_limit_seconds" in get(f"{site}/studies/{FAILED}").text
    assert "Enable that SOP class there" in get(f"{site}/studies/{DEAD}").text
    assert get(f"{site}/studies/1.2.3").status_code == 404


def test_a_look_at_a_study_is_recorded_once_however_long_it_lasts(site: str, home: Home) -> None:
    get(f"{site}/studies/{READ}")
    get(f"{site}/studies/{READ}", headers={"x-live": "1"})
    (entry,) = home.trail.entries(study_uid=READ)
    assert entry.as_json()["who"][0] == {
        "name": "this machine",
        "way": "web",
        "address": "127.0.0.1",
        "requestor": True,
    }


def test_findings_of_many_places_are_one_row_with_the_range_of_what_was_measured(home: Home) -> None:
    def area(value: float, certainty: float) -> dict[str, Any]:
        measured = [{"name": ["42798000", "SCT", "Area"], "value": value, "unit": "mm2"}]
        return {"code": ["1", "99", "cell"], "certainty": certainty, "present": True, "measurements": measured}

    runs = [{"status": "read", "reason": None, "findings": [area(20.0, 0.5), area(10.0, 0.9), area(12.5, 0.7)]}]
    job = replace(home.ledger.job(1), runs=json.dumps(runs))
    wanted = {"what": "cell", "present": True, "certainty": 0.9, "measured": "Area 10 to 20 mm²", "count": 3}
    assert findings(job) == [wanted]
    missed = replace(job, runs=json.dumps([{"status": "unsuitable", "reason": "no FLAIR", "findings": []}]))
    assert [row["measured"] for row in findings(missed)] == ["no FLAIR"]
    assert findings(replace(missed, reason="no FLAIR")) == []  # it stands above the table already


def test_a_pipeline_is_switched_by_rest(home: Home, people: dict[Role, str]) -> None:
    modes = {"mr_brain": Mode.ON, "ct_head": Mode.ON}
    actions = Actions(home.ledger, home.trail, destinations=(), path=home.spool.path, pipelines=modes)
    with serving(home, site=site_of(home, actions=actions)) as url:
        told = {"authorization": f"Bearer {people[Role.ADMINISTRATOR]}"}
        api = httpx.Client(base_url=f"{url}/api/v1", headers=told, timeout=PATIENCE)
        done = api.post("/pipelines/ct_head/switch", json={"mode": "shadow"}).json()
        assert (done["changed"], "in shadow" in done["done"]) == (True, True)
        assert {one["name"]: one["mode"] for one in api.get("/pipelines").json()} == {
            "mr_brain": "on",
            "ct_head": "shadow",
        }
        assert api.post("/pipelines/ct_head/switch", json={"mode": "dark"}).status_code == 409
        assert api.post("/pipelines/ct_hed/switch", json={"mode": "off"}).status_code == 404
        text = get(f"{url}/pipelines", headers=told).text
        assert '<span class="tag look">shadow</span>' in text
        assert "What it reads." in get(f"{url}/pipelines/mr_brain", headers=told).text


def test_the_queue_is_filtered_searched_and_sorted(site: str) -> None:
    def jobs(query: str) -> list[str]:
        return re.findall(r'<td data-name="Job" class="number">(\d+)', get(f"{site}/queue?{query}").text)

    assert jobs("") == ["4", "3", "2", "1"]
    assert jobs("sort=oldest") == ["1", "2", "3", "4"]
    assert jobs("show=failed") == ["2"]
    assert jobs(f"text={WAITING[-8:]}") == ["4"]
    assert jobs("text=3&pipeline=mr_brain") == ["3"]
    assert jobs("pipeline=ct_head") == []
    assert jobs("pipeline=mr_brain&show=failed") == ["2"]
    assert get(f"{site}/queue?sort=backwards").status_code == 400


def test_a_long_queue_is_turned_page_by_page(home: Home) -> None:
    with home.ledger._database.writing() as db:
        for number in range(60):
            db.execute(
                studies.insert().from_select(
                    [column.name for column in studies.c],
                    select(
                        *(literal(f"1.9.{number}") if column.name == "uid" else column for column in studies.c)
                    ).where(studies.c.uid == READ),
                )
            )
    with serving(home) as url:
        first = get(f"{url}/studies").text
        second = get(f"{url}/studies?first=50").text
    shown = [re.findall(r'href="/studies/([\d.]+)"', text) for text in (first, second)]
    assert [len(uids) for uids in shown] == [50, 16]
    assert not set(shown[0]) & set(shown[1])
    assert "the next page" in first
    assert "the page before" in second


def test_studies_stand_in_the_order_in_which_they_should_be_read(home: Home) -> None:
    def order(*rules: Rule) -> list[str]:
        with serving(home, site=site_of(home, triage=rules)) as url:
            text = get(f"{url}/triage").text
        assert ("raised" in text) == bool(rules)
        return re.findall(r'href="/studies/([\d.]+)"', text)

    assert order() == [
        READ,
        UNROUTED,
        FAILED,
        DEAD,
        WAITING,
    ]  # who waits longest first; who is held is nobody's to read
    lifted = order(Rule("lesion", "mr_brain", ("FLAIR abnormality",), at_least=0.9, priority=0))
    assert lifted == [READ, DEAD, UNROUTED, FAILED, WAITING]


def test_rules_are_tried_on_a_file_and_say_why_not(site: str, home: Home) -> None:
    client = httpx.Client(base_url=site, timeout=PATIENCE)
    (file, *_) = sorted((home.folder / "sent" / READ).iterdir())
    answer = client.post("/rules", data={"csrf": csrf(client)}, files={"file": ("<b>.dcm", file.read_bytes())})
    assert answer.status_code == 200
    assert "Modality is MR and BodyPartExamined is BRAIN, in 1 of 1 series" in answer.text
    assert "Modality is MR, so it is not so that it is CT" in answer.text
    assert "<b>" not in answer.text
    assert "alert(1)" not in answer.text  # what the file says of the patient is quoted to nobody
    bad = client.post("/rules", data={"csrf": csrf(client)}, files={"file": ("x.txt", b"no DICOM at all, " * 20)})
    assert bad.status_code == 409
    assert "not a DICOM file" in bad.text
    assert client.post("/rules", data={"csrf": "x"}, files={"file": ("x", file.read_bytes())}).status_code == 403


def test_a_finding_is_shown_where_its_mask_lies(site: str) -> None:
    (address,) = re.findall(r'<img src="([^"]+)" width', get(f"{site}/studies/{READ}").text)
    answer = get(site + address, timeout=60)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    pixels = np.asarray(Image.open(io.BytesIO(answer.content)), np.int32)
    assert pixels.shape == (512, 512, 3)
    amber = (pixels == COLOUR).all(-1)
    rows, columns = (
        np.flatnonzero(amber.any(1)) / 8,
        np.flatnonzero(amber.any(0)) / 8,
    )  # 64 pixels, drawn eight times as large
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (12, 27.875, 30, 49.875)
    assert not amber[100:220, 250:390].any()  # an outline alone
    assert get(f"{site}/studies/{READ}/pictures/1/7.png").status_code == 404
    assert get(f"{site}/studies/{HELD}/pictures/1/0.png").status_code == 404  # another study's job


def test_the_audit_page_shows_who_did_what_and_that_it_was_read(site: str, home: Home) -> None:
    get(f"{site}/studies/{READ}")
    assert "this machine" in get(f"{site}/audit", params={"study": READ}).text
    assert home.trail.entries(1)[0].event == "Audit Log Used"
    assert get(f"{site}/audit", params={"before": "x"}).status_code == 400


def test_what_workers_have_done_is_told_per_worker() -> None:
    done = {"ct-node-17-cuda:0-ab12": (3, 6.0), "ct-node-99-cuda:0-cd34": (1, 2.0), "strange": (1, 1.0)}
    assert throughput(done) == {"ct-node/cuda:0": (4, 2.0), "strange": (1, 1.0)}


def test_a_button_does_what_the_command_line_does_and_says_so(site: str, home: Home) -> None:
    client = httpx.Client(base_url=site, timeout=PATIENCE)
    form = {"csrf": csrf(client), "subject": "2", "back": "/queue?show=failed"}
    answer = client.post("/act/retry", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/queue?show=failed")
    assert home.ledger.job(2).state is JobState.QUEUED
    assert "job 2: what had failed of it is queued again" in client.get("/queue").text
    assert home.trail.entries(1)[0].as_json()["types"] == ["retry"]
    refused = client.post("/act/release", data={**form, "subject": "1.2.3"})
    assert refused.status_code == 409
    assert "the ledger knows no study 1.2.3" in refused.text


def test_nothing_is_done_without_the_forms_token_or_for_another_site(site: str, home: Home) -> None:
    client = httpx.Client(base_url=site, timeout=PATIENCE)
    good = {"csrf": csrf(client), "subject": HELD, "back": "//evil.example/"}
    for data, headers in (
        ({**good, "csrf": "x"}, {}),
        ({**good, "csrf": ""}, {}),
        (good, {"origin": "https://evil.example"}),
        (good, {"origin": "null"}),
        (good, {"sec-fetch-site": "cross-site"}),
    ):
        assert client.post("/act/release", data=data, headers=headers).status_code == 403
    assert home.ledger.study(HELD).study.state is StudyState.HELD
    answer = client.post("/act/release", data=good, headers={"origin": site})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")  # never to another site


def test_a_name_that_is_not_ours_is_refused(site: str, home: Home) -> None:
    assert get(site, headers={"host": "evil.example"}).status_code == 400
    with serving(home, hosts=("wetread.example",)) as url:
        assert get(url, headers={"host": "wetread.example:8114"}).status_code == 200


def test_without_users_nobody_from_elsewhere_is_let_in(site: str) -> None:
    assert get(site).status_code == 200
    assert get(site, headers={"x-forwarded-for": "10.1.2.3"}).status_code == 403  # a proxy that says for whom


def test_every_route_has_a_role_and_refuses_each_lower_one(home: Home, people: dict[Role, str]) -> None:
    guard: Any = make_app(WebOptions("127.0.0.1", 1, site_of(home), home.accounts), Watch(()))
    subjects = {
        "uid": READ,
        "study": READ,
        "job": "1",
        "delivery": "1",
        "subject": "404",
        "name": "style.css",
        "number": "0",
    }
    asked = 0
    with serving(home) as url:
        for route in guard._routes():
            role = route.endpoint.wetread_role  # no route without one
            path = re.sub(r"\{(\w+)(:\w+)?\}", lambda slot: subjects[slot[1]], route.path)
            for method in route.methods:
                if role is None:
                    assert path in ("/health", "/health/live", "/metrics", "/sign-in", "/static/style.css")
                    continue
                nobody = httpx.request(method, url + path, data={"a": "b"}, timeout=60)
                assert nobody.status_code in (303, 401), path
                if nobody.status_code == 303:
                    assert nobody.headers["location"].startswith("/sign-in?next=")
                for lower in Role:
                    if lower < role:
                        told = {"authorization": f"Bearer {people[lower]}"}
                        assert httpx.request(method, url + path, headers=told, timeout=60).status_code == 403, path
                        asked += 1
                told = {"authorization": f"Bearer {people[role]}"}
                assert httpx.request(method, url + path, headers=told, timeout=60).status_code not in (401, 403), path
        assert get(f"{url}/openapi.json").status_code == 404
        assert get(f"{url}/docs").status_code == 404
    assert asked > 2 * len(BUTTONS)  # by form and by REST


def test_somebody_signs_in_acts_and_signs_out(home: Home, people: dict[Role, str]) -> None:
    with serving(home) as url:
        assert get(f"{url}/studies/{HELD}").headers["location"] == f"/sign-in?next=%2Fstudies%2F{HELD}"
        anna = signed_in(url, "operator")
        token = csrf(anna)
        assert anna.post("/act/release", data={"csrf": token, "subject": HELD, "back": "/"}).status_code == 303
        assert home.ledger.study(HELD).study.state is StudyState.RECEIVING
        other = signed_in(url, "viewer")
        assert "/act/" not in other.get("/queue").text  # no button that would be refused
        assert other.post("/act/hold", data={"csrf": token, "subject": HELD}).status_code == 403
        assert anna.post("/act/hold", data={"csrf": "of another session", "subject": HELD}).status_code == 403
        assert anna.post("/sign-out", data={"csrf": token}).status_code == 303
        assert anna.get("/queue").status_code == 303
        home.accounts.remove_user("viewer")
        assert other.get("/queue").status_code == 303
    events = [entry.event for entry in reversed(home.trail.entries())]
    assert events.count("User Authentication") == 3


def test_a_password_is_not_guessed(home: Home, people: dict[Role, str]) -> None:
    with serving(home) as url:
        codes = [
            post(f"{url}/sign-in", data={"name": name, "password": "x" * 12}).status_code
            for name in ("viewer", "nobody", *["viewer"] * 5)
        ]
    assert codes == [403, 403, 403, 403, 403, 403, 429]
    assert home.trail.entries(1)[0].as_json()["outcome"] == 4


def test_accounts_are_kept_as_digests_for_their_owner_alone(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path / "data" / "accounts.json")
    accounts.set_user("anna", Role.OPERATOR, PASSWORD)
    token = accounts.add_token("reports", Role.VIEWER, expires=100.0)
    file = tmp_path / "data" / "accounts.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert PASSWORD not in file.read_text()
    assert token.rsplit("_", 1)[1] not in file.read_text()
    assert "$argon2id$" in file.read_text()
    assert accounts.sign_in("anna", PASSWORD + "!") is None
    assert accounts.sign_in("bert", PASSWORD) is None
    assert str(accounts.bearer(token, 101.0)).startswith("the token has expired")
    assert accounts.bearer(token + "x", 1.0) == "the token is not known here"
    for name, password in (("anna", "short"), ("../anna", PASSWORD), ("anna", "x" * 300)):
        with pytest.raises(NodeError):
            accounts.set_user(name, Role.VIEWER, password)
    file.write_text("{")
    with pytest.raises(Unavailable):
        Accounts(file).users()


def test_accounts_that_cannot_be_read_let_nobody_in(home: Home) -> None:
    (home.folder / "accounts.json").write_text("{")
    with serving(home) as url:
        assert get(url).status_code == 503


def test_a_session_ends_when_it_is_idle_and_a_live_page_keeps_none_awake() -> None:
    now = [0.0]
    sessions = Sessions(idle_seconds=900, clock=lambda: now[0])
    number, _ = sessions.begin("anna")
    now[0] = 800.0
    assert sessions.get(number, is_live=True)
    now[0] = 901.0
    assert sessions.get(number) is None
    number, _ = sessions.begin("anna")
    for _ in range(60):
        now[0] += 800.0
        last = sessions.get(number)
    assert last is None  # after a working day


def test_so_many_at_once_and_so_many_a_second() -> None:
    now = [0.0]
    allowance = Allowance(at_once=2, per_second=0.5, clock=lambda: now[0])
    assert [allowance.take("a"), allowance.take("a")] == [0.0, 0.0]
    assert allowance.take("a") == 2.0
    assert allowance.take("b") == 0.0
    now[0] = 2.0
    assert allowance.take("a") == 0.0


def test_who_asks_too_often_is_told_when_to_come_again(home: Home) -> None:
    options = WebOptions("127.0.0.1", 1, site_of(home), home.accounts)
    few = Allowance(at_once=3, per_second=0.001)
    app = make_app(options, Watch(()), doors=Doors(home.accounts, Sessions(idle_seconds=900), any_request=few))

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            return [await client.get("/static/style.css") for _ in range(4)]

    answers = asyncio.run(ask())
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert int(answers[-1].headers["retry-after"]) > 900


def test_the_web_server_stays_on_loopback_without_users_or_certificate() -> None:
    def settings(**web: str) -> Any:
        return parse({"node": {"bind": "0.0.0.0"}, "web": web}, "test")

    both = {"certificate": "web.pem", "key": "web.key"}
    assert where(settings(**both), has_users=False) == "127.0.0.1"
    assert where(settings(), has_users=True) == "127.0.0.1"
    assert where(settings(**both), has_users=True) == "0.0.0.0"
    assert where(settings(bind="127.0.0.1", **both), has_users=True) == "127.0.0.1"


def test_secrets_are_not_shown() -> None:
    told = shown(
        {
            "node": {"broker": "redis://:pw@x", "database": None},
            "destinations": {"P": {"password_variable": "PW", "token": "t"}},
        }
    )
    assert told == {
        "node": {"broker": "hidden", "database": None},
        "destinations": {"P": {"password_variable": "PW", "token": "hidden"}},
    }


def test_bars_are_as_high_as_their_numbers() -> None:
    drawn = bars([0, 1, 2], begins=0.0, step=3600, title="<b>", kind="in")
    assert re.findall(r'class="in"[^>]* height="([\d.]+)"', drawn) == ["0.0", "32.0", "64.0"]
    assert "<b>" not in drawn


def test_static_files_are_those_of_the_package_and_no_others(site: str) -> None:
    assert {name for name in STATIC if get(f"{site}/static/{name}").status_code == 200} == set(STATIC)
    for path in ("..%2fapp.py", "%2e%2e/app.py", "nothing.js"):
        assert get(f"{site}/static/{path}").status_code == 404


def test_rest_tells_what_the_pages_show(site: str) -> None:
    api = httpx.Client(base_url=f"{site}/api/v1", timeout=PATIENCE)
    assert api.get("/overview").json()["counts"]["studies"]["held"] == 1
    assert [job["id"] for job in api.get("/jobs", params={"state": "FAILED"}).json()] == [2]
    assert api.get("/jobs/1").json()["runs"][0]["findings"][0]["segment"] == "FLAIR abnormality"
    assert api.get(f"/studies/{READ}").json()["deliveries"][0]["state"] == "DELIVERED"
    assert api.get("/destinations").json()[0]["deliveries"] == {"DEAD": 1, "DELIVERED": 1}
    assert api.get("/pipelines").json()[0]["model"]["version"] == "1.0.0"
    assert api.get("/settings").json()["node"]["database"] == "hidden"
    assert api.get("/jobs/404").status_code == 404
    assert api.get("/jobs", params={"limit": 0}).status_code == 422
    assert SCRIPT not in api.get(f"/studies/{READ}").text
    described = api.get("/openapi.json").json()
    assert {f"/api/v1/{kind}" for kind in ("jobs/{subject}/retry", "workers/{subject}/drain")} <= set(
        described["paths"]
    )


def test_rest_does_what_the_command_line_does(home: Home, people: dict[Role, str]) -> None:
    with serving(home) as url:
        told = {"authorization": f"Bearer {people[Role.ADMINISTRATOR]}"}
        api = httpx.Client(base_url=f"{url}/api/v1", headers=told, timeout=PATIENCE)
        done = api.post("/jobs/4/priority", json={"priority": 0}).json()
        assert done == {"done": "job 4 has priority 0 now", "changed": True}
        assert home.ledger.job(4).priority == 0
        assert api.post("/jobs/4/priority", json={"priority": 10}).status_code == 422
        assert api.post("/jobs/4/priority", json={"urgency": 1}).status_code == 422
        assert api.post(f"/studies/{READ}/hold", json={"reason": "wrong side?"}).json()["changed"]
        assert api.post(f"/studies/{READ}/release").json()["changed"]
        assert api.post("/workers/here/cpu/drain").json()["changed"]
        assert api.post("/jobs/1/cancel").status_code == 409
        assert api.post("/jobs/404/cancel").status_code == 404
        who = home.trail.entries(1)[0].as_json()["who"][0]
        assert (who["name"], who["way"]) == ("token administrator", "REST")
        browser = signed_in(url, "administrator")
        assert (
            browser.post("/api/v1/jobs/4/cancel", headers={"origin": url}).status_code == 403
        )  # a cookie is not enough
        good = {"origin": url, "x-csrf-token": csrf(browser)}
        assert browser.post("/api/v1/jobs/4/cancel", headers=good).status_code == 200


def test_a_token_that_has_expired_says_so(home: Home, people: dict[Role, str]) -> None:
    old = home.accounts.add_token("old", Role.VIEWER, expires=time.time() - 1)
    with serving(home) as url:
        answer = get(f"{url}/api/v1/jobs", headers={"authorization": f"Bearer {old}"})
    assert answer.status_code == 401
    assert "expired" in json.loads(answer.text)["detail"]


def test_an_audit_trail_that_cannot_be_written_lets_nobody_look(home: Home) -> None:
    with serving(home) as url:
        (home.folder / "audit").write_text("not a folder")
        assert get(f"{url}/studies/{READ}").status_code == 503
        assert get(f"{url}/queue").status_code == 200
