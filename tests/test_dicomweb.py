"""DICOMweb as a client: against Orthanc, and against a web server that follows a script."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from node import answers, delivery, dicomweb, multipart, stored
from node.delivery import Destination, Outgoing
from node.errors import BadSettings, NodeError, Unavailable
from tests import peers, proxy, scripted
from tests.scripted import Reply
from tests.test_delivery import KINDS, LABELMAP, an_object, authority, verdicts
from tests.waiting import PATIENCE

__all__ = ["authority"]


def to(url: str, **more: Any) -> Destination:
    return Destination(
        name="WEB", protocol="dicomweb", url=url, **{"connect_seconds": PATIENCE, "dimse_seconds": PATIENCE, **more}
    )


def response(*, failed: dict[str, int] | None = None, stored: dict[str, int | None] | None = None) -> bytes:
    """A Store Instances Response in the DICOM JSON Model (PS3.18 Annex F)."""

    def item(uid: str, tag: str, reason: int | None) -> dict[str, Any]:
        made: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [uid]}}
        if reason is not None:
            made[tag] = {"vr": "US", "Value": [reason]}
        return made

    dataset: dict[str, Any] = {"00081190": {"vr": "UR", "Value": ["http://pacs.example/studies/1"]}}
    if failed:
        dataset["00081198"] = {"vr": "SQ", "Value": [item(uid, "00081197", why) for uid, why in failed.items()]}
    if stored:
        dataset["00081199"] = {"vr": "SQ", "Value": [item(uid, "00081196", why) for uid, why in stored.items()]}
    return json.dumps(dataset).encode()


# ── Orthanc ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[peers.Orthanc]:
    with peers.orthanc(tmp_path_factory.mktemp("orthanc"), user=("wetread", "s3cret")) as running:
        yield running


@pytest.fixture
def web(orthanc: peers.Orthanc) -> Destination:
    return to(orthanc.dicom_web, user="wetread", password="s3cret")


def test_what_is_stored_is_found_and_fetched(tmp_path: Path, web: Destination) -> None:
    study = str(generate_uid())
    objects = [an_object(tmp_path, study=study, size=size) for size in (10, 100_000, 3_000_000)]
    objects.append(an_object(tmp_path, study=study, sop_class=LABELMAP))
    absent = an_object(tmp_path, study=study)
    assert delivery.echo(web) is None
    assert verdicts(web, objects) == ["delivered"] * 4
    assert delivery.verify(web, [*objects, absent]) == {one.sop_uid for one in objects}
    fetched = {dcmread(path).SOPInstanceUID: path for path in dicomweb.retrieve(web, tmp_path, study)}
    assert set(fetched) == {one.sop_uid for one in objects}
    for one in objects:  # by STOW-RS even Orthanc 1.10.1 keeps the bytes
        assert fetched[one.sop_uid].read_bytes() == one.path.read_bytes()


def test_one_series_and_one_instance_are_fetched_alone(tmp_path: Path, web: Destination) -> None:
    study = str(generate_uid())
    objects = [an_object(tmp_path, study=study) for _ in range(2)]
    assert verdicts(web, objects) == ["delivered"] * 2
    (series,) = dicomweb.retrieve(web, tmp_path, study, objects[0].series_uid)
    assert dcmread(series).SOPInstanceUID == objects[0].sop_uid
    (instance,) = dicomweb.retrieve(web, tmp_path, study, objects[1].series_uid, objects[1].sop_uid)
    assert dcmread(instance).SOPInstanceUID == objects[1].sop_uid


def test_a_search_goes_through_every_page(tmp_path: Path, web: Destination, monkeypatch: pytest.MonkeyPatch) -> None:
    study = str(generate_uid())
    objects = [an_object(tmp_path, study=study) for _ in range(5)]
    assert verdicts(web, objects) == ["delivered"] * 5
    monkeypatch.setattr(dicomweb, "PAGE", 2)
    found = [match["00080018"]["Value"][0] for match in dicomweb.search(web, f"studies/{study}/instances")]
    assert sorted(found) == sorted(one.sop_uid for one in objects)


def test_a_file_that_orthanc_cannot_read_is_refused_and_the_others_are_kept(tmp_path: Path, web: Destination) -> None:
    good, bad = an_object(tmp_path), an_object(tmp_path)
    bad.path.write_bytes(b"not DICOM" * 100)
    found = {answer.sop_uid: answer for answer in delivery.send(web, [good, bad])}
    assert found[good.sop_uid].is_accepted
    assert not found[bad.sop_uid].is_accepted


def test_a_wrong_password_is_refused_and_said(tmp_path: Path, web: Destination) -> None:
    (answer,) = delivery.send(replace(web, password="wrong"), [an_object(tmp_path)])
    assert (answer.status, answer.verdict) == (401, "refused")
    assert "credentials" in answer.comment
    assert "credentials" in (delivery.echo(replace(web, password="wrong")) or "")


def test_what_is_not_there_cannot_be_fetched(tmp_path: Path, web: Destination) -> None:
    with pytest.raises(NodeError):
        list(dicomweb.retrieve(web, tmp_path, "1.2.3.4"))
    assert list(tmp_path.iterdir()) == []


# ── What the answers mean ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, "delivered"),
        (202, "retry"),
        (409, "retry"),
        (400, "refused"),
        (401, "refused"),
        (403, "refused"),
        (404, "refused"),
        (415, "refused"),
        (413, "refused"),
        (308, "refused"),
        (408, "retry"),
        (425, "retry"),
        (429, "retry"),
        (500, "retry"),
        (502, "retry"),
        (503, "retry"),
        (504, "retry"),
    ],
)
def test_every_http_status_means_what_the_table_says(tmp_path: Path, status: int, verdict: str) -> None:
    with scripted.web(Reply(status)) as server:
        (answer,) = delivery.send(to(server.url), [an_object(tmp_path)])
    assert (answer.status, answer.verdict) == (status, verdict)


def test_no_http_status_is_without_a_row() -> None:
    for status in range(1000):
        assert answers.judge_http("1.2", status).verdict in ("delivered", "retry", "refused")


JSON_AND_XML = ["json", "xml", "multipart"]


def as_xml(body: bytes) -> bytes:
    """The same response in the Native DICOM Model (PS3.19 A.1)."""

    def attributes(dataset: dict[str, Any]) -> str:
        made = ""
        for tag, attribute in dataset.items():
            made += f'<DicomAttribute tag="{tag}" vr="{attribute["vr"]}">'
            for number, value in enumerate(attribute["Value"], start=1):
                made += (
                    f'<Item number="{number}">{attributes(value)}</Item>'
                    if isinstance(value, dict)
                    else f'<Value number="{number}">{value}</Value>'
                )
            made += "</DicomAttribute>"
        return made

    model = '<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM" xml:space="preserve">'
    return ('<?xml version="1.0"?>' + model + attributes(json.loads(body)) + "</NativeDicomModel>").encode()


def in_form(body: bytes, form: str, status: int) -> Reply:
    if form == "json":
        return Reply(status, body)
    if form == "xml":
        return Reply(status, as_xml(body), "application/dicom+xml")
    part = b"--abc\r\nContent-Type: application/dicom+xml\r\n\r\n" + as_xml(body) + b"\r\n--abc--"
    return Reply(status, part, 'multipart/related; type="application/dicom+xml"; boundary=abc')


@pytest.mark.parametrize("form", JSON_AND_XML)
@pytest.mark.parametrize("status", [200, 202, 409])
def test_each_object_is_judged_by_what_the_response_says_of_it(tmp_path: Path, form: str, status: int) -> None:
    kept, coerced, full, unreadable = objects = [an_object(tmp_path) for _ in range(4)]
    body = response(
        stored={kept.sop_uid: None, coerced.sop_uid: 0xB000},
        failed={full.sop_uid: 0xA700, unreadable.sop_uid: 0xC000},
    )
    with scripted.web(in_form(body, form, status)) as server:
        found = {answer.sop_uid: answer.verdict for answer in delivery.send(to(server.url), objects)}
    assert found == {
        kept.sop_uid: "delivered",
        coerced.sop_uid: "warning",
        full.sop_uid: "retry",
        unreadable.sop_uid: "refused",
    }


def test_every_failure_reason_means_what_the_table_says(tmp_path: Path) -> None:
    reasons = sorted({end for row in answers.STORE_STATUS for end in (row.first, row.last)} - {0, 0x0111})
    objects = [an_object(tmp_path, size=10) for _ in reasons]
    told = {one.sop_uid: reason for one, reason in zip(objects, reasons, strict=True)}
    with scripted.web(Reply(202, response(failed=told))) as server:
        found = {answer.sop_uid: answer for answer in delivery.send(to(server.url), objects)}
    for uid, reason in told.items():
        assert (found[uid].status, found[uid].verdict) == (reason, answers.judge(uid, reason).verdict)


def test_an_object_that_a_partial_response_does_not_name_is_sent_again(tmp_path: Path) -> None:
    named, unnamed = an_object(tmp_path), an_object(tmp_path)
    with scripted.web(Reply(202, response(stored={named.sop_uid: None}))) as server:
        assert verdicts(to(server.url), [named, unnamed]) == ["delivered", "retry"]


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{", b'{"00081198": 3}', b'{"00081198": {"Value": [7]}}', b"<html>ok</html>", b"\xff" * 99],
)
@pytest.mark.parametrize("content_type", ["application/dicom+json", "application/dicom+xml", "multipart/xml"])
def test_a_response_that_makes_no_sense_leaves_the_status_to_decide(body: bytes, content_type: str) -> None:
    assert stored.Stored.of(body, content_type) == stored.Stored()


def test_an_xml_bomb_is_not_opened() -> None:
    bomb = b'<!DOCTYPE a [<!ENTITY b "' + b"x" * 1000 + b'">]><a>&b;&b;</a>'
    assert stored.Stored.of(bomb, "application/dicom+xml") == stored.Stored()


@pytest.mark.parametrize("asked", ["120", "Fri, 31 Dec 2060 23:59:59 GMT"])
def test_retry_after_is_heard_in_both_forms(tmp_path: Path, asked: str) -> None:
    with scripted.web(Reply(503, headers={"Retry-After": asked})) as server:
        (answer,) = delivery.send(to(server.url), [an_object(tmp_path)])
    assert answer.retry_after is not None
    assert answer.retry_after >= 120


def test_a_request_that_is_too_large_is_split_into_one_object_each(tmp_path: Path) -> None:
    objects = [an_object(tmp_path) for _ in range(3)]
    with scripted.web(Reply(413), Reply(200), Reply(200), Reply(413)) as server:
        assert verdicts(to(server.url), objects) == ["delivered", "delivered", "refused"]
        assert [request.body.count(b"DICM") for request in server.requests] == [3, 1, 1, 1]


def test_an_object_that_is_too_large_for_the_web_goes_by_c_store_where_there_is_one(tmp_path: Path) -> None:
    one = an_object(tmp_path)
    with scripted.web(Reply(413)) as server, scripted.scp(tmp_path / "scp", classes=KINDS) as scp:
        both = to(server.url, ae_title="SCRIPTED", host="127.0.0.1", port=scp.port)
        assert verdicts(both, [one]) == ["delivered"]
        assert scp.events == ["requested", f"store {one.sop_uid}"]


def test_a_body_that_is_not_read_to_its_end_still_gets_its_answer(tmp_path: Path) -> None:
    with scripted.web(Reply(413, reads_body=False)) as server:
        (answer,) = delivery.send(to(server.url), [an_object(tmp_path, size=5_000_000)])
    assert answer.verdict in ("refused", "retry")  # the server may reset the line before its answer is read


# ── What goes out ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_parts_of_a_request_are_the_files_byte_for_byte(tmp_path: Path) -> None:
    objects = [an_object(tmp_path, size=size) for size in (10, 1_000_000)]
    with scripted.web(Reply(200)) as server:
        assert verdicts(to(server.url + "/"), objects) == ["delivered"] * 2
        (request,) = server.requests
    assert request.path == "/dicom-web/studies"
    assert request.headers["Content-Type"].startswith('multipart/related; type="application/dicom"; boundary=')
    boundary = multipart.boundary_of(request.headers["Content-Type"])
    parts = [(headers, b"".join(body)) for headers, body in multipart.read_parts([request.body], boundary)]
    assert [headers for headers, _ in parts] == [{"content-type": "application/dicom"}] * 2
    assert [body for _, body in parts] == [one.path.read_bytes() for one in objects]


def test_a_large_delivery_is_several_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb, "BATCH_BYTES", 250_000)
    objects = [an_object(tmp_path, size=100_000) for _ in range(5)]
    with scripted.web(Reply(200)) as server:
        assert verdicts(to(server.url), objects) == ["delivered"] * 5
        assert [request.body.count(b"DICM") for request in server.requests] == [2, 2, 1]


def test_credentials_come_from_the_environment_and_go_to_the_server_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setenv("PACS_TOKEN", "t0ken-canary")
    monkeypatch.setenv("PACS_PASSWORD", "pa55-canary")
    with scripted.web(Reply(200)) as server:
        bearer = to(server.url, token_variable="PACS_TOKEN")
        basic = to(server.url, user="wetread", password_variable="PACS_PASSWORD")
        for destination in (bearer, basic):
            assert verdicts(destination, [an_object(tmp_path)]) == ["delivered"]
        sent = [request.headers["Authorization"] for request in server.requests]
    assert sent[0] == "Bearer t0ken-canary"
    assert sent[1].startswith("Basic ")
    assert "canary" not in caplog.text
    assert "canary" not in repr(replace(basic, password="canary", token="canary"))


def test_a_credential_that_is_not_set_is_named_and_what_it_is_for_is_tried_again(tmp_path: Path) -> None:
    destination = to("http://127.0.0.1:1/dicom-web", token_variable="NO_SUCH_VARIABLE_HERE")
    (answer,) = delivery.send(destination, [an_object(tmp_path)])
    assert answer.verdict == "retry"
    assert "NO_SUCH_VARIABLE_HERE" in answer.comment
    assert "NO_SUCH_VARIABLE_HERE" in (delivery.echo(destination) or "")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"url": "ftp://pacs.example/"}, "url"),
        ({"url": "http://user:secret@pacs.example/"}, "password_variable"),
        ({"url": "http://pacs.example/", "tls": "required"}, "https"),
        ({"protocol": "dimse", "host": "pacs", "port": 104}, "ae_title"),
        ({"protocol": "dicomweb"}, "url"),
        ({"protocol": "smtp"}, "dicomweb"),
        ({"url": "http://pacs.example/", "tls": "maybe"}, "required"),
    ],
)
def test_an_impossible_destination_is_a_sentence_that_names_the_key(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(BadSettings, match=named) as raised:
        Destination(**{"name": "WEB", "protocol": "dicomweb", **settings})
    assert "destinations.WEB" in str(raised.value)
    assert "secret" not in str(raised.value)


def test_proxies_of_the_environment_and_redirects_are_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scripted.web(Reply(200)) as elsewhere:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{elsewhere.port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        with scripted.web(Reply(307, headers={"Location": elsewhere.url + "/studies"})) as server:
            assert verdicts(to(server.url), [an_object(tmp_path)]) == ["refused"]
        assert elsewhere.requests == []


# ── Servers that are off, slow, dead or false ────────────────────────────────────────────────────────────────────────


def test_a_server_that_is_off_is_one_sentence_that_names_host_and_port(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{peers.free_port()}/dicom-web"
    (answer,) = delivery.send(to(url), [an_object(tmp_path)])
    assert answer.verdict == "retry"
    assert answer.comment == f"WEB ({url}) does not answer: connection refused"
    assert delivery.echo(to(url)) == answer.comment
    assert delivery.verify(to(url), [an_object(tmp_path)]) is None
    with pytest.raises(Unavailable):
        list(dicomweb.retrieve(to(url), tmp_path, "1.2.3"))


def test_a_server_that_never_says_a_word_does_not_hold_us(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        assert verdicts(to(url, dimse_seconds=3.0), [an_object(tmp_path, size=9_000_000)]) == ["retry"]


def test_a_server_that_drips_its_answer_does_not_hold_us(tmp_path: Path) -> None:
    with scripted.web(Reply(200, b" " * 4000, drip=0.3)) as server:
        began = time.monotonic()
        assert verdicts(to(server.url, dimse_seconds=3.0), [an_object(tmp_path)]) == ["retry"]
        assert time.monotonic() - began < PATIENCE  # of twenty minutes that it would drip


@pytest.mark.parametrize("fault", ["cut_after", "blackhole_after"])
def test_a_line_that_dies_in_the_middle_of_an_object_is_tried_again(tmp_path: Path, fault: str) -> None:
    big = an_object(tmp_path, size=20_000_000)
    with scripted.web(Reply(200)) as server:
        with proxy.proxy(server.port, faults=proxy.Faults(**{fault: 1_000_000})) as line:
            assert verdicts(to(f"http://127.0.0.1:{line.port}/", dimse_seconds=3.0), [big]) == ["retry"]
        assert verdicts(to(server.url), [big]) == ["delivered"]


def test_a_fetch_that_is_cut_leaves_no_half_file(tmp_path: Path) -> None:
    body = b"--x\r\nContent-Type: application/dicom\r\n\r\nwhole\r\n--x\r\nContent-Type: application/dicom\r\n\r\nhal"
    with scripted.web(Reply(200, body, 'multipart/related; type="application/dicom"; boundary=x')) as server:
        fetched: list[Path] = []
        with pytest.raises(Unavailable):
            fetched.extend(dicomweb.retrieve(to(server.url), tmp_path, "1.2.3"))
    assert [path.read_bytes() for path in tmp_path.glob("*.dcm")] == [b"whole"]
    assert list(tmp_path.glob("*.part")) == []


def test_https_goes_to_the_host_that_the_certificate_names_and_to_no_other(
    tmp_path: Path, authority: scripted.Authority
) -> None:
    one = an_object(tmp_path)
    with scripted.web(Reply(200), tls=authority.issue("web")) as server:
        url = f"https://127.0.0.1:{server.port}/dicom-web"
        assert verdicts(to(url, tls="required", tls_ca=authority.ca), [one]) == ["delivered"]
        assert verdicts(to(url), [one]) == ["retry"]  # the system's authorities did not sign it
        assert len(server.requests) == 1
    for fault in ({"host": "other.example"}, {"days": -1}, {"self_signed": True}):
        with scripted.web(Reply(200), tls=authority.issue("web-bad", **fault)) as server:
            url = f"https://127.0.0.1:{server.port}/dicom-web"
            (answer,) = delivery.send(to(url, tls="required", tls_ca=authority.ca), [one])
            assert answer.verdict == "retry"
            assert "certificate" in answer.comment
            assert server.requests == []


# ── multipart ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 10_000])
def test_parts_are_read_however_the_bytes_come(step: int) -> None:
    bodies = [b"", b"\r\n", b"--x", b"\r\n--", b"\r\n-", b"a" * 500, b"\r\n--y\r\n--x \r\n\r\n"]
    wire = b"preamble\r\n--xyz\r\n"
    wire += b"\r\n--xyz \r\n".join(b"Content-Type: a/b\r\nX: y\r\n\r\n" + body for body in bodies)
    wire += b"\r\n--xyz--\r\nepilogue"
    chunks = [wire[at : at + step] for at in range(0, len(wire), step)]
    read = [(headers, b"".join(body)) for headers, body in multipart.read_parts(chunks, b"xyz")]
    assert [body for _, body in read] == bodies
    assert all(headers == {"content-type": "a/b", "x": "y"} for headers, _ in read)


def test_a_part_that_is_skipped_does_not_disturb_the_next() -> None:
    wire = b"--x\r\n\r\none\r\n--x\r\n\r\ntwo\r\n--x--"
    parts = multipart.read_parts([wire], b"x")
    next(parts)
    _, body = next(parts)
    assert b"".join(body) == b"two"


@pytest.mark.parametrize("wire", [b"", b"--x", b"--x\r\n\r\nhalf", b"no boundary at all", b"--x\r\n" + b"a" * 100_000])
def test_a_body_that_ends_too_soon_is_truncated(wire: bytes) -> None:
    with pytest.raises(multipart.Truncated):
        [b"".join(body) for _, body in multipart.read_parts([wire], b"x")]


def test_a_file_that_is_not_there_is_tried_again_and_the_others_go(tmp_path: Path) -> None:
    gone, good = an_object(tmp_path), an_object(tmp_path)
    gone.path.unlink()
    with scripted.web(Reply(200)) as server:
        found = {answer.sop_uid: answer.verdict for answer in delivery.send(to(server.url), [gone, good])}
    assert found == {gone.sop_uid: "retry", good.sop_uid: "delivered"}


def test_nothing_to_send_asks_nobody() -> None:
    nothing: list[Outgoing] = []
    assert list(delivery.send(to("http://127.0.0.1:1/"), nothing)) == []
