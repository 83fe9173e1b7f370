"""What a pipeline that names classes is worth, through the product: ``wetread read --json`` on a labelled split.

    .venv/bin/python benchmarks/classes_dev.py xc_skin DICOM [--split dev]

DICOM is what ``to_dicom.py`` makes of the set, with its index.csv. Writes NAME_dev.json and NAME_dev.md beside this
file. Intervals are 95 %, 2,000 resamples of groups (the patient, or the look-alikes, that the set keeps together).
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from pipelines.training.examples import group_of
from pipelines.training.metrics import auroc

ROOT = Path(__file__).parents[1]
RESAMPLES = 2000
PREVALENCE = 0.1
# Pipeline → class as the label of a finding → the label of the set that means it.
CLASSES = {
    "ct_head": {"hemorrhage": ("haemorrhage",)},
    "mr_brain_type": {
        "glioma": ("glioma",),
        "meningioma": ("meningioma",),
        "pituitary": ("pituitary",),
        "any of these tumors": ("glioma", "meningioma", "pituitary"),
    },
    "xc_skin": {"melanoma": ("melanoma",)},
}
Rows = list[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", choices=CLASSES)
    parser.add_argument("dicom", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    with (args.dicom / "index.csv").open() as file:
        index = [row for row in csv.DictReader(file) if row["split"] == args.split]
    said = judged(args.pipeline, index, product(args.pipeline, args.dicom, index))
    stem = args.out / f"{args.pipeline}_{args.split}"
    stem.with_suffix(".json").write_text(json.dumps(said, indent=1) + "\n")
    stem.with_suffix(".md").write_text(page(said, args.split))
    print(stem.with_suffix(".md").read_text())


def product(pipeline: str, dicom: Path, index: Rows) -> dict[str, Any]:
    """The JSON of one ``wetread read`` over the split's studies."""
    with tempfile.TemporaryDirectory() as folder:
        studies = Path(folder) / "in"
        for row in index:
            file = studies / row["file"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.symlink_to((dicom / row["file"]).resolve())
        command = [sys.executable, "-m", "node", "read", str(studies), "--out", f"{folder}/out"]
        done = subprocess.run(
            [*command, "--pipeline", pipeline, "--json"], cwd=ROOT, stdout=subprocess.PIPE, check=True
        )
        return json.loads(done.stdout)


def judged(pipeline: str, index: Rows, answer: dict[str, Any]) -> dict[str, Any]:
    runs = [run for study in answer["studies"] for run in study["runs"]]
    found = {
        (uid, each["label"]): (each["certainty"], each["present"])
        for run in runs
        for each in run["findings"]
        for uid in each["sop_uids"]
    }
    classes = CLASSES[pipeline]
    read = [row for row in index if (row["sop_uid"], next(iter(classes))) in found]
    chances = {name: np.array([found[row["sop_uid"], name][0] for row in read]) for name in classes}
    called = {name: np.array([found[row["sop_uid"], name][1] for row in read]) for name in classes}
    truth = {name: np.array([row["label"] in wanted for row in read], float) for name, wanted in classes.items()}
    draws = resampled([group_of(row) for row in read])
    said: dict[str, Any] = {
        "pipeline": pipeline,
        "version": runs[0]["version"],
        "images": len(index),
        "read": len(read),
        "groups": len({group_of(row) for row in read}),
        "status": dict(Counter(run["status"] for run in runs)),
        "reasons": dict(Counter(run["reason"] for run in runs if run["reason"])),
        "seconds": round(statistics.median(run["seconds"] for run in runs if run["status"] == "read"), 3),
        "classes": {},
    }
    for name in classes:
        said["classes"][name] = of_class(chances[name], called[name], truth[name], draws)
    tumors = [name for name in classes if not name.startswith("any")]
    if len(tumors) > 1:
        said["mean AUROC"] = over(draws, lambda at: mean_auroc(chances, truth, tumors, at))
        ill = np.flatnonzero(sum(truth[name] for name in tumors))
        kept = [at[np.isin(at, ill)] for at in draws]
        said["mean AUROC among tumors"] = over(kept, lambda at: mean_auroc(chances, truth, tumors, at))
    return said


def mean_auroc(chances: dict[str, Any], truth: dict[str, Any], names: list[str], at: NDArray[np.int_]) -> float | None:
    each = [auroc(chances[name][at], truth[name][at]) for name in names]
    return None if None in each else float(np.mean(each))


def of_class(
    chance: NDArray[np.float64], called: NDArray[np.bool_], truth: NDArray[np.float64], draws: list[NDArray[np.int_]]
) -> dict[str, Any]:
    sensitivity = over(draws, lambda at: share(called[at], truth[at] == 1))
    specificity = over(draws, lambda at: share(~called[at], truth[at] == 0))
    hits, alarms = PREVALENCE * sensitivity[0], (1 - PREVALENCE) * (1 - specificity[0])
    return {
        "n": int(truth.sum()),
        "AUROC": over(draws, lambda at: auroc(chance[at], truth[at])),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "PPV": round(hits / (hits + alarms), 4) if hits + alarms else None,
        "Brier": over(draws, lambda at: float(np.square(chance[at] - truth[at]).mean())),
    }


def share(yes: NDArray[np.bool_], among: NDArray[np.bool_]) -> float | None:
    return float(yes[among].mean()) if among.any() else None


def resampled(groups: list[str]) -> list[NDArray[np.int_]]:
    """Places of all images, then of each resample."""
    names = sorted(set(groups))
    places = [np.flatnonzero(np.array(groups) == name) for name in names]
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, len(names), len(names)) for _ in range(RESAMPLES)]
    return [np.arange(len(groups)), *(np.concatenate([places[i] for i in each]) for each in drawn)]


def over(draws: list[NDArray[np.int_]], statistic: Callable[[NDArray[np.int_]], float | None]) -> list[float]:
    """The statistic of all, and its interval."""
    values = [statistic(at) for at in draws]
    known = [value for value in values[1:] if value is not None]
    assert values[0] is not None
    return [round(float(each), 4) for each in (values[0], *np.percentile(known, (2.5, 97.5)))]


def page(said: dict[str, Any], split: str) -> str:
    def text(each: list[float]) -> str:
        return f"{each[0]:.3f} ({each[1]:.3f} to {each[2]:.3f})"

    lines = [
        f"# {said['pipeline']} {said['version']} on the split `{split}`",
        "",
        f"    .venv/bin/python benchmarks/classes_dev.py {said['pipeline']} DICOM --split {split}",
        "",
        f"Through `wetread read --json`: {said['read']} of {said['images']} images read, {said['groups']} groups; "
        "runs: "
        + ", ".join(f"{count} {status}" for status, count in said["status"].items())
        + f". Median {said['seconds']:.2f} s a study on a shared machine, after load, evidence included.",
        f"Intervals 95 %, {RESAMPLES:,} resamples of groups. PPV where one in {round(1 / PREVALENCE)} has it.",
        "",
        "| class | with it | AUROC | sensitivity | specificity | PPV | Brier |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, each in said["classes"].items():
        numbers = [text(each[key]) for key in ("AUROC", "sensitivity", "specificity")]
        lines.append(f"| {name} | {each['n']} | {' | '.join(numbers)} | {each['PPV']:.2f} | {each['Brier'][0]:.3f} |")
    lines += [""] + [f"{key}: {text(said[key])}." for key in said if key.startswith("mean")]
    lines += [f"* {count} times: {reason}" for reason, count in said["reasons"].items()]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    main()
