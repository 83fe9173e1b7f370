"""The listener under attack (reliability 4.1 and 4.2): whatever one connection does, a good sender is served."""

from __future__ import annotations

import os
import random
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from node.listener import Listener, Patience, Tls, listening
from node.spool import Spool
from tests.peers import wait_until
from tests.senders import (
    EXPLICIT,
    Notebook,
    Raw,
    association_request,
    ct,
    echo,
    encoded,
    hasty,
    listener_process,
    options,
    resident_mb,
)
from tests.slices import CT
from tests.waiting import PATIENCE, has_ended

LIE = struct.pack(">BBL", 4, 0, 0xFFFFFFFF)  # a P-DATA-TF PDU of 4 GiB


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", reserve_bytes=0)


@pytest.fixture
def listener(spool: Spool) -> Iterator[Listener]:
    with listening(options(), spool, Notebook()) as one:
        yield one


@pytest.fixture
def impatient(spool: Spool) -> Iterator[Listener]:
    """A listener of short deadlines: even a good sender may be too slow for it, where the machine is busy."""
    with listening(options(patience=hasty()), spool, Notebook()) as one:
        yield one


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def connected(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    connection.settimeout(PATIENCE)
    return connection


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0.05)
    try:
        while connection.recv(4096):
            pass
        return True
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def hang_up(connections: list[socket.socket]) -> None:
    for connection in connections:
        connection.close()


def pour(connection: socket.socket, piece: bytes, *, pause: float = 0.0) -> bool:
    """Send the same again and again; whether the other end closes."""
    end = time.monotonic() + PATIENCE
    try:
        while time.monotonic() < end:
            connection.sendall(piece)
            time.sleep(pause)
    except ConnectionError:
        return True
    return False


# Connections that say nothing


def test_eighteen_one_byte_connections_lock_nobody_out(spool: Spool) -> None:
    few = options(max_associations=10, max_associations_per_address=10, patience=hasty(request=600))
    with listening(few, spool, Notebook()) as listener:
        silent = [connected(listener.port) for _ in range(18)]
        for connection in silent:
            connection.send(b"\1")
        assert echo(listener.port) == 0
        assert not any(map(is_closed, silent))
        hang_up(silent)


def test_connections_that_ask_for_nothing_are_closed_at_the_deadline(impatient: Listener) -> None:
    silent = [connected(impatient.port) for _ in range(18)]
    silent[0].send(b"\1")
    wait_until(lambda: all(map(is_closed, silent)), "closing at the deadline")
    wait_until(lambda: echo(impatient.port) == 0, "an answer")


def test_a_flood_of_silent_connections_costs_the_oldest_of_them_their_place(spool: Spool) -> None:
    with listening(options(max_waiting=20, patience=hasty(request=600)), spool, Notebook()) as listener:
        silent = [connected(listener.port) for _ in range(40)]
        assert echo(listener.port) == 0
        wait_until(lambda: sum(map(is_closed, silent)) >= 30, "closing the oldest")
        assert is_closed(silent[0])
        assert not is_closed(silent[-1])
        hang_up(silent)


def test_a_request_that_drips_is_cut_off(impatient: Listener) -> None:
    connection = connected(impatient.port)
    connection.sendall(struct.pack(">BBL", 1, 0, 100_000))
    assert pour(connection, b"\0", pause=0.05)


def test_an_instance_that_stalls_is_cut_off_and_its_place_is_free(spool: Spool) -> None:
    with listening(options(max_associations=1, patience=Patience(pdu=2.0)), spool, Notebook()) as listener:
        stalled = Raw(listener.port)
        assert stalled.accepted
        first, second = list(Raw.store_pdus(encoded(ct(1)), "1.2.3.4.1"))[:2]
        stalled.socket.sendall(first + second[:100])
        wait_until(lambda: is_closed(stalled.socket), "cutting off")
        wait_until(lambda: echo(listener.port) == 0, "the place")
    assert files(spool.root) == []


def test_an_idle_association_is_ended(spool: Spool) -> None:
    idling = options(patience=Patience(idle=2.0))
    with listening(idling, spool, Notebook()) as listener, Raw(listener.port) as idle:
        assert idle.accepted
        assert idle.pdu()[0] == 7


def test_one_silent_client_does_not_stop_a_listener_with_tls(spool: Spool, tmp_path: Path) -> None:
    import ssl

    certificate, key = tmp_path / "own.pem", tmp_path / "own.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=node"]
    try:
        subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("not installed here: openssl")
    secure = options(tls=Tls(certificate, key), patience=hasty(request=600))
    with listening(secure, spool, Notebook()) as listener, connected(listener.port) as silent:
        trusting = ssl.create_default_context(cafile=certificate)
        trusting.check_hostname = False
        with Raw(listener.port, connection=trusting.wrap_socket(connected(listener.port))) as sender:
            assert sender.store(encoded(ct(1)), sop_uid="1.2.3.4.1") == 0
        assert not is_closed(silent)
    with listening(replace(secure, patience=hasty()), spool, Notebook()) as listener:
        silent = connected(listener.port)
        wait_until(lambda: is_closed(silent), "closing at the deadline")


def test_too_many_associations_are_told_so(spool: Spool) -> None:
    few = options(max_associations=9, max_associations_per_address=2)
    with (
        listening(few, spool, Notebook()) as listener,
        Raw(listener.port) as first,
        Raw(listener.port),
        Raw(listener.port) as third,
    ):
        assert third.rejection == (2, 3, 2)
        first.release()
        wait_until(lambda: echo(listener.port) == 0, "a place")


# PDUs that lie


def test_a_pdu_of_four_gibibytes_is_not_read(tmp_path: Path) -> None:
    with listener_process(tmp_path) as (process, port):
        echo(port)
        before = resident_mb(process)
        for connection in (connected(port), Raw(port).socket):
            connection.sendall(LIE)
            assert pour(connection, b"\0" * (1 << 20))
        assert resident_mb(process) - before < 100
        assert echo(port) == 0


def test_an_association_request_of_a_megabyte_is_not_read(listener: Listener) -> None:
    connection = connected(listener.port)
    connection.sendall(struct.pack(">BBL", 1, 0, 1 << 20))
    assert connection.recv(100)[:1] == b"\7"


@pytest.mark.parametrize(
    "pdu",
    [
        pytest.param(struct.pack(">BBL", 9, 0, 4) + b"abcd", id="unknown type"),
        pytest.param(struct.pack(">BBL", 2, 0, 4) + b"abcd", id="out of turn"),
        pytest.param(struct.pack(">BBLLBB", 4, 0, 6, 100, 1, 3), id="item longer than PDU"),
        pytest.param(struct.pack(">BBLLBB", 4, 0, 6, 1, 1, 3), id="item too short"),
        pytest.param(struct.pack(">BBLL", 4, 0, 4, 2), id="half an item"),
        pytest.param(struct.pack(">BBLLBB", 4, 0, 6, 2, 99, 3), id="context that was not accepted"),
        pytest.param(struct.pack(">BBLLBB", 4, 0, 10, 6, 1, 2) + b"abcd", id="dataset without a command"),
        pytest.param(struct.pack(">BBLLBB", 4, 0, 10, 6, 1, 3) + b"abcd", id="command that is none"),
    ],
)
def test_what_breaks_the_protocol_is_aborted(listener: Listener, pdu: bytes) -> None:
    with Raw(listener.port) as sender:
        sender.socket.sendall(pdu)
        assert sender.pdu()[0] == 7
    assert echo(listener.port) == 0


def test_a_command_set_without_end_is_aborted(tmp_path: Path) -> None:
    with listener_process(tmp_path) as (process, port), Raw(port) as sender:
        before = resident_mb(process)
        piece = struct.pack(">BBLLBB", 4, 0, 60006, 60002, 1, 1) + b"\0" * 60000
        assert pour(sender.socket, piece)
        assert resident_mb(process) - before < 100


@pytest.mark.filterwarnings("ignore")
def test_random_damage_stops_nothing_and_leaves_nothing(listener: Listener, spool: Spool) -> None:
    rng = random.Random(5)
    talk = association_request("FUZZ", "WETREAD", [(CT, EXPLICIT)]) + b"".join(
        Raw.store_pdus(encoded(ct(1)), "1.2.3.4.1")
    )
    for _ in range(150):
        bad = bytearray(talk)
        for _ in range(rng.randint(1, 6)):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        with connected(listener.port) as connection:
            connection.sendall(bad[: rng.choice([len(bad), rng.randrange(len(bad))])])
    # the associations of one address are capped: a slow machine has to end some of the damaged ones first
    wait_until(lambda: echo(listener.port) == 0, "an answer to C-ECHO")
    wait_until(lambda: not files(spool.incoming), "removing partial files")
    for arrival in spool.everything():
        assert spool.path(arrival.sha256).is_file()


# Memory


def test_requests_that_do_not_wait_for_answers_are_held_back(tmp_path: Path) -> None:
    raw = encoded(ct(1, size=512))
    message = b"".join(Raw.store_pdus(raw, "1.2.3.4.1", chunk=100_000))
    with listener_process(tmp_path) as (process, port), Raw(port) as sender:
        sender.socket.sendall(message)
        assert sender.status() == 0
        before = resident_mb(process)  # what the first one of all needs is not asked about
        for _ in range(300):
            sender.socket.sendall(message)
        assert [sender.status() for _ in range(300)] == [0] * 300
        assert resident_mb(process) - before < 80  # of 157 MB sent


def test_a_large_instance_is_not_held_in_memory(tmp_path: Path) -> None:
    frames = 200  # of 512 KiB: 100 MB
    raw = encoded(ct(1, size=512, NumberOfFrames=str(frames)))
    head, frame = raw[: -(512 << 10)], raw[-(512 << 10) :]
    head = head[:-4] + struct.pack("<L", frames * len(frame))
    with listener_process(tmp_path) as (process, port), Raw(port) as sender:
        before = resident_mb(process)
        first, *_ = Raw.store_pdus(raw, "1.2.3.4.1")
        sender.socket.sendall(first + struct.pack(">BBLLBB", 4, 0, len(head) + 6, len(head) + 2, 1, 0) + head)
        for number in range(frames):
            control = 2 if number == frames - 1 else 0
            sender.socket.sendall(struct.pack(">BBLLBB", 4, 0, len(frame) + 6, len(frame) + 2, 1, control) + frame)
        assert sender.status() == 0
        assert resident_mb(process) - before < 70  # of 105 MB sent
    (path,) = files(tmp_path / "spool" / "objects")
    assert path.stat().st_size > frames * len(frame)


# The disk


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def test_a_full_disk_is_out_of_resources_and_recovers_alone(tiny: Path) -> None:
    spool = Spool(tiny / "spool", reserve_bytes=0)
    with listening(options(), spool, Notebook()) as listener, Raw(listener.port) as sender:
        ballast = tiny / "ballast"
        ballast.write_bytes(b"\0" * (5 << 20))
        large = encoded(ct(1, size=1024))  # 2 MiB
        assert sender.store(large, sop_uid="1.2.3.4.1", chunk=60_000) == 0xA700
        assert files(spool.root) == []
        ballast.unlink()
        assert sender.store(large, sop_uid="1.2.3.4.1", chunk=60_000) == 0
        assert sender.release() == 6
    assert len(files(spool.objects)) == 1


def test_a_disk_that_cannot_be_written_is_out_of_resources(tiny: Path) -> None:
    spool = Spool(tiny / "spool", reserve_bytes=0)
    with listening(options(), spool, Notebook()) as listener, Raw(listener.port) as sender:
        subprocess.run(["mount", "-o", "remount,ro", str(tiny)], check=True)
        assert sender.store(encoded(ct(1)), sop_uid="1.2.3.4.1") == 0xA700
        subprocess.run(["mount", "-o", "remount,rw", str(tiny)], check=True)
        assert sender.store(encoded(ct(1)), sop_uid="1.2.3.4.1") == 0


def test_below_the_reserve_new_associations_are_asked_to_come_later(tiny: Path) -> None:
    spool = Spool(tiny / "spool", reserve_bytes=3 << 20)
    with listening(options(), spool, Notebook()) as listener, Raw(listener.port) as early:
        (tiny / "ballast").write_bytes(b"\0" * (4 << 20))
        with Raw(listener.port) as late:
            assert late.rejection == (2, 3, 1)
        assert early.store(encoded(ct(1)), sop_uid="1.2.3.4.1") == 0xA700
        (tiny / "ballast").unlink()
        assert early.store(encoded(ct(1)), sop_uid="1.2.3.4.1") == 0


def test_a_comment_tells_the_sender_why_and_names_nobody(listener: Listener) -> None:
    with Raw(listener.port) as sender:
        sender.socket.sendall(b"".join(Raw.store_pdus(encoded(ct(1))[:-9], "1.2.3.4.1")))
        response = sender.response()
    assert response.Status == 0xC000
    assert 0 < len(response.ErrorComment) <= 64
    assert "Test" not in response.ErrorComment


# The processes


def test_an_association_that_dies_takes_nothing_else_along(tmp_path: Path) -> None:
    with listener_process(tmp_path) as (process, port), Raw(port) as other:
        assert other.store(encoded(ct(1)), sop_uid="1.2.3.4.1") == 0
        before = set(psutil.Process(process.pid).children(recursive=True))
        with Raw(port) as doomed:
            doomed.socket.sendall(b"".join(list(Raw.store_pdus(encoded(ct(2)), "1.2.3.4.2"))[:-1]))
            wait_until(lambda: len(psutil.Process(process.pid).children(recursive=True)) > len(before), "its process")
            (child,) = set(psutil.Process(process.pid).children(recursive=True)) - before
            child.kill()
            assert doomed.pdu()[0] == 0, "the line is closed"
        assert other.store(encoded(ct(3)), sop_uid="1.2.3.4.3") == 0
        assert echo(port) == 0


def test_without_processes_the_listener_goes_on_in_threads(tmp_path: Path) -> None:
    with listener_process(tmp_path) as (process, port):
        (forking,) = psutil.Process(process.pid).children()
        forking.kill()
        with Raw(port) as sender:
            assert sender.store(encoded(ct(1)), sop_uid="1.2.3.4.1") == 0
            assert sender.release() == 6


def test_an_association_handed_to_a_process_that_dies_before_taking_it_is_served(tmp_path: Path) -> None:
    with listener_process(tmp_path) as (process, port):
        (forking,) = psutil.Process(process.pid).children()
        forking.suspend()
        with Raw(port) as sender:
            assert sender.accepted
            time.sleep(0.2)  # the handover is waiting
            forking.kill()
            assert sender.store(encoded(ct(1)), sop_uid="1.2.3.4.1") == 0
            assert sender.release() == 6


def test_no_process_outlives_the_listener(tmp_path: Path) -> None:
    with listener_process(tmp_path) as (process, port), Raw(port) as sender:
        assert sender.store(encoded(ct(1)), sop_uid="1.2.3.4.1") == 0
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) == 2
        process.kill()
        wait_until(lambda: all(map(has_ended, family)), "the end of its processes")


# The line


def test_drops_in_the_middle_of_an_instance_leave_nothing(listener: Listener, spool: Spool) -> None:
    pdus = list(Raw.store_pdus(encoded(ct(1, size=256)), "1.2.3.4.1"))
    for number in range(1, len(pdus)):
        sender = Raw(listener.port)
        sender.socket.sendall(b"".join(pdus[:number]) + pdus[number][: 50 * number])
        if number % 2:  # a reset instead of an orderly end
            sender.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sender.socket.close()
    wait_until(lambda: files(spool.root) == [], "removing partial files")
    with Raw(listener.port) as sender:
        assert sender.store(encoded(ct(1)), sop_uid="1.2.3.4.1") == 0


def test_a_release_in_the_middle_of_an_instance_leaves_nothing(listener: Listener, spool: Spool) -> None:
    with Raw(listener.port) as sender:
        sender.socket.sendall(b"".join(list(Raw.store_pdus(encoded(ct(1)), "1.2.3.4.1", chunk=100))[:3]))
        sender.release()
    wait_until(lambda: files(spool.root) == [], "removing partial files")
    assert echo(listener.port) == 0
