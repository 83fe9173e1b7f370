"""REST: whatever is asked, no answer is a fault of ours; and what the command line shows and does can be had by it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from node.accounts import Role
from node.web.app import WebOptions, make_app
from node.web.guard import Doors
from node.web.sessions import Allowance, Sessions
from node.web.view import PAGES
from node.web.watch import Watch
from tests.databases import Cluster
from tests.ledgers import cluster, cluster_template
from tests.site import DEAD, FAILED, HELD, PATIENCE, READ, UNROUTED, WAITING, Home, furnished, serving, site_of

__all__ = ["cluster", "cluster_template"]  # fixtures
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return furnished(tmp_path_factory.mktemp("rest") / "node")


@pytest.fixture(scope="module")
def unhurried(home: Home) -> Iterator[str]:
    """The web server, which counts nobody's requests."""
    import uvicorn

    doors = Doors(home.accounts, Sessions(idle_seconds=900), any_request=Allowance(at_once=1e9, per_second=1e9))
    app = make_app(WebOptions("127.0.0.1", 1, site_of(home), home.accounts), Watch(()), doors=doors)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(120)


def test_the_trail_is_told_page_by_page_and_that_it_was_read(home: Home) -> None:
    with serving(home) as url:
        api = httpx.Client(base_url=f"{url}/api/v1", timeout=PATIENCE)
        api.post(f"/studies/{HELD}/release")
        api.post(f"/studies/{FAILED}/hold", json={"reason": "wrong side?"})
        newest, older = api.get("/audit", params={"limit": 1}).json(), api.get("/audit", params={"limit": 2}).json()
        assert newest[0]["types"] == ["hold"]
        assert (older[0]["event"], older[0]["who"][0]["way"]) == ("Audit Log Used", "REST")
        before = api.get("/audit", params={"before": newest[0]["n"], "limit": 1}).json()
        assert (before[0]["types"], before[0]["study_uid"]) == (["release"], HELD)
        assert {one["study_uid"] for one in api.get("/audit", params={"study": FAILED}).json()} == {FAILED}
        looks = api.get("/audit", params={"event": "Audit Log Used"}).json()
        assert {one["event"] for one in looks} == {"Audit Log Used"}
        found = api.get("/audit/verification").json()
        assert found["broken"] is None
        assert found["head"].startswith(f"{found['count']}:")
        noted = f"{found['last']}:{'0' * 64}"
        assert api.get("/audit/verification", params={"against": noted}).json()["broken"] == found["last"]
        for wrong in ({"study": "1..2"}, {"before": "x"}, {"limit": 1000}):
            assert api.get("/audit", params=wrong).status_code == 422


def test_what_a_purge_would_delete_is_shown_first(tmp_path: Path) -> None:
    home = furnished(tmp_path / "node")
    with serving(home) as url:
        api = httpx.Client(base_url=f"{url}/api/v1", timeout=PATIENCE)
        plan = api.get("/purge").json()
        assert (plan["deleted"], plan["studies"], plan["images"]) == (False, 1, 6)  # what was read and delivered
        assert api.post("/purge").status_code == 422
        assert api.post("/purge", json={"yes": False}).status_code == 422
        assert home.ledger.instances(READ)
        done = api.post("/purge", json={"yes": True}).json()
        assert (done["deleted"], done["studies"], done["images"]) == (True, 1, 6)
        assert api.get("/purge").json()["images"] == 0
    assert home.trail.entries(1)[0].event == "DICOM Study Deleted"


def test_the_reading_order_and_the_drained_workers_are_told(home: Home) -> None:
    with serving(home) as url:
        api = httpx.Client(base_url=f"{url}/api/v1", timeout=PATIENCE)
        first = api.get("/triage").json()[0]
        assert (first["study"]["uid"], first["found"]) == (READ, ["Lesion, certainty 0.97"])
        api.post("/workers/there/cuda:0/drain", json={"reason": "a new driver"})
        (worker,) = api.get("/drained").json()
        assert (worker["worker"], worker["reason"]) == ("there/cuda:0", "a new driver")
        api.post("/workers/there/cuda:0/resume")


ASKED = (
    *(path for path, _ in PAGES if path != "/audit"),
    *(f"/studies/{uid}" for uid in (READ, HELD, FAILED, DEAD, UNROUTED)),
    *(f"/queue?{query}" for query in ("sort=oldest", "sort=urgent", "show=failed", "pipeline=ct_head", "text=3")),
    *(f"/queue?text={WAITING[-8:]}", f"/studies?text={READ[:20]}", "/studies?first=2", "/metrics"),
    *(f"/api/v1/{path}" for path in ("overview", "jobs", "jobs/1", "studies", f"studies/{READ}", "deliveries/1")),
    *(f"/api/v1/{path}" for path in ("destinations", "pipelines", "triage", "drained", "purge", "jobs/404")),
    *(f"/api/v1/jobs?{query}" for query in ("state=FAILED&state=DONE", "sort=urgent", "text=2", "first=1&limit=2")),
    *(f"/api/v1/studies?{query}" for query in ("state=held", f"text={READ}")),
    *("/queue?text=%00", "/queue?pipeline=a%00", "/studies?text=x%00", "/api/v1/jobs?text=%00"),
    "/api/v1/jobs?pipeline=%00",
)
DONE = (
    *("jobs/2/retry", "jobs/4/priority", "jobs/4/quarantine", "jobs/3/resend", "jobs/404/retry"),
    *(
        f"studies/{HELD}/release",
        f"studies/{READ}/hold",
        "workers/there/cpu/drain",
        "workers/there/cpu/resume",
        "workers/x%00/cpu/drain",
    ),
)


GIVEN = {f"studies/{READ}/hold": {"reason": "wrong \0 side"}, "jobs/3/resend": {"destination": "\0"}}
REFUSED = {
    **dict.fromkeys(("/queue?text=%00", "/queue?pipeline=a%00", "/studies?text=x%00"), 400),
    **dict.fromkeys(("/api/v1/jobs?text=%00", "/api/v1/jobs?pipeline=%00"), 422),
    **dict.fromkeys(("/api/v1/jobs/404", "jobs/404/retry", "jobs/3/resend"), 404),
    "workers/x%00/cpu/drain": 409,
}  # fmt: skip


def _same(answer: httpx.Response) -> Any:
    """What of an answer does not hang on when it was given."""
    if answer.headers["content-type"] == "application/json":
        return json.loads(answer.text, parse_float=lambda _: None)
    return re.findall(r"1\.2\.826[\d.]+|/act/\w+|wetread_\w+", answer.text)


def _answers(home: Home) -> dict[str, tuple[int, Any]]:
    with serving(home) as url, httpx.Client(base_url=url, timeout=120) as client:
        told = {path: client.get(path) for path in ASKED}
        told |= {path: client.post(f"/api/v1/{path}", json=GIVEN.get(path)) for path in DONE}
        told |= {f"{path} then": client.get(path) for path in ("/queue", "/api/v1/jobs", "/api/v1/studies")}
    return {path: (answer.status_code, _same(answer)) for path, answer in told.items()}


def test_pages_and_rest_say_the_same_on_postgresql(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    running: Cluster = request.getfixturevalue("cluster")
    database = running.new_database(request.getfixturevalue("cluster_template"))
    beside = _answers(furnished(tmp_path / "file"))
    server = _answers(furnished(tmp_path / "server", database))
    assert {path: status for path, (status, _) in beside.items() if status >= 400} == REFUSED
    for path, answer in beside.items():
        assert server[path] == answer, path


@pytest.mark.timeout(900)
def test_whatever_is_asked_no_answer_is_a_fault_of_ours(home: Home, unhurried: str) -> None:
    told = home.accounts.add_token("fuzz", Role.ADMINISTRATOR, expires=time.time() + 3600)
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{unhurried}/api/v1/openapi.json"),
        *("--checks", CHECKS, "--phases", "coverage,fuzzing", "--max-examples", "2", "--no-shrink"),
        *("--generation-deterministic", "--suppress-health-check", "all"),
        *("--request-timeout", "120", "--no-color", "--warnings", "off", "-H", f"Authorization: Bearer {told}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, cwd=home.folder)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Selected: 26/26" in done.stdout
