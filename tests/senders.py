"""Who sends to the listener: pynetdicom's SCU for what is well-formed, and bare PDUs for what no library would send."""

from __future__ import annotations

import contextlib
import io
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom.dsutils import decode, encode
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.presentation import build_context

from node.listener import ListenerOptions, Patience
from node.spool import Arrival
from tests.peers import ROOT
from tests.slices import CT, slice_of
from tests.steady import steady
from tests.waiting import PATIENCE

EXPLICIT = "1.2.840.10008.1.2.1"
VERIFICATION = "1.2.840.10008.1.1"
COUNTED = ("Pss_Anon:", "Pss_Shmem:")


def ct(number: int = 1, *, size: int = 16, **elements: Any) -> Dataset:
    """A CT slice of ``size`` x ``size`` noise, always the same for the same number."""
    pixels = np.random.default_rng(number).integers(0, 4096, (size, size), dtype=np.int16)
    return slice_of(number, pixels, **elements)


def encoded(dataset: Dataset, transfer_syntax: str = EXPLICIT) -> bytes:
    """The dataset as it goes over the wire."""
    uid = UID(transfer_syntax)
    raw = encode(dataset, uid.is_implicit_VR, uid.is_little_endian)
    assert raw is not None
    return raw


def options(**changes: Any) -> ListenerOptions:
    return ListenerOptions(**{"port": 0, "quiet_seconds": 3.0, "drain_seconds": 5.0} | changes)


def hasty(**changes: float) -> Patience:
    return Patience(**{"request": 1.0, "idle": 2.0, "pdu": 1.0} | changes)


@dataclass
class Notebook:
    """A ledger that writes down what it is told; ``broken`` makes it unreachable."""

    arrivals: list[Arrival] = field(default_factory=list)
    settled: list[tuple[str, float]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)  # seconds, of each of ``settled`` when it was told
    broken: bool = False

    def now(self) -> float:
        return time.time()

    def record(self, arrivals: Sequence[Arrival], *, settle_at: float, settle_by_seconds: float) -> None:
        if self.broken:
            raise ConnectionError("the database does not answer")
        self.arrivals += arrivals

    def settle_at(self, study_uids: Iterable[str], when: float) -> None:
        if self.broken:
            raise ConnectionError("the database does not answer")
        for uid in study_uids:
            self.settled.append((uid, when))
            self.waits.append(when - self.now())

    def commitment_reported(self, transaction_uid: str, held: Sequence[str], failed: Sequence[str]) -> str:
        return "nobody asked for it"


def store(port: int, datasets: Iterable[Dataset], *, caller: str = "CT1", called: str = "WETREAD") -> list[int]:
    """The statuses of a C-STORE of each, in one association of pynetdicom's SCU; [] if there was no association."""
    datasets = list(datasets)
    ae = AE(caller)
    for sop_class in {dataset.SOPClassUID for dataset in datasets}:
        ae.add_requested_context(sop_class, EXPLICIT)
    association = steady(ae.associate("127.0.0.1", port, ae_title=called))
    if not association.is_established:
        return []
    statuses = [association.send_c_store(dataset).get("Status", -1) for dataset in datasets]
    association.release()
    return statuses


def echo(port: int, *, caller: str = "CT1", called: str = "WETREAD") -> int | None:
    with Raw(port, caller=caller, called=called, contexts=[(VERIFICATION, EXPLICIT)]) as raw:
        return raw.echo() if raw.accepted else None


class Raw:
    """An association of bare PDUs. ``answer`` is the PDU that came for the A-ASSOCIATE-RQ."""

    def __init__(
        self,
        port: int,
        *,
        caller: str = "RAW",
        called: str = "WETREAD",
        contexts: Sequence[tuple[str, str]] = ((CT, EXPLICIT), (VERIFICATION, EXPLICIT)),
        host: str = "127.0.0.1",
        connection: socket.socket | None = None,
    ) -> None:
        self.socket = connection or socket.create_connection((host, port), timeout=PATIENCE)
        self.socket.settimeout(PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(association_request(caller, called, contexts))
        self.answer = self.pdu()
        self.accepted = self.answer[0] == 2

    @property
    def rejection(self) -> tuple[int, int, int]:
        """Result, source and reason of an A-ASSOCIATE-RJ."""
        assert self.answer[0] == 3
        return (self.answer[1][1], self.answer[1][2], self.answer[1][3])

    def pdu(self) -> tuple[int, bytes]:
        """Type and content of the next PDU; (0, b"") when the line is closed."""
        with contextlib.suppress(ConnectionError):
            head = self._exactly(6)
            if len(head) == 6:
                kind, length = struct.unpack(">BxL", head)
                return kind, self._exactly(length)
        return 0, b""

    def _exactly(self, count: int) -> bytes:
        taken = b""
        while len(taken) < count:
            piece = self.socket.recv(count - len(taken))
            if not piece:
                break
            taken += piece
        return taken

    def store(self, raw: bytes, *, sop_uid: str, sop_class: str = CT, chunk: int = 16000, context: int = 1) -> int:
        """The status of a C-STORE of these bytes."""
        self.socket.sendall(b"".join(self.store_pdus(raw, sop_uid, sop_class=sop_class, chunk=chunk, context=context)))
        return self.status()

    @staticmethod
    def store_pdus(
        raw: bytes, sop_uid: str, *, sop_class: str = CT, chunk: int = 16000, context: int = 1
    ) -> Iterator[bytes]:
        elements = {0x0002: sop_class.encode(), 0x0100: 1, 0x0110: 7, 0x0700: 0, 0x0800: 1, 0x1000: sop_uid.encode()}
        yield p_data(command(elements), context, 0b11)
        for start in range(0, len(raw), chunk):
            yield p_data(raw[start : start + chunk], context, 0b10 if start + chunk >= len(raw) else 0)

    def echo(self, context: int = 1) -> int:
        elements = {0x0002: VERIFICATION.encode(), 0x0100: 0x30, 0x0110: 8, 0x0800: 0x0101}
        self.socket.sendall(p_data(command(elements), context, 0b11))
        return self.status()

    def status(self) -> int:
        """The Status (0000,0900) of the next response."""
        return int(self.response().Status)

    def response(self) -> Dataset:
        kind, body = self.pdu()
        assert kind == 4, f"a PDU of type {kind} instead of a response"
        return decode(io.BytesIO(body[6:]), True, True)

    def release(self) -> int:
        """The type of the PDU that answers an A-RELEASE-RQ."""
        self.socket.sendall(b"\5\0\0\0\0\4\0\0\0\0")
        return self.pdu()[0]

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def association_request(caller: str, called: str, contexts: Sequence[tuple[str, str]]) -> bytes:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = caller, called
    proposed = [build_context(abstract, transfer) for abstract, transfer in contexts]
    for number, context in enumerate(proposed):
        context.context_id = 2 * number + 1
    primitive.presentation_context_definition_list = proposed
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received, implementation.implementation_class_uid = 16384, "1.2.3.4"
    primitive.user_information = [length, implementation]
    return bytes(A_ASSOCIATE_RQ(primitive).encode())


def command(elements: dict[int, bytes | int]) -> bytes:
    """A command set (PS3.7 section 6.3.1) of texts and 16-bit numbers."""
    body = b""
    for element, value in elements.items():
        raw = struct.pack("<H", value) if isinstance(value, int) else value + b"\0" * (len(value) % 2)
        body += struct.pack("<HHL", 0, element, len(raw)) + raw
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def p_data(body: bytes, context: int, control: int) -> bytes:
    return struct.pack(">BBLLBB", 4, 0, len(body) + 6, len(body) + 2, context, control) + body


@contextlib.contextmanager
def listener_process(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A listener in a process of its own, and its port."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "listener.log"
    with log.open("a") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.listen", str(folder), *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()
        yield process, int(line)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(60)
        if process.stdout:
            process.stdout.close()


def resident_mb(process: subprocess.Popen[str]) -> float:
    """Memory of a process and its children, what they share counted once (proportional set size).

    Without the files that it has mapped: its share of a library grows when another process that uses it ends.
    """
    family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    total = 0.0
    for pid in family:
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith(COUNTED)) / 1000
    return total
