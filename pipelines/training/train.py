"""``train``: from a folder of DICOM studies to weights, a learning curve and the options that made them.

    DICOM + masks → prepared cases (kept in ``out/cases``) → the loop → weights.safetensors, curve.json, curve.png

``data`` is a folder of DICOM studies with an ``index.csv`` (a row per instance: study_uid, sop_uid, file, mask,
patient_id, institution, split); ``labels`` the folder that its ``mask`` column starts from. Only rows of the split
``train`` are read. The weights become a pipeline's only by ``pack``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pipelines.training import cases
from pipelines.training.loop import Options, Progress, TrainResult, fit
from pipelines.training.pictures import learning_curve
from pipelines.training.prepare import NoLabels, index_rows, prepare_all

# As the shipped members were trained, with seeds 1 and 2 and folds 0 and 1: never ended early (patience beyond checks).
RECIPES = {"mr_brain": Options(checks=16, patience=99, budget_seconds=3680.0)}


class UnknownPipeline(ValueError):
    """There is no recipe to train this pipeline by."""


def train(
    pipeline: str,
    data: Path,
    out: Path,
    *,
    labels: Path,
    budget_seconds: float | None = None,
    epochs: int | None = None,
    seed: int = 0,
    fold: int | None = 4,
    init: Path | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
) -> TrainResult:
    """Train one member of a pipeline's networks.

    Args:
        budget_seconds: How long the loop may take; the recipe's own when neither it nor ``epochs`` is given.
        epochs: Instead of seconds: draws of slices with a lesion, in multiples of how many there are.
        fold: The patients to judge by, 0 to 4; None trains on all and never stops early.
        init: Weights to start from, such as an encoder trained on ImageNet.
        resume: Go on from the checkpoint in ``out`` if there is one.

    Raises:
        UnknownPipeline: If there is no recipe for it.
        NoLabels: If ``data`` holds nothing to learn from.
        OtherRun: If the checkpoint to resume is of another run.
    """
    if pipeline not in RECIPES:
        raise UnknownPipeline(f"{pipeline} cannot be trained; there are recipes for {', '.join(RECIPES)}")
    options = replace(RECIPES[pipeline], seed=seed, fold=fold, epochs=epochs)
    if budget_seconds is not None:
        options = replace(options, budget_seconds=budget_seconds)
    prepare_all(data, labels, out / "cases", said=lambda note: progress(Progress(0, 0.0, 0.0, None, 0.0, note)))
    result = fit(_of_train(out / "cases", data), out, options, init=init, resume=resume, progress=progress)
    learning_curve(out / "curve.json", out / "curve.png")
    return result


def _of_train(cache: Path, data: Path) -> tuple[cases.Case, ...]:
    """Phantoms, and patients whom the index puts into train now: the cache may hold more, of another index."""
    known = {row["patient_id"] for row in index_rows(data, wanted="train")}
    kept = tuple(case for case in cases.load(cache) if case.is_synthetic or case.patient in known)
    if all(case.is_synthetic for case in kept):
        raise NoLabels(f"no patient of the split 'train' of {data / 'index.csv'} could be prepared")
    return kept
