"""Delivery to DICOM peers: dcmtk's storescp, Orthanc, and an SCP that follows a script, each a program of its own."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import generate_uid
from pynetdicom import build_context

from node import answers, delivery
from node.association import associate
from node.delivery import Destination, Outgoing
from node.errors import CannotUnderstand
from tests import peers, proxy, scripted
from tests.waiting import PATIENCE, until

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
LABELMAP = "1.2.840.10008.5.1.4.1.1.66.7"  # Label Map Segmentation Storage, unknown to dcmtk of 2022
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
EXPLICIT, IMPLICIT, BIG, JPEG = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.4.50",
)


LIMITS = ("connect_seconds", "acse_seconds", "dimse_seconds")


def element(tag: tuple[int, int], vr: bytes, value: bytes) -> bytes:
    """One element in Explicit VR Little Endian, spelt out, so that the test knows every byte."""
    head = tag[0].to_bytes(2, "little") + tag[1].to_bytes(2, "little") + vr
    if vr in (b"OB", b"OW", b"SQ", b"UN"):
        return head + b"\0\0" + len(value).to_bytes(4, "little") + value
    return head + len(value).to_bytes(2, "little") + value


def uid_bytes(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


def odd_dataset(sop_class: str, sop_uid: str, study: str, series: str, pixels: bytes) -> bytes:
    """A dataset that a parser would write differently: a group length, trailing spaces, a private element of no
    creator, a sequence and an item of undefined length, and trailing padding."""
    empty_item = bytes.fromhex("feff00e0ffffffff") + bytes.fromhex("feff0de000000000")
    sequence = bytes.fromhex("08001511") + b"SQ\0\0" + b"\xff" * 4 + empty_item + bytes.fromhex("feffdde000000000")
    return b"".join(
        (
            element((0x0008, 0x0000), b"UL", (12345).to_bytes(4, "little")),
            element((0x0008, 0x0016), b"UI", uid_bytes(sop_class)),
            element((0x0008, 0x0018), b"UI", uid_bytes(sop_uid)),
            element((0x0008, 0x0060), b"CS", b"OT  "),
            sequence,
            element((0x0009, 0x1001), b"UN", b"private "),
            element((0x0010, 0x0010), b"PN", b"SYN^TEST  "),
            element((0x0010, 0x0020), b"LO", b"SYN-0001"),
            element((0x0020, 0x000D), b"UI", uid_bytes(study)),
            element((0x0020, 0x000E), b"UI", uid_bytes(series)),
            element((0x7FE0, 0x0010), b"OW", pixels),
            element((0xFFFC, 0xFFFC), b"OB", b"\0" * 10),
        )
    )


def part_10(path: Path, sop_class: str, sop_uid: str, syntax: str, dataset: bytes) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, sop_uid
    meta.TransferSyntaxUID = syntax
    with path.open("wb") as file:
        file.write(b"\0" * 128 + b"DICM")
        write_file_meta_info(file, meta)
        file.write(dataset)


def dataset_of(file: bytes) -> bytes:
    """The bytes after the File Meta Information, whose length stands in (0002,0000)."""
    return file[144 + int.from_bytes(file[140:144], "little") :]


def an_object(
    folder: Path, *, sop_class: str = SECONDARY_CAPTURE, syntax: str = EXPLICIT, size: int = 1000, study: str = ""
) -> Outgoing:
    """A file to deliver; in another syntax than Explicit VR Little Endian its content is only labelled so."""
    sop_uid, series = generate_uid(), generate_uid()
    study = study or generate_uid()
    path = folder / f"{sop_uid}.dcm"
    part_10(path, sop_class, sop_uid, syntax, odd_dataset(sop_class, sop_uid, study, series, b"\x5a" * size))
    return Outgoing(path, sop_class, str(sop_uid), study, syntax, str(series))


def to(port: int, *, aet: str = "SCRIPTED", **more: Any) -> Destination:
    patient = dict.fromkeys(LIMITS, PATIENCE)
    return Destination(name="PACS", protocol="dimse", ae_title=aet, host="127.0.0.1", port=port, **{**patient, **more})


def hasty(port: int, **more: Any) -> Destination:
    return to(port, **{**dict.fromkeys(LIMITS, 3.0), **more})


def verdicts(destination: Destination, objects: list[Outgoing]) -> list[str]:
    return [answer.verdict for answer in delivery.send(destination, objects)]


KINDS = {SECONDARY_CAPTURE: [EXPLICIT, IMPLICIT, BIG, JPEG], LABELMAP: [EXPLICIT], COMPREHENSIVE_3D_SR: [EXPLICIT]}


# ── What arrives ─────────────────────────────────────────────────────────────────────────────────────────────────────


@peers.needs("storescp")
def test_an_object_arrives_byte_for_byte(tmp_path: Path) -> None:
    objects = [
        an_object(tmp_path),
        an_object(tmp_path, size=3_000_000),
        an_object(tmp_path, sop_class=COMPREHENSIVE_3D_SR),
    ]
    with peers.storescp(tmp_path / "scp") as scp:
        assert verdicts(to(scp.dicom_port, aet=scp.aet), objects) == ["delivered"] * 3
        arrived = {dcmread(file, force=True).SOPInstanceUID: file for file in scp.files}
        for sent in objects:
            received = arrived[sent.sop_uid]
            assert dataset_of(received.read_bytes()) == dataset_of(sent.path.read_bytes())
            assert dcmread(received).file_meta.TransferSyntaxUID == sent.transfer_syntax


@peers.needs("storescp")
@pytest.mark.parametrize("syntax", [IMPLICIT, BIG, JPEG])
def test_the_transfer_syntax_is_the_files_own(tmp_path: Path, syntax: str) -> None:
    """Its bytes are not even looked at: here they are labelled with a syntax that they are not in."""
    sent = an_object(tmp_path, syntax=syntax)
    with scripted.scp(tmp_path / "scp", classes={SECONDARY_CAPTURE: [syntax]}) as scp:
        assert verdicts(to(scp.port), [sent]) == ["delivered"]


def test_orthanc_keeps_what_was_delivered_and_says_so(tmp_path: Path) -> None:
    study = generate_uid()
    objects = [an_object(tmp_path, study=study), an_object(tmp_path, sop_class=LABELMAP, study=study)]
    absent = an_object(tmp_path, study=study)
    with peers.orthanc(tmp_path / "orthanc") as orthanc:
        destination = to(orthanc.dicom_port, aet="ORTHANC", calling_ae_title="WETREAD")
        assert delivery.echo(destination) is None
        assert verdicts(destination, objects) == ["delivered", "delivered"]
        assert orthanc.instances == sorted(one.sop_uid for one in objects)
        for one in objects:
            kept = dcmread(BytesIO(orthanc.file(one.sop_uid)))  # which 1.10.1 writes anew: equal, not identical
            assert kept.file_meta.TransferSyntaxUID == one.transfer_syntax
            assert kept.PixelData == dcmread(one.path).PixelData
            assert kept.PatientName == "SYN^TEST"
        assert delivery.verify(destination, [*objects, absent]) == {one.sop_uid for one in objects}
        # An AE title that Orthanc does not know may store, but not ask: DicomAlwaysAllowFind is false
        stranger = replace(destination, calling_ae_title="STRANGER")
        assert verdicts(stranger, [absent]) == ["delivered"]
        assert delivery.verify(stranger, objects) is None


def test_one_association_carries_all_objects_of_a_delivery(tmp_path: Path) -> None:
    objects = [an_object(tmp_path), an_object(tmp_path, sop_class=LABELMAP), an_object(tmp_path, syntax=IMPLICIT)]
    with scripted.scp(tmp_path / "scp", classes=KINDS) as scp:
        assert verdicts(to(scp.port), objects) == ["delivered"] * 3
        assert scp.events == ["requested", *(f"store {one.sop_uid}" for one in objects)]


# ── What the answers mean ────────────────────────────────────────────────────────────────────────────────────────────


def test_every_status_means_what_the_table_says(tmp_path: Path) -> None:
    """Every row of answers.STORE_STATUS, first and last status, over the wire."""
    statuses = sorted({end for row in answers.STORE_STATUS for end in (row.first, row.last)} | {0x1234, 0xA777, 0xC210})
    objects = [an_object(tmp_path) for _ in statuses]
    told = {one.sop_uid: status for one, status in zip(objects, statuses, strict=True)}
    with scripted.scp(tmp_path / "scp", classes=KINDS, status=told, comment="no room for DOE^JANE") as scp:
        found = {answer.sop_uid: answer for answer in delivery.send(to(scp.port), objects)}
    assert {uid: answer.status for uid, answer in found.items()} == told
    for uid, status in told.items():
        row = next(row for row in answers.STORE_STATUS if row.first <= status <= row.last)
        assert (found[uid].verdict, found[uid].tries) == (row.verdict, row.tries), hex(status)
        assert "DOE^JANE" not in found[uid].comment  # what the peer remarks may name the patient


@pytest.mark.parametrize(
    ("status", "verdict", "tries"),
    [
        (0x0000, "delivered", None),
        (0xB000, "warning", None),
        (0xB006, "warning", None),
        (0xB007, "warning", None),
        (0x0111, "conflict", None),
        (0xA700, "retry", None),
        (0xA7FF, "retry", None),
        (0x0213, "retry", None),
        (0x0110, "retry", 5),
        (0xFE00, "retry", 5),
        (0x0122, "refused", None),
        (0x0124, "refused", None),
        (0x0117, "refused", None),
        (0x0210, "refused", None),
        (0x0211, "refused", None),
        (0x0212, "refused", None),
        (0xA900, "refused", None),
        (0xA9FF, "refused", None),
        (0xC000, "refused", None),
        (0xCFFF, "refused", None),
    ],
)
def test_a_dimse_status_is_judged_as_the_status_policy_says(status: int, verdict: str, tries: int | None) -> None:
    answer = answers.judge("1.2.3", status)
    assert (answer.verdict, answer.tries) == (verdict, tries)


def test_a_duplicate_that_the_peer_finds_is_delivered_and_another_is_a_conflict(tmp_path: Path) -> None:
    ours, other = an_object(tmp_path), an_object(tmp_path)
    told = {ours.sop_uid: 0x0111, other.sop_uid: 0x0111}
    with scripted.scp(tmp_path / "scp", classes=KINDS, status=told, held=[ours.sop_uid]) as scp:
        found = {answer.sop_uid: answer.verdict for answer in delivery.send(to(scp.port), [ours, other])}
    assert found == {ours.sop_uid: "delivered", other.sop_uid: "conflict"}


@pytest.mark.parametrize(
    ("reject", "verdict"),
    [
        ([1, 1, 3], "refused"),  # calling AE title not recognised
        ([1, 1, 7], "refused"),  # called AE title not recognised
        ([2, 3, 1], "retry"),  # temporary congestion
        ([2, 3, 2], "retry"),  # local limit exceeded
    ],
)
def test_a_rejection_for_good_is_refused_and_one_for_now_is_tried_again(
    tmp_path: Path, reject: list[int], verdict: str
) -> None:
    with scripted.scp(tmp_path / "scp", classes=KINDS, reject=reject) as scp:
        (answer,) = delivery.send(to(scp.port), [an_object(tmp_path)])
        assert answer.verdict == verdict
        assert f"SCRIPTED at 127.0.0.1:{scp.port}" in answer.comment


def test_an_object_of_a_kind_that_is_not_accepted_is_refused_and_the_others_go(tmp_path: Path) -> None:
    objects = [an_object(tmp_path), an_object(tmp_path, sop_class=LABELMAP), an_object(tmp_path)]
    with scripted.scp(tmp_path / "scp", classes={SECONDARY_CAPTURE: [EXPLICIT]}) as scp:
        found = list(delivery.send(to(scp.port), objects))
    assert [answer.verdict for answer in found] == ["delivered", "refused", "delivered"]
    assert LABELMAP in found[1].comment


def test_a_peer_that_accepts_nothing_refuses_everything(tmp_path: Path) -> None:
    objects = [an_object(tmp_path), an_object(tmp_path)]
    with scripted.scp(tmp_path / "scp", classes={}) as scp:
        assert verdicts(to(scp.port), objects) == ["refused", "refused"]


def test_only_what_was_not_accepted_has_to_be_sent_again(tmp_path: Path) -> None:
    objects = [an_object(tmp_path) for _ in range(3)]
    with scripted.scp(tmp_path / "one", classes=KINDS, abort=[objects[1].sop_uid]) as scp:
        first = list(delivery.send(to(scp.port), objects))
    assert [answer.verdict for answer in first] == ["delivered", "retry", "retry"]
    rest = [one for one, answer in zip(objects, first, strict=True) if not answer.is_accepted]
    with scripted.scp(tmp_path / "two", classes=KINDS) as scp:
        assert verdicts(to(scp.port), rest) == ["delivered", "delivered"]
        assert scp.events[1:] == [f"store {one.sop_uid}" for one in rest]


def test_no_answer_is_lost_when_pynetdicom_looks_for_requests_at_the_wrong_moment(tmp_path: Path) -> None:
    with (
        scripted.scp(tmp_path / "scp", classes=KINDS) as scp,
        associate(to(scp.port), [build_context("1.2.840.10008.1.1", IMPLICIT)]) as association,
    ):
        ended = threading.Event()

        def look() -> None:  # as its reactor does, though it says that it has paused
            while not ended.is_set():
                association.dimse.get_msg(block=False)

        looking = threading.Thread(target=look)
        looking.start()
        try:
            assert [association.send_c_echo().get("Status") for _ in range(20)] == [0] * 20
        finally:
            ended.set()
            looking.join()


def test_a_file_that_is_not_there_waits_and_one_that_is_not_dicom_is_refused_and_the_others_go(tmp_path: Path) -> None:
    gone, foreign, good = (an_object(tmp_path) for _ in range(3))
    gone.path.unlink()
    foreign.path.write_bytes(b"not DICOM at all" * 100)
    with scripted.scp(tmp_path / "scp", classes=KINDS) as scp:
        assert verdicts(to(scp.port), [gone, foreign, good]) == ["retry", "refused", "delivered"]


# ── Peers that are off, slow or dead ─────────────────────────────────────────────────────────────────────────────────


def test_a_destination_that_is_off_is_one_sentence_that_names_host_and_port(tmp_path: Path) -> None:
    port = peers.free_port()
    (answer,) = delivery.send(to(port), [an_object(tmp_path)])
    assert answer.verdict == "retry"
    assert answer.comment == f"PACS (SCRIPTED at 127.0.0.1:{port}) does not answer: connection refused"
    assert delivery.echo(to(port)) == answer.comment
    assert delivery.verify(to(port), [an_object(tmp_path)]) is None


def test_a_host_that_nobody_knows_is_a_sentence(tmp_path: Path) -> None:
    (answer,) = delivery.send(replace(to(104), host="pacs.invalid"), [an_object(tmp_path)])
    assert answer.verdict == "retry"
    assert "pacs.invalid" in answer.comment
    assert "cannot be found" in answer.comment


@pytest.fixture
def silence() -> Iterator[int]:
    """The port of a listener that lets the kernel accept connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("tls", ["off", "required"])
def test_a_peer_that_never_says_a_word_does_not_hold_us(tmp_path: Path, silence: int, tls: str) -> None:
    assert verdicts(hasty(silence, tls=tls), [an_object(tmp_path)]) == ["retry"]
    assert threads_left() == 0


def test_a_peer_that_dribbles_bytes_does_not_hold_us(tmp_path: Path) -> None:
    """One byte of a PDU every 0.3 s: no single read ever times out."""
    listener = socket.create_server(("127.0.0.1", 0))

    def dribble() -> None:
        line, _ = listener.accept()
        for byte in b"\x02\x00\x00\x00\x0f\xff" + b"\0" * 4095:
            try:
                line.send(bytes([byte]))
            except OSError:
                return
            time.sleep(0.3)

    threading.Thread(target=dribble, daemon=True).start()
    began = time.monotonic()
    assert verdicts(hasty(listener.getsockname()[1]), [an_object(tmp_path)]) == ["retry"]
    assert time.monotonic() - began < PATIENCE  # of twenty minutes that it would dribble
    listener.close()


def test_a_peer_that_never_answers_a_c_store_does_not_hold_us(tmp_path: Path) -> None:
    objects = [an_object(tmp_path), an_object(tmp_path)]
    with scripted.scp(tmp_path / "scp", classes=KINDS, hang=[objects[0].sop_uid]) as scp:
        found = list(delivery.send(to(scp.port, dimse_seconds=3.0), objects))
    assert [answer.verdict for answer in found] == ["retry", "retry"]
    assert threads_left() == 0


def test_a_line_that_goes_dead_in_the_middle_of_an_object_does_not_hold_us(tmp_path: Path) -> None:
    objects = [an_object(tmp_path), an_object(tmp_path, size=40_000_000), an_object(tmp_path)]
    faults = proxy.Faults(blackhole_after=2_000_000)
    with scripted.scp(tmp_path / "scp", classes=KINDS) as scp, proxy.proxy(scp.port, faults=faults) as line:
        assert verdicts(to(line.port, dimse_seconds=10.0), objects) == ["delivered", "retry", "retry"]
    assert threads_left() == 0


def test_a_line_that_is_cut_in_the_middle_of_an_object_is_tried_again(tmp_path: Path) -> None:
    objects = [an_object(tmp_path), an_object(tmp_path, size=10_000_000)]
    with scripted.scp(tmp_path / "scp", classes=KINDS) as scp:
        with proxy.proxy(scp.port, faults=proxy.Faults(cut_after=1_000_000)) as line:
            assert verdicts(to(line.port), objects) == ["delivered", "retry"]
        assert verdicts(to(scp.port), objects[1:]) == ["delivered"]
    assert threads_left() == 0


def test_a_slow_line_that_moves_is_not_given_up(tmp_path: Path) -> None:
    """It takes longer than any deadline, and is never still for so long."""
    big = an_object(tmp_path, size=6_000_000)
    slow = proxy.Faults(rate=1_000_000)
    with scripted.scp(tmp_path / "scp", classes=KINDS) as scp, proxy.proxy(scp.port, faults=slow) as line:
        began = time.monotonic()
        assert verdicts(to(line.port, dimse_seconds=2.0), [big]) == ["delivered"]
        assert time.monotonic() - began > 4


def threads_left() -> int:
    """Threads of pynetdicom that outlived their association, after a moment to end."""

    def none_left() -> bool:
        return not [one for one in threading.enumerate() if "reactor" in one.name or "Requestor" in one.name]

    until(none_left, what="the threads end")
    return 0


# ── TLS (threat T2) ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> scripted.Authority:
    if peers.where("openssl") is None:
        pytest.skip("not installed here: openssl")
    return scripted.Authority(tmp_path_factory.mktemp("authority")).found()


def test_tls_delivers_to_the_host_that_the_certificate_names(tmp_path: Path, authority: scripted.Authority) -> None:
    tls = authority.issue("pacs")
    with scripted.scp(tmp_path / "scp", classes=KINDS, tls=tls) as scp:
        destination = to(scp.port, tls="required", tls_ca=authority.ca)
        assert delivery.echo(destination) is None
        assert verdicts(destination, [an_object(tmp_path, size=1_000_000)]) == ["delivered"]


def test_tls_shows_the_nodes_certificate_to_a_peer_that_asks(tmp_path: Path, authority: scripted.Authority) -> None:
    tls = {**authority.issue("pacs2"), "ca": str(authority.ca)}
    ours = authority.issue("node")
    with scripted.scp(tmp_path / "scp", classes=KINDS, tls=tls) as scp:
        bare = to(scp.port, tls="required", tls_ca=authority.ca)
        shown = replace(bare, tls_certificate=Path(ours["certificate"]), tls_key=Path(ours["key"]))
        assert verdicts(bare, [an_object(tmp_path)]) == ["retry"]
        assert verdicts(shown, [an_object(tmp_path)]) == ["delivered"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("host", "not valid for"),
        ("expired", "expired"),
        ("self_signed", "self-signed"),
        ("old", "TLS"),
        ("unknown_authority", "certificate"),
    ],
)
def test_a_tls_peer_that_is_not_who_it_should_be_gets_nothing(
    tmp_path: Path, authority: scripted.Authority, fault: str, said: str
) -> None:
    faulty = {
        "host": {"host": "other.example"},
        "expired": {"days": -1},
        "self_signed": {"self_signed": True},
    }
    tls = authority.issue(f"bad-{fault}", **faulty.get(fault, {}))
    if fault == "old":
        tls["newest"] = "TLSv1_1"
    ca = None if fault == "unknown_authority" else authority.ca
    with scripted.scp(tmp_path / "scp", classes=KINDS, tls=tls) as scp:
        (answer,) = delivery.send(to(scp.port, tls="required", tls_ca=ca), [an_object(tmp_path)])
        assert answer.verdict == "retry"  # it stays queued until somebody puts the certificate right
        assert said in answer.comment
        assert scp.events == []


def test_tls_is_never_given_up_for_plaintext(tmp_path: Path, authority: scripted.Authority) -> None:
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def listen() -> None:
        line, _ = listener.accept()
        heard.append(line.recv(65536))
        line.sendall(b"\x03\x00\x00\x00\x00\x04\x00\x01\x01\x01")  # A-ASSOCIATE-RJ, in plaintext
        line.close()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    destination = to(listener.getsockname()[1], tls="required", tls_ca=authority.ca)
    assert verdicts(destination, [an_object(tmp_path)]) == ["retry"]
    thread.join(PATIENCE)
    listener.close()
    assert heard[0][:1] == b"\x16"  # a TLS handshake, not an A-ASSOCIATE-RQ
    assert b"SCRIPTED" not in heard[0]


def test_a_certificate_file_that_is_not_there_is_named_and_what_it_is_for_is_tried_again(
    tmp_path: Path, silence: int
) -> None:
    missing = tmp_path / "hospital-ca.pem"
    (answer,) = delivery.send(hasty(silence, tls="required", tls_ca=missing), [an_object(tmp_path)])
    assert answer.verdict == "retry"
    assert str(missing) in answer.comment


# ── Asking back ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_c_find_says_which_objects_the_peer_has(tmp_path: Path) -> None:
    objects = [an_object(tmp_path) for _ in range(3)]
    held = [one.sop_uid for one in objects[:2]]
    with scripted.scp(tmp_path / "scp", classes=KINDS, held=held, can_commit=True) as scp:
        assert delivery.verify(to(scp.port), objects) == set(held)
        assert "commit" not in scp.events


def test_storage_commitment_is_reported_on_the_same_association(tmp_path: Path) -> None:
    objects = [an_object(tmp_path) for _ in range(3)]
    held = [one.sop_uid for one in objects[:2]]
    with scripted.scp(tmp_path / "scp", classes=KINDS, held=held, can_commit=True, can_find=False) as scp:
        assert delivery.verify(to(scp.port), objects) == set(held)
        assert scp.events.count("commit") == 1


def test_storage_commitment_comes_first_where_the_settings_say_so(tmp_path: Path) -> None:
    one = an_object(tmp_path)
    with scripted.scp(tmp_path / "scp", classes=KINDS, held=[one.sop_uid], can_commit=True) as scp:
        assert delivery.verify(to(scp.port, commitment=True), [one]) == {one.sop_uid}
        assert scp.events[:2] == ["requested", "commit"]


def test_a_peer_that_neither_finds_nor_commits_cannot_say(tmp_path: Path) -> None:
    one = an_object(tmp_path)
    with scripted.scp(tmp_path / "one", classes=KINDS, can_find=False) as scp:
        assert delivery.verify(to(scp.port), [one]) is None
    with scripted.scp(tmp_path / "two", classes=KINDS, find_status=0xA700) as scp:
        assert delivery.verify(to(scp.port), [one]) is None


# ── When to try again ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_pause_grows_from_ten_seconds_to_half_an_hour() -> None:
    rng = random.Random(1)
    for attempts in range(1, 200):
        for _ in range(20):
            pause = answers.next_try(attempts, 0.0, 1000.0, rng)
            assert pause is not None
            assert 10.0 <= pause - 1000.0 <= 1800.0
    assert answers.next_try(1, 0.0, 0.0, rng) < 21  # type: ignore[operator]
    assert answers.next_try(100, 0.0, 0.0, rng) >= 900  # type: ignore[operator]


def test_two_deliveries_that_failed_together_do_not_come_back_together() -> None:
    assert len({answers.next_try(3, 0.0, 0.0, random.Random(seed)) for seed in range(50)}) == 50


def test_nothing_is_given_up_before_three_days() -> None:
    rng = random.Random(1)
    assert answers.next_try(500, 0.0, 72 * 3600.0 - 1, rng) is not None
    assert answers.next_try(500, 0.0, 72 * 3600.0, rng) is None


def test_a_passing_fault_that_does_not_pass_is_given_up_after_five_tries() -> None:
    rng, failing = random.Random(1), answers.judge("1.2", 0x0110)
    full = answers.judge("1.3", 0xA700)
    assert answers.next_try(4, 0.0, 0.0, rng, answers=[failing]) is not None
    assert answers.next_try(5, 0.0, 0.0, rng, answers=[failing]) is None
    assert answers.next_try(5, 0.0, 0.0, rng, answers=[failing, full]) is not None
    assert answers.next_try(50, 0.0, 0.0, rng, answers=[failing], answered=4) is not None  # the peer was off
    assert answers.next_try(50, 0.0, 0.0, rng, answers=[failing], answered=5) is None


def test_what_was_refused_is_not_tried_again() -> None:
    refused = answers.judge("1.2", 0xC000)
    assert answers.next_try(1, 0.0, 0.0, random.Random(1), answers=[refused]) is None


def test_the_pause_that_a_server_asks_for_is_kept() -> None:
    busy = answers.judge_http("1.2", 503, retry_after=4000.0)
    assert answers.next_try(1, 0.0, 0.0, random.Random(1), answers=[busy]) == 4000.0


def test_what_an_object_is_offered_as_is_read_from_its_file(tmp_path: Path) -> None:
    one = an_object(tmp_path)
    assert delivery.outgoing(one.path) == one
    lacking = tmp_path / "lacking.dcm"
    part_10(lacking, SECONDARY_CAPTURE, "1.2.3", EXPLICIT, element((0x0010, 0x0020), b"LO", b"SYN "))
    with pytest.raises(CannotUnderstand, match=r"lacking\.dcm"):
        delivery.outgoing(lacking)
