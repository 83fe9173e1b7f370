"""How well a pipeline bears what befalls pictures: natural corruptions, and the worst that a bound allows.

    .venv/bin/python benchmarks/robustness.py us_breast DICOM --labels SET [--split dev] [--most 40]
    .venv/bin/python benchmarks/robustness.py dx_chest DICOM DICOM2 --labels SET SET2

Corrupted pictures go through the product: they are written as DICOM, read by the pipeline, and judged as ``wetread
evaluate`` judges. The attack (projected gradient descent) goes at the networks, in the units of the picture; what it
makes of a picture is shown to what withholds strange ones, too. Writes robustness_NAME.json and .md beside this file,
the worst first. Never part of any training, and nothing is chosen by it, so the split ``dev`` serves.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from node.settings import Settings
from pipelines import mr_brain, registry
from pipelines.dx_chest import OUTLINES
from pipelines.training.attack import STEPS
from pipelines.training.examples import Row, Truth
from pipelines.training.prepare import NoLabels, index_rows
from pipelines.training.recipes import UnknownPipeline
from pipelines.training.recipes.dx_chest import drawn
from pipelines.training.robustness import Line, natural
from pipelines.training.targets import worst_case
from pipelines.training.truths import Judged, columns_of, judged


def _opacity(row: Row, _: Path) -> Truth | None:
    """As a radiologist of the RSNA saw it."""
    return Truth([float(row["rsna_class"] == "Lung Opacity")]) if row["rsna_class"] else None


def _lesion(row: Row, labels: Path) -> Truth | None:
    """On the slices of FLAIR, which is what is outlined; the index gives those of T1 the same masks."""
    if not row["mask"] or row["sequence"] != "FLAIR":
        return None
    return Truth(masks=(np.asarray(Image.open(labels / row["mask"])) > 0)[None])


# What is known of the pictures, for pipelines whose recipe does not say so, or says more than radiologists do.
JUDGED_BY = {
    "dx_chest": {
        "findings": Judged(_opacity, classes=("opacity",), columns=("rsna_class",)),
        "outline": Judged(drawn, labels=OUTLINES, columns=("mask", "mask_heart")),
    },
    "mr_brain": {
        "outline": Judged(_lesion, labels=(mr_brain.LABEL,), whole=True, columns=("mask", "sequence", "institution"))
    },
}
COLUMNS = ("study_uid", "series_uid", "sop_uid", "file", "patient_id", "split")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline")
    parser.add_argument(
        "data", type=Path, nargs="+", help="DICOM studies with index.csv; of several sets one after another"
    )
    parser.add_argument(
        "--labels", type=Path, nargs="+", help="the folders that the masks' paths start from; default: DATA"
    )
    parser.add_argument("--split", default="dev")
    parser.add_argument("--most", type=int, default=40, help="pictures of each set, or studies where those are judged")
    parser.add_argument("--attacked", type=int, default=40, help="of those, under attack")
    parser.add_argument("--heaviest", action="store_true", help="of each corruption the heaviest degree alone")
    parser.add_argument("--only", choices=("natural", "attack"), help="the other half stays as the file has it")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.pipeline not in Settings().pipelines:
        parser.error(f"there is no pipeline {args.pipeline}; there are {', '.join(Settings().pipelines)}")
    if len(args.labels or args.data) != len(args.data):
        parser.error("--labels names as many folders as there are sets, in their order")
    pipeline = registry.load(Settings().pipelines[args.pipeline].use)
    begun = time.process_time()
    stem = args.out / f"robustness_{args.pipeline}"
    said: dict[str, Any] = {
        "pipeline": args.pipeline,
        "version": pipeline.algorithm.version,
        "weights": pipeline.algorithm.weights_digest,
        "split": args.split,
        "options": f"--split {args.split} --most {args.most} --attacked {args.attacked}{' --heaviest' * args.heaviest}",
        "sets": len(args.data),
        "lines": [],
    }
    lines: list[Line] = []
    for data, labels in zip(args.data, args.labels or args.data, strict=True):
        columns = columns_of(data)
        own = {n: each for n, each in JUDGED_BY.get(args.pipeline, {}).items() if set(each.columns) <= set(columns)}
        try:
            parts = own or judged(args.pipeline, None, columns)
            rows = subset(index_rows(data, wanted=(args.split,), columns=COLUMNS), parts, labels, args.most)
        except (UnknownPipeline, NoLabels) as reason:
            parser.error(str(reason))
        if args.only != "attack":
            lines += natural(pipeline, parts, rows, data, labels, heaviest=args.heaviest, progress=progress)
        if args.only != "natural":
            few = subset(rows, parts, labels, args.attacked)
            lines += worst_case(pipeline, args.pipeline, few, data, labels, progress=progress)
    said["lines"] = lines + kept(stem.with_suffix(".json"), said, args.only)
    said["processor seconds"] = round(time.process_time() - begun)
    stem.with_suffix(".json").write_text(json.dumps(said, indent=1) + "\n")
    stem.with_suffix(".md").write_text(page(said))
    print(stem.with_suffix(".md").read_text())


def kept(file: Path, said: Mapping[str, Any], only: str | None) -> list[Line]:
    """The lines of the half that was not measured anew, of these very weights."""
    if only is None or not file.is_file():
        return []
    held = json.loads(file.read_text())
    if (held["weights"], held["options"]) != (said["weights"], said["options"]):
        return []
    return [line for line in held["lines"] if (line["kind"] == "attack") == (only == "natural")]


def subset(rows: Sequence[Row], parts: Mapping[str, Judged], labels: Path, most: int) -> list[Row]:
    """Whole studies that something is known of, in an order that nobody chose, by turns of what is known."""
    by_study: dict[str, list[Row]] = {}
    for row in rows:
        by_study.setdefault(row["study_uid"], []).append(row)
    is_whole = all(part.whole for part in parts.values())
    turns: dict[str, int] = {}
    places: list[tuple[int, int, str]] = []
    for uid in sorted(by_study, key=lambda uid: hashlib.sha256(uid.encode()).hexdigest()):
        known = [truth for part in parts.values() for row in by_study[uid] if (truth := part.truth(row, labels))]
        if known:
            kind = f"{[*known[0].labels] or by_study[uid][0].get('label')} {any(t.masks is not None for t in known)}"
            turns[kind] = turns.get(kind, 0) + 1
            places.append((turns[kind], 1 if is_whole else len(by_study[uid]), uid))
    chosen: list[Row] = []
    count = 0
    for _, size, uid in sorted(places, key=lambda each: each[0]):
        if count < most:
            chosen += by_study[uid]
            count += size
    return chosen


def progress(what: str) -> None:
    print(f"\r{what:<70}", end="", file=sys.stderr, flush=True)


def page(said: dict[str, Any]) -> str:
    sets = " ".join(["DICOM"] * said["sets"] + ["--labels"] + ["SET"] * said["sets"])
    lines = [
        f"# {said['pipeline']} {said['version']}: what its pictures bear, on the split `{said['split']}`",
        "",
        f"    .venv/bin/python benchmarks/robustness.py {said['pipeline']} {sets} {said['options']}",
        "",
        f"Weights {said['weights'][:12]}. The worst first, measure by measure; intervals 95 % by resampling patients "
        "(look-alikes, or pictures, where the set knows none). Which pictures, a hash of their UIDs says, by turns of "
        "what is known of them. Nothing was chosen by these figures. AUROC is of what was read; an outline or a box in "
        "a picture that was not read is missed. Natural corruptions went through DICOM and the pipeline; the attack "
        f"(PGD, {STEPS} steps, no pixel further away than the bound) at the networks, and of what it made the last "
        "column says how much what withholds strange pictures would not have read (–: nothing here does so by the "
        "picture alone).",
    ]
    for measure in dict.fromkeys(line["measure"] for line in said["lines"]):
        own = [line for line in said["lines"] if line["measure"] == measure]
        own.sort(key=lambda line: (line["value"] is None, line["value"] or 0))
        lines += [
            "",
            f"## {measure}",
            "",
            "| what | degree | value | n | not read |",
            "| --- | --- | --- | --- | --- |",
        ]
        for line in own:
            degree = "" if line["degree"] is None else f"{line['degree']:g} {line['unit']}"
            unread = "–" if line["unread"] is None else f"{line['unread']:.0%}"
            lines.append(f"| {line['name']} | {degree} | {_value(line)} | {line['n']} | {unread} |")
    return "\n".join(lines) + "\n"


def _value(line: Line) -> str:
    if line["value"] is None:
        return "–"
    return f"{line['value']:.3f}" + (" ({0[0]:.3f} to {0[1]:.3f})".format(line["interval"]) if line["interval"] else "")


if __name__ == "__main__":
    main()
