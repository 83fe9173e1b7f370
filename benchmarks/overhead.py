"""From the last C-STORE response to evidence that the PACS has accepted, less quiet time and network time.

    .venv/bin/python benchmarks/overhead.py

A node with all its processes, dcmtk's storescu as the scanner, Orthanc as the PACS. Two studies: a brain MR of 60
images read by mr_brain, and a CT of 324 slices of 512×512 read by a threshold at -300 HU (no network: all of it is
overhead). Times come from the ledger. Writes overhead.json and overhead.md beside this file.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from node.errors import NodeError
from node.ledger import StudyHistory
from pipelines import synthetic
from tests.peers import orthanc
from tests.running_node import Node, running

ROUNDS = 5
TARGETS = {"MR, 60 images": 1.0, "CT, 324 slices": 3.0}
PUBLISHED = {"MR, 60 images": 48.0, "CT, 324 slices": 90.0}  # Project-MONAI/monai-deploy, performance-testing/results
PIPELINES = """
[pipelines.mr_brain]
use = "pipelines.mr_brain:BrainTumour"
when = { Modality = "MR" }
deliver_to = ["PACS"]
[pipelines.body]
use = "benchmarks.threshold:Body"
when = { Modality = "CT" }
deliver_to = ["PACS"]
"""


def measure(node: Node, folder: Path, uid: str) -> dict[str, float]:
    """Send, wait until it is delivered, and take the steps' seconds from the ledger."""
    node.send(folder)
    history = delivered(node, uid)
    job, sent = history.jobs[-1], history.deliveries[-1]
    if sent.delivered_at is None or job.claimed_at is None or job.done_at is None:
        raise RuntimeError(f"{uid}: {job.state}, {sent.state}: {job.reason or sent.reason}")
    whole = sent.delivered_at - history.study.last_arrival
    steps = {"settle": history.revisions[-1].settled_at - history.study.last_arrival - node.quiet_seconds}
    steps |= {"queue": job.claimed_at - job.queued_at, **{f"job: {k}": v for k, v in job.stages.items()}}
    steps |= {"job: rest": job.done_at - job.claimed_at - sum(job.stages.values())}
    steps |= {"deliver": sent.delivered_at - sent.queued_at}
    return {"overhead": whole - node.quiet_seconds - job.stages.get("network", 0.0), "whole": whole, **steps}


def delivered(node: Node, uid: str) -> StudyHistory:
    until = time.monotonic() + 300
    while time.monotonic() < until:
        try:
            history = node.ledger.study(uid)
        except NodeError:
            pass
        else:
            if history.deliveries and all(one.delivered_at for one in history.deliveries):
                return history
        time.sleep(0.2)
    raise TimeoutError(uid)


def main() -> None:
    results: dict[str, list[dict[str, float]]] = {name: [] for name in TARGETS}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        with orthanc(folder / "pacs") as pacs, running(folder, pacs, PIPELINES) as node:
            for number in range(ROUNDS + 1):  # the first warms up
                mr = synthetic.brain_mr(folder / f"mr{number}", seed=number, lesion="random", slices=20)
                row = {"MR, 60 images": measure(node, folder / f"mr{number}", mr.study_uid)}
                slices = synthetic.ct_slices(folder / f"ct{number}", count=324, seed=number)
                row |= {"CT, 324 slices": measure(node, folder / f"ct{number}", study_of(slices[0]))}
                for name, steps in row.items() if number else ():
                    results[name].append(steps)
    medians = {n: {k: statistics.median(r[k] for r in rows) for k in rows[0]} for n, rows in results.items()}
    out = Path(__file__).with_suffix("")
    out.with_suffix(".json").write_text(json.dumps({"rounds": ROUNDS, "median": medians, "all": results}, indent=1))
    out.with_suffix(".md").write_text(table(medians))
    print(table(medians))


def study_of(path: Path) -> str:
    from pydicom import dcmread

    return str(dcmread(path, stop_before_pixels=True).StudyInstanceUID)


def table(medians: dict[str, dict[str, float]]) -> str:
    lines = ["# Overhead per study, seconds", "", f"Median of {ROUNDS} studies after one to warm up; ", ""]
    lines[2] = (
        f"Median of {ROUNDS} studies after one to warm up, on two shared cores: from the last C-STORE response to"
        " evidence accepted by Orthanc, less quiet time and network time. The published figures are of another"
        " machine (48 cores) and its own studies: an order of magnitude, no race."
    )
    lines += ["| study | overhead | target | published (AIDE) | steps |", "| --- | --- | --- | --- | --- |"]
    for name, steps in medians.items():
        rest = ", ".join(f"{k} {v:.2f}" for k, v in steps.items() if k not in ("overhead", "whole"))
        lines.append(f"| {name} | {steps['overhead']:.2f} | {TARGETS[name]:.0f} | {PUBLISHED[name]:.0f} | {rest} |")
    return "\n".join([*lines, "", "    .venv/bin/python benchmarks/overhead.py", ""])


if __name__ == "__main__":
    main()
