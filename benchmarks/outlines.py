"""How good a pipeline of pictures is on a split, from what ``wetread read`` says and writes: outlines and classes.

    wetread read STUDIES --out OUT --pipeline us_breast --json > OUT/read.json
    python -m benchmarks.outlines us_breast --read OUT/read.json --data STUDIES --labels SET

``STUDIES`` holds the ``index.csv`` of the wrapped split, ``SET`` the masks that it names. Intervals are 95 %, by
resampling patients (or groups of look-alikes) with replacement. It reads results alone: no pipeline runs here.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

from pipelines.training.metrics import auroc, dice

LABELS = {"mr_heart": "left ventricle", "us_breast": "lesion", "ct_chest": "tumor"}
CLASSES = {"us_breast": ("normal", "benign", "malignant")}
RESAMPLES = 2000
Rows = dict[str, dict[str, str]]  # by SOP Instance UID


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", choices=sorted(LABELS))
    parser.add_argument("--read", type=Path, required=True, help="what `wetread read --json` printed")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    args = parser.parse_args()
    with (args.data / "index.csv").open(newline="") as file:
        rows = {row["sop_uid"]: row for row in csv.DictReader(file)}
    runs = [run for study in json.loads(args.read.read_text())["studies"] for run in study["runs"]]
    print("\n".join(page(args.pipeline, runs, rows, args.labels)))


def page(pipeline: str, runs: Sequence[dict[str, Any]], rows: Rows, labels: Path) -> list[str]:
    seconds = [run["seconds"] for run in runs if run["status"] == "read"]
    statuses = {status: sum(run["status"] == status for run in runs) for status in sorted({r["status"] for r in runs})}
    said = ", ".join(f"{count} {status}" for status, count in statuses.items())
    lines = [
        f"# {pipeline} on the split `dev`",
        "",
        f"Runs: {said}; median {np.median(seconds):.2f} s, evidence and all.",
        "",
    ]
    found = outlines(runs, LABELS[pipeline])
    drawn = {uid: np.asarray(Image.open(labels / row["mask"])) > 0 for uid, row in rows.items() if row["mask"]}
    scores = {uid: dice(found.get(uid, np.zeros_like(mask)), mask) for uid, mask in drawn.items() if mask.any()}
    groups = [rows[uid]["patient_id"] for uid in scores]
    lines += ["| measure | n | value | 95 % |", "| --- | --- | --- | --- |"]
    values = np.array(list(scores.values()))
    lines.append(row_of(f"{LABELS[pipeline]}, mean Dice over pictures", groups, lambda at: float(values[at].mean())))
    lines.append(row_of(f"{LABELS[pipeline]}, median Dice", groups, lambda at: float(np.median(values[at]))))
    lines += list(_by_class(pipeline, runs, rows))
    empty = [uid for uid, mask in drawn.items() if not mask.any()]
    if empty:
        wrong = sum(uid in found and bool(found[uid].any()) for uid in empty)
        lines += ["", f"Of {len(empty)} pictures in which nobody drew anything, {wrong} have an outline."]
    return [*lines, "", *_worst_first(scores, rows)]


def outlines(runs: Sequence[dict[str, Any]], label: str) -> dict[str, NDArray[np.bool_]]:
    """SOP Instance UID of the source → mask, as the written Segmentations hold it."""
    found: dict[str, NDArray[np.bool_]] = {}
    for ds in (dcmread(file) for run in runs for file in run["objects"]):
        if ds.Modality != "SEG":
            continue
        numbers = {int(each.SegmentNumber) for each in ds.SegmentSequence if each.SegmentLabel == label}
        pixels = ds.pixel_array.reshape(-1, ds.Rows, ds.Columns).astype(bool)
        for mask, groups in zip(pixels, ds.PerFrameFunctionalGroupsSequence, strict=True):
            if _segment_number(groups, ds) in numbers:
                source = groups.DerivationImageSequence[0].SourceImageSequence[0]
                found[str(source.ReferencedSOPInstanceUID)] = mask
    return found


def _segment_number(groups: Dataset, ds: Dataset) -> int:
    """Of a frame; where all frames are of one segment it is said once for all."""
    held = groups if "SegmentIdentificationSequence" in groups else ds.SharedFunctionalGroupsSequence[0]
    return int(held.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def row_of(name: str, groups: Sequence[str], statistic: Callable[[NDArray[np.int_]], float | None]) -> str:
    """A line of the table; ``statistic`` of places, resampled by group."""
    members: dict[str, list[int]] = defaultdict(list)
    for place, group in enumerate(groups):
        members[group].append(place)
    names, rng = list(members), np.random.default_rng(0)
    drawn = [
        statistic(np.concatenate([members[names[i]] for i in rng.integers(0, len(names), len(names))]))
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile([each for each in drawn if each is not None], (2.5, 97.5))
    value = statistic(np.arange(len(groups)))
    return f"| {name} | {len(groups)} of {len(names)} | {value:.3f} | {low:.3f} to {high:.3f} |"


def _by_class(pipeline: str, runs: Sequence[dict[str, Any]], rows: Rows) -> list[str]:
    lines = []
    for name in CLASSES.get(pipeline, ()):
        chances: dict[str, float] = {}
        present: dict[str, bool] = {}
        for each in (finding for run in runs for finding in run["findings"]):
            if each["code"][2].lower() == name:
                chances[each["sop_uids"][0]], present[each["sop_uids"][0]] = each["certainty"], each["present"]
        uids = [uid for uid in rows if uid in chances]
        scores = np.array([chances[uid] for uid in uids])
        truth = np.array([float(rows[uid]["label"] == name) for uid in uids])
        groups = [rows[uid]["patient_id"] for uid in uids]
        lines.append(row_of(f"{name}, AUROC", groups, lambda at, s=scores, t=truth: auroc(s[at], t[at])))
        said = np.array([present[uid] for uid in uids])
        is_there = truth > 0
        for what, kind in (("sensitivity", is_there), ("specificity", ~is_there)):
            right = (said == is_there)[kind]
            own = [group for group, each in zip(groups, kind, strict=True) if each]
            lines.append(row_of(f"{name}, {what}", own, lambda at, r=right: float(r[at].mean())))
    return lines


def _worst_first(scores: dict[str, float], rows: Rows) -> list[str]:
    by_patient: dict[str, list[float]] = defaultdict(list)
    for uid, score in scores.items():
        by_patient[rows[uid]["patient_id"]].append(score)
    ordered = sorted(by_patient.items(), key=lambda each: float(np.mean(each[1])))[:12]
    head = [
        "Patients or groups, the worst first:",
        "",
        "| | pictures | mean Dice | worst |",
        "| --- | --- | --- | --- |",
    ]
    return head + [f"| {who} | {len(own)} | {np.mean(own):.3f} | {min(own):.3f} |" for who, own in ordered]


if __name__ == "__main__":
    main()
