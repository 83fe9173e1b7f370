"""How well a pipeline of pictures bears what befalls pictures: natural corruptions, and the worst that a bound allows.

    .venv/bin/python benchmarks/robustness.py us_breast DICOM --labels SET [--split dev] [--most 40]

Corrupted pictures go through the product: they are written as DICOM, read by the pipeline, and judged as ``wetread
evaluate`` judges. The attack (projected gradient descent) goes at the networks on their canvas, and at nothing that
withholds pictures. Writes robustness_NAME.json and .md beside this file, the worst first. Never part of any training.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from node.settings import Settings
from pipelines import registry
from pipelines.base import Pipeline
from pipelines.carded import Carded
from pipelines.dx_chest import OUTLINES
from pipelines.instance import open_instance, text
from pipelines.training import recipes
from pipelines.training.attack import STEPS, Attacked
from pipelines.training.examples import UNKNOWN, Row, Truth
from pipelines.training.picture_tasks import Classify, Outline
from pipelines.training.prepare import NoLabels, index_rows
from pipelines.training.recipes.dx_chest import drawn
from pipelines.training.robustness import Line, natural
from pipelines.training.truths import Judged, columns_of, judged


def _opacity(row: Row, _: Path) -> Truth:
    """As a radiologist of the RSNA saw it."""
    return Truth([{"": UNKNOWN, "Lung Opacity": 1.0}.get(row["rsna_class"], 0.0)])


def _drawn(row: Row, labels: Path) -> Truth | None:
    return Truth(masks=(np.asarray(Image.open(labels / row["mask"])) > 0)[None]) if row["mask"] else None


# What is known of the pictures, for pipelines whose recipe does not say so.
JUDGED_BY = {
    "dx_chest": {
        "findings": Judged(_opacity, classes=("opacity",), columns=("rsna_class",)),
        "outline": Judged(drawn, labels=OUTLINES, columns=("mask", "mask_heart")),
    },
    "op_retina": {"vessels": Judged(_drawn, labels=("vessel",), columns=("mask",))},
    "gm_cells": {"nuclei": Judged(_drawn, labels=("nucleus",), columns=("mask", "n_nuclei"))},
}
COLUMNS = ("study_uid", "sop_uid", "file", "patient_id", "split")
# Modality → unit of the bound, of how many of them the canvas is from black to white, bounds.
BOUNDS = {"CT": ("HU", 80.0, (0.05, 0.2, 1.0)), "": ("grey levels of 256", 255.0, (0.1, 0.5, 2.0))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline")
    parser.add_argument("data", type=Path, help="DICOM studies with index.csv")
    parser.add_argument("--labels", type=Path, help="the folder that the masks' paths start from; default: DATA")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--most", type=int, default=40, help="pictures, of as many kinds as there are")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    torch.set_num_threads(1)
    labels = args.labels or args.data
    rows = subset(index_rows(args.data, wanted=(args.split,), columns=COLUMNS), args.most)
    pipeline = registry.load(Settings().pipelines[args.pipeline].use)
    begun = time.monotonic()
    columns = columns_of(args.data)
    own = {name: each for name, each in JUDGED_BY.get(args.pipeline, {}).items() if set(each.columns) <= set(columns)}
    parts = own or judged(args.pipeline, None, columns)
    lines = [*natural(pipeline, parts, rows, args.data, labels, progress=progress)]
    lines += worst_case(pipeline, args.pipeline, rows, args.data, labels)
    said = {
        "pipeline": args.pipeline,
        "version": pipeline.algorithm.version,
        "weights": pipeline.algorithm.weights_digest,
        "split": args.split,
        "pictures": len(rows),
        "seconds": round(time.monotonic() - begun),
        "lines": lines,
    }
    stem = args.out / f"robustness_{args.pipeline}"
    stem.with_suffix(".json").write_text(json.dumps(said, indent=1) + "\n")
    stem.with_suffix(".md").write_text(page(said))
    print(stem.with_suffix(".md").read_text())


def subset(rows: Sequence[Row], most: int) -> list[Row]:
    """Whole studies, in an order that nobody chose, by turns of each label."""
    by_study: dict[str, list[Row]] = {}
    for row in rows:
        by_study.setdefault(row["study_uid"], []).append(row)
    ordered = sorted(by_study, key=lambda uid: hashlib.sha256(uid.encode()).hexdigest())
    turns: dict[str, int] = {}
    places = []
    for uid in ordered:
        label = by_study[uid][0].get("label", "")
        turns[label] = turns.get(label, 0) + 1
        places.append((turns[label], uid))
    chosen: list[Row] = []
    for _, uid in sorted(places, key=lambda each: each[0]):
        if len(chosen) < most:
            chosen += by_study[uid]
    return chosen


def worst_case(pipeline: Pipeline, name: str, rows: list[Row], data: Path, labels: Path) -> Iterator[Line]:
    """PGD at each part of the pipeline that is a classifier or an outliner of pictures, where the set has its truth."""
    networks = next(each for each in (pipeline, *vars(pipeline).values()) if isinstance(each, Carded))._networks
    unit, whole, bounds = BOUNDS.get(text(open_instance(data / rows[0]["file"]), "Modality"), BOUNDS[""])
    wanted = {row["sop_uid"] for row in rows}
    table: dict[str, recipes.Recipe] = importlib.import_module(f"{recipes.__name__}.{name}").RECIPES
    for part, recipe in table.items():
        with tempfile.TemporaryDirectory() as cache:
            sources = recipes.Sources(data, labels, Path(cache), (rows[0]["split"],), lambda _: None)
            try:
                task = recipe.task(sources, replace(recipe.options, fold=None))
            except (KeyError, NoLabels, OSError):
                continue  # the set has no truth for this part
        if not isinstance(task, Classify | Outline):
            continue
        own = task.examples.at([i for i, row in enumerate(task.examples.rows) if row["sop_uid"] in wanted])
        if not len(own):
            continue
        target = Attacked(task, networks.members(part), own)
        for bound in (0.0, *bounds):
            progress(f"attack on {part}, {bound:g} {unit}")
            score = target.score(bound / whole)
            yield {
                "kind": "attack",
                "name": f"attack on {part}" if bound else "as it is",
                "degree": bound,
                "unit": unit,
                "measure": f"{part}: {target.measure}",
                "n": len(own),
                "value": None if score is None else round(score, 4),
                "interval": None,
                "unread": 0.0,
            }


def progress(what: str) -> None:
    print(f"\r{what:<70}", end="", file=sys.stderr, flush=True)


def page(said: dict[str, Any]) -> str:
    lines = [
        f"# {said['pipeline']} {said['version']}: what its pictures bear, on the split `{said['split']}`",
        "",
        f"    .venv/bin/python benchmarks/robustness.py {said['pipeline']} DICOM --labels SET --split {said['split']} "
        f"--most {said['pictures']}",
        "",
        f"{said['pictures']} pictures, weights {said['weights'][:12]}. The worst first, measure by measure; intervals "
        "95 % by resampling patients. AUROC is of what was read; an outline that was not read has Dice 0. Natural "
        f"corruptions went through DICOM and the pipeline, the attack (PGD, {STEPS} steps) at the networks alone.",
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
            lines.append(f"| {line['name']} | {degree} | {_value(line)} | {line['n']} | {line['unread']:.0%} |")
    return "\n".join(lines) + "\n"


def _value(line: Line) -> str:
    if line["value"] is None:
        return "–"
    return f"{line['value']:.3f}" + (" ({0[0]:.3f} to {0[1]:.3f})".format(line["interval"]) if line["interval"] else "")


if __name__ == "__main__":
    main()
