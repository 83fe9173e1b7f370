"""What ``mr_brain_type`` says of whole studies, before and after it answers once for a stack.

    .venv/bin/python benchmarks/brain_stacks.py DICOM [--split dev]

DICOM: brain_mri_lgg, wrapped, with its index. Every patient has a glioma, so a meningioma or a pituitary tumour that is
called present is a false alarm. Before: each slice by itself, a class is present where any slice says so. After: what
the pipeline says now. There are no whole studies of other tumours, nor of people without one. Writes
brain_stacks_SPLIT.json and .md beside this file; intervals are exact (Clopper and Pearson 1934).
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from scipy.stats import beta

sys.path.insert(0, str(Path(__file__).parents[1]))

from pipelines.base import Findings, UnsuitableStudy, WithheldStudy
from pipelines.mr_brain_type import CLASSES, STACK, BrainTumourType, readable
from pipelines.study import Study, read_folder

KINDS = CLASSES[:3]


def studies(dicom: Path, split: str) -> Iterator[tuple[str, Study]]:
    """Patient and study, those with a stack that this pipeline reads."""
    with (dicom / "index.csv").open(newline="") as file:
        of = {row["patient_id"]: row["study_uid"] for row in csv.DictReader(file) if row["split"] == split}
    for patient, uid in sorted(of.items()):
        (study,), _ = read_folder(dicom / uid)
        try:
            found = readable(study)
        except UnsuitableStudy:
            continue
        if any(len(series.frames) >= STACK for series in found):
            yield patient, study


def present(runs: tuple[Findings, ...]) -> set[str]:
    return {str(each.label) for run in runs for each in run.findings if each.present} & set(KINDS)


def one(reader: BrainTumourType, patient: str, study: Study) -> dict[str, Any]:
    before = reader.each_slice(study)
    said: dict[str, Any] = {"patient": patient, "before": sorted(present(before)), "after": [], "reason": None}
    try:
        runs = reader(study)
        said["after"] = sorted(present(runs))
        said["certainty"] = {str(each.label): round(each.certainty or 0, 3) for each in runs[0].findings}
        said["slices"] = [len(runs[0].findings[0].sop_uids), len(runs[0].series.frames)]
    except WithheldStudy as reason:
        said["reason"] = str(reason)
    return said


def share(hit: list[bool]) -> dict[str, Any]:
    """With its 95 % interval; every study is another patient."""
    count, n = sum(hit), len(hit)
    low = float(beta.ppf(0.025, count, n - count + 1)) if count else 0.0
    high = float(beta.ppf(0.975, count + 1, n - count)) if count < n else 1.0
    return {"value": count / n, "interval": [low, high], "count": count}


def summed(rows: list[dict[str, Any]]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for when in ("before", "after"):
        said[when] = {kind: share([kind in row[when] for row in rows]) for kind in KINDS}
        said[when]["meningioma or pituitary"] = share([bool(set(row[when]) - {"glioma"}) for row in rows])
        said[when]["more than one kind"] = share([len(row[when]) > 1 for row in rows])
    said["after"]["withheld"] = share([row["reason"] is not None for row in rows])
    return said


def page(said: dict[str, Any], split: str) -> str:
    def text(each: dict[str, Any] | None) -> str:
        if each is None:
            return "–"
        low, high = each["interval"]
        return f"{each['value']:.2f} ({low:.2f} to {high:.2f})"

    lines = [
        f"# mr_brain_type {said['version']} on whole studies of the split `{split}`",
        "",
        f"    .venv/bin/python benchmarks/brain_stacks.py DICOM --split {split}",
        "",
        f"{len(said['studies'])} studies of brain_mri_lgg with a T1 after contrast; every patient has a glioma. Share "
        "of the studies, 95 %, exact. Before: each slice by itself, as 1.1.0 did.",
        "",
        "| said of a study | before | after |",
        "| --- | --- | --- |",
    ]
    for name in said["shares"]["after"]:
        before = said["shares"]["before"].get(name)
        lines.append(f"| {name} | {text(before)} | {text(said['shares']['after'][name])} |")
    lines += ["", "Why it was withheld:", ""]
    lines += [f"* {row['patient'][:12]}: {row['reason']}" for row in said["studies"] if row["reason"]]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dicom", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    torch.set_num_threads(1)
    reader, rows = BrainTumourType(), []
    for patient, study in studies(args.dicom, args.split):
        rows.append(one(reader, patient, study))
        print(rows[-1], file=sys.stderr, flush=True)
    said = {"version": reader.algorithm.version, "shares": summed(rows), "studies": rows}
    stem = args.out / f"brain_stacks_{args.split}"
    stem.with_suffix(".json").write_text(json.dumps(said, indent=1) + "\n")
    stem.with_suffix(".md").write_text(page(said, args.split))
    print(page(said, args.split))


if __name__ == "__main__":
    main()
