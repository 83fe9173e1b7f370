"""How ``mr_heart`` is trained: on single frames between the frames of the neighbouring levels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pipelines.cine import beside, places
from pipelines.instance import open_instance, text
from pipelines.mr_heart import LABEL, LOOK
from pipelines.series import Series
from pipelines.training.augment import Augment
from pipelines.training.examples import Examples, Row, Truth, examples
from pipelines.training.loop import Options
from pipelines.training.picture_tasks import Outline
from pipelines.training.recipes import Recipe, Sources
from pipelines.training.truths import Judged


def _truth(row: Row, labels: Path) -> Truth | None:
    if not row["mask"]:
        return None
    return Truth(masks=np.asarray(Image.open(labels / row["mask"]))[None] > 0)


def _with_neighbours(found: Examples, sources: Sources) -> Examples:
    """Series by series, as the pipeline puts them."""
    parts = [_of_series(found.at(own), sources) for own in _by_series(found)]
    rows = tuple(row for part in parts for row in part.rows)
    images, labels, masks = (torch.cat([getattr(p, name) for p in parts]) for name in ("images", "labels", "masks"))
    return Examples(images, labels, masks, rows)


def _by_series(found: Examples) -> Iterator[list[int]]:
    held: dict[str, list[int]] = {}
    for index, row in enumerate(found.rows):
        held.setdefault(row["series_uid"], []).append(index)
    yield from held.values()


def _of_series(own: Examples, sources: Sources) -> Examples:
    headers = tuple(open_instance(sources.data / row["file"]) for row in own.rows)
    series = Series(own.rows[0]["series_uid"], "MR", headers)
    order = {row["sop_uid"]: index for index, row in enumerate(own.rows)}
    own = own.at([order[text(frame.instance, "SOPInstanceUID")] for frame in series.frames])
    return replace(own, images=beside(own.images, places(series)))


def _task(sources: Sources, options: Options) -> Outline:
    return Outline(
        _with_neighbours(examples(sources, LOOK, _truth), sources),
        options,
        Augment(turn=30, size=0.15, shift=0.06, bend=0.01, gamma=0.3, gain=0.15),
        "squeeze_outliner",
        {"channels": 3, "inner": [16, 32, 48, 64], "outputs": 1, "deepest": 96},
        (LABEL,),
        apart=True,
    )


JUDGED = {"outline": Judged(_truth, labels=(LABEL,))}
RECIPES = {
    "outline": Recipe(
        Options(
            network="squeeze_outliner",
            batch=24,
            rate=2e-3,
            encoder_rate=5e-4,
            average=0.99,
            epochs=100,
            checks=4,
            patience=99,
        ),
        _task,
    )
}
