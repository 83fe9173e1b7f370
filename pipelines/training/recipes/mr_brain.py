"""How ``mr_brain`` is trained: as the shipped members were, with seeds 1 and 2 and folds 0 and 1."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pipelines.training import cases
from pipelines.training.brain import BrainTask
from pipelines.training.loop import Options
from pipelines.training.prepare import NoLabels, index_rows, prepare_all
from pipelines.training.recipes import Recipe, Sources


def _task(sources: Sources, options: Options) -> BrainTask:
    prepare_all(sources.data, sources.labels, sources.cache, wanted=sources.splits, said=sources.said)
    return BrainTask(of_splits(sources.cache, sources.data, sources.splits), options)


def of_splits(cache: Path, data: Path, splits: Collection[str]) -> tuple[cases.Case, ...]:
    """Phantoms, and patients whom the index puts into these splits now: the cache may hold more, of another index."""
    known = {row["patient_id"] for row in index_rows(data, wanted=splits)}
    kept = tuple(case for case in cases.load(cache) if case.is_synthetic or case.patient in known)
    if all(case.is_synthetic for case in kept):
        raise NoLabels(f"no patient of the split {' or '.join(splits)} of {data / 'index.csv'} could be prepared")
    return kept


# never ended early (patience beyond checks)
RECIPES = {
    "outline": Recipe(Options(network="residual", checks=16, patience=99, budget_seconds=None, epochs=50), _task)
}
