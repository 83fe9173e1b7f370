"""How ``gm_cells`` is trained: what kind of picture it is, the nuclei, the blood cells.

The index of the part ``kind`` has a column ``kind`` with one of ``KINDS``; "other" are pictures of other modalities.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.gm_cells import KINDS, LOOK, NUCLEUS_LABEL
from pipelines.training import nuclei, smears
from pipelines.training.augment import Augment
from pipelines.training.examples import Row, Truth, examples
from pipelines.training.labelled import labelled_pictures
from pipelines.training.loop import Options
from pipelines.training.picture_tasks import Classify
from pipelines.training.recipes import Recipe, Sources
from pipelines.training.truths import Box, Judged

_LIGHT = Augment(turn=45.0, size=0.3, shift=0.1, mirror=True, flip=True, gamma=0.4, gain=0.2, tint=0.08)


def _kind(sources: Sources, options: Options) -> Classify:
    return Classify(
        examples(sources, LOOK, _kind_of),
        options,
        _LIGHT,
        kind=options.network,
        args={"channels": 3, "outputs": len(KINDS)},
        classes=KINDS,
        exclusive=True,
    )


def _kind_of(row: Row, _: Path) -> Truth:
    return Truth([float(row["kind"] == kind) for kind in KINDS])


def _nuclei(sources: Sources, options: Options) -> nuclei.NucleiTask:
    pictures = [
        nuclei.prepared(each, each.mask(sources.labels)) for each in labelled_pictures(sources.data, sources.splits)
    ]
    sources.said(f"{len(pictures)} pictures with {sum(len(each.boxes) for each in pictures)} nuclei")
    return nuclei.NucleiTask(pictures, options)


def _smears(sources: Sources, options: Options) -> smears.SmearTask:
    pictures = [smears.prepared(each) for each in labelled_pictures(sources.data, sources.splits)]
    sources.said(f"{len(pictures)} smears with {sum(len(each.truth) for each in pictures)} boxed cells")
    return smears.SmearTask(pictures, options)


def _boxed(_: Row, __: Path) -> Truth:
    return Truth()


def _nuclei_boxes(row: Row, labels: Path, _: tuple[int, int]) -> list[tuple[str, Box]]:
    numbers = np.asarray(Image.open(labels / row["mask"])).astype(np.int32)
    return [(NUCLEUS_LABEL, box) for box in nuclei.boxes_of(numbers)]


def _cell_boxes(row: Row, _: Path, shape: tuple[int, int]) -> list[tuple[str, Box]]:
    rows, columns = shape
    held = [(smears.NAMES[each["label"]], each["xywh"]) for each in json.loads(row["boxes_json"])]
    return [(name, (x * columns, y * rows, wide * columns, high * rows)) for name, (x, y, wide, high) in held]


JUDGED = {
    "nuclei": Judged(_boxed, boxes=_nuclei_boxes, columns=("mask",)),
    "smears": Judged(_boxed, boxes=_cell_boxes, columns=("boxes_json",)),
}
_STEADY: dict[str, Any] = {"checks": 4, "patience": 99}  # never ended early

RECIPES = {
    "kind": Recipe(
        Options(network="squeeze_classifier", batch=16, rate=1e-3, encoder_rate=3e-4, budget_seconds=120.0, **_STEADY),
        _kind,
    ),
    "nuclei": Recipe(Options(network="residual", batch=6, rate=3e-3, average=0.995, epochs=155, **_STEADY), _nuclei),
    "smears": Recipe(
        Options(network="squeeze_detector", batch=8, rate=2e-3, encoder_rate=5e-4, average=0.99, epochs=80, **_STEADY),
        _smears,
    ),
}
