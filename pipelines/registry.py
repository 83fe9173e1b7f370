"""A line of settings.toml to a Pipeline: `package.module:Class`, or the entry point of an installed package.

``…@FOLDER`` is such a line with the folder of this machine's models: the version that is in use there is loaded;
``…@CARD.json`` is one with the model card to go by, and ``…@BUNDLE`` one with a MONAI bundle, a folder or a zip.
Imports what it is told to and nothing else; a pipeline that cannot load its weights says so itself.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

from pipelines.base import Algorithm, Pipeline
from pipelines.models.installed import Installed, Models

GROUP = "wetread.pipelines"


class PipelineNotFound(ValueError):
    """A ``use`` line names nothing that is a pipeline; the sentence repeats the line."""


def load(use: str) -> Pipeline:
    """The pipeline that a ``use`` line names, made and ready.

    Raises:
        PipelineNotFound: If there is no such thing, or it is no pipeline.
        ModelFault: If the version that is in use is not there.
    """
    use, _, models = use.partition("@")
    if models.endswith(".json") or is_bundle(Path(models)):
        return load_with(use, Path(models))
    own = own_card(use) if models else None
    card = Models(Path(models)).card_of(Installed.read(own).name) if own else None
    return load_with(use, card)


def is_bundle(place: Path) -> bool:
    """Whether a path means a MONAI bundle: a zip, or a folder with a bundle's settings."""
    return place.suffix == ".zip" or (place / "configs" / "metadata.json").is_file()


def load_with(use: str, card: Path | None) -> Pipeline:
    """As ``load``, of one certain model card; None: the pipeline's own."""
    named = _named(use)
    if not callable(named):
        raise PipelineNotFound(f"use = {use!r}: this is no pipeline, for it cannot be called")
    pipeline = named(*([card] if card else [])) if isinstance(named, type) else named
    if not callable(pipeline) or not isinstance(getattr(pipeline, "algorithm", None), Algorithm):
        raise PipelineNotFound(f"use = {use!r}: this is no pipeline, for it has no algorithm or cannot be called")
    return cast(Pipeline, pipeline)


def warm_up(pipeline: Pipeline) -> str | None:
    """Let the pipeline do what it does once, such as probing the processor, before its first study.

    Returns:
        What its ``warm_up()`` says of how it computes, as "single precision"; None if it has no such method.
    """
    warm: Callable[[], str] | None = getattr(pipeline, "warm_up", None)
    return warm() if callable(warm) else None


def own_card(use: str) -> Path | None:
    """The model card that a pipeline goes by unless told otherwise: the default of its first argument ``card``."""
    named = _named(use)
    first = next(iter(inspect.signature(named).parameters.values()), None) if isinstance(named, type) else None
    return first.default if first and first.name == "card" and isinstance(first.default, Path) else None


def _named(use: str) -> Callable[..., Any]:
    return _from_module(use) if ":" in use else _from_entry_point(use)


def _from_module(use: str) -> Callable[..., Any]:
    module_name, _, attribute = use.partition(":")
    if not attribute.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise PipelineNotFound(f"use = {use!r}: write package.module:Class, or the entry point of a package")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        raise PipelineNotFound(f"use = {use!r}: {_missing(module_name, error)}") from error
    except AttributeError as error:
        raise PipelineNotFound(f"use = {use!r}: the module {module_name} has no {attribute}") from error
    return found


def _missing(module_name: str, error: ModuleNotFoundError) -> str:
    """Whether the module itself is missing, or something that it needs."""
    missing = error.name or ""
    if module_name == missing or module_name.startswith(f"{missing}."):
        return f"there is no module {missing}"
    return f"it needs {missing}, which is not installed (pip install 'wetread[worker]')"


def _from_entry_point(use: str) -> Callable[..., Any]:
    found = list(entry_points(group=GROUP, name=use))
    if not found:
        known = ", ".join(sorted(point.name for point in entry_points(group=GROUP))) or "none"
        raise PipelineNotFound(f"use = {use!r}: no installed package has this entry point; there are: {known}")
    named: Callable[..., Any] = found[0].load()
    return named
