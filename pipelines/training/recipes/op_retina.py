"""How ``op_retina`` is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.op_retina import LABEL
from pipelines.training.examples import Row, Truth
from pipelines.training.labelled import labelled_pictures
from pipelines.training.loop import Options
from pipelines.training.recipes import Recipe, Sources
from pipelines.training.truths import Judged
from pipelines.training.vessels import VesselTask, prepared


def _vessels(sources: Sources, options: Options) -> VesselTask:
    pictures = [prepared(each, sources.labels) for each in labelled_pictures(sources.data, sources.splits)]
    sources.said(f"{len(pictures)} pictures of {len({each.name for each in pictures})} patients")
    return VesselTask(pictures, options)


def _drawn(row: Row, labels: Path) -> Truth | None:
    return Truth(masks=np.asarray(Image.open(labels / row["mask"]))[None] > 0) if row["mask"] else None


JUDGED = {"vessels": Judged(_drawn, labels=(LABEL,), columns=("mask",))}
RECIPES = {
    "vessels": Recipe(
        Options(network="residual", batch=8, rate=3e-3, average=0.995, checks=4, patience=99, epochs=95), _vessels
    )
}
