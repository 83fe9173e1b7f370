"""The servers that receive instances in the benchmarks: ours, Orthanc and storescp; and one round of one of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.peers import where

HERE = Path(__file__).resolve().parent
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1", "PYTHONPATH": str(HERE.parent)}


class NotTaken(Exception):
    """A server refused or lost something."""


@dataclass(frozen=True)
class Server:
    """A program that receives: how it is started, and how many instances lie in its folder."""

    name: str
    command: Callable[[Path, int], list[str]]
    count: Callable[[Path, int], int]  # of its folder, or by its HTTP port


def _orthanc(folder: Path, port: int) -> list[str]:
    settings = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "DicomAet": "BENCH",
        "DicomPort": port,
        "HttpPort": port + 1,
        "RemoteAccessAllowed": False,
        "StorageCompression": False,  # and SyncStorageArea as it is by default: true
        "DicomAlwaysAllowStore": True,
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    return [_program("Orthanc"), str(folder / "orthanc.json")]


def _orthanc_count(_: Path, port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port + 1}/statistics", timeout=20) as answer:
        return int(json.load(answer)["CountInstances"])


SERVERS = (
    Server(
        "wetread",
        lambda folder, port: [sys.executable, str(HERE / "ingest.py"), "--serve", str(folder), str(port)],
        lambda folder, _: len(list((folder / "spool" / "objects").glob("*/*.dcm"))),
    ),
    Server("Orthanc", _orthanc, _orthanc_count),
    Server(
        "storescp",
        lambda folder, port: [_program("storescp"), "--fork", "+B", "-od", str(folder), "-aet", "BENCH", str(port)],
        lambda folder, _: sum(1 for path in folder.iterdir() if path.is_file()),
    ),
)


def serve(folder: Path, port: int) -> None:
    """Our listener with a real ledger, until SIGTERM."""
    from node.ledger import Ledger
    from node.listener import ListenerOptions
    from node.listener import serve as serve_until
    from node.spool import Spool

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    ledger = Ledger(f"sqlite:///{folder / 'ledger.sqlite'}")
    ledger.upgrade()
    serve_until(ListenerOptions(ae_title="BENCH", port=port), Spool(folder / "spool"), ledger, stop)


def measure(server: Server, slices: list[Path], *, associations: int, folder: Path) -> dict[str, float]:
    """One round of one server: instances per second, its CPU seconds and its largest memory."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    port = _free_port()
    with (folder.parent / f"{server.name}.log").open("wb") as log:
        process = subprocess.Popen(server.command(folder, port), env=ENVIRONMENT, stdout=log, stderr=log)
    try:
        _wait_for_echo(port)
        os.sync()
        memory = _Watch(process.pid)
        began = time.perf_counter()
        parts = [slices[number::associations] for number in range(associations)]
        senders = [subprocess.Popen(_sender(port, part), env=ENVIRONMENT) for part in parts]
        statuses = [sender.wait() for sender in senders]
        if any(statuses):
            raise NotTaken(f"{server.name} did not take everything: storescu ended with {statuses}")
        seconds = time.perf_counter() - began
        cpu, peak = memory.stop()
        kept = server.count(folder, port)
        if kept != len(slices):
            raise NotTaken(f"{server.name} has {kept} instances of {len(slices)}")
    finally:
        process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)
    return {"per_second": len(slices) / seconds, "seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak}


def _sender(port: int, files: list[Path]) -> list[str]:
    return [_program("storescu"), "-R", "-aec", "BENCH", "127.0.0.1", str(port), *map(str, files)]


class _Watch:
    """CPU time and peak memory of a process and its children, sampled while something happens."""

    def __init__(self, pid: int) -> None:
        self._process, self._going, self._peak = psutil.Process(pid), threading.Event(), 0.0
        self._cpu: dict[int, float] = {}
        self._before = self._sample()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _sample(self) -> float:
        memory = 0.0
        for one in self._family():
            try:
                times = one.cpu_times()
                self._cpu[one.pid] = times.user + times.system
                memory += _proportional_mb(one.pid)
            except (psutil.Error, OSError):
                continue
        self._peak = max(self._peak, memory)
        return sum(self._cpu.values())

    def _family(self) -> list[psutil.Process]:
        try:
            return [self._process, *self._process.children(recursive=True)]
        except psutil.Error:  # one of them ended while we looked
            return [self._process]

    def _run(self) -> None:
        while not self._going.wait(0.02):
            self._sample()

    def stop(self) -> tuple[float, float]:
        self._going.set()
        self._thread.join()
        return self._sample() - self._before, self._peak


def _proportional_mb(pid: int) -> float:
    """Proportional set size: what processes share is counted once."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000


def _free_port() -> int:
    """A port whose next is free too: Orthanc takes one for HTTP."""
    while True:
        with socket.socket() as probe, socket.socket() as second:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def _wait_for_echo(port: int) -> None:
    for _ in range(300):
        echo = [_program("echoscu"), "-aec", "BENCH", "127.0.0.1", str(port)]
        if subprocess.run(echo, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise SystemExit(f"nobody answers at port {port}")


def _program(name: str) -> str:
    if not (found := where(name)):
        raise SystemExit(f"{name} is not installed here")
    return found


def enclosed() -> None:
    """Go on in a network namespace of our own, where "every interface" is a loopback that nobody else sees."""
    unshare = shutil.which("unshare")
    if os.environ.get("WETREAD_BENCH_ENCLOSED") or not unshare:
        return
    for enter in ([unshare, "--net"], [unshare, "--net", "--map-root-user"]):
        if subprocess.run([*enter, "ip", "link", "set", "lo", "up"], capture_output=True, check=False).returncode == 0:
            inside = f'ip link set lo up && exec "{sys.executable}" "$@"'
            os.environ["WETREAD_BENCH_ENCLOSED"] = "1"
            os.execv(unshare, [*enter, "sh", "-c", inside, "sh", *sys.argv])
