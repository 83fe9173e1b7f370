"""What can be wrong on the first day, and what `wetread doctor` says to do about it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from node.accounts import ACCOUNTS_FILE, Accounts, Role
from node.audit import Actor, log_used
from node.cli import first_day
from node.cli.doctor import _ports
from node.cli.lines import Line
from node.cli.options import trail_of
from node.cli.queue import bar
from node.settings import Settings, parse
from tests.peers import free_port
from tests.scripted import Authority
from tests.workplace import Workplace


def settings(folder: Path, **tables: object) -> Settings:
    node = {"data": str(folder / "data"), "reserve_gib": 0}
    given = {"node": node, **tables}
    given["node"] = node | dict(tables.get("node", {}))  # type: ignore[call-overload]
    return parse(given, "settings.toml")


def advice(lines: list[Line]) -> dict[str, str]:
    return {line.what: line.advice for line in lines}


def test_a_certificate_is_whole_of_its_key_and_not_over(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca").found()
    pairs = {
        "node": authority.issue("good", days=200),
        "soon": authority.issue("soon", days=5),
        "over": authority.issue("over", days=-1),
    }
    pairs["strange"] = {"certificate": pairs["node"]["certificate"], "key": pairs["soon"]["key"]}
    pairs["gone"] = {"certificate": str(tmp_path / "none.pem"), "key": str(tmp_path / "none.key")}
    for pair in pairs.values():
        if Path(pair["key"]).exists():
            Path(pair["key"]).chmod(0o600)
    said = {}
    for name, pair in pairs.items():
        lines = list(first_day.certificates(settings(tmp_path, node={"tls": pair})))
        said[name] = lines[0].advice
    assert said["node"] == ""
    assert said["soon"].startswith("renew it: it ends in 5 days")
    assert said["over"].startswith("renew it; nobody")
    assert said["strange"] == said["gone"] == "put the certificate and its key there, or correct node.tls.*"
    Path(pairs["node"]["key"]).chmod(0o644)
    (line,) = first_day.certificates(settings(tmp_path, node={"tls": pairs["node"]}))
    assert line.advice.startswith("chmod 600")


def test_a_secret_that_is_not_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = {"protocol": "dicomweb", "url": "https://x.example", "user": "w", "password_variable": "PACS_PASSWORD"}
    given = settings(tmp_path, destinations={"ARCHIVE": place})
    monkeypatch.delenv("PACS_PASSWORD", raising=False)
    assert "destinations.ARCHIVE names it" in advice(list(first_day.secrets(given)))["secret PACS_PASSWORD"]
    monkeypatch.setenv("PACS_PASSWORD", "x")
    assert advice(list(first_day.secrets(given))) == {"secret PACS_PASSWORD": ""}


@pytest.mark.parametrize(
    ("bind", "peers", "word"),
    [
        ("127.0.0.1", [], ""),
        ("10.1.2.50", [], "name the scanners"),
        ("127.0.0.1", [{"ae_title": "CT1", "address": "10.1.2.11"}], "set node.bind"),
        ("10.1.2.50", [{"ae_title": "CT1", "address": "10.1.2.11"}], ""),
    ],
)
def test_scanners_that_cannot_reach_us_or_are_not_let_in_are_found(
    tmp_path: Path, bind: str, peers: list[dict[str, str]], word: str
) -> None:
    (line,) = first_day.peers(settings(tmp_path, node={"bind": bind, "peers": peers}))
    assert line.advice.startswith(word)
    assert bool(line.advice) is bool(word)


def test_a_file_system_that_forgets_is_found(tmp_path: Path) -> None:
    assert "file system" in advice(list(first_day.disk(settings(tmp_path))))
    if Path("/dev/shm").is_dir():
        said = advice(list(first_day.disk(settings(Path("/dev/shm")))))
        assert said["file system"] == "set node.data to a disk"
    assert not list(tmp_path.glob("**/.doctor*"))


def test_a_job_that_may_take_more_memory_than_there_is_is_found(tmp_path: Path) -> None:
    assert advice(list(first_day.room(settings(tmp_path, worker={"memory_gib": 1_000_000}))))["memory"]
    assert not advice(list(first_day.room(settings(tmp_path, worker={"memory_gib": 0.1}))))["memory"]


def test_a_changed_audit_trail_and_a_collector_that_is_off_are_found(tmp_path: Path) -> None:
    given = settings(tmp_path, audit={"syslog": {"host": "127.0.0.1", "port": free_port()}})
    trail_of(given).record(log_used(Actor("anna")))
    said = advice(list(first_day.audit(given)))
    assert said["audit trail"] == ""
    assert said["audit collector"].startswith("is it up")
    with sqlite3.connect(tmp_path / "data" / "audit" / "trail.sqlite") as db:
        db.execute("UPDATE records SET message = 'x'")
    assert "somebody changed it" in advice(list(first_day.audit(given)))["audit trail"]


def test_what_waits_for_a_person_is_said_with_the_command_for_it(tmp_path: Path) -> None:
    place = Workplace(tmp_path / "data")
    place.ledger.quarantine(place.queued())
    place.ledger.hold(place.arrived(), "wrong patient?")
    place.ledger.drain("elsewhere/cpu", reason="new driver")
    said = advice(list(first_day.waiting(settings(tmp_path))))
    assert list(said) == ["held studies", "failed or quarantined jobs", "drained worker"]
    assert said["drained worker"] == "wetread resume elsewhere/cpu"


def test_an_address_that_is_not_ours_is_said(tmp_path: Path) -> None:
    lines = list(_ports(settings(tmp_path, node={"bind": "192.0.2.1"})))
    assert [line.found for line in lines] == ["192.0.2.1 is no address of this machine"] * 2
    assert {line.advice for line in lines} == {"set node.bind to one of those that `ip address` shows"}


def test_a_bar_shows_every_state_however_few_and_is_as_wide_as_the_others() -> None:
    for states in ({"DONE": 99_999, "FAILED": 1}, {"QUEUED": 1, "RUNNING": 1, "DONE": 1}, {}, {"held": 0}):
        assert len(bar(states).plain) == 30
    assert [str(span.style) for span in bar({"DONE": 99_999, "FAILED": 1}).spans] == ["green", "red"]


def test_an_identity_provider_that_is_off_is_told_and_so_is_that_there_is_no_other_way_in(tmp_path: Path) -> None:
    given = {
        "issuer": f"http://localhost:{free_port()}", "client_id": "wetread", "secret_variable": "NO_SUCH_SECRET",
        "roles": {"viewer": ["radiology"]},
    }  # fmt: skip
    told = settings(tmp_path, web={"oidc": given})
    lines = [*first_day.identity(told), *first_day.secrets(told)]
    assert "does not answer" in lines[0].found
    assert list(advice(lines)) == ["identity provider", "local account", "secret NO_SUCH_SECRET"]
    assert all(line.advice for line in lines)
    Accounts(told.node.folder / ACCOUNTS_FILE).set_user("anna", Role.ADMINISTRATOR, "correct horse battery")
    assert list(advice(list(first_day.identity(told)))) == ["identity provider"]
    assert list(first_day.identity(settings(tmp_path))) == []
