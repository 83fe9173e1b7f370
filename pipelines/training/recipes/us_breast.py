"""How ``us_breast`` is trained: both networks start from ImageNet's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.training.augment import Augment
from pipelines.training.examples import Row, Truth, examples
from pipelines.training.loop import Options
from pipelines.training.picture_tasks import Classify, Outline
from pipelines.training.recipes import Recipe, Sources
from pipelines.training.truths import Judged
from pipelines.us_breast import CLASSES, LABEL, LOOKS

# Sides mean nothing in a picture of a breast by a hand-held probe; what is up does: the skin.
_AUGMENT = Augment(turn=12, size=0.2, shift=0.08, mirror=True, gamma=0.3, gain=0.2, noise=0.04, erase=0.25)


def _class(row: Row, _: Path) -> Truth:
    return Truth([float(row["label"] == name) for name in CLASSES])


def _outline(row: Row, labels: Path) -> Truth | None:
    if not row["mask"]:
        return None
    return Truth(masks=np.asarray(Image.open(labels / row["mask"]))[None] > 0)


def _not_outlined(row: Row, _: Path) -> Truth | None:
    """Whether there is a lesion, of a picture without a mask."""
    return None if row["mask"] else Truth([float(row["label"] != "normal")], masks=np.zeros((1, 1, 1), bool))


def _classify(sources: Sources, options: Options) -> Classify:
    return Classify(
        examples(sources, LOOKS["class"], _class),
        options,
        _AUGMENT,
        "mobile_classifier",
        {"channels": 1, "outputs": len(CLASSES)},
        CLASSES,
        exclusive=True,
        judged_by=(CLASSES.index("malignant"),),
    )


def _outlines(sources: Sources, options: Options) -> Outline:
    return Outline(
        examples(sources, LOOKS["outline"], _outline),
        options,
        Augment(turn=15, size=0.25, shift=0.1, bend=0.01, mirror=True, gamma=0.35, gain=0.2, noise=0.04, erase=0.1),
        "squeeze_outliner",
        {"channels": 1, "inner": [16, 32, 48, 64], "outputs": 1, "deepest": 96},
        (LABEL,),
        empty=0.3,
        apart=True,
    )


JUDGED = {"class": Judged(_class, classes=CLASSES), "outline": Judged(_outline, labels=(LABEL,))}
RECIPES = {
    "class": Recipe(
        Options(
            network="mobile_classifier", batch=24, rate=1e-3, encoder_rate=3e-4, average=0.99, epochs=40, checks=4,
            patience=99,
        ),
        _classify,
    ),
    "outline": Recipe(
        Options(
            network="squeeze_outliner", batch=12, rate=2e-3, encoder_rate=5e-4, average=0.99, epochs=200, checks=4,
            patience=99,
        ),
        _outlines,
        more=lambda sources: examples(sources, LOOKS["outline"], _not_outlined),
    ),
}  # fmt: skip
