"""How ``mr_hippocampus`` is trained: as the shipped members were, with seeds 1 and 2 and folds 0 and 1."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.mr_hippocampus import LABELS
from pipelines.training.examples import Row, Truth
from pipelines.training.hippocampus import PARTS, HippocampusTask
from pipelines.training.loop import Options
from pipelines.training.recipes import Recipe, Sources
from pipelines.training.truths import Judged
from pipelines.training.volumes import prepare_all, reference


def _task(sources: Sources, options: Options) -> HippocampusTask:
    volumes = prepare_all(sources.data, sources.labels, sources.cache, wanted=sources.splits, said=sources.said)
    return HippocampusTask(volumes, options)


@lru_cache(maxsize=2)
def _reference(file: Path) -> NDArray[np.uint8]:
    return reference(file)


def _drawn(row: Row, labels: Path) -> Truth:
    """Both parts on one slice, axial as the set's tool makes them; ``slice`` counts from the feet, from 0."""
    plane = _reference(labels / row["mask"])[int(row["slice"])]
    return Truth(masks=np.stack([plane == part for part in PARTS]))


# one core, 17 minutes each, about 0.9 s for a batch of two patches on a busy machine; never ended early (patience
# beyond checks)
OUTLINE = Options(
    network="residual3d", batch=2, rate=2e-3, weight_decay=0.01, average=0.99, checks=8, patience=99,
    budget_seconds=1000.0,
)  # fmt: skip
RECIPES = {"outline": Recipe(OUTLINE, _task)}
JUDGED = {"outline": Judged(_drawn, labels=LABELS, whole=True, columns=("mask", "slice"))}
