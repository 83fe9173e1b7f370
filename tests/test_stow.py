"""Studies come by STOW-RS: with dicomweb-client and curl over a real socket, into a real spool and ledger."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread, dcmwrite
from requests import HTTPError

from node.accounts import Accounts
from node.actions import Actions
from node.audit import Event, Source, Trail
from node.ledger import Ledger, StudyState
from node.spool import Spool
from node.stow import Sender, Stow, StowOptions
from node.web import site as web_site
from node.web.app import WebOptions, serve
from tests.peers import free_port, needs
from tests.site import answers
from tests.waiting import PATIENCE
from tests.workplace import study_files, until

BOUNDARY = "wetread-test"
HEADERS = {"content-type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'}


@dataclass
class Site:
    url: str
    spool: Spool
    ledger: Ledger
    events: list[Event]
    stow: Stow

    def post(self, *parts: bytes, path: str = "", headers: dict[str, str] | None = None) -> httpx.Response:
        return httpx.post(
            f"{self.url}/studies{path}", content=body(*parts), headers=HEADERS | (headers or {}), timeout=PATIENCE
        )

    def lying(self) -> list[Path]:
        return sorted(self.spool.objects.glob("*/*.dcm"))


def body(*parts: bytes) -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(head + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--\r\n".encode()


def failures(answer: httpx.Response) -> list[int]:
    said = answer.json()
    items = [*said.get("00081198", {}).get("Value", []), *said.get("0008119A", {}).get("Value", [])]
    return [item["00081197"]["Value"][0] for item in items]


@pytest.fixture
def options() -> StowOptions:
    return StowOptions(quiet_seconds=0.5)


@pytest.fixture
def site(tmp_path: Path, options: StowOptions) -> Iterator[Site]:
    port, stop = free_port(), threading.Event()
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    ledger.upgrade()
    spool, events = Spool(tmp_path / "spool", reserve_bytes=0), list[Event]()
    stow = Stow(options, spool, ledger, audited=events.append)
    trail = Trail(tmp_path / "audit", Source())
    shown = web_site.Site(
        ledger,
        Actions(ledger, trail, destinations=(), path=spool.path),
        trail,
        "WETREAD",
        tmp_path,
        spool.path,
        tmp_path,
    )
    served = WebOptions("127.0.0.1", port, shown, Accounts(tmp_path / "accounts.json"), stow=stow)
    thread = threading.Thread(target=serve, args=(served, stop), name="site", daemon=True)
    thread.start()
    until(lambda: answers(f"http://127.0.0.1:{port}/health/live"), what="the web server answers")
    yield Site(f"http://127.0.0.1:{port}/dicom-web", spool, ledger, events, stow)
    stop.set()
    thread.join(PATIENCE)
    ledger.close()


def test_a_study_of_dicomweb_client_is_kept_byte_for_byte_and_settles(site: Site, tmp_path: Path) -> None:
    files = study_files(tmp_path / "sent", patient="SYN-9", count=5)
    sent = [dcmread(file) for file in files]
    answer = DICOMwebClient(site.url).store_instances(sent)
    assert [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence] == [
        instance.SOPInstanceUID for instance in sent
    ]
    assert "FailedSOPSequence" not in answer
    entry = site.ledger.entry(sent[0].StudyInstanceUID)
    assert (entry.arrived, entry.caller) == (5, "STOW-RS")
    kept = {dcmread(path).SOPInstanceUID: dcmread(path) for path in site.lying()}
    assert all(kept[instance.SOPInstanceUID] == instance for instance in sent)
    assert not list(site.spool.pending.iterdir())
    assert not list(site.spool.incoming.iterdir())
    assert site.ledger.due(now=site.ledger.now() + 1) == [entry.uid]
    (event,) = site.events
    assert [thing.id for thing in event.things] == [entry.uid, "SYN-9"]
    assert sum(event.things[0].classes.values()) == 5


@needs("curl")
def test_curl_stores_a_file_into_its_own_study_alone(site: Site, tmp_path: Path) -> None:
    (file,) = study_files(tmp_path / "sent", count=1)
    (tmp_path / "body").write_bytes(body(file.read_bytes()))
    study = dcmread(file).StudyInstanceUID
    found = []
    for path in (study, "1.2.3"):
        command = ["curl", "-s", "-w", "%{http_code}", "-H", f"Content-Type: {HEADERS['content-type']}"]
        command += ["-H", "Transfer-Encoding: chunked", "-H", "Accept: application/dicom+xml"]
        command += ["--data-binary", f"@{tmp_path / 'body'}", f"{site.url}/studies/{path}"]
        found.append(subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout)
    assert found[0].endswith("200")
    assert 'keyword="ReferencedSOPSequence"' in found[0]
    assert found[1].endswith("409")
    assert f'keyword="FailureReason"><Value number="1">{0xA900}</Value>' in found[1]
    assert len(site.lying()) == 1


def test_what_cannot_be_kept_is_named_and_the_rest_is_stored(site: Site, tmp_path: Path) -> None:
    one, two, three = study_files(tmp_path / "sent", count=3)
    torn = two.read_bytes()[:-100]
    strange = dcmread(three)
    strange.SOPClassUID = strange.file_meta.MediaStorageSOPClassUID = "1.2.3.4"
    dcmwrite(three, strange)
    answer = site.post(one.read_bytes(), torn, three.read_bytes(), b"not DICOM at all")
    assert answer.status_code == 202
    assert failures(answer) == [0xC000, 0x0122, 0xC000]
    assert answer.json()["00081198"]["Value"][0]["00081155"]["Value"] == [dcmread(two, force=True).SOPInstanceUID]
    assert len(site.lying()) == 1
    assert not list(site.spool.incoming.iterdir())


def test_a_client_is_told_by_exception_when_nothing_was_stored(site: Site, tmp_path: Path) -> None:
    (file,) = study_files(tmp_path / "sent", count=1)
    strange = dcmread(file)
    strange.SOPClassUID = strange.file_meta.MediaStorageSOPClassUID = "1.2.3.4"
    with pytest.raises(HTTPError, match="409"):
        DICOMwebClient(site.url).store_instances([strange])


def test_the_same_again_is_stored_and_changes_nothing_and_another_content_holds_the_study(
    site: Site, tmp_path: Path
) -> None:
    (file,) = study_files(tmp_path / "sent", count=1)
    assert [site.post(file.read_bytes()).status_code for _ in range(2)] == [200, 200]
    assert len(site.lying()) == 1
    other = dcmread(file)
    other.InstanceNumber = 99
    dcmwrite(file, other)
    assert site.post(file.read_bytes()).status_code == 200
    assert site.ledger.entry(other.StudyInstanceUID).state == StudyState.HELD
    assert len(site.lying()) == 2


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "application/dicom"}, 415),
        ({"content-type": f'multipart/related; type="application/dicom+json"; boundary={BOUNDARY}'}, 415),
        ({"content-type": 'multipart/related; type="application/dicom"'}, 400),
        ({"content-encoding": "gzip"}, 415),
        ({"accept": "image/png"}, 406),
    ],
)
def test_a_body_of_another_kind_is_refused_before_it_is_read(site: Site, headers: dict[str, str], status: int) -> None:
    answer = site.post(b"anything", headers=headers)
    assert (answer.status_code, list(answer.json())) == (status, ["detail"])


@pytest.mark.parametrize("options", [StowOptions(senders=(Sender("CT1", ip_network("10.1.2.0/24")),))])
def test_who_is_no_peer_may_not_store(site: Site, tmp_path: Path) -> None:
    (file,) = study_files(tmp_path / "sent", count=1)
    assert site.post(file.read_bytes()).status_code == 403
    assert not site.lying()


@pytest.mark.parametrize("options", [StowOptions(senders=(Sender("CT1", ip_network("127.0.0.0/8")),))])
def test_a_peer_goes_by_its_ae_title(site: Site, tmp_path: Path) -> None:
    (file,) = study_files(tmp_path / "sent", count=1)
    site.post(file.read_bytes())
    assert site.ledger.entry(dcmread(file).StudyInstanceUID).caller == "CT1"


@pytest.mark.parametrize("options", [StowOptions(largest_bytes=1000)])
def test_an_instance_that_is_too_large_is_not_kept(site: Site, tmp_path: Path) -> None:
    (file,) = study_files(tmp_path / "sent", count=1)
    answer = site.post(file.read_bytes())
    assert (answer.status_code, failures(answer)) == (409, [0xC000])
    assert not site.lying()


def test_without_room_the_sender_is_told_when_to_come_back(site: Site, tmp_path: Path) -> None:
    (file,) = study_files(tmp_path / "sent", count=1)
    site.spool.reserve_bytes = 1 << 60
    answer = site.post(file.read_bytes())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")


def test_nothing_is_called_stored_that_is_not_in_the_ledger(site: Site, tmp_path: Path) -> None:
    (file,) = study_files(tmp_path / "sent", count=1)
    database = tmp_path / "ledger.sqlite"
    whole = database.read_bytes()
    database.write_bytes(b"not a database any more" * 1000)
    assert site.post(file.read_bytes()).status_code == 503
    assert len(list(site.spool.pending.iterdir())) == 1  # for the listener to tell at its next start
    database.write_bytes(whole)
    assert site.post(file.read_bytes()).status_code == 200
    assert site.ledger.entry(dcmread(file).StudyInstanceUID).arrived == 1


def test_a_sender_that_dies_in_the_middle_leaves_what_was_whole(site: Site, tmp_path: Path) -> None:
    one, two = study_files(tmp_path / "sent", count=2)
    content = body(one.read_bytes(), two.read_bytes())
    host, _, port = site.url.removeprefix("http://").removesuffix("/dicom-web").partition(":")
    with socket.create_connection((host, int(port))) as line:
        head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(content)}\r\n"
        line.sendall(head.encode() + f"Content-Type: {HEADERS['content-type']}\r\n\r\n".encode())
        line.sendall(content[:-500])
        until(site.ledger.studies, what="the first instance is in the ledger")
    until(lambda: site.events, what="the request has ended")
    assert site.ledger.entry(dcmread(one).StudyInstanceUID).arrived == 1
    assert len(site.lying()) == 1
    assert not list(site.spool.incoming.iterdir())


def test_a_large_instance_does_not_go_through_memory(site: Site, tmp_path: Path) -> None:
    (file,) = study_files(tmp_path / "sent", count=1)
    large = dcmread(file)
    frame = os.urandom(1 << 20)
    large.Rows, large.Columns, large.NumberOfFrames = 1024, 512, 150
    large.PixelData = frame * 150
    dcmwrite(file, large)
    del large
    before = psutil.Process().memory_info().rss
    highest: list[int] = []

    def chunks() -> Iterator[bytes]:
        head, _, tail = body(b"\0split\0").partition(b"\0split\0")
        yield head
        with file.open("rb") as source:
            while piece := source.read(1 << 18):
                highest.append(psutil.Process().memory_info().rss)
                yield piece
        yield tail

    answer = httpx.post(f"{site.url}/studies", content=chunks(), headers=HEADERS, timeout=PATIENCE)
    assert answer.status_code == 200
    assert site.lying()[0].stat().st_size > 150 << 20
    assert max(highest) - before < 100 << 20  # of 150 sent


def test_the_answer_counts_as_a_table_says() -> None:
    from node.stow import Response

    stored, failed = [("1.2", "1.3")], [("1.2", "1.4", 0xC000)]
    table: list[tuple[Any, int]] = [
        (Response(stored), 200),
        (Response(stored, failed), 202),
        (Response([], failed), 409),
        (Response([], [], [0xC000]), 409),
        (Response([], [("1.2", "1.4", 0xA700)]), 503),
        (Response(), 400),
    ]
    assert [response.status for response, _ in table] == [status for _, status in table]
    assert json.loads(json.dumps(Response().as_json())) == {"00081190": {"vr": "UR"}}


def test_without_peers_only_this_machine_may_store() -> None:
    assert StowOptions().sender("127.0.0.1") is not None
    assert StowOptions().sender("10.1.2.3") is None
    assert replace(StowOptions(), senders=(Sender("CT1", ip_network("10.1.2.0/24")),)).sender("127.0.0.1") is None
