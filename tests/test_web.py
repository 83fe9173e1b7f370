"""The web stub: /health says what is wrong, over a real socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from node.errors import Unavailable
from node.web.app import WebOptions, disk_check, serve
from tests.peers import free_port


@pytest.fixture
def faults() -> dict[str, str | None]:
    return {"ledger": None}


@pytest.fixture
def site(faults: dict[str, str | None]) -> Iterator[str]:
    port, stop = free_port(), threading.Event()
    checks = {"ledger": lambda: faults["ledger"]}
    options = WebOptions("127.0.0.1", port, checks, lambda: {"studies": {"settled": 3, "held": 1}})
    thread = threading.Thread(target=serve, args=(options, stop))
    thread.start()
    url = f"http://127.0.0.1:{port}"
    for _ in range(100):
        try:
            httpx.get(f"{url}/health/live")
            break
        except httpx.ConnectError:
            time.sleep(0.05)
    yield url
    stop.set()
    thread.join(15)
    assert not thread.is_alive()


def test_health_is_ready_when_every_check_is_well(site: str) -> None:
    answer = httpx.get(f"{site}/health")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "checks": {"ledger": "ok"}}


def test_health_names_what_is_wrong(site: str, faults: dict[str, str | None]) -> None:
    faults["ledger"] = "the ledger does not answer"
    answer = httpx.get(f"{site}/health")
    assert answer.status_code == 503
    assert answer.json()["checks"]["ledger"] == "the ledger does not answer"
    assert httpx.get(f"{site}/health/live").status_code == 200


def test_metrics_count_what_the_ledger_holds(site: str) -> None:
    assert 'wetread_studies{state="settled"} 3' in httpx.get(f"{site}/metrics").text


def test_a_port_that_is_taken_is_named(site: str) -> None:
    port = int(site.rsplit(":", 1)[1])
    with pytest.raises(Unavailable, match=str(port)):
        serve(WebOptions("127.0.0.1", port, {}, dict), threading.Event())


def test_a_full_disk_is_not_well(tmp_path: Path) -> None:
    assert disk_check(tmp_path, 0)() is None
    assert "the reserve is" in (disk_check(tmp_path, 2**60)() or "")
