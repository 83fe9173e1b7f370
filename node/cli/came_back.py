"""The tables at the end of ``wetread demo``: what was found, how long each step took, where the objects are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rich.table import Table

from node.cli.options import out
from node.cli.pacs import Pacs
from node.ledger import Job, StudyHistory

if TYPE_CHECKING:
    from pipelines.synthetic import Truth


def show(truths: list[Truth], histories: dict[str, StudyHistory], pacs: Pacs) -> int:
    """Print the tables; returns how many studies did not come back."""
    found = Table("Study", "In it", "Found", "In the PACS", title="What came back", title_justify="left")
    times = Table(
        *("Study", "Settled", "Waited", "Load", "CNN", "Encode", "Delivered"),
        title="How long each step took, in seconds",
        title_justify="left",
    )
    missing = 0
    for truth in truths:
        history = histories.get(truth.study_uid)
        job = history.jobs[-1] if history and history.jobs else None
        objects = _arrived(history, job, pacs) if history and job else 0
        expected = len(history.evidence[job.id]) if history and job else 0
        back = job is not None and job.state == "DONE" and expected > 0 and objects == expected
        missing += not back
        truly = f"{truth.volume_cm3:.0f} ml" if truth.lesion else "no lesion"
        kinds = _kinds(history, job) if history and job else ""
        mark = "[green]✓[/]" if back else "[red]✗[/]"
        found.add_row(truth.title, truly, _found(job, history), f"{mark} {kinds}")
        times.add_row(truth.title, *_times(history, job))
    out.print(found)
    out.print(times)
    out.print("Where the objects are")
    for truth in truths:
        place = f"{pacs.http}/dicom-web/studies/{truth.study_uid}/instances" if pacs.http else truth.study_uid
        out.print(f"  {truth.title:<21} {place}", soft_wrap=True)
    return missing


def _found(job: Job | None, history: StudyHistory | None) -> str:
    if job is None:
        return (history.study.reason or "not read") if history else "never arrived"
    said = []
    for run in json.loads(job.runs or "[]"):
        if run["status"] != "read":
            said.append(f"{run['status']}: {run['reason']}")
        for finding in run["findings"]:
            volumes = [m["value"] for m in finding["measurements"] if m["unit"] == "cm3"]
            certainty = f" ({finding['certainty']:.0%})" if finding["certainty"] is not None else ""
            amount = f" {volumes[0]:.0f} ml" if volumes else ""
            name = finding["segment"] or finding["code"][2]
            said.append(f"{name}{amount}{certainty}" if finding["present"] else f"none{certainty}")
    return "; ".join(said) or f"{job.state.lower()}: {job.reason or ''}"


def _times(history: StudyHistory | None, job: Job | None) -> list[str]:
    if history is None or job is None:
        return [""] * 6
    settled = history.revisions[-1].settled_at - history.study.last_arrival if history.revisions else None
    waited = job.claimed_at - job.queued_at if job.claimed_at else None
    sent = [one.delivered_at - one.queued_at for one in history.deliveries if one.job_id == job.id and one.delivered_at]
    steps = [
        settled,
        waited,
        *(job.stages.get(name) for name in ("load", "network", "encode")),
        max(sent, default=None),
    ]
    return ["" if step is None else f"{step:.1f}" for step in steps]


def _arrived(history: StudyHistory, job: Job, pacs: Pacs) -> int:
    """How many of the job's objects the PACS has: by QIDO-RS where it can be asked, else as it answered."""
    made = {one.sop_uid for one in history.evidence[job.id]}
    held = pacs.objects(job.study_uid)
    if held is None:
        return len({answer.sop_uid for answer in history.answers if answer.status == 0} & made)
    return len({item["00080018"]["Value"][0] for item in held} & made)


def _kinds(history: StudyHistory, job: Job) -> str:
    return " + ".join(sorted(one.form.split()[0] for one in history.evidence[job.id] if one.form))
