"""The listener: what is answered 0x0000 is kept, who may not call does not, and the ledger hears of everything."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydicom import dcmread
from pynetdicom import AllStoragePresentationContexts

from node.instance import DEFLATED
from node.ledger import Ledger
from node.listener import Listener, Peer, Tls, listening
from node.spool import Spool
from tests.peers import ROOT, SHARED, needs, needs_shared, wait_until, where
from tests.senders import EXPLICIT, Notebook, Raw, ct, echo, encoded, listener_process, options, store
from tests.slices import CT, saved
from tests.waiting import PATIENCE

IMPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
STUDY = "1.2.3"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", reserve_bytes=0)


@pytest.fixture
def notebook() -> Notebook:
    return Notebook()


@pytest.fixture
def listener(spool: Spool, notebook: Notebook) -> Iterator[Listener]:
    with listening(options(), spool, notebook) as one:
        yield one


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def peer(ae_title: str, network: str = "127.0.0.0/8", quiet_seconds: float | None = None) -> Peer:
    return Peer(ae_title, ipaddress.ip_network(network), quiet_seconds)


# What is kept


def test_an_instance_is_kept_byte_for_byte(listener: Listener, spool: Spool) -> None:
    sent = ct(1, size=512)
    assert store(listener.port, [sent]) == [0]
    (path,) = files(spool.objects)
    assert path.read_bytes().endswith(encoded(sent))
    assert path.stem == hashlib.sha256(path.read_bytes()).hexdigest()
    assert dcmread(path).pixel_array.tobytes() == sent.PixelData


@pytest.mark.parametrize("transfer_syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN])
def test_every_encoding_is_kept_as_it_came(listener: Listener, spool: Spool, transfer_syntax: str) -> None:
    raw = encoded(ct(1), transfer_syntax)
    with Raw(listener.port, contexts=[(CT, transfer_syntax)]) as sender:
        assert sender.store(raw, sop_uid="1.2.3.4.1") == 0
    (path,) = files(spool.objects)
    assert path.read_bytes().endswith(raw)
    assert dcmread(path).file_meta.TransferSyntaxUID == transfer_syntax


@pytest.mark.parametrize("chunk", [1, 2, 1000, 131072])
def test_fragments_of_any_size_make_the_same_instance(listener: Listener, spool: Spool, chunk: int) -> None:
    raw = encoded(ct(1))
    with Raw(listener.port) as sender:
        assert sender.store(raw, sop_uid="1.2.3.4.1", chunk=chunk) == 0
        assert sender.release() == 6
    assert files(spool.objects)[0].read_bytes().endswith(raw)


def test_every_storage_class_is_accepted_in_every_transfer_syntax_but_deflated(listener: Listener) -> None:
    from pynetdicom import ALL_TRANSFER_SYNTAXES

    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    proposals = [(uid, IMPLICIT) for uid in classes] + [(CT, syntax) for syntax in ALL_TRANSFER_SYNTAXES]
    accepted: set[tuple[str, str]] = set()
    for start in range(0, len(proposals), 128):
        some = proposals[start : start + 128]
        with Raw(listener.port, contexts=some) as sender:
            assert sender.accepted
            accepted |= {some[number // 2] for number in _accepted(sender.answer[1])}
    assert set(proposals) - accepted == {(CT, syntax) for syntax in DEFLATED}


def _accepted(content: bytes) -> list[int]:
    """The IDs of the accepted contexts of an A-ASSOCIATE-AC (PS3.8 section 9.3.3.2)."""
    ids, place = [], 68
    while place < len(content):
        kind, length = content[place], int.from_bytes(content[place + 2 : place + 4], "big")
        if kind == 0x21 and content[place + 6] == 0:
            ids.append(content[place + 4])
        place += 4 + length
    return ids


def test_an_echo_is_answered(listener: Listener) -> None:
    assert echo(listener.port) == 0


def test_to_receive_a_thing_twice_is_to_have_it_once(listener: Listener, spool: Spool) -> None:
    assert store(listener.port, [ct(1), ct(1), ct(2)]) == [0, 0, 0]
    assert store(listener.port, [ct(1)]) == [0]
    assert len(files(spool.objects)) == 2


def test_two_contents_under_one_uid_are_both_kept(listener: Listener, spool: Spool) -> None:
    other = ct(2, SOPInstanceUID="1.2.3.4.1")
    assert store(listener.port, [ct(1), other]) == [0, 0]
    assert len(files(spool.objects)) == 2


@needs("storescu")
def test_ten_storescu_at_once_lose_nothing(listener: Listener, spool: Spool, tmp_path: Path) -> None:
    for number in range(100):
        saved(ct(number, size=64), tmp_path / f"{number % 10}" / f"{number}.dcm")
    command = [where("storescu") or "", "-R", "+sd", "-aec", "WETREAD", "127.0.0.1", str(listener.port)]
    senders = [subprocess.Popen([*command, str(tmp_path / f"{number}")]) for number in range(10)]
    assert [sender.wait(PATIENCE) for sender in senders] == [0] * 10
    assert len(files(spool.objects)) == 100


# What is refused


def refused(listener: Listener, spool: Spool, raw: bytes, *, sop_uid: str = "1.2.3.4.1", sop_class: str = CT) -> int:
    """The status; the association must go on, and nothing may be left."""
    with Raw(listener.port) as sender:
        status = sender.store(raw, sop_uid=sop_uid, sop_class=sop_class)
        assert files(spool.root) == []
        assert sender.store(encoded(ct(9)), sop_uid="1.2.3.4.9") == 0
        assert sender.release() == 6
    return status


@pytest.mark.parametrize(
    "uid", ["../../../../etc/cron.d/x", "/etc/passwd", "1..2", "1.02", "", "1.2.3 ; rm -rf", "1." + "3" * 63, "1.2\n3"]
)
def test_a_path_in_a_uid_cannot_leave_the_spool(listener: Listener, spool: Spool, uid: str) -> None:
    assert refused(listener, spool, encoded(ct(1)), sop_uid=uid) == 0x0117


@pytest.mark.filterwarnings("ignore")
def test_a_path_in_the_datasets_uids_is_refused_too(listener: Listener, spool: Spool) -> None:
    assert refused(listener, spool, encoded(ct(1, StudyInstanceUID="../../../etc/cron.d/x"))) == 0x0117


def test_a_dataset_of_another_instance_does_not_match(listener: Listener, spool: Spool) -> None:
    assert refused(listener, spool, encoded(ct(1)), sop_uid="1.2.3.4.2") == 0xA900


def test_a_dataset_of_another_class_does_not_match(listener: Listener, spool: Spool) -> None:
    assert refused(listener, spool, encoded(ct(1, SOPClassUID="1.2.840.10008.5.1.4.1.1.4"))) == 0xA900


def test_a_dataset_without_a_study_does_not_match(listener: Listener, spool: Spool) -> None:
    assert refused(listener, spool, encoded(ct(1, StudyInstanceUID=None))) == 0xA900


def test_a_command_of_another_class_than_its_context_is_not_supported(listener: Listener, spool: Spool) -> None:
    assert refused(listener, spool, encoded(ct(1)), sop_class="1.2.840.10008.5.1.4.1.1.4") == 0x0122


def test_what_is_not_dicom_cannot_be_understood(listener: Listener, spool: Spool) -> None:
    assert refused(listener, spool, os.urandom(50_000)) == 0xC000


def test_a_truncated_instance_cannot_be_understood(listener: Listener, spool: Spool) -> None:
    assert refused(listener, spool, encoded(ct(1))[:-100]) == 0xC000


def test_pixels_that_are_fewer_than_the_rows_say_are_truncated(listener: Listener, spool: Spool) -> None:
    assert refused(listener, spool, encoded(ct(1, Rows=32))) == 0xC000


def test_a_sequence_three_hundred_deep_cannot_be_understood(listener: Listener, spool: Spool) -> None:
    sequence = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    raw = encoded(ct(1))
    assert refused(listener, spool, raw[: raw.index(b"\x10\x00\x10\x00")] + 300 * sequence) == 0xC000


def test_an_operation_that_is_not_ours_is_not_recognised(listener: Listener) -> None:
    from tests.senders import command, p_data

    with Raw(listener.port) as sender:
        elements = {0x0002: CT.encode(), 0x0100: 0x20, 0x0110: 3, 0x0800: 0x0101}  # C-FIND-RQ
        sender.socket.sendall(p_data(command(elements), 1, 0b11))
        assert sender.status() == 0x0211


@pytest.mark.filterwarnings("ignore")
@needs_shared("data", "dicom_corpus")
def test_every_file_of_the_corpus_is_kept_or_refused_and_none_stops_the_listener(
    listener: Listener, spool: Spool
) -> None:
    from node.errors import Refusal
    from node.instance import read_meta

    statuses: dict[int, int] = {}
    contents: set[bytes] = set()
    for path in sorted((SHARED / "data" / "dicom_corpus").rglob("*")):
        if path.is_dir() or path.suffix == ".csv":
            continue
        with path.open("rb") as file:
            try:
                meta = read_meta(file.fileno())
            except Refusal:
                continue  # no sender would get so far as to send it
        raw = path.read_bytes()[meta.dataset_start :]
        read = dcmread(path, stop_before_pixels=True, force=True)
        sop_class = str(read.get("SOPClassUID") or meta.sop_class)
        with Raw(listener.port, contexts=[(sop_class, meta.transfer_syntax)]) as sender:
            if not _accepted(sender.answer[1]):
                continue
            status = sender.store(raw, sop_uid=str(read.get("SOPInstanceUID") or meta.sop_uid), sop_class=sop_class)
            assert status in (0x0000, 0x0117, 0xA900, 0xC000), path.name
            statuses[status] = statuses.get(status, 0) + 1
            if status == 0:
                contents.add(hashlib.sha256(raw).digest())
    assert statuses[0] >= 200
    assert len(files(spool.objects)) == len(contents)
    assert files(spool.incoming) == []


# Who may call


def rejection(listener: Listener, **who: str) -> tuple[int, int, int] | None:
    with Raw(listener.port, **who) as sender:
        return None if sender.accepted else sender.rejection


def test_a_stranger_is_not_let_in(spool: Spool, notebook: Notebook) -> None:
    peers = (peer("CT1"), peer("CT2", "10.0.0.0/8"))
    with listening(options(peers=peers), spool, notebook) as listener:
        assert rejection(listener, caller="CT1") is None
        assert rejection(listener, caller="CT9") == (1, 1, 3)
        assert rejection(listener, caller="ct1") == (1, 1, 3)
        assert rejection(listener, caller="CT2") == (1, 1, 3), "the title is right, the address is not"
        assert rejection(listener, caller="CT1", called="OTHER") == (1, 1, 7)


def test_with_no_peers_anybody_on_this_machine_may_call(listener: Listener) -> None:
    assert rejection(listener, caller="WHOEVER") is None
    assert rejection(listener, caller="WHOEVER", called="OTHER") == (1, 1, 7)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs a network namespace")
def test_with_no_peers_nobody_from_elsewhere_may_call(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.senders import *; from node.spool import Spool\n"
        "from node.listener import listening\n"
        "with listening(options(bind='10.9.8.7'), Spool(Path(sys.argv[1]), reserve_bytes=0), Notebook()) as one:\n"
        "    print(Raw(one.port, host='10.9.8.7').rejection)\n"
    )
    inside = 'ip link set lo up && ip address add 10.9.8.7/32 dev lo && exec "$@"'
    command = ["unshare", "--net", "sh", "-c", inside, "sh", sys.executable, "-c", script, str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if "Operation not permitted" in run.stderr:
        pytest.skip("a network namespace is not permitted here")
    assert run.stdout.strip() == "(1, 1, 3)", run.stderr


def test_a_taken_port_is_said_in_a_sentence(listener: Listener, spool: Spool, notebook: Notebook) -> None:
    from node.errors import Unavailable

    with pytest.raises(Unavailable, match=f"port {listener.port} of 127.0.0.1 is taken"):
        Listener(options(port=listener.port), spool, notebook)


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("openssl"):
        pytest.skip("not installed here: openssl")
    folder = tmp_path_factory.mktemp("tls")
    for name in ("server", "client", "stranger"):
        subject = f"/CN={name}"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", subject]
        files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
        subprocess.run([*command, *files, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    return folder


def secure(port: int, certificates: Path, name: str | None) -> Raw:
    import socket

    context = ssl.create_default_context(cafile=certificates / "server.pem")
    if name:
        context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    plain = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    return Raw(port, connection=context.wrap_socket(plain, server_hostname="127.0.0.1"))


def test_over_tls_only_who_has_a_certificate_is_let_in(spool: Spool, notebook: Notebook, certificates: Path) -> None:
    tls = Tls(certificates / "server.pem", certificates / "server.key", certificates / "client.pem")
    with listening(options(tls=tls), spool, notebook) as listener:
        with secure(listener.port, certificates, "client") as sender:
            assert sender.store(encoded(ct(1, size=256)), sop_uid="1.2.3.4.1") == 0
        for name in (None, "stranger"):
            with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
                assert secure(listener.port, certificates, name).accepted
        with Raw(listener.port) as plain:
            assert not plain.accepted
    assert len(files(spool.objects)) == 1


def test_a_certificate_that_cannot_be_read_is_a_bad_setting(spool: Spool, notebook: Notebook, tmp_path: Path) -> None:
    from node.errors import BadSettings

    with pytest.raises(BadSettings, match=r"node\.tls"):
        Listener(options(tls=Tls(tmp_path / "no.pem", tmp_path / "no.key")), spool, notebook)


# What the ledger hears


def test_the_ledger_hears_of_every_instance_and_when_the_study_may_settle(tmp_path: Path, spool: Spool) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    ledger.upgrade()
    with listening(options(quiet_seconds=2.0), spool, ledger) as listener:
        before = time.time()
        assert store(listener.port, [ct(number) for number in range(1, 6)]) == [0] * 5
        wait_until(lambda: ledger.due(time.time() + 2.5) == [STUDY], "the study's settling")
        assert ledger.due(before + 1.9) == []
        instances = ledger.instances(STUDY)
    assert {one.sop_uid for one in instances} == {f"1.2.3.4.{number}" for number in range(1, 6)}
    assert {one.sha256 for one in instances} == {path.stem for path in files(spool.objects)}
    assert {one.caller for one in instances} == {"CT1"}
    assert files(spool.pending) == []
    ledger.close()


def test_a_study_is_open_while_an_association_that_touched_it_is(listener: Listener, notebook: Notebook) -> None:
    with Raw(listener.port) as first, Raw(listener.port) as second:
        assert first.store(encoded(ct(1)), sop_uid="1.2.3.4.1") == 0
        assert second.store(encoded(ct(2)), sop_uid="1.2.3.4.2") == 0
        second.release()
        wait_until(lambda: len(notebook.arrivals) == 2, "recording")
        time.sleep(0.4)
        assert all(wait > 10 for wait in notebook.waits), "only the lease"
        first.release()
        wait_until(lambda: any(wait <= 3 for wait in notebook.waits), "settling")


def test_a_study_is_announced_when_the_line_goes_dead(listener: Listener, notebook: Notebook) -> None:
    sender = Raw(listener.port)
    assert sender.store(encoded(ct(1)), sop_uid="1.2.3.4.1") == 0
    sender.socket.close()
    wait_until(lambda: any(wait <= 3 for wait in notebook.waits), "settling")


def test_each_peer_has_its_own_quiet_time(spool: Spool, notebook: Notebook) -> None:
    peers = (peer("SLOW", quiet_seconds=8.0), peer("CT1"))
    with listening(options(peers=peers, quiet_seconds=1.0), spool, notebook) as listener:
        for caller, quiet in (("CT1", 1.0), ("SLOW", 8.0)):
            notebook.waits.clear()
            assert store(listener.port, [ct(1)], caller=caller) == [0]
            wait_until(lambda: any(wait < 10 for wait in notebook.waits), "settling")  # more is the lease
            assert quiet - 5 < min(notebook.waits) <= quiet


def test_without_a_ledger_the_listener_goes_on_and_catches_up(
    listener: Listener, notebook: Notebook, spool: Spool
) -> None:
    notebook.broken = True
    assert store(listener.port, [ct(number) for number in range(1, 4)]) == [0, 0, 0]
    time.sleep(0.3)
    assert notebook.arrivals == []
    assert len(files(spool.pending)) == 3
    notebook.broken = False
    wait_until(lambda: len(notebook.arrivals) == 3 and not files(spool.pending), "catching up")
    wait_until(lambda: any(uid == STUDY for uid, _ in notebook.settled), "settling")


def test_what_arrived_before_a_crash_is_recorded_after_it(tmp_path: Path, notebook: Notebook) -> None:
    with listener_process(tmp_path, "--ledger", "unreachable") as (process, port):
        before = time.time()
        assert store(port, [ct(1), ct(2)], caller="SCANNER 3") == [0, 0]
        process.kill()
        process.wait()
    with listening(options(), Spool(tmp_path / "spool", reserve_bytes=0), notebook):
        wait_until(lambda: len(notebook.arrivals) == 2 and bool(notebook.settled), "catching up")
    assert {(one.caller, one.address) for one in notebook.arrivals} == {("SCANNER 3", "127.0.0.1")}
    assert all(before <= one.received_at <= time.time() for one in notebook.arrivals)
    assert {uid for uid, _ in notebook.settled} == {STUDY}


# How it ends


def test_on_sigterm_the_instance_that_is_coming_is_still_kept(tmp_path: Path) -> None:
    with listener_process(tmp_path, "--drain", "100") as (process, port):
        pdus = list(Raw.store_pdus(encoded(ct(1, size=256)), "1.2.3.4.1"))
        with Raw(port) as sender, Raw(port) as idle:
            sender.socket.sendall(b"".join(pdus[:3]))
            wait_until(lambda: files(tmp_path / "spool" / "incoming"), "the first of the instance")
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: late(port) == (2, 3, 1), "being asked to come later")
            assert idle.pdu()[0] == 7, "an idle association is aborted"
            sender.socket.sendall(b"".join(pdus[3:]))
            assert sender.status() == 0
            assert sender.pdu()[0] == 7
        assert process.wait(PATIENCE / 2) == 0  # long before all of its time to drain is over
    assert len(files(tmp_path / "spool" / "objects")) == 1


def late(port: int) -> tuple[int, int, int] | None:
    """How an association is rejected that comes now; None where it is not."""
    with Raw(port) as sender:
        return sender.rejection if sender.answer[0] == 3 else None


def test_a_peer_that_never_finishes_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with listener_process(tmp_path, "--drain", "2") as (process, port), Raw(port) as sender:
        sender.socket.sendall(next(Raw.store_pdus(encoded(ct(1)), "1.2.3.4.1")))
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def test_a_kill_at_any_instant_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    acked: set[str] = set()

    def send(port: int, lane: int, cycle: int) -> None:
        try:
            with Raw(port) as sender:
                for number in range(10_000):
                    sop_uid = f"1.2.3.{lane}.{cycle}.{number}"
                    raw = encoded(ct(number % 7, size=64, SOPInstanceUID=sop_uid))
                    if sender.store(raw, sop_uid=sop_uid) == 0:
                        acked.add(sop_uid)
        except (OSError, AssertionError):
            return

    for cycle in range(4):
        with listener_process(tmp_path, "--ledger", "sqlite") as (process, port), ThreadPoolExecutor(3) as pool:
            for lane in range(3):
                pool.submit(send, port, lane, cycle)
            enough = len(acked) + 10 + 20 * cycle
            wait_until(lambda: len(acked) > enough, "some are answered")  # noqa: B023 – it waits here and now
            time.sleep(0.07 * cycle)
            process.kill()
    with listener_process(tmp_path, "--ledger", "sqlite") as (process, port):
        wait_until(lambda: not files(tmp_path / "spool" / "pending"), "catching up")
        process.terminate()
        process.wait(PATIENCE)
    kept = {dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in files(tmp_path / "spool" / "objects")}
    assert acked - kept == set()
    assert files(tmp_path / "spool" / "incoming") == []
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    assert {one.sop_uid for one in ledger.instances(STUDY)} == kept
    ledger.close()


def test_to_import_the_listener_loads_neither_torch_nor_celery_nor_a_database() -> None:
    wrong = "('torch', 'celery', 'sqlalchemy', 'fastapi')"
    script = f"import sys, node.listener; print([name for name in {wrong} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
