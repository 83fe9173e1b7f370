"""What a pipeline is worth on a labelled set: one page for people, one JSON for programs. It chooses nothing.

index.csv → studies → the pipeline's own findings → judgements → figures → report.html, report.json
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.base import Pipeline
from pipelines.training.figures import figures
from pipelines.training.judge import READ, Judgement, judgements
from pipelines.training.page import page
from pipelines.training.prepare import index_rows
from pipelines.training.resampling import RESAMPLES
from pipelines.training.truths import Judged

COLUMNS = ("study_uid", "sop_uid", "file", "patient_id", "split")


@dataclass(frozen=True)
class Asked:
    """What is to be shown.

    Attributes:
        prevalence: For the predictive values; None: that of the set.
        by: Columns of the index whose values are looked at apart; empty: the usual ones.
    """

    split: str = "dev"
    prevalence: float | None = None
    by: tuple[str, ...] = ()


def evaluate(
    pipeline: Pipeline,
    parts: Mapping[str, Judged],
    data: Path,
    out: Path,
    *,
    labels: Path,
    asked: Asked,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, Any]:
    """Read every study of the split, and write report.html and report.json into ``out``.

    Args:
        parts: What it is judged by, as ``truths.judged`` finds it.
        data, labels: As in ``train``.

    Raises:
        NoLabels: If the index does not serve, or nothing is known of any picture of the split.
    """
    rows = index_rows(data, wanted=(asked.split,), columns=COLUMNS)
    held: list[Judgement] = []
    studies = {row["study_uid"] for row in rows}
    seen: set[str] = set()
    for each in judgements(pipeline, parts, rows, data, labels):
        held.append(each)
        seen.add(each.row["study_uid"])
        progress(len(seen), len(studies))
    report = report_of(held, pipeline, list(parts), asked)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / "report.html").write_text(page(report, held))
    return report


def report_of(held: Sequence[Judgement], pipeline: Pipeline, parts: Sequence[str], asked: Asked) -> dict[str, Any]:
    """All values of the report.

    Raises:
        ValueError: If there is no judgement at all.
    """
    if not held:
        raise ValueError(f"nothing is known of any picture of the split {asked.split}: there is nothing to judge by")
    card = card_of(pipeline)
    points = getattr(card, "points", None) or {}
    cutoffs: dict[str, Any] = {}
    for each in points.values():
        cutoffs |= each.get("cutoffs", {}) if isinstance(each, dict) else {}
    options = "" if asked.prevalence is None else f" --prevalence {asked.prevalence:g}"
    options += "".join(f" --by {each}" for each in asked.by)
    return {
        "pipeline": pipeline.algorithm.name,
        "version": pipeline.algorithm.version,
        "weights_sha256": str(getattr(card, "sha256", pipeline.algorithm.weights_digest)),
        "split": asked.split,
        "parts": list(parts),
        "resamples": RESAMPLES,
        "command": f"wetread evaluate {pipeline.algorithm.name} --data … --labels … --split {asked.split}{options}",
        **figures(held, prevalence=asked.prevalence, by=asked.by, cutoffs=cutoffs),
        "pictures": [_as_json(each) for each in held],
    }


def card_of(pipeline: Pipeline) -> Any:
    """The card that a pipeline goes by: its own, or that of a part of it; None if it shows none."""
    parts = (pipeline, *vars(pipeline).values()) if hasattr(pipeline, "__dict__") else (pipeline,)
    return next((part.card for part in parts if hasattr(getattr(part, "card", None), "sha256")), None)


def _as_json(each: Judgement) -> dict[str, Any]:
    said: dict[str, Any] = {"sop_uid": each.row.get("sop_uid"), "patient": each.patient}
    if each.status != READ:
        said["status"] = each.status
    for name, chance in each.classes.items():
        said[name] = {"is_there": chance.is_there, "certainty": chance.said, "present": chance.present}
    for name, overlap in each.outlines.items():
        said[f"{name} (outline)"] = {"dice": round(overlap.dice, 5)}
    for name, count in each.boxes.items():
        said[f"{name} (boxes)"] = {"hits": count.hits, "wrong": count.wrong, "missed": count.missed}
    return said
