"""How ``mr_brain_type`` is trained."""

from __future__ import annotations

from pathlib import Path

from pipelines.mr_brain_type import ANY, CLASSES, KIND, LOOK
from pipelines.training.augment import Augment
from pipelines.training.examples import Row, Truth, examples
from pipelines.training.loop import Options
from pipelines.training.picture_tasks import Classify
from pipelines.training.recipes import Recipe, Sources
from pipelines.training.truths import Judged

_CALLED = {"glioma": "glioma", "meningioma": "meningioma", "pituitary": "pituitary", "no_tumour": "no tumor"}


def _truth(row: Row, _: Path) -> Truth:
    return Truth([float(_CALLED[row["label"]] == name) for name in CLASSES])


def _said(row: Row, labels: Path) -> Truth:
    """In place of "no tumor" the pipeline says that there is one."""
    *kinds, without = _truth(row, labels).labels
    return Truth([*kinds, 1.0 - without])


def _task(sources: Sources, options: Options) -> Classify:
    return Classify(
        examples(sources, LOOK, _truth),
        options,
        Augment(turn=15, size=0.15, shift=0.05, mirror=True, gamma=0.25, gain=0.1, erase=0.1),
        KIND,
        {"channels": LOOK.channels, "outputs": len(CLASSES)},
        CLASSES,
        exclusive=True,
        judged_by=(0, 1, 2),  # not the pictures without a tumour: they come from other scanners
    )


RECIPES = {
    "class": Recipe(
        Options(
            network=KIND, batch=32, rate=1e-3, encoder_rate=3e-4, average=0.99, checks=4, patience=99, epochs=40,
        ),
        _task,
    )
}  # fmt: skip

JUDGED = {"class": Judged(_said, classes=(*CLASSES[:3], ANY))}
