"""How ``xc_skin`` is trained."""

from __future__ import annotations

from pathlib import Path

from pipelines.training.augment import Augment
from pipelines.training.examples import Row, Truth, examples
from pipelines.training.loop import Options
from pipelines.training.picture_tasks import Classify
from pipelines.training.recipes import Recipe, Sources
from pipelines.training.truths import Judged
from pipelines.xc_skin import CLASSES, KIND, LOOK


def _truth(row: Row, _: Path) -> Truth:
    return Truth([float(row["label"] == "melanoma")])


def _task(sources: Sources, options: Options) -> Classify:
    return Classify(
        examples(sources, LOOK, _truth),
        options,
        # A mole has neither side nor top. The colour says much, so it is changed but little.
        Augment(turn=180, size=0.2, mirror=True, flip=True, tint=0.06, erase=0.2),
        KIND,
        {"channels": LOOK.channels, "outputs": len(CLASSES)},
        CLASSES,
    )


RECIPES = {
    "class": Recipe(
        Options(
            network=KIND, batch=32, rate=1e-3, encoder_rate=3e-4, average=0.99, checks=4, patience=99, epochs=25,
        ),
        _task,
    )
}  # fmt: skip

JUDGED = {"class": Judged(_truth, classes=CLASSES)}
