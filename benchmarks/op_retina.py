"""Vessel Dice of ``op_retina`` on dev, through ``wetread read``; writes ``op_retina_dev.md`` and ``.json``.

python -m benchmarks.op_retina --data DICOM --masks SET
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.dev_studies import read, rows_of, said
from pipelines.evidence.masks import seg_masks
from pipelines.study import read_folder
from pipelines.training.metrics import dice


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DICOM")
    parser.add_argument("--masks", type=Path, required=True, metavar="SET")
    args = parser.parse_args()
    rows = rows_of(args.data)
    with tempfile.TemporaryDirectory() as out:
        held = read(args.data, rows, "op_retina", Path(out))
        runs = {study["study_uid"]: study["runs"][0] for study in held["studies"]}
        scores = [_score(args, row, runs[row["study_uid"]]) for row in rows]
    seconds = [run["seconds"] / len(run["findings"]) for run in runs.values() if run["findings"]]
    patients = [row["patient_id"] for row in rows]
    figures: dict[str, Any] = {}
    for name in ("all", *sorted({row["label"] for row in rows})):
        at = [i for i, row in enumerate(rows) if name in ("all", row["label"])]
        own = [scores[i][0] for i in at]
        text = said(
            float(np.mean(own)), [patients[i] for i in at], lambda w, own=own: float(np.mean([own[i] for i in w]))
        )
        figures[name] = f"{text}, worst {min(own):.3f}, n = {len(own)}"
    apart = np.array([ours - theirs for _, ours, theirs in scores])
    held = {
        "n": len(rows),
        "patients": len(set(patients)),
        "Dice": figures,
        "density, ours less reference, percentage points": {
            "mean": round(float(apart.mean()), 2),
            "limits of agreement": [round(float(apart.mean() + k * 1.96 * apart.std(ddof=1)), 2) for k in (-1, 1)],
        },
        "seconds a picture, median and most": [round(float(np.median(seconds)), 2), round(max(seconds), 2)],
    }
    here = Path(__file__).parent
    (here / "op_retina_dev.json").write_text(json.dumps(held, indent=1) + "\n")
    (here / "op_retina_dev.md").write_text(_report(held))
    print((here / "op_retina_dev.md").read_text())


def _score(args: argparse.Namespace, row: dict[str, str], run: dict[str, Any]) -> tuple[float, float, float]:
    """Dice over the whole picture; vessel density as it was said, and of the reference, in percent."""
    truth = np.asarray(Image.open(args.masks / row["mask"])) > 0
    (study,), _ = read_folder((args.data / row["file"]).parents[1])
    series = study.series[0]
    place = next(i for i, f in enumerate(series.frames) if str(f.instance.SOPInstanceUID) == row["sop_uid"])
    found = np.zeros(truth.shape, bool)
    for file in (Path(each) for each in run["objects"] if Path(each).name.startswith("seg")):
        found |= seg_masks(file, series)["vessel"][place]
    said_of = next((f for f in run["findings"] if row["sop_uid"] in f["sop_uids"]), None)
    density = said_of["measurements"][0]["value"] if said_of else 0.0
    field = found.sum() / density * 100 if density else truth.size
    return dice(found, truth), density, 100 * float(truth.sum()) / float(field)


def _report(held: dict[str, Any]) -> str:
    density, (median, most) = (
        held["density, ours less reference, percentage points"],
        held["seconds a picture, median and most"],
    )
    lines = [
        "# op_retina on dev",
        "",
        "    python -m benchmarks.op_retina --data DICOM/fundus_vessels --masks SETS/fundus_vessels",
        "",
        f"{held['n']} photographs of {held['patients']} patients through `wetread read --json`; the outline is taken",
        "from the written SEG objects, on the photograph's own grid. Mean Dice over the whole picture; 95 % by 2,000",
        "resamples of patients.",
        "",
        "| vessel Dice | |",
        "| --- | --- |",
        *(f"| {name} | {figure} |" for name, figure in held["Dice"].items()),
        "",
        f"Vessel density, ours less reference: {density['mean']} percentage points, limits of agreement "
        f"{density['limits of agreement'][0]} to {density['limits of agreement'][1]}.",
        f"Seconds a picture: median {median}, most {most} (one thread).",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
