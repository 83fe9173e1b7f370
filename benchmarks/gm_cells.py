"""Box F1 of ``gm_cells`` on dev, through ``wetread read``; writes ``gm_cells_dev.md`` and ``.json`` beside this file.

python -m benchmarks.gm_cells --nuclei DICOM MASKS --smears DICOM
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.dev_studies import read, rows_of, said
from pipelines.smears import CLASSES
from pipelines.training.matching import Box, Counts, counts
from pipelines.training.nuclei import boxes_of
from pipelines.training.smears import NAMES

Row = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nuclei", nargs=2, type=Path, required=True, metavar=("DICOM", "MASKS"))
    parser.add_argument("--smears", type=Path, required=True, metavar="DICOM")
    args = parser.parse_args()
    data, masks = args.nuclei
    nuclei_rows, smear_rows = rows_of(data), rows_of(args.smears)
    tables = [
        _table(nuclei_rows, _runs(data, nuclei_rows), {"nucleus": [_nuclei(masks, row) for row in nuclei_rows]}),
        _table(smear_rows, _runs(args.smears, smear_rows), _cells(smear_rows)),
    ]
    kinds = _by_label(nuclei_rows, tables[0]["counts"]["nucleus"])
    here = Path(__file__).parent
    held = {"nuclei": tables[0]["said"] | {"by kind": kinds}, "smears": tables[1]["said"]}
    (here / "gm_cells_dev.json").write_text(json.dumps(held, indent=1) + "\n")
    (here / "gm_cells_dev.md").write_text(_report(held))
    print((here / "gm_cells_dev.md").read_text())


def _runs(data: Path, rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """SOP Instance UID's study → its run."""
    with tempfile.TemporaryDirectory() as out:
        held = read(data, rows, "gm_cells", Path(out))
    return {study["study_uid"]: study["runs"][0] for study in held["studies"]}


def _nuclei(masks: Path, row: Row) -> list[Box]:
    return boxes_of(np.asarray(Image.open(masks / row["mask"])).astype(np.int32))


def _cells(rows: Sequence[Row]) -> dict[str, list[list[Box]]]:
    """By class, for each row: the boxes of its smear in pixels."""
    return {kind: [_of_kind(kind, row) for row in rows] for kind in CLASSES}


def _of_kind(kind: str, row: Row) -> list[Box]:
    size = (320, 240, 320, 240)  # the set's pictures are all of one size
    own = [each["xywh"] for each in json.loads(row["boxes_json"]) if NAMES[each["label"]] == kind]
    return [(x * size[0], y * size[1], w * size[2], h * size[3]) for x, y, w, h in own]


def _table(rows: Sequence[Row], runs: dict[str, dict[str, Any]], truth: dict[str, list[list[Box]]]) -> dict[str, Any]:
    """F1 of each label, and of all, with intervals by picture; a picture that was not read has found nothing."""
    held: dict[str, list[Counts]] = {label: [] for label in truth}
    for place, row in enumerate(rows):
        run = runs[row["study_uid"]]
        found = sorted((f for f in run["findings"] if f["present"] and f["box"]), key=lambda f: -f["certainty"])
        for label, boxes in truth.items():
            held[label].append(counts([f["box"] for f in found if f["label"] == label], boxes[place]))
    whole = [sum((held[label][place] for label in truth), Counts()) for place in range(len(rows))]
    uids = [row["sop_uid"] for row in rows]
    statuses = [run["status"] for run in runs.values()]
    seconds = [run["seconds"] for run in runs.values()]
    figures = {name: _said(each, uids) for name, each in (held | {"all": whole}).items()}
    mean = [each.f1 for each in whole]
    figures["mean over pictures"] = said(float(np.mean(mean)), uids, lambda at: float(np.mean([mean[i] for i in at])))
    return {
        "counts": held,
        "said": {
            "n": len(rows),
            "status": {status: statuses.count(status) for status in sorted(set(statuses))},
            "F1": figures,
            "seconds, median and most": [round(float(np.median(seconds)), 2), round(max(seconds), 2)],
        },
    }


def _said(each: Sequence[Counts], uids: Sequence[str]) -> str:
    total = sum(each, Counts())
    figure = said(total.f1, uids, lambda at: sum((each[i] for i in at), Counts()).f1)
    return f"{figure}; {total.hits} right, {total.wrong} wrong, {total.missed} missed"


def _by_label(rows: Sequence[Row], each: Sequence[Counts]) -> dict[str, str]:
    kinds = sorted({row["label"] for row in rows})
    totals = {kind: [c for c, row in zip(each, rows, strict=True) if row["label"] == kind] for kind in kinds}
    return {kind: f"{sum(own, Counts()).f1:.3f}, n = {len(own)}" for kind, own in totals.items()}


def _report(held: dict[str, Any]) -> str:
    lines = [
        "# gm_cells on dev",
        "",
        "    python -m benchmarks.gm_cells --nuclei DICOM/nuclei_dsb2018 SETS/nuclei_dsb2018 \\",
        "        --smears DICOM/blood_cells_bccd",
        "",
        "Every study of the dev parts through `wetread read --json`: boxes of the findings against boxes of the",
        "labels, matched one to one at an intersection over union of 0.5, the surest first. F1 of all boxes together;",
        "95 % by 2,000 resamples of pictures. No patients are known: one person's pictures may be on both sides.",
    ]
    for name, part in held.items():
        lines += ["", f"## {name}, n = {part['n']} pictures", "", "| F1 of | |", "| --- | --- |"]
        lines += [f"| {label} | {figure} |" for label, figure in part["F1"].items()]
        lines += [f"| {kind} pictures | {figure} |" for kind, figure in part.get("by kind", {}).items()]
        median, most = part["seconds, median and most"]
        lines += ["", f"Status: {part['status']}. Seconds a picture: median {median}, most {most} (one thread)."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
