"""Judges ``dx_chest`` through the product: what ``wetread read --json`` and the Segmentations say of wrapped sets.

    python -m benchmarks.dx_chest_dev --findings DICOM LABELS --outlines DICOM LABELS [--split dev] --out benchmarks

``DICOM`` is a folder of studies with an ``index.csv``; ``LABELS`` the folder that its masks start from. Only the split
named is read, once. Writes dx_chest_SPLIT.json and .md.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread

from pipelines.dx_chest import CARD, OUTLINES, SAID, cardiothoracic_ratio
from pipelines.training.metrics import auroc, dice

COLUMNS = {"edema": "Edema"}  # of the set's labels
ROOT = Path(__file__).parents[1]
Rows = list[dict[str, str]]


def rows_of(data: Path, split: str) -> Rows:
    return [row for row in csv.DictReader((data / "index.csv").open()) if row["split"] == split]


def read(rows: Rows, data: Path, out: Path) -> tuple[dict[str, dict[str, Any]], list[float], list[str]]:
    """By SOP Instance UID what was found; seconds per study, and reasons of not reading."""
    for row in rows:
        file = out / "studies" / row["file"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to((data / row["file"]).resolve())
    command = [sys.executable, "-m", "node", "read", str(out / "studies"), "--out", str(out / "evidence")]
    done = subprocess.run([*command, "--pipeline", "dx_chest", "--json"], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    found: dict[str, dict[str, Any]] = {}
    seconds, reasons = [], []
    for study_said in json.loads(done.stdout)["studies"]:
        for run in study_said["runs"]:
            seconds.append(run["seconds"])
            reasons += [run["reason"]] if run["reason"] else run["notes"]
            for finding in run["findings"]:
                for uid in finding["sop_uids"]:
                    found.setdefault(uid, {})[finding["code"][2]] = finding
                    found[uid][finding.get("segment") or ""] = finding
            for file in run["objects"]:
                _masks_of(Path(file), found)
    return found, seconds, reasons


def _masks_of(file: Path, found: dict[str, dict[str, Any]]) -> None:
    """The masks of a Segmentation, to the image that each frame is of."""
    held = dcmread(file)
    if held.Modality != "SEG":
        return
    frames = held.pixel_array.reshape(-1, held.Rows, held.Columns).astype(bool)
    labels = {segment.SegmentNumber: segment.SegmentLabel for segment in held.SegmentSequence}
    shared = held.SharedFunctionalGroupsSequence[0]
    for mask, group in zip(frames, held.PerFrameFunctionalGroupsSequence, strict=True):
        segment = (group if "SegmentIdentificationSequence" in group else shared).SegmentIdentificationSequence[0]
        derived = (group if "DerivationImageSequence" in group else shared).DerivationImageSequence[0]
        uid = derived.SourceImageSequence[0].ReferencedSOPInstanceUID
        found.setdefault(uid, {})[f"mask {labels[segment.ReferencedSegmentNumber]}"] = mask


def of_patients(
    patients: Sequence[str], statistic: Callable[[NDArray[np.intp]], float | None], *, seed: int = 0
) -> dict[str, Any]:
    """A statistic of places, with its 95 % interval of 2,000 resamples of whole patients."""
    groups: dict[str, list[int]] = {}
    for place, patient in enumerate(patients):
        groups.setdefault(patient, []).append(place)
    each, rng = [np.array(places) for places in groups.values()], np.random.default_rng(seed)
    drawn = [statistic(np.concatenate([each[i] for i in rng.integers(0, len(each), len(each))])) for _ in range(2000)]
    known = [value for value in drawn if value is not None]
    whole = statistic(np.arange(len(patients)))
    enough = whole is not None and len(groups) >= 3
    span = [round(float(np.percentile(known, at)), 3) for at in (2.5, 97.5)] if enough else None
    return {"value": None if whole is None else round(whole, 3), "interval": span, "n": len(patients)}


def area(rows: Rows, scores: Sequence[float], truth: Sequence[float]) -> dict[str, Any]:
    ours, known = np.asarray(scores, np.float64), np.asarray(truth, np.float64)
    said = of_patients([row["patient_id"] for row in rows], lambda at: auroc(ours[at], known[at]))
    return said | {"with": int((known > 0.5).sum())}


def findings(data: Path, split: str) -> dict[str, Any]:
    """Opacity against the radiologists, by view; the others as reports tell them.

    Of the pictures that a radiologist has read; of the rest only a text program's labels are known.
    """
    rows = [row for row in rows_of(data, split) if row["rsna_class"]]
    with tempfile.TemporaryDirectory() as folder:
        found, seconds, reasons = read(rows, data, Path(folder))
    named = {name: SAID[name].meaning for name in SAID}
    seen = [row for row in rows if named["opacity"] in found.get(row["sop_uid"], {})]

    def score(row: dict[str, str], name: str) -> float:
        return float(found[row["sop_uid"]][named[name]]["certainty"])

    said: dict[str, Any] = {"pictures": len(rows), "read": len(seen), "reasons": sorted(set(reasons))}
    said["seconds per study"] = {"median": float(np.median(seconds)), "95 %": float(np.percentile(seconds, 95))}
    expert = [row for row in seen if row["rsna_class"]]
    truth = [float(row["rsna_class"] == "Lung Opacity") for row in expert]
    scores = [score(row, "opacity") for row in expert]
    said["opacity"] = area(expert, scores, truth)
    for view in ("AP", "PA"):
        at = [i for i, row in enumerate(expert) if row["view"] == view]
        said[f"opacity, {view}"] = area([expert[i] for i in at], [scores[i] for i in at], [truth[i] for i in at])
    said["opacity, by the view alone"] = area(expert, [float(row["view"] == "AP") for row in expert], truth)
    present = np.array([found[row["sop_uid"]][named["opacity"]]["present"] for row in expert])
    is_there = np.array(truth) > 0.5
    said["opacity, at the cutoff"] = {
        "sensitivity": round(float(present[is_there].mean()), 3),
        "specificity": round(float((~present[~is_there]).mean()), 3),
    }
    for name, column in COLUMNS.items():
        told = [float(column in row["label"].split("|")) for row in seen]
        said[f"{name}, by reports"] = area(seen, [score(row, name) for row in seen], told)
    turned = [found[row["sop_uid"]]["Image rotated"]["present"] for row in seen]
    said["upright pictures called rotated"] = sum(turned)
    return said


def outlines(data: Path, labels: Path, split: str) -> dict[str, Any]:
    """Dice of lungs (both as one), each lung and the heart; the ratio against that of the drawn masks."""
    rows = rows_of(data, split)
    with tempfile.TemporaryDirectory() as folder:
        found, seconds, reasons = read(rows, data, Path(folder))
    scores: dict[str, list[float]] = {name: [] for name in ("lungs", *OUTLINES)}
    ratios = []
    for row in rows:
        lungs, heart = (np.asarray(Image.open(labels / row[column])) for column in ("mask", "mask_heart"))
        drawn = np.stack([lungs == 1, lungs == 2, heart > 0])
        held = found.get(row["sop_uid"], {})
        ours = np.stack([held.get(f"mask {name}", np.zeros(lungs.shape, bool)) for name in OUTLINES])
        scores["lungs"].append(dice(ours[0] | ours[1], drawn[0] | drawn[1]))
        for i, name in enumerate(OUTLINES):
            scores[name].append(dice(ours[i], drawn[i]))
        pair = cardiothoracic_ratio(ours), cardiothoracic_ratio(drawn)
        if pair[0] is not None and pair[1] is not None:
            ratios.append(pair)
    patients = [row["patient_id"] for row in rows]
    said: dict[str, Any] = {"pictures": len(rows), "reasons": sorted(set(reasons))}
    said["seconds per study"] = {"median": float(np.median(seconds)), "95 %": float(np.percentile(seconds, 95))}
    for name, values in scores.items():
        array = np.asarray(values)
        said[name] = of_patients(patients, lambda at, array=array: float(array[at].mean())) | {  # type: ignore[misc]
            "worst": round(float(array.min()), 3)
        }
    away = np.array([ours - drawn for ours, drawn in ratios])
    said["cardiothoracic ratio"] = {
        "n": len(ratios),
        "ours, mean": round(float(np.mean([ours for ours, _ in ratios])), 3),
        "drawn masks, mean": round(float(np.mean([drawn for _, drawn in ratios])), 3),
        "ours less drawn, mean": round(float(away.mean()), 3),
        "limits of agreement": [round(float(away.mean() + k * 1.96 * away.std(ddof=1)), 3) for k in (-1, 1)],
    }
    return said


def page(said: dict[str, dict[str, Any]], split: str) -> str:
    lines = [
        f"# {CARD.stem.replace('-', ' ')} on the split `{split}`",
        "",
        "How to repeat it, with the DICOM of both sets, as `to_dicom.py` makes it:",
        "",
        "    python -m benchmarks.dx_chest_dev --findings DICOM_NIH cxr_nih --outlines DICOM_LUNGS cxr_lung_masks"
        f" --split {split} --out benchmarks",
        "",
        "Intervals are 95 %, 2,000 bootstrap resamples by patient. A study that was not read counts as Dice 0, and",
        "not in the areas under the curve; how many were read stands in the table.",
    ]
    for title, table in said.items():
        lines += ["", f"## {title.capitalize()}", "", "| what | figure |", "| --- | --- |"]
        lines += [f"| {what} | {_words(figure)} |" for what, figure in table.items()]
    return "\n".join(lines) + "\n"


def _words(figure: Any) -> str:
    if not isinstance(figure, dict):
        return ", ".join(figure) or "none" if isinstance(figure, list) else str(figure)
    if "interval" not in figure:
        return ", ".join(
            f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}" for name, value in figure.items()
        )
    span = "no interval" if figure["interval"] is None else "{} to {}".format(*figure["interval"])
    more = "".join(f", {name} {figure[name]}" for name in ("with", "worst") if name in figure)
    return f"{figure['value']} ({span}), n {figure['n']}{more}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--findings", nargs=2, type=Path, metavar=("DICOM", "LABELS"))
    parser.add_argument("--outlines", nargs=2, type=Path, metavar=("DICOM", "LABELS"))
    parser.add_argument("--split", default="dev")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    said: dict[str, dict[str, Any]] = {}
    if args.findings:
        said["findings"] = findings(args.findings[0], args.split)
    if args.outlines:
        said["outlines"] = outlines(*args.outlines, args.split)
    stem = args.out / f"dx_chest_{args.split}"
    stem.with_suffix(".json").write_text(json.dumps(said, indent=1) + "\n")
    stem.with_suffix(".md").write_text(page(said, args.split))


if __name__ == "__main__":
    main()
