"""``pretrain``: from folders of DICOM studies without labels to weights that a training starts from.

    DICOM → the pictures as the pipeline sees them → a task without labels → the loop → pretrained.safetensors

Of a folder with an ``index.csv`` the rows of some splits are read, of another all that is DICOM. What is learnt is
``unlabelled``'s. Whether it helps is not known here: ``twins`` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from pipelines.models import store
from pipelines.models.foreign import Origin
from pipelines.models.norms import plain
from pipelines.training.examples import joined
from pipelines.training.loop import Options, Progress, fit
from pipelines.training.picture_tasks import Classify, Outline
from pipelines.training.pictures import learning_curve
from pipelines.training.recipes import Sources, recipe
from pipelines.training.unlabelled import Recognise, Restore, Siamese

BUDGET = 1800.0  # seconds, where nothing else is said


class NothingToPrepare(ValueError):
    """This network is not prepared so."""


@dataclass(frozen=True)
class Pretrained:
    """What came of it.

    Attributes:
        pictures: That were learnt from.
        score: Of the task without labels on the patients kept apart; ``measure`` says what it is.
    """

    weights: Path
    pictures: int
    measure: str
    score: float | None
    steps: int
    seconds: float


def pretrain(
    pipeline: str,
    data: Sequence[Path],
    out: Path,
    *,
    part: str | None = None,
    network: str | None = None,
    init: str | None = None,
    budget_seconds: float | None = None,
    epochs: int | None = None,
    side: int | None = None,
    seed: int = 0,
    fold: int | None = 4,
    splits: Collection[str] = ("train",),
    resume: bool = False,
    device: str | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Pretrained:
    """Teach the features of one of a pipeline's networks without labels; write ``pretrained.safetensors`` into ``out``.

    Args:
        part: Which of the pipeline's networks; its first where none is named.
        network: Instead of the recipe's, of the same inputs and outputs.
        init: Weights to start from, as ImageNet's: a file, or ``FILE@sha256``.
        epochs: Instead of seconds.
        side: Rows of the pictures, fewer than the pipeline's own.
        fold: The patients who are not learnt from, so that what starts from here can be judged on them; None: all are.
        splits: Of an ``index.csv``.

    Raises:
        UnknownPipeline: If there is no recipe for it.
        NoLabels: If there is no picture to learn from.
        NothingToPrepare: If the pipeline does not read picture by picture.
        NoSuchNetwork: If ``network`` cannot take the place of the recipe's.
        OtherRun: If the checkpoint to resume is of another run.
        RefusedWeights: If ``init`` cannot be started from.
    """
    chosen = recipe(pipeline, part)
    own = Options(
        network=network or chosen.options.network,
        batch=32,
        rate=3e-4 if init else 1e-3,
        average=0.99,
        checks=10,
        patience=99,
        budget_seconds=budget_seconds if budget_seconds or epochs else BUDGET,
        epochs=epochs,
        seed=seed,
        fold=fold,
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
    )
    said: Callable[[str], None] = lambda note: progress(Progress(0, 0.0, 0.0, None, 0.0, note))  # noqa: E731
    parts = [chosen.task(Sources(each, each, out / "cases", splits, said, labelled=False), own) for each in data]
    found = [each for each in parts if isinstance(each, Classify | Outline)]
    if len(found) != len(parts):
        raise NothingToPrepare(f"{pipeline} does not read picture by picture: its networks cannot be pretrained so")
    pictures = joined([each.examples for each in found])
    of = replace(found[0], kind=network or found[0].kind, examples=pictures.at_most(side) if side else pictures)
    facts = {"pretrained": pipeline, "rows": str(of.examples.images.shape[2])}
    if init:
        facts["init_sha256"] = Origin.parse(init).digest
    task = Restore(of, own, init, facts) if isinstance(of, Outline) else Recognise(of, own, init, facts)
    if len(task.training) < 2:
        raise NothingToPrepare(f"{len(task.training)} pictures are too few to learn from")
    if isinstance(task, Recognise) and not hasattr(of.network(), "features"):
        raise NothingToPrepare(f"the network {of.kind} has no features that another training could start from")
    facts |= {"pictures": str(len(task.training)), "task": type(task).__name__.lower()}
    result = fit(task, out, own, resume=resume, progress=progress)
    learning_curve(out / "curve.json", out / "curve.png", measure=task.measure)
    weights = _kept(task, result.weights, out / "pretrained.safetensors", facts)
    return Pretrained(weights, len(task.training), task.measure, result.best, result.steps, result.seconds)


def _kept(task: Recognise | Restore, trained: Path, file: Path, facts: dict[str, str]) -> Path:
    """What another task can start from: of a network that compares its features, of one that restores all but the
    last layers."""
    net = plain(task.network())
    net.load_state_dict(store.tensors_of(trained))
    whole = net.encoder if isinstance(net, Siamese) else net
    fold = "none" if task.options.fold is None else str(task.options.fold)
    kept = {
        name: value
        for name, value in whole.state_dict().items()
        if (name.startswith("features.") if whole is not net else ".heads." not in name)
    }
    store.save_tensors(kept, file, facts | {"network": task.of.kind, "fold": fold, "seed": str(task.options.seed)})
    return file
