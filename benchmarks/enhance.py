"""What ``enhance`` makes of a split: as the pictures are, and with the noise of their modality added.

    .venv/bin/python benchmarks/enhance.py DICOM… [--split dev] [--most 12]

Each DICOM is what ``to_dicom.py`` makes of a set, with its index.csv. Of each study the first series that the pipeline
reads. For each disc: how well the model observer sees it afterwards, relative to before (of the noisy pictures, where
noise was added), and what is left of the noise. Intervals are 95 %, 2,000 resamples of patients. Writes
enhance_dev.json and enhance_dev.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from pipelines import observer
from pipelines.base import UnsuitableStudy, WithheldStudy
from pipelines.enhance import LOOKED_AT, Enhance, Scaled, readable, scaled
from pipelines.study import read_files
from pipelines.training.examples import Row, group_of
from pipelines.training.noise import ADDED
from pipelines.training.prepare import index_rows
from pipelines.training.resampling import estimate, mean_of

COLUMNS = ("study_uid", "sop_uid", "file", "patient_id", "split")
STRENGTHS = {"mr": 0.05, "ct": 0.1, "us": 0.3}  # MR: of white; CT: 8 HU; US: share of scattered waves
Line = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--most", type=int, default=12, help="studies of each set")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipeline = Enhance()
    lines = [line for data in args.data for line in of_set(pipeline, data, args.split, args.most)]
    said = {"version": pipeline.card.version, "weights": pipeline.card.sha256, "split": args.split, "studies": lines}
    stem = args.out / f"enhance_{args.split}"
    stem.with_suffix(".json").write_text(json.dumps(said, indent=1) + "\n")
    stem.with_suffix(".md").write_text(page(said, args.most))
    print(stem.with_suffix(".md").read_text())


def of_set(pipeline: Enhance, data: Path, split: str, most: int) -> Iterator[Line]:
    by_study: dict[str, list[Row]] = {}
    for row in index_rows(data, wanted=(split,), columns=COLUMNS):
        by_study.setdefault(row["study_uid"], []).append(row)
    chosen = sorted(by_study)[:: max(1, len(by_study) // most)][:most]
    for place, uid in enumerate(chosen, start=1):
        print(f"\r{data.name}: {place} of {len(chosen)}   ", end="", file=sys.stderr, flush=True)
        (study,), _ = read_files(data / row["file"] for row in by_study[uid])
        try:
            series, role = readable(study)[0]
        except UnsuitableStudy:
            continue
        shown = scaled(series.volume(), role, series)
        slices = torch.from_numpy(np.unique(np.linspace(0, len(shown.images) - 1, LOOKED_AT).round().astype(int)))
        shown = replace(shown, images=shown.images[slices])
        about = {"set": data.name, "role": role, "patient": group_of(by_study[uid][0])}
        yield about | {"noise": "as it is"} | judged(pipeline, shown, role)
        torch.manual_seed(place)
        strengths = torch.full((len(slices),), STRENGTHS[role])
        noisy = replace(shown, images=ADDED[role](shown.images.clamp(0, 1.5 if role == "mr" else 1), strengths))
        yield about | {"noise": "added"} | judged(pipeline, noisy, role, clean=shown)


def judged(pipeline: Enhance, shown: Scaled, role: str, *, clean: Scaled | None = None) -> Line:
    """What was sent, and what the observer saw; beside the pictures without noise where they are known."""
    try:
        answers = pipeline.answers(shown, role)
    except observer.TooFewPlaces:
        return {"status": "too few places"}
    whole = [each.visibility(1.0) for each in answers]
    line: Line = {"whole": {str(each.diameter): round(each.ratio, 4) for each in whole}}
    try:
        made = pipeline.denoised(shown, role)
    except WithheldStudy:
        return line | {"status": "withheld"}
    line |= {
        "status": "sent",
        "share": made.share,
        "sent": {str(each.diameter): round(each.ratio, 4) for each in made.seen},
        "noise left": round(made.after / made.before, 4),
    }
    if clean is not None:
        noise = shown.images - clean.images
        away = torch.from_numpy(made.noise)[:, None] / (shown.white - shown.black)
        line["error left"] = round(float(((noise - away).square().mean() / noise.square().mean()).sqrt()), 4)
    return line


def page(said: dict[str, Any], most: int) -> str:
    lines = [
        f"# enhance {said['version']} on the split `{said['split']}`",
        "",
        f"    .venv/bin/python benchmarks/enhance.py DICOM… --split {said['split']} --most {most}",
        "",
        "How well a model observer sees a faint disc (d' 2 before) after all of what the network calls noise was",
        "taken away, and after the share that the pipeline takes: relative to before, mean over studies. Noise left:",
        "deviation in smooth tissue. Error left: root mean square to the picture that noise was added to; both",
        "relative to before.",
        "",
        "| set | noise | n | sent | disc | all taken away | as sent | noise left | error left |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    keys = dict.fromkeys((line["set"], line["noise"]) for line in said["studies"])
    for name, noise in keys:
        own = [line for line in said["studies"] if (line["set"], line["noise"]) == (name, noise)]
        sent = [line for line in own if line["status"] == "sent"]
        for diameter in ("5", "9", "15"):
            cells = [
                _mean(own, "whole", diameter), _mean(sent, "sent", diameter), _mean(sent, "noise left"),
                _mean(sent, "error left"),
            ]  # fmt: skip
            lines.append(f"| {name} | {noise} | {len(own)} | {len(sent)} | {diameter} pixels | {' | '.join(cells)} |")
    shares = [line["share"] for line in said["studies"] if line["status"] == "sent"]
    lines += ["", "Shares that were taken: " + ", ".join(f"{s:g}: {shares.count(s)}" for s in sorted(set(shares)))]
    return "\n".join(lines) + "\n"


def _mean(lines: Sequence[Line], key: str, below: str | None = None) -> str:
    own = [line for line in lines if key in line]
    if not own:
        return "–"
    values = np.array([line[key][below] if below else line[key] for line in own], float)
    found = estimate(mean_of(values), [line["patient"] for line in own])
    shown = f"{found.value:.3f}"
    return shown + (f" ({found.interval[0]:.3f} to {found.interval[1]:.3f})" if found.interval else "")


if __name__ == "__main__":
    main()
