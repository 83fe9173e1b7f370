"""From the last C-STORE response to evidence that the PACS has accepted, less quiet time and network time.

    .venv/bin/python benchmarks/overhead.py [--against TREE]

A node with all its processes, dcmtk's storescu as the scanner, Orthanc as the PACS. Two studies: a brain MR of 60
images read by mr_brain, and a CT of 324 slices of 512×512 read by a threshold at -300 HU (no network: all of it is
overhead). Times come from the ledger. With another checkout as TREE, its node reads the same studies
in turn with this one's, and the ratio is told. Writes overhead.json and overhead.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from node.errors import NodeError
from node.ledger import StudyHistory
from pipelines import synthetic
from tests.peers import ROOT, orthanc
from tests.running_node import Node, running

ROUNDS = 5
TARGETS = {"MR, 60 images": 1.0, "CT, 324 slices": 3.0}
PUBLISHED = {"MR, 60 images": 48.0, "CT, 324 slices": 90.0}  # Project-MONAI/monai-deploy, performance-testing/results
Results = dict[str, dict[str, list[dict[str, float]]]]  # by tree and study, the steps of each round
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
    parser = argparse.ArgumentParser()
    parser.add_argument("--against", type=Path, metavar="TREE")
    against = parser.parse_args().against
    trees = {"this": ROOT} | ({"other": against.resolve()} if against else {})
    results: Results = {tree: {name: [] for name in TARGETS} for tree in trees}
    with tempfile.TemporaryDirectory() as text, ExitStack() as stack:
        folder = Path(text)
        nodes = {}
        for tree, root in trees.items():
            pacs = stack.enter_context(orthanc(folder / f"pacs of {tree}"))
            nodes[tree] = stack.enter_context(running(folder / tree, pacs, PIPELINES, root=root))
        for number in range(ROUNDS + 1):  # the first warms up
            mr = synthetic.brain_mr(folder / f"mr{number}", seed=number, lesion="random", slices=20)
            slices = synthetic.ct_slices(folder / f"ct{number}", count=324, seed=number)
            for tree in list(trees)[:: 1 if number % 2 else -1]:
                row = {"MR, 60 images": measure(nodes[tree], folder / f"mr{number}", mr.study_uid)}
                row |= {"CT, 324 slices": measure(nodes[tree], folder / f"ct{number}", study_of(slices[0]))}
                for name, steps in row.items() if number else ():
                    results[tree][name].append(steps)
                    print(number, tree, name, {step: round(seconds, 2) for step, seconds in steps.items()}, flush=True)
    medians = {tree: {n: _median(rows) for n, rows in of.items()} for tree, of in results.items()}
    out = Path(__file__).with_suffix("")
    kept: dict[str, object] = {"rounds": ROUNDS, "median": medians["this"], "all": results["this"]}
    times = {name: ratios(results, name) for name in TARGETS} if against else {}
    if against:
        kept |= {"other": medians["other"], "all of other": results["other"], "ratios": times}
    out.with_suffix(".json").write_text(json.dumps(kept, indent=1))
    said = table(medians["this"]) + (comparison(medians["other"], times) if against else "")
    out.with_suffix(".md").write_text(said)
    print(said)


def _median(rows: list[dict[str, float]]) -> dict[str, float]:
    return {step: statistics.median(row[step] for row in rows) for step in rows[0]}


def ratios(results: Results, name: str) -> list[float]:
    """The other tree's overhead in units of this one's, for the same study: median, least, greatest."""
    pairs = zip(results["other"][name], results["this"][name], strict=True)
    each = [other["overhead"] / this["overhead"] for other, this in pairs]
    return [round(value, 2) for value in (statistics.median(each), min(each), max(each))]


def comparison(other: dict[str, dict[str, float]], times: dict[str, list[float]]) -> str:
    """The lines about the other tree."""
    lines = [
        "",
        f"The other tree read the same {ROUNDS} studies in turn with this one, in the same minutes; the machine's",
    ]
    lines[-1] += f" load was {os.getloadavg()[2]:.0f} for its two cores, so that only the ratios say something:"
    lines += [""]
    lines += ["| study | its overhead | in units of this tree's, study by study: median (range) | its steps |"]
    lines += ["| --- | --- | --- | --- |"]
    for name, steps in other.items():
        middle, low, high = times[name]
        lines.append(f"| {name} | {steps['overhead']:.2f} | {middle} ({low} to {high}) | {_said(steps)} |")
    return "\n".join([*lines, "", "    .venv/bin/python benchmarks/overhead.py --against TREE", ""])


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
        wanted = f"{TARGETS[name]:.0f} | {PUBLISHED[name]:.0f}"
        lines.append(f"| {name} | {steps['overhead']:.2f} | {wanted} | {_said(steps)} |")
    return "\n".join([*lines, "", "    .venv/bin/python benchmarks/overhead.py", ""])


def _said(steps: dict[str, float]) -> str:
    return ", ".join(f"{k} {v:.2f}" for k, v in steps.items() if k not in ("overhead", "whole"))


if __name__ == "__main__":
    main()
