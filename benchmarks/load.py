"""The published hour of load of a large hospital, in less than an hour: does every study come back, and how soon?

    .venv/bin/python benchmarks/load.py STUDIES [--share 0.1] [--speed 6]

STUDIES holds wrapped sets, a folder each with an index.csv. In an hour come 120 X-ray, 50 ultrasound, 30 CT and 25
MR studies (GSTT's peak, as Project-MONAI/monai-deploy's performance tests took it, whose results were left open);
under stress 180, 75, 45, 38; --share plays a part of it. They come at random (a Poisson process, seeded) by dcmtk's
storescu to a node with all its processes, embedded Redis and the pipelines that ship; Orthanc is the PACS. Each
tenth CT and each fortieth X-ray is STAT. The hour is compressed by as much as keeps the device 70 % busy, by what a
warm-up took. Latency: from a study's last image in the node to its evidence accepted by the PACS, quiet time
included. Writes load.json and load.md beside this file.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from pydicom import dcmread
from pydicom.uid import generate_uid

from node.ledger import DeliveryState, Job, JobState, StudyHistory
from node.settings import Settings
from tests.peers import Orthanc, orthanc
from tests.running_node import Node, running

HOUR = {"X-ray": 120, "ultrasound": 50, "CT": 30, "MR": 25}
STRESS = {"X-ray": 180, "ultrasound": 75, "CT": 45, "MR": 38}
SETS = {
    "X-ray": ("cxr_nih",),
    "ultrasound": ("breast_us",),
    "CT": ("head_ct_haemorrhage", "head_ct_haemorrhage", "ct_lung_tumour_patches"),
    "MR": ("brain_mri_lgg", "cine_mr_lv", "hippocampus_mri"),
}
STAT_EACH = {"CT": 10, "X-ray": 40}
BUSY = 0.7
WARM_UP = 3  # studies of each modality, before the hour
ENDED = (JobState.DONE, JobState.FAILED, JobState.QUARANTINED, JobState.CANCELLED, JobState.SUPERSEDED)
URGENT = """
[urgency.stat]
when = { RequestedProcedurePriority = ["STAT", "HIGH"] }
priority = 0
"""


@dataclass(frozen=True)
class Sent:
    """A study of the hour; ``at``: seconds after its beginning, at the speed that it is played at."""

    modality: str
    uid: str
    folder: Path
    is_stat: bool
    at: float


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + " }"
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def pipelines() -> str:
    """The pipelines that ship, as they ship, with a PACS to deliver to."""
    text = URGENT
    for name, line in Settings().pipelines.items():
        if line.automatic:
            text += f"[pipelines.{name}]\nuse = {toml(line.use)}\nwhen = {toml(line.when)}\n"
            text += f'priority = {line.priority}\ndeliver_to = ["PACS"]\n'
    return text


def sources(studies: Path, modality: str) -> list[list[Path]]:
    """The studies that stand for a modality, each the paths of its images; the sets in turn."""
    queues = []
    for name in SETS[modality]:
        rows = csv.DictReader((studies / name / "index.csv").open())
        found: dict[str, list[Path]] = {}
        for row in rows:
            found.setdefault(row["study_uid"], []).append(studies / name / row["file"])
        queues.append(list(found.values()))
    for number, queue in enumerate(queues):
        random.Random(number).shuffle(queue)
    most = max(map(len, queues))
    return [queue[number % len(queue)] for number in range(most) for queue in queues]


def staged(images: Sequence[Path], folder: Path, *, is_stat: bool) -> str:
    """A copy under UIDs of its own, as another patient's; the Study Instance UID."""
    folder.mkdir(parents=True)
    study, series = generate_uid(), {}
    for number, path in enumerate(images):
        image = dcmread(path)
        image.StudyInstanceUID, image.PatientID = study, study[-16:]
        image.SeriesInstanceUID = series.setdefault(image.SeriesInstanceUID, generate_uid())
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        if is_stat:
            image.RequestedProcedurePriority = "STAT"
        image.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)
    return str(study)


def planned(counts: dict[str, int], studies: Path, folder: Path, *, seconds: float, seed: int) -> list[Sent]:
    """The studies of an hour that lasts ``seconds``, by the time at which they come."""
    draw, plan = random.Random(seed), []
    for modality, count in counts.items():
        known = sources(studies, modality)
        for number in range(count):
            is_stat = modality in STAT_EACH and number % STAT_EACH[modality] == 0
            place = folder / f"{modality}-{number}"
            uid = staged(known[(number + seed) % len(known)], place, is_stat=is_stat)
            # Of a Poisson process of which the number is known the times are uniform.
            plan.append(Sent(modality, uid, place, is_stat, draw.uniform(0, seconds)))
    return sorted(plan, key=lambda one: one.at)


def played(node: Node, plan: Sequence[Sent]) -> dict[str, StudyHistory]:
    """Send all at their times, and wait until each is done with."""
    began = time.monotonic()
    faults: list[str] = []

    def send(one: Sent) -> None:
        time.sleep(max(0.0, began + one.at - time.monotonic()))
        try:
            node.send(one.folder)
        except Exception as error:  # it is counted, and the hour goes on
            faults.append(f"{one.uid}: {error}")

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(send, plan))
    if faults:
        raise RuntimeError(f"{len(faults)} studies were not taken: {faults[0]}")
    ledger, open_, found, told = node.ledger, {one.uid for one in plan}, {}, time.monotonic()
    while open_:
        for uid in list(open_):
            history = ledger.study(uid)
            if is_over(history):
                found[uid] = history
                open_.remove(uid)
        if time.monotonic() - told > 30:
            told = time.monotonic()
            print(f"  {len(open_)} of {len(plan)} are still to come back; load {os.getloadavg()[0]:.1f}", flush=True)
        if time.monotonic() - began > plan[-1].at + 3600:
            raise TimeoutError(f"{len(open_)} studies do not come back: {sorted(open_)[:3]}")
        time.sleep(0.5)
    return found


def is_over(history: StudyHistory) -> bool:
    jobs = bool(history.jobs) and all(job.state in ENDED for job in history.jobs)
    ended = (DeliveryState.DELIVERED, DeliveryState.DEAD)
    return jobs and bool(history.deliveries) and all(one.state in ended for one in history.deliveries)


def latency(history: StudyHistory) -> float:
    """Seconds from the last image to the last of the evidence."""
    return max(one.delivered_at or 0.0 for one in history.deliveries) - history.study.last_arrival


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that so many of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(1, math.ceil(share * len(ordered))) - 1]


def overtaken(stat: Job, jobs: Sequence[Job], *, urgent_up_to: int = 1) -> int:
    """How many routine jobs were begun while a STAT job waited; the one that ran when it came is not among them."""
    return sum(
        job.priority > urgent_up_to and stat.queued_at < (job.claimed_at or 0.0) < (stat.claimed_at or 0.0)
        for job in jobs
    )


def said(found: dict[str, StudyHistory], plan: Sequence[Sent], seconds: float) -> dict[str, Any]:
    """What the hour came to."""
    rows = {}
    groups = {**{modality: [one for one in plan if one.modality == modality] for modality in HOUR}, "all": list(plan)}
    groups |= {"STAT": [one for one in plan if one.is_stat], "not STAT": [one for one in plan if not one.is_stat]}
    for name, group in groups.items():
        if group:
            took = [latency(found[one.uid]) for one in group]
            shares = {f"p{share}": round(percentile(took, share / 100), 2) for share in (50, 95, 99)}
            rows[name] = {"studies": len(group), **shares, "longest": round(max(took), 2)}
    jobs = [job for history in found.values() for job in history.jobs]
    deliveries = [one for history in found.values() for one in history.deliveries]
    stat = {one.uid for one in plan if one.is_stat}
    urgent = [job for job in jobs if job.study_uid in stat and job.claimed_at]
    ran = [(job.claimed_at, job.done_at) for job in jobs if job.claimed_at and job.done_at]
    waits = [(job.claimed_at or 0.0) - job.queued_at for job in urgent]
    return {
        "latency": rows,
        "deliveries": dict(Counter(str(one.state) for one in deliveries)),
        "jobs": dict(Counter(f"{job.pipeline} {job.outcome or job.state}" for job in jobs)),
        "busy": round(sum(end - start for start, end in ran) / (max(e for _, e in ran) - min(s for s, _ in ran)), 2),
        "seconds": round(seconds, 1),
        "stat": {
            "jobs": len(urgent),
            "longest wait": round(max(waits, default=0.0), 2),
            "routine begun meanwhile": max((overtaken(job, jobs) for job in urgent), default=0),
        },
    }


def in_the_pacs(pacs: Orthanc, node: Node, found: dict[str, StudyHistory]) -> tuple[int, int]:
    """How many objects of evidence Orthanc holds, and how many were made."""
    made = {one.sop_uid for history in found.values() for job in history.jobs for one in node.ledger.evidence(job.key)}
    return len(made & set(pacs.instances)), len(made)


def hour(counts: dict[str, int], given: argparse.Namespace, folder: Path, seed: int) -> dict[str, Any]:
    """One hour on a fresh node with a fresh PACS."""
    with orthanc(folder / "pacs") as pacs, running(folder / "node", pacs, pipelines()) as node:
        warm = planned(dict.fromkeys(counts, WARM_UP), given.studies, folder / "warm", seconds=1.0, seed=seed + 100)
        took: dict[str, list[float]] = {modality: [] for modality in counts}
        before = played(node, warm)
        for one in warm:
            jobs = before[one.uid].jobs
            took[one.modality].append(sum((job.done_at or 0.0) - (job.claimed_at or 0.0) for job in jobs))
        usual = {modality: round(statistics.median(values), 2) for modality, values in took.items()}
        work = sum(count * usual[modality] for modality, count in counts.items())
        seconds = 3600 * given.share / given.speed if given.speed else max(work / BUSY, 30.0)
        speed = 3600 * given.share / seconds
        print(f"  {work:.0f} s of work in {seconds:.0f} s: {speed:.1f} times as fast as it comes", flush=True)
        plan = planned(counts, given.studies, folder / "hour", seconds=seconds, seed=seed)
        found = played(node, plan)
        held, made = in_the_pacs(pacs, node, found)
        told = {"speed": round(speed, 2), "studies": len(plan), "job seconds": usual, "held": held, "made": made}
        return told | said(found, plan, seconds)


def written(results: dict[str, dict[str, Any]], load: float, share: float) -> str:
    lines = [f"# {'An hour' if share == 1 else f'{share:.0%} of an hour'} of a large hospital", ""]
    for name, told in results.items():
        hurry = (
            f"{told['studies']} studies in {told['seconds']:.0f} s, {told['speed']:g} times as fast as they come there"
        )
        lines += [f"## {name}: {hurry}", ""]
        lines += ["| studies | n | median | 95 % | 99 % | longest |", "| --- | --- | --- | --- | --- | --- |"]
        for group, row in told["latency"].items():
            figures = " | ".join(f"{row[key]:.1f}" for key in ("p50", "p95", "p99", "longest"))
            lines.append(f"| {group} | {row['studies']} | {figures} |")
        stat = told["stat"]
        delivered = ", ".join(f"{count} {state}" for state, count in told["deliveries"].items())
        lines += [
            "",
            f"Deliveries: {delivered}; Orthanc holds {told['held']} of {told['made']} objects. The device was busy "
            f"{told['busy']:.0%} of the time. {stat['jobs']} STAT jobs waited {stat['longest wait']:.1f} s at most; "
            f"while one waited, {stat['routine begun meanwhile']} routine jobs were begun at most.",
            "",
        ]
    lines += [
        "Seconds from the last image in the node to the last of its evidence accepted by Orthanc, 1 s of quiet time",
        "included; percentiles by nearest rank, so that below 100 studies 99 % is the longest. Two cores, no GPU,",
        f"shared (load {load:.0f}): what carries over is that all came back, and in which order.",
        "",
        f"    .venv/bin/python benchmarks/load.py STUDIES{'' if share == 1 else f' --share {share:g}'}",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("studies", type=Path)
    parser.add_argument("--share", type=float, default=1.0, help="of the hour's studies, for a try")
    parser.add_argument("--speed", type=float, help="how much faster than they come there; default: what is carried")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(""))
    given = parser.parse_args()
    results, wrong = {}, []
    for seed, (name, full) in enumerate({"Peak hour": HOUR, "Stress": STRESS}.items(), 1):
        counts = {modality: max(1, round(count * given.share)) for modality, count in full.items()}
        print(name, counts, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            told = results[name] = hour(counts, given, Path(folder), seed)
        print(json.dumps(told), flush=True)
        if told["held"] != told["made"] or set(told["deliveries"]) != {"DELIVERED"}:
            wrong.append(name)
        load = os.getloadavg()[2]
        given.out.with_suffix(".json").write_text(
            json.dumps({"load": round(load, 1), "share": given.share, **results}, indent=1) + "\n"
        )
        given.out.with_suffix(".md").write_text(written(results, load, given.share))
    sys.exit(f"not all came back: {', '.join(wrong)}" if wrong else 0)


if __name__ == "__main__":
    main()
