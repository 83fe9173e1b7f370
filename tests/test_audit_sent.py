"""Audit messages reach a collector by syslog over TLS, also one that was away; and what the node does is recorded."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydicom import dcmread

from node.audit import Act, Actor, Source, Trail, Transfer, accessed, log_used
from node.audit.syslog import Collector, Forwarder
from node.errors import BadSettings
from node.ledger import Evidence
from node.listener import ListenerOptions, Peer, listening
from node.outbox import Outbox
from node.spool import Spool
from tests import peers
from tests.peers import free_port
from tests.scripted import Authority, tls_server
from tests.senders import Notebook, echo
from tests.waiting import PATIENCE
from tests.workplace import Workplace, pacs, until

ANNA = Actor("anna")
FRAME = re.compile(rb"(\d+) (?=<)")


@dataclass
class Heard:
    """A collector that reads frames; it may hang up after some."""

    port: int
    messages: list[bytes] = field(default_factory=list)


@contextlib.contextmanager
def collector(context: ssl.SSLContext, port: int, *, hangs_up_after: int = 10**9) -> Iterator[Heard]:
    heard, stop = Heard(port), threading.Event()
    door = socket.create_server(("127.0.0.1", port))
    door.settimeout(0.1)

    def read(line: ssl.SSLSocket) -> None:
        held = b""
        while not stop.is_set() and len(heard.messages) < hangs_up_after:
            try:
                piece = line.recv(65536)
            except TimeoutError:
                continue
            if not piece:
                return
            held += piece
            while (found := FRAME.match(held)) and len(held) >= found.end() + int(found[1]):
                heard.messages.append(held[found.end() : found.end() + int(found[1])])
                held = held[found.end() + int(found[1]) :]

    def serve() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                plain, _ = door.accept()
                plain.settimeout(60)
                with context.wrap_socket(plain, server_side=True) as line:
                    line.settimeout(0.1)
                    read(line)
                if len(heard.messages) >= hangs_up_after:
                    return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield heard
    finally:
        stop.set()
        thread.join(PATIENCE)
        door.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca").found()


@pytest.fixture
def trail(tmp_path: Path) -> Trail:
    return Trail(tmp_path / "audit", Source("WETREAD", "ct-node"))


@contextlib.contextmanager
def forwarding(trail: Trail, to: Collector) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=Forwarder(trail, to).run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE)


def numbers(heard: Heard) -> list[int]:
    return [int(found[1]) for message in heard.messages if (found := re.search(rb'n="(\d+)"', message))]


def test_every_record_arrives_in_order_as_rfc_5424_has_it(trail: Trail, authority: Authority) -> None:
    server = tls_server(**authority.issue("collector"), ca=str(authority.ca))
    own = authority.issue("node")
    port = free_port()
    trail.record(log_used(Actor("Jürgen")))
    to = Collector("127.0.0.1", port, authority.ca, Path(own["certificate"]), Path(own["key"]))
    with collector(server, port) as heard, forwarding(trail, to):
        until(lambda: len(heard.messages) == 1, what="the first record")
        trail.record(*[log_used(ANNA)] * 5)
        until(lambda: trail.sent(to.name) == 6, what="all are marked as sent")
    assert numbers(heard) == [1, 2, 3, 4, 5, 6]
    head, _, message = heard.messages[0].partition(b"\xef\xbb\xbf")
    assert re.fullmatch(
        rb'<85>1 \d{4}-\d\d-\d\dT[\d:.]+Z ct-node WETREAD \d+ DICOM\+RFC3881 \[record@32473 n="1" digest="\w{64}"\] ',
        head,
    )
    assert message.decode() == trail.after(0, 1)[0].message


RSYSLOG = """
global(workDirectory="{folder}" maxMessageSize="64k" DefaultNetstreamDriver="ossl" DefaultNetstreamDriverCAFile="{ca}"
       DefaultNetstreamDriverCertFile="{certificate}" DefaultNetstreamDriverKeyFile="{key}")
module(load="imtcp" StreamDriver.Name="ossl" StreamDriver.Mode="1" StreamDriver.AuthMode="x509/certvalid")
input(type="imtcp" address="127.0.0.1" port="{port}")
template(name="as_it_came" type="string" string="%rawmsg%\\n")
action(type="omfile" file="{folder}/heard" template="as_it_came")
"""


@pytest.mark.skipif(
    peers.where("rsyslogd") is None or not list(Path("/usr/lib").glob("*/rsyslog/lmnsd_ossl.so")),
    reason="not installed here: rsyslog with its OpenSSL driver",
)
def test_rsyslog_takes_every_record_whole_and_in_order(trail: Trail, authority: Authority, tmp_path: Path) -> None:
    folder, port, own = tmp_path / "rsyslog", free_port(), authority.issue("node")
    folder.mkdir()
    given = authority.issue("collector") | {"folder": str(folder), "ca": str(authority.ca), "port": str(port)}
    (folder / "rsyslog.conf").write_text(RSYSLOG.format(**given))
    large = {f"1.2.826.0.1.3680043.10.99.{number}": number for number in range(300)}
    trail.record(
        log_used(Actor("Jürgen")), *[log_used(ANNA)] * 5, accessed(Transfer("1.2.3", "P", large), Act.READ, by=ANNA)
    )
    to = Collector("127.0.0.1", port, authority.ca, Path(own["certificate"]), Path(own["key"]))
    command = [peers.where("rsyslogd") or "", "-n", "-f", str(folder / "rsyslog.conf"), "-i", str(folder / "pid")]
    with subprocess.Popen(command, stderr=(folder / "said").open("wb")) as rsyslog:
        try:
            with forwarding(trail, to):
                until(lambda: trail.sent(to.name) == 7, what="all are marked as sent")
            until(lambda: (folder / "heard").is_file() and len((folder / "heard").read_bytes().splitlines()) == 7)
        finally:
            rsyslog.terminate()
    heard = Heard(port, (folder / "heard").read_bytes().splitlines())
    assert numbers(heard) == [1, 2, 3, 4, 5, 6, 7]
    assert len(heard.messages[-1]) > 16 << 10
    told = [message.partition(b"\xef\xbb\xbf")[2].decode() for message in heard.messages]
    assert told == [entry.message for entry in trail.after(0, 10)]


def test_a_collector_that_was_away_or_hung_up_misses_nothing(trail: Trail, authority: Authority) -> None:
    server, port = tls_server(**authority.issue("collector")), free_port()
    to = Collector("127.0.0.1", port, authority.ca)
    trail.record(*[log_used(ANNA)] * 20)
    with forwarding(trail, to):
        with collector(server, port, hangs_up_after=7) as first:
            until(lambda: len(first.messages) >= 7, what="the first collector has some")
        trail.record(*[log_used(ANNA)] * 5)
        with collector(server, port) as second:
            until(lambda: trail.sent(to.name) == 25, what="the second has the rest")
    assert set(numbers(first)) | set(numbers(second)) == set(range(1, 26))


@pytest.mark.parametrize("flaw", ["host", "self_signed", "days"])
def test_nothing_goes_to_a_collector_whose_certificate_is_not_right(
    trail: Trail, authority: Authority, flaw: str
) -> None:
    flaws = {"host": {"host": "elsewhere.example"}, "self_signed": {"self_signed": True}, "days": {"days": -1}}
    server, port = tls_server(**authority.issue("collector", **flaws[flaw])), free_port()  # type: ignore[arg-type]
    trail.record(log_used(ANNA))
    with collector(server, port) as heard, pytest.raises(ssl.SSLCertVerificationError):
        Forwarder(trail, Collector("127.0.0.1", port, authority.ca)).send(threading.Event())
    assert not heard.messages
    assert trail.sent(f"127.0.0.1:{port}") == 0


def test_a_certificate_that_is_not_there_is_named(trail: Trail, tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"audit\.syslog"):
        Forwarder(trail, Collector("127.0.0.1", ca=tmp_path / "none.pem"))


def test_a_stranger_who_calls_is_an_alarm_once_a_minute(trail: Trail, tmp_path: Path) -> None:
    options = ListenerOptions(port=0, peers=(Peer("CT1", ip_network("127.0.0.0/8")),))
    spool = Spool(tmp_path / "spool", reserve_bytes=0)
    with listening(options, spool, Notebook(), audited=trail.record) as listener:
        assert [echo(listener.port, caller="MALLORY") for _ in range(3)] == [None] * 3
        until(trail.entries, what="the alarm")
    (alarm,) = [entry.as_json() for entry in trail.entries()]
    assert (alarm["event"], alarm["outcome"]) == ("Security Alert", 8)
    assert alarm["who"][1]["name"] == "MALLORY"


def test_what_is_delivered_is_recorded_before_and_after_and_when_it_is_asked_for(trail: Trail, tmp_path: Path) -> None:
    place = Workplace(tmp_path / "data")
    job = place.queued(patient="SYN-5", to=("PACS",))
    claim = place.ledger.claim(job, owner="w", lease_seconds=60)
    assert claim is not None
    content = place.spool.path(claim.files[0]).read_bytes()
    (place.evidence / "1").mkdir(parents=True)
    (place.evidence / "1" / "seg.dcm").write_bytes(content)
    header = dcmread(place.evidence / "1" / "seg.dcm", stop_before_pixels=True)
    one = Evidence("1/seg.dcm", hashlib.sha256(content).hexdigest(), header.SOPInstanceUID, header.SOPClassUID, "1.3")
    (number,) = place.ledger.finish(claim, outcome="read", evidence=[one])
    with peers.storescp(tmp_path / "pacs", aet="PACS") as archive:
        Outbox(
            place.ledger,
            evidence=place.evidence,
            destinations={"PACS": pacs("PACS", archive.dicom_port)},
            owner="o",
            stop=threading.Event(),
            audited=trail.record,
        )(number)
    said = [entry.as_json() for entry in reversed(trail.entries())]
    assert [one["event"] for one in said] == [
        "Begin Transferring DICOM Instances",
        "DICOM Instances Transferred",
        "Query",
    ]
    assert said[1]["what"] == [header.StudyInstanceUID, "SYN-5"]
    assert (said[1]["action"], said[1]["instances"], said[1]["who"][1]["name"]) == ("R", 1, "PACS")
