"""How ``ct_chest`` is trained: patches are few and cheap, so long and much changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.ct_chest import LABEL, LOOK
from pipelines.training.augment import Augment
from pipelines.training.examples import Row, Truth, examples
from pipelines.training.loop import Options
from pipelines.training.picture_tasks import Outline
from pipelines.training.recipes import Recipe, Sources
from pipelines.training.truths import Judged


def _truth(row: Row, labels: Path) -> Truth | None:
    if not row["mask"]:
        return None
    return Truth(masks=np.asarray(Image.open(labels / row["mask"]))[None] > 0)


def _task(sources: Sources, options: Options) -> Outline:
    return Outline(
        examples(sources, LOOK, _truth),
        options,
        # A tumour is one whichever way the lung is turned.
        Augment(turn=180, size=0.3, shift=0.06, bend=0.015, mirror=True, flip=True, gamma=0.35, gain=0.2, noise=0.06),
        "residual",
        {"channels": 1, "widths": [24, 48, 64, 96], "outputs": 1},
        (LABEL,),
        empty=1.0,
        apart=True,
    )


JUDGED = {"outline": Judged(_truth, labels=(LABEL,))}
RECIPES = {
    "outline": Recipe(
        Options(
            network="residual", batch=16, rate=3e-3, weight_decay=0.05, average=0.98, epochs=150, checks=4, patience=99
        ),
        _task,
    )
}
