"""``train``: from a folder of DICOM studies to weights, a learning curve and the options that made them.

    DICOM + labels → prepared pictures (kept in ``out/cases``) → the loop → weights.safetensors, curve.json, curve.png

``data`` is a folder of DICOM studies with an ``index.csv`` (a row per instance); ``labels`` the folder that its
``mask`` column starts from. Only rows of the split ``train`` are read unless others are named. The weights become a
pipeline's only by ``ship``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import torch

from pipelines.training.loop import Progress, Task, TrainResult, fit
from pipelines.training.picture_tasks import Outline
from pipelines.training.pictures import learning_curve
from pipelines.training.recipes import Recipe, Sources, recipe
from pipelines.training.teaching import UnfitTeacher, taught


def train(
    pipeline: str,
    data: Path,
    out: Path,
    *,
    labels: Path,
    part: str | None = None,
    budget_seconds: float | None = None,
    epochs: int | None = None,
    seed: int = 0,
    fold: int | None = 4,
    init: Path | str | None = None,
    teacher: Path | None = None,
    splits: Collection[str] = ("train",),
    resume: bool = False,
    device: str | None = None,
    hardened: float = 0.0,
    progress: Callable[[Progress], None] = lambda _: None,
) -> TrainResult:
    """Train one member of a pipeline's networks.

    Args:
        part: Which of the pipeline's networks; its first where none is named.
        budget_seconds: How long the loop may take; the recipe's own when neither it nor ``epochs`` is given.
        epochs: Instead of seconds.
        fold: The patients to judge by, 0 to 4; None trains on all and never stops early.
        init: Weights to start from, such as an encoder trained on ImageNet: a file, or ``FILE@sha256``.
        teacher: Weights of the same part and fold that outline pictures which nobody did: they are learnt from as well.
        splits: Which patients are trained on. With "dev" among them nothing may be reported on dev.
        resume: Go on from the checkpoint in ``out`` if there is one.
        device: "cpu", or "cuda" as torch counts them; the first GPU where there is one.
        hardened: How far each value of a batch is moved, where it does most harm, before it is learnt from; of pictures
            a share of white. Takes twice as long.

    Raises:
        UnknownPipeline: If there is no recipe for it.
        NoLabels: If ``data`` holds nothing to learn from.
        OtherRun: If the checkpoint to resume is of another run.
        UnfitTeacher: If there is nothing for ``teacher`` to outline, or it is not fit to.
        RefusedWeights: If ``init`` is not safe to read, is another file, or hardly fits.
    """
    chosen = recipe(pipeline, part)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    options = replace(chosen.options, seed=seed, fold=fold, device=device, hardened=hardened)
    if budget_seconds is not None or epochs is not None:
        options = replace(options, epochs=epochs, budget_seconds=budget_seconds)
    sources = Sources(
        data, labels, out / "cases", splits, lambda note: progress(Progress(0, 0.0, 0.0, None, 0.0, note))
    )
    task = chosen.task(sources, options)
    if teacher:
        task = _taught(task, chosen, sources, teacher)
    result = fit(task, out, options, init=init, resume=resume, progress=progress)
    learning_curve(out / "curve.json", out / "curve.png", measure=task.measure)
    return result


def _taught(task: Task, chosen: Recipe, sources: Sources, teacher: Path) -> Outline:
    if chosen.more is None or not isinstance(task, Outline):
        raise UnfitTeacher("a teacher outlines pictures that nobody did: this part has none")
    made = taught(task, chosen.more(sources), teacher)
    sources.said(f"the teacher was sure of {made.kept} of {made.asked} pictures")
    return made.task
