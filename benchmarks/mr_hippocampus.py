"""What mr_hippocampus is worth on labelled studies, through the product: `wetread read`, then the objects it wrote.

    python to_dicom.py hippocampus_mri DICOM --split dev
    wetread read DICOM --out OUT --pipeline mr_hippocampus --json > RESULT.json
    .venv/bin/python benchmarks/mr_hippocampus.py DICOM hippocampus_mri RESULT.json

Masks come from the Segmentations, references from the NIfTI files that DICOM/index.csv names. A study that was not read
counts as Dice 0. Writes mr_hippocampus_dev.json and .md beside this file.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from pipelines.evidence.masks import seg_masks
from pipelines.fusion import turn_of
from pipelines.mr_hippocampus import CARD, LABELS, voxel_cm3
from pipelines.study import read_folder
from pipelines.training.metrics import dice, hausdorff95, interval
from pipelines.training.volumes import reference

HERE = Path(__file__).parent
COMMANDS = """
    python to_dicom.py hippocampus_mri DICOM --split dev
    wetread read DICOM --out OUT --pipeline mr_hippocampus --json > RESULT.json
    .venv/bin/python benchmarks/mr_hippocampus.py DICOM hippocampus_mri RESULT.json
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dicom", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("result", type=Path)
    args = parser.parse_args()
    with (args.dicom / "index.csv").open(newline="") as file:
        rows = {row["study_uid"]: row for row in csv.DictReader(file)}
    said = {study["study_uid"]: study["runs"][0] for study in json.loads(args.result.read_text())["studies"]}
    volumes = [judged(uid, row, said[uid], args) for uid, row in sorted(rows.items(), key=lambda each: each[1]["path"])]
    report = summary(volumes)
    (HERE / "mr_hippocampus_dev.json").write_text(json.dumps(report, indent=1) + "\n")
    (HERE / "mr_hippocampus_dev.md").write_text(page(report))
    print(page(report))


def judged(uid: str, row: dict[str, str], run: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """One volume: Dice, 95th percentile of the surface distance in mm, and cm³ of each part, ours and the reference."""
    held: dict[str, Any] = {"volume": row["patient_id"], "status": run["status"], "seconds": run["seconds"]}
    if run["status"] != "read":
        return held | {"reason": run["reason"], "dice": dict.fromkeys(LABELS, 0.0)}
    series = read_folder(args.dicom / uid)[0][0].series[0]
    segmentation = next(Path(each) for each in run["objects"] if Path(each).name.startswith("seg"))
    masks, truth = seg_masks(segmentation, series), reference(args.labels / row["mask"])
    turn, spacing = turn_of(series), series.spacing or (1.0, 1.0, 1.0)
    held |= {"dice": {}, "hausdorff95_mm": {}, "cm3": {}, "reference_cm3": {}}
    for value, name in enumerate(LABELS, start=1):
        wanted = turn.back(np.asarray(truth == value))
        held["dice"][name] = dice(masks[name], wanted)
        held["hausdorff95_mm"][name] = hausdorff95(masks[name], wanted, spacing)
        held["reference_cm3"][name] = float(wanted.sum()) * voxel_cm3(series)
        measured = [each for each in run["findings"] if each["segment"] == name]
        held["cm3"][name] = measured[0]["measurements"][0]["value"]
    return held


def summary(volumes: list[dict[str, Any]]) -> dict[str, Any]:
    was_read = [each for each in volumes if each["status"] == "read"]
    parts = {}
    for name in LABELS:
        dices = [each["dice"][name] for each in volumes]
        less = [each["cm3"][name] - each["reference_cm3"][name] for each in was_read]
        parts[name] = {
            "n": len(dices), "mean": float(np.mean(dices)), "interval": list(interval(dices)),
            "median": float(np.median(dices)), "worst": min(dices),
            "hausdorff95_mm_median": float(np.median([each["hausdorff95_mm"][name] for each in was_read])),
            "cm3_mean_difference": float(np.mean(less)), "cm3_limits": 1.96 * float(np.std(less)),
        }  # fmt: skip
    card = json.loads(CARD.read_text())
    return {
        "pipeline": card["name"], "version": card["version"], "weights_sha256": card["sha256"], "split": "dev",
        "parts": parts, "n_unread": len(volumes) - len(was_read),
        "seconds_median": float(np.median([each["seconds"] for each in was_read])),
        "seconds_most": max(each["seconds"] for each in was_read), "volumes": volumes,
    }  # fmt: skip


def page(report: dict[str, Any]) -> str:
    lines = [
        f"# {report['pipeline']} {report['version']} on the split `dev`",
        f"How to repeat it, with the set's wrapping tool and its masks:\n{COMMANDS}",
        f"Weights SHA-256 `{report['weights_sha256']}`. Masks are read from the Segmentations that were written. "
        "Intervals are 95 %, 2,000 bootstrap resamples by volume; which volumes are of one person is not known in this "
        f"set, so they may be too narrow. Volumes that were not read: {report['n_unread']} (they count as Dice 0).",
        table(
            "| part | n | mean Dice | 95 % | median | worst | 95 % Hausdorff, median |",
            *(
                f"| {name} | {each['n']} | {each['mean']:.3f} | {' to '.join(f'{v:.3f}' for v in each['interval'])} "
                f"| {each['median']:.3f} | {each['worst']:.3f} | {each['hausdorff95_mm_median']:.1f} mm |"
                for name, each in report["parts"].items()
            ),
        ),
        "Volume, ours less the reference (mean, and 95 % limits of agreement about it):",
        table(
            "| part | mean | limits |",
            *(
                f"| {name} | {each['cm3_mean_difference']:+.3f} cm³ | ± {each['cm3_limits']:.3f} cm³ |"
                for name, each in report["parts"].items()
            ),
        ),
        "Wall time for a study in that run, evidence included, on two cores shared with other work: median "
        f"{report['seconds_median']:.2f} s, at most {report['seconds_most']:.2f} s.",
        "## Each volume, the worst first",
        table(
            "| volume | anterior | posterior | cm³ | reference cm³ | status |",
            *(row(each) for each in sorted(report["volumes"], key=lambda each: min(each["dice"].values()))),
        ),
    ]
    return "\n\n".join(lines) + "\n"


def row(volume: dict[str, Any]) -> str:
    ours, theirs = ("/".join(f"{v:.2f}" for v in volume.get(key, {}).values()) for key in ("cm3", "reference_cm3"))
    dices = " | ".join(f"{each:.3f}" for each in volume["dice"].values())
    return f"| {volume['volume']} | {dices} | {ours} | {theirs} | {volume.get('reason') or volume['status']} |"


def table(head: str, *rows: str) -> str:
    return "\n".join([head, "|" + " --- |" * (head.count("|") - 1), *rows])


if __name__ == "__main__":
    main()
