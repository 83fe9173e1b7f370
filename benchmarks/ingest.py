"""How fast instances come in: our listener against Orthanc and dcmtk's storescp, in interleaved rounds of one run.

    python benchmarks/ingest.py [--rounds 3] [--count 500] [--folder build/ingest]

The senders are dcmtk's storescu. Each round starts each server afresh on an empty folder of the same disk, sends the
same CT slices, and counts what the server has afterwards. Ours answers when an instance is durable (one fsync), and its
ledger is the real one, on SQLite. Everything runs on loopback, in a network namespace of its own where that is allowed.

It measures no network and no GPU, and other work on the machine disturbs it: read the ratios, not the seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.peers import where

HERE = Path(__file__).resolve().parent
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1", "PYTHONPATH": str(HERE.parent)}
PEERS = ("Orthanc", "storescp")


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
        lambda folder, port: [sys.executable, str(Path(__file__)), "--serve", str(folder), str(port)],
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


def _slices(folder: Path, count: int) -> list[Path]:
    from pipelines.synthetic import ct_slices

    files = sorted(folder.glob("*.dcm"))
    return files if len(files) == count else list(ct_slices(folder, count=count, size=512, seed=7))


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


def _disk(folder: Path) -> str:
    """The kind of file system, and whether it has a journal: that decides what an fsync costs, and is worth."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True, check=True).stdout
    device = folder.stat().st_dev
    block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
    if kind.strip() != "ext2/ext3":
        return f"file system {kind.strip()}"
    has_journal = any(Path("/proc/fs/jbd2").glob(f"{block}-*"))
    return f"file system ext4 {'with' if has_journal else 'without'} a journal"


def _report(results: dict[str, Any]) -> str:
    lines = [
        "# Ingest",
        "",
        f"`{results['command']}` on {results['machine']}; {results['disk']};",
        f"load average before: {results['load']:.1f}.",
        "",
        f"{results['count']} CT slices of 512×512 ({results['megabytes']:.0f} MB), dcmtk storescu, TCP_NODELAY=1 on",
        f"both sides, {results['rounds']} interleaved rounds, median (smallest–largest). Ratios are medians of the",
        "ratios within a round.",
        "",
        "| server | associations | instances/s | against Orthanc | against storescp | server CPU s | peak MB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in results["rows"]:
        rates = f"{row['median']:.0f} ({row['lowest']:.0f}–{row['highest']:.0f})"
        against = [f"{row['against'][peer]:.2f}" if peer in row["against"] else "" for peer in PEERS]
        lines.append(
            f"| {row['server']} | {row['associations']} | {rates} | {against[0]} | {against[1]} "
            f"| {row['cpu_seconds']:.1f} | {row['peak_mb']:.0f} |"
        )
    lines += [
        "",
        "wetread: every answer 0x0000 is for an instance that is durable (content, name and journal entry by one "
        "fsync); its ledger is SQLite, synchronous=FULL. Orthanc: SyncStorageArea as by default (true), no storage "
        "compression, no plugins. storescp: one process per association, `+B`, no fsync: nothing is durable.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--folder", type=Path, default=HERE.parent / "build" / "ingest")
    parser.add_argument("--only", nargs="*", help="servers to measure, for a quick look; writes no result")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(Path(options.serve[0]), int(options.serve[1]))
        return
    enclosed()
    slices = _slices(options.folder / "slices", options.count)
    load = os.getloadavg()[0]
    servers = [server for server in SERVERS if not options.only or server.name in options.only]
    runs: dict[tuple[str, int], list[dict[str, float]]] = {}
    for round_number in range(options.rounds):
        for associations in (1, 4):
            for server in servers:
                run = measure(server, slices, associations=associations, folder=options.folder / server.name)
                runs.setdefault((server.name, associations), []).append(run)
                rate = f"{run['per_second']:6.0f}/s  cpu {run['cpu_seconds']:.2f} s  peak {run['peak_mb']:.0f} MB"
                print(f"round {round_number + 1}  {associations} x {server.name:9} {rate}", flush=True)
    if options.only:
        return
    results = {
        "command": f"python benchmarks/ingest.py --rounds {options.rounds} --count {options.count}",
        "machine": f"{os.cpu_count()} cores, Linux, Python {platform.python_version()}",
        "disk": _disk(options.folder),
        "load": load,
        "count": options.count,
        "megabytes": sum(file.stat().st_size for file in slices) / 1e6,
        "rounds": options.rounds,
        "rows": [_row(runs, *key) for key in sorted(runs, key=lambda key: key[1])],
        "runs": {f"{name} x{associations}": rows for (name, associations), rows in runs.items()},
    }
    (HERE / "ingest.json").write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "ingest.md").write_text(_report(results))
    print(_report(results))


def _row(runs: dict[tuple[str, int], list[dict[str, float]]], name: str, associations: int) -> dict[str, Any]:
    mine = runs[name, associations]
    rates = [run["per_second"] for run in mine]
    against = {
        peer: statistics.median(
            run["per_second"] / other["per_second"] for run, other in zip(mine, runs[peer, associations], strict=True)
        )
        for peer in PEERS
        if peer != name
    }
    return {
        "server": name,
        "associations": associations,
        "median": statistics.median(rates),
        "lowest": min(rates),
        "highest": max(rates),
        "against": against,
        "cpu_seconds": statistics.median(run["cpu_seconds"] for run in mine),
        "peak_mb": max(run["peak_mb"] for run in mine),
    }


if __name__ == "__main__":
    main()
