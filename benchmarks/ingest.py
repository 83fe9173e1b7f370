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
import statistics
import subprocess
from pathlib import Path
from typing import Any

from receivers import HERE, SERVERS, enclosed, measure, serve

PEERS = ("Orthanc", "storescp")


def _slices(folder: Path, count: int) -> list[Path]:
    from pipelines.synthetic import ct_slices

    files = sorted(folder.glob("*.dcm"))
    return files if len(files) == count else list(ct_slices(folder, count=count, size=512, seed=7))


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
