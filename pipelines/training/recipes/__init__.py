"""How each pipeline's networks are trained: a file per pipeline, named as it, with a table ``RECIPES`` of its parts."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.training.loop import Options, Task

if TYPE_CHECKING:
    from pipelines.training.examples import Examples


class UnknownPipeline(ValueError):
    """There is no recipe to train this pipeline, or this part of it, by."""


@dataclass(frozen=True)
class Sources:
    """Where a task finds its pictures.

    Attributes:
        data: Folder of DICOM studies with an ``index.csv``.
        labels: The folder that paths of masks in the index start from.
        cache: Where prepared pictures are kept between runs.
        splits: Which rows of the index are learnt from.
        said: Told what is prepared and what is left out.
        labelled: Whether truth is looked for; without it every picture is taken, with an index or without.
    """

    data: Path
    labels: Path
    cache: Path
    splits: Collection[str]
    said: Callable[[str], None]
    labelled: bool = True


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters, and what makes a task of pictures and of them.

    Attributes:
        more: Pictures without masks that a teacher may outline; None: there are none.
    """

    options: Options
    task: Callable[[Sources, Options], Task]
    more: Callable[[Sources], Examples] | None = None


def names() -> list[str]:
    """Of the pipelines that can be trained."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def recipe(pipeline: str, part: str | None = None) -> Recipe:
    """The recipe of one part of a pipeline; of its first part where none is named.

    Raises:
        UnknownPipeline: If there is none; the sentence says which there are.
    """
    if pipeline not in names():
        raise UnknownPipeline(f"{pipeline} cannot be trained; there are recipes for {', '.join(names())}")
    parts: dict[str, Recipe] = importlib.import_module(f"{__name__}.{pipeline}").RECIPES
    if part is not None and part not in parts:
        raise UnknownPipeline(f"{pipeline} has no part {part!r}; there are recipes for {', '.join(parts)}")
    return parts[part or next(iter(parts))]
