"""The other ends of the wire, as separate programs: Debian's Orthanc and dcmtk's storescp on free ports of loopback.

Each is a context manager that waits until the peer answers and stops it by its process id. None of our own code
stands here: a peer that shared a fault with the node would hide it.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.proxy import way_out
from tests.waiting import PATIENCE, until

ROOT = Path(__file__).resolve().parent.parent
OURS = range(20_000, 32_000)  # ports below those that Linux gives by itself (ip_local_port_range)
SHARED = ROOT.parent / "shared"

DICOMWEB_PLUGINS = (
    Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so"),
    Path("/usr/local/share/orthanc/plugins/libOrthancDicomWeb.so"),
)


def needs(*programs: str) -> pytest.MarkDecorator:
    """A mark: the test is skipped, and says why, where one of the programs is not installed."""
    missing = [program for program in programs if where(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed here: {', '.join(missing)}")


def needs_shared(*parts: str) -> pytest.MarkDecorator:
    """A mark: the test is skipped where ``../shared`` (or that part of it) is not there."""
    path = SHARED.joinpath(*parts)
    return pytest.mark.skipif(not path.exists(), reason=f"not here: ../shared/{'/'.join(parts)}")


def where(program: str) -> str | None:
    """The path of a system program; Debian keeps Orthanc in /usr/sbin, which is not on everyone's PATH.

    Never one of the virtual environment: pynetdicom puts scripts there that are called as dcmtk's programs are.
    """
    own = str(Path(sys.executable).parent)
    path = os.pathsep.join(each for each in os.environ["PATH"].split(os.pathsep) if each != own)
    return shutil.which(program, path=path) or shutil.which(program, path="/usr/sbin:/sbin")


_ports = iter(random.sample(OURS, len(OURS)))


def free_port() -> int:
    """A TCP port of loopback that nobody listens on now.

    Not one that the kernel picks: those it also gives to whoever connects or listens next, before the test does.
    """
    for port in _ports:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


@dataclass
class Peer:
    """A DICOM peer that runs: C-STORE goes to ``aet`` at ``host:dicom_port``."""

    aet: str
    dicom_port: int
    folder: Path
    process: subprocess.Popen[bytes]
    host: str = "127.0.0.1"
    log: Path | None = None

    def close(self) -> None:
        """Stop the peer now, as a PACS that is switched off; closing twice is closing once."""
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(60)


@dataclass
class StoreScp(Peer):
    """dcmtk's storescp: what it receives lies in ``folder``, byte for byte (``+B``)."""

    @property
    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.is_file())


@dataclass
class Orthanc(Peer):
    """Orthanc: REST at ``url``, DICOMweb at ``dicom_web``."""

    http_port: int = 0
    user: tuple[str, str] | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.http_port}"

    @property
    def dicom_web(self) -> str:
        return f"{self.url}/dicom-web"

    def get(self, path: str) -> bytes:
        """The answer of Orthanc's own REST API to ``GET path``."""
        request = urllib.request.Request(self.url + path)
        if self.user:
            request.add_header("Authorization", "Basic " + base64.b64encode(":".join(self.user).encode()).decode())
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return bytes(answer.read())

    def json(self, path: str) -> Any:
        return json.loads(self.get(path))

    @property
    def instances(self) -> list[str]:
        """SOP Instance UIDs of everything that it holds."""
        held = self.json("/instances?expand")
        return sorted(one["MainDicomTags"]["SOPInstanceUID"] for one in held)

    def file(self, sop_uid: str) -> bytes:
        """The Part 10 file of one instance, as Orthanc keeps it."""
        for one in self.json("/instances?expand"):
            if one["MainDicomTags"]["SOPInstanceUID"] == sop_uid:
                return self.get(f"/instances/{one['ID']}/file")
        raise LookupError(f"Orthanc holds no instance {sop_uid}")


@functools.cache
def _unshare() -> tuple[str, ...] | None:
    """The command that starts another in a network namespace of its own; None where that is not allowed."""
    if (unshare := where("unshare")) is None:
        return None
    for command in ((unshare, "--net"), (unshare, "--net", "--map-root-user")):
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    return None


def _start(
    command: Sequence[str], log: Path, ports: Mapping[int, int], *, isolated: bool, out_by: str = ""
) -> subprocess.Popen[bytes]:
    """Start a server; ``ports`` are {port on our loopback: port that the server listens on}.

    ``out_by`` is PORT:PATH, for a server that calls back (proxy.way_out).

    Orthanc and storescp cannot be told an address to bind to: they listen on every interface. In a namespace of its
    own, "every interface" is a loopback that nobody else sees, and proxy.py carries our loopback into it.
    """
    unshare = _unshare() if isolated else None
    with contextlib.ExitStack() as stack, log.open("wb") as out:
        if unshare is None:
            return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        doors = {
            stack.enter_context(socket.create_server(("127.0.0.1", outer))): inner for outer, inner in ports.items()
        }
        carried = ",".join([*(f"{door.fileno()}:{inner}" for door, inner in doors.items()), *filter(None, [out_by])])
        relay = [*unshare, sys.executable, str(Path(__file__).with_name("proxy.py")), carried, *command]
        fds = [door.fileno() for door in doors]
        return subprocess.Popen(relay, stdout=out, stderr=subprocess.STDOUT, pass_fds=fds)


def wait_until(answers: Callable[[], object], what: str) -> None:
    """Return when ``answers()`` is true; fail when it is not after a long time."""
    until(answers, what=what)


def _echoes(port: int, aet: str) -> bool:
    """Whether a C-ECHO is answered: a listening socket alone says nothing when a proxy stands before it."""
    from pynetdicom import AE
    from pynetdicom.sop_class import Verification

    ae = AE("PEERS")
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = 10
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", port, ae_title=aet)
    if not association.is_established:
        return False
    status = association.send_c_echo()
    association.release()
    return "Status" in status and status.Status == 0


def _ready(peer: Peer, answers: Callable[[], bool]) -> None:
    def answered() -> bool:
        if peer.process.poll() is not None:
            said = peer.log.read_text(errors="replace")[-2000:] if peer.log else ""
            raise RuntimeError(f"{peer.aet} ended with status {peer.process.returncode}: {said}")
        return answers()

    wait_until(answered, f"an answer of {peer.aet} at port {peer.dicom_port}")


@contextlib.contextmanager
def orthanc(
    folder: Path,
    *,
    aet: str = "ORTHANC",
    modalities: Mapping[str, tuple[str, int]] | None = None,
    user: tuple[str, str] | None = None,
    isolated: bool = True,
    calls: int | None = None,
    **settings: Any,
) -> Iterator[Orthanc]:
    """Orthanc with its DICOMweb plugin, its database in ``folder``; skips the test where it is not installed.

    ``modalities`` are {AE title: (host, port)} that may query and fetch; without, only WETREAD. ``settings`` go into
    its configuration as they are. ``isolated=False`` runs it without a namespace: faster by a copy, but then it
    listens on every interface of this machine. ``calls`` is a port of our loopback that it may call.
    """
    program = where("Orthanc")
    plugin = next((path for path in DICOMWEB_PLUGINS if path.exists()), None)
    if program is None or plugin is None:
        pytest.skip("not installed here: Orthanc with its DICOMweb plugin")
    folder.mkdir(parents=True, exist_ok=True)
    enclosed = isolated and _unshare() is not None
    dicom_port, http_port = free_port(), free_port()
    known = modalities or {"WETREAD": ("127.0.0.1", 11112)}
    configuration: dict[str, Any] = {
        "Name": "wetread test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "TemporaryDirectory": str(folder),
        "DicomAet": aet,
        "DicomPort": 4242 if enclosed else dicom_port,
        "HttpPort": 8042 if enclosed else http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": user is not None,
        "RegisteredUsers": dict([user]) if user else {},
        "DicomModalities": {
            name: {"AET": name, "Host": host, "Port": port, "AllowStorageCommitment": True}
            for name, (host, port) in known.items()
        },
        "UnknownSopClassAccepted": True,  # without, Orthanc 1.10.1 rejects LABELMAP segmentations
        "ExecuteLuaEnabled": False,
        "StableAge": 1,
        "Plugins": [str(plugin)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Host": f"127.0.0.1:{http_port}"},
        **settings,
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration, indent=1))
    log = folder / "orthanc.log"
    ports = {dicom_port: 4242, http_port: 8042}
    stack = contextlib.ExitStack()
    out_by = ""
    if calls and enclosed:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory()), "out")  # a socket's path must be short
        stack.enter_context(way_out(path, calls))
        out_by = f"{calls}:{path}"
    process = _start([program, str(folder / "orthanc.json")], log, ports, isolated=enclosed, out_by=out_by)
    running = Orthanc(aet, dicom_port, folder, process, log=log, http_port=http_port, user=user, settings=configuration)

    def answers() -> bool:
        with contextlib.suppress(OSError, ValueError, urllib.error.URLError):
            running.json("/system")
            return _echoes(dicom_port, aet)
        return False

    try:
        _ready(running, answers)
        yield running
    finally:
        running.close()
        stack.close()


@contextlib.contextmanager
def storescp(folder: Path, *, aet: str = "STORESCP", options: Sequence[str] = ()) -> Iterator[StoreScp]:
    """dcmtk's storescp, which writes what it receives into ``folder``, bit for bit and in any transfer syntax."""
    if (program := where("storescp")) is None:
        pytest.skip("not installed here: storescp (dcmtk)")
    received = folder / "received"
    received.mkdir(parents=True, exist_ok=True)
    port = free_port()
    enclosed = _unshare() is not None
    log = folder / "storescp.log"
    # +B: write the dataset as received; +xa: accept every transfer syntax that is known
    command = [program, "--aetitle", aet, "+B", "+xa", "--output-directory", str(received), *options]
    process = _start([*command, "11112" if enclosed else str(port)], log, {port: 11112}, isolated=enclosed)
    running = StoreScp(aet, port, received, process, log=log)
    try:
        _ready(running, lambda: _echoes(port, aet))
        yield running
    finally:
        running.close()
