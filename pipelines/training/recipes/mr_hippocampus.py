"""How ``mr_hippocampus`` is trained: as the shipped members were, with seeds 1 and 2 and folds 0 and 1."""

from __future__ import annotations

from pipelines.training.hippocampus import HippocampusTask
from pipelines.training.loop import Options
from pipelines.training.recipes import Recipe, Sources
from pipelines.training.volumes import prepare_all


def _task(sources: Sources, options: Options) -> HippocampusTask:
    volumes = prepare_all(sources.data, sources.labels, sources.cache, wanted=sources.splits, said=sources.said)
    return HippocampusTask(volumes, options)


# one core, 17 minutes each: 0.8 s for a batch of two patches; never ended early (patience beyond checks)
OUTLINE = Options(
    network="residual3d", batch=2, rate=2e-3, weight_decay=0.01, average=0.99, checks=8, patience=99,
    budget_seconds=1000.0,
)  # fmt: skip
RECIPES = {"outline": Recipe(OUTLINE, _task)}
