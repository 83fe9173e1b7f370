"""Mail to a real SMTP server: no names in it unless they are asked for, each recipient reached once."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node.ledger import DeliveryState
from node.notices import Receiver
from node.settings import parse
from tests.noticing import Noticing, certificate, noticing
from tests.peers import free_port
from tests.receivers import Told, receiver
from tests.waiting import PATIENCE

__all__ = ["noticing"]  # fixture

A, B = "a@hospital.example", "b@hospital.example"


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Told]:
    with receiver("post", tmp_path / "post") as running:
        yield running


def to(port: int, *recipients: str, **others: Any) -> Receiver:
    given = {"host": "127.0.0.1", "port": port, "sender": "wetread@hospital.example", "answer_seconds": PATIENCE}
    return Receiver("MAIL", "smtp", **given | {"names": False, "recipients": recipients or (A,)} | others)


def test_a_mail_says_what_was_found_and_names_nobody(noticing: Noticing, post: Told) -> None:
    number = noticing.read("SECRET-1")["MAIL"]
    assert noticing.tell(number, to(post.port)).state == DeliveryState.DELIVERED
    (mail,) = post.heard
    assert (mail["to"], mail["subject"]) == ([A], "Urgent study: Hemorrhage")
    assert noticing.place.ledger.job(noticing.job_id).study_uid in mail["text"]
    assert "certainty 0.97" in mail["text"]
    assert "SECRET" not in str(mail)
    number = noticing.read("SECRET-1")["MAIL"]
    noticing.tell(number, to(post.port, names=True))
    assert "SECRET-1" in post.heard[-1]["text"]


def test_mail_names_nobody_by_default_and_the_others_do() -> None:
    from node.cli.options import receivers_of

    mail = {"protocol": "smtp", "host": "mail", "sender": A, "recipients": [B]}
    ris = {"protocol": "hl7", "host": "ris", "port": 2575}
    found = receivers_of(parse({"notify": {"MAIL": mail, "RIS": ris, "LOUD": mail | {"names": True}}}, "here"))
    assert {name: each.names for name, each in found.items()} == {"MAIL": False, "RIS": True, "LOUD": True}


def test_whom_it_has_reached_gets_it_once(noticing: Noticing, post: Told) -> None:
    number = noticing.read()["MAIL"]
    post.answers(None, 451)
    waiting = noticing.tell(number, to(post.port, A, B))
    assert (waiting.state, waiting.reason) == (DeliveryState.WAITING, "the recipient: not now (SMTP 451)")
    assert noticing.again(number, to(post.port, A, B)).state == DeliveryState.DELIVERED
    assert [mail["to"] for mail in post.heard] == [[A], [B]]
    assert post.heard[0]["number"] != post.heard[1]["number"]


def test_a_recipient_whom_nobody_knows_is_a_dead_letter(noticing: Noticing, post: Told) -> None:
    post.answers(550)
    dead = noticing.tell(noticing.read()["MAIL"], to(post.port))
    assert (dead.state, dead.reason) == (DeliveryState.DEAD, "the recipient: refused (SMTP 550)")


def test_a_mail_server_that_is_off_or_hangs_or_drips_is_tried_later(noticing: Noticing, post: Told) -> None:
    number = noticing.read()["MAIL"]
    off = noticing.tell(number, to(free_port()))
    assert (off.state, "connection refused" in (off.reason or "")) == (DeliveryState.WAITING, True)
    post.answers("hang")
    assert noticing.again(number, to(post.port, answer_seconds=1.0)).state == DeliveryState.WAITING
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            peer, _ = server.accept()
            with peer, suppress(OSError):
                for _ in range(10_000):
                    peer.sendall(b"220-still greeting\r\n")
                    time.sleep(0.1)

        threading.Thread(target=drip, daemon=True).start()
        dripping = noticing.again(number, to(server.getsockname()[1], answer_seconds=1.0))
    assert dripping.state == DeliveryState.WAITING


def test_with_tls_required_nothing_goes_in_the_open_and_the_password_counts(
    noticing: Noticing, post: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, ca = certificate(tmp_path)
    number = noticing.read()["MAIL"]
    given = {"host": "localhost", "tls": "required", "tls_ca": ca, "user": "wetread", "password_variable": "MAIL_PASS"}
    monkeypatch.setenv("MAIL_PASS", "another")
    plain = noticing.tell(number, to(post.port, **given))  # a server without TLS
    assert (plain.state, post.heard) == (DeliveryState.DEAD, [])
    assert "offers no TLS" in (plain.reason or "")
    with receiver("post", tmp_path / "secure", str(key)) as secure:
        wrong = noticing.again(number, to(secure.port, **given))
        assert (wrong.state, wrong.reason) == (DeliveryState.DEAD, "the mail server: refused (SMTP 535)")
        monkeypatch.setenv("MAIL_PASS", "a password")
        stranger = noticing.again(number, replace(to(secure.port, **given), tls_ca=None))
        assert (stranger.state, secure.heard) == (DeliveryState.WAITING, [])
        assert noticing.again(number, to(secure.port, **given)).state == DeliveryState.DELIVERED
        assert (secure.heard[0]["secure"], secure.heard[0]["user"]) == (True, "wetread")
