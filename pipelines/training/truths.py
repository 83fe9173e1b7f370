"""What each pipeline is judged by: where the truth of a picture stands, and which findings are held against it.

A recipe's module says so in a table ``JUDGED``, a line per part of the pipeline::

    JUDGED = {"class": Judged(_truth, classes=CLASSES), "outline": Judged(_drawn, labels=("lesion",))}
"""

from __future__ import annotations

import csv
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.training import recipes
from pipelines.training.examples import Row, Truth

Box = tuple[float, float, float, float]  # x, y, width, height in pixels


@dataclass(frozen=True)
class Judged:
    """What is known of a picture, and what the pipeline calls it.

    Attributes:
        truth: Row of the index and the folder of labels → what is known; None: nothing.
        classes: In the order of ``Truth.labels``: the labels of the findings that speak of them.
        labels: In the order of ``Truth.masks``: words that are all in the label of the segments that outline it.
        boxes: Row, folder of labels and (rows, columns) of the picture → each box with the label of its findings;
            (1, 1) where the picture was not read, and only their number counts.
        whole: Outlines are judged over all slices of a study together, not slice by slice.
        columns: Of the index, that a set must have to be judged by this.
    """

    truth: Callable[[Row, Path], Truth | None]
    classes: Sequence[str] = ()
    labels: Sequence[str] = ()
    boxes: Callable[[Row, Path, tuple[int, int]], list[tuple[str, Box]]] | None = None
    whole: bool = False
    columns: Sequence[str] = ()


def judged(pipeline: str, part: str | None, columns: Sequence[str]) -> dict[str, Judged]:
    """How a pipeline's parts are judged, of those parts that a set with these columns can judge.

    Raises:
        UnknownPipeline: If nothing is known of the truth for this pipeline, this part or this set.
    """
    if pipeline not in recipes.names():
        raise recipes.UnknownPipeline(f"{pipeline} cannot be judged; there are recipes for {_listed(recipes.names())}")
    module = importlib.import_module(f"{recipes.__name__}.{pipeline}")
    table: Mapping[str, Judged] = getattr(module, "JUDGED", {})
    if not table:
        raise recipes.UnknownPipeline(f"the recipe of {pipeline} does not say what it is judged by (JUDGED)")
    if part is not None and part not in table:
        raise recipes.UnknownPipeline(f"{pipeline} has no part {part!r} that can be judged; there are {_listed(table)}")
    wanted = {name: each for name, each in table.items() if part in (None, name)}
    fitting = {name: each for name, each in wanted.items() if set(each.columns) <= set(columns)}
    if not fitting:
        needed = "; ".join(f"{name}: {_listed(each.columns)}" for name, each in wanted.items())
        raise recipes.UnknownPipeline(f"index.csv lacks the columns that {pipeline} is judged by ({needed})")
    return fitting


def columns_of(data: Path) -> list[str]:
    """Of ``index.csv``; without one, none: whoever reads its rows says so."""
    index = data / "index.csv"
    if not index.is_file():
        return []
    with index.open(newline="") as file:
        return next(csv.reader(file), [])


def _listed(names: Sequence[str] | Mapping[str, object]) -> str:
    return ", ".join(names)
