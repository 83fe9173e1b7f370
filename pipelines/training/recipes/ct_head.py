"""How ``ct_head`` is trained."""

from __future__ import annotations

from pathlib import Path

from pipelines.ct_head import CLASSES, KIND, LOOK
from pipelines.training.augment import Augment
from pipelines.training.examples import Row, Truth, examples
from pipelines.training.loop import Options
from pipelines.training.picture_tasks import Classify
from pipelines.training.recipes import Recipe, Sources
from pipelines.training.truths import Judged


def _truth(row: Row, _: Path) -> Truth:
    return Truth([float(row["label"] == "haemorrhage")])


def _task(sources: Sources, options: Options) -> Classify:
    return Classify(
        examples(sources, LOOK, _truth),
        options,
        # Blood has no side of its own, so a mirror image is as good; but a head stands on its neck: no flip.
        Augment(turn=20, size=0.15, shift=0.05, bend=0.01, mirror=True, gamma=0.15, gain=0.1, erase=0.1),
        KIND,
        {"channels": LOOK.channels, "outputs": len(CLASSES)},
        CLASSES,
    )


RECIPES = {
    "class": Recipe(
        Options(
            network=KIND, batch=16, rate=1e-3, encoder_rate=2e-4, average=0.98, checks=4, patience=99, epochs=80,
        ),
        _task,
    )
}  # fmt: skip
JUDGED = {"class": Judged(_truth, classes=CLASSES)}
