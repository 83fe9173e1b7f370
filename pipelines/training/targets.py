"""What of each pipeline is attacked: pictures as its networks take them, what they lose, what is found; a function for
each kind of task that recipes have. ``worst_case`` finds the one that fits. Volumes: ``targets_volumes``.
"""

from __future__ import annotations

import csv
import importlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines import mr_brain, nuclei, smears
from pipelines.base import Pipeline
from pipelines.carded import Carded
from pipelines.instance import open_instance, text
from pipelines.models.certainty import strangeness
from pipelines.models.shipped import Networks, finest
from pipelines.training import nuclei as learnt_nuclei
from pipelines.training import recipes
from pipelines.training import smears as learnt_smears
from pipelines.training.attack import GREY, PERCENT, Attacked, Target
from pipelines.training.examples import Row, group_of
from pipelines.training.hippocampus import HippocampusTask
from pipelines.training.matching import Counts
from pipelines.training.metrics import dice
from pipelines.training.nuclei import NucleiTask
from pipelines.training.picture_tasks import Classify, Outline
from pipelines.training.prepare import NoLabels
from pipelines.training.resampling import Statistic, auroc_of, f1_of
from pipelines.training.robustness import Line, value_of
from pipelines.training.smears import SmearTask
from pipelines.training.targets_volumes import first, of_brains, of_volumes
from pipelines.training.vessels import Fundus, VesselTask, vessels

BOUNDS = {"HU": (0.2, 1.0, 5.0), GREY: (1.0, 4.0), PERCENT: (0.5, 2.0)}
BATCH = 8  # pictures that are attacked together

Found = NDArray[np.float64]


def worst_case(
    pipeline: Pipeline,
    name: str,
    rows: Sequence[Row],
    data: Path,
    labels: Path,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Line]:
    """A line per part of the pipeline that can be attacked with these pictures, and bound."""
    for part, target in _parts(pipeline, name, rows, data, labels):
        for bound in (0.0, *BOUNDS[target.unit]):
            progress(f"attack on {part}, {bound:g} {target.unit}")
            found, refused = target.score(bound)
            yield {
                "kind": "attack",
                "name": f"attack on {part}" if bound else "as it is",
                "degree": bound,
                "unit": target.unit,
                "measure": f"{part}: {target.measure}",
                "n": found.n,
                **value_of(found),
                "unread": None if refused is None else round(refused, 4),
            }


def _parts(
    pipeline: Pipeline, name: str, rows: Sequence[Row], data: Path, labels: Path
) -> Iterator[tuple[str, Attacked]]:
    with tempfile.TemporaryDirectory() as folder:
        index_of(rows, data, Path(folder))
        if isinstance(pipeline, mr_brain.BrainTumour):
            yield "outline", of_brains(pipeline, Path(folder), labels)
            return
        networks = next(each for each in (pipeline, *vars(pipeline).values()) if isinstance(each, Carded)).networks
        sources = recipes.Sources(Path(folder), labels, Path(folder) / "cache", (rows[0]["split"],), lambda _: None)
        table: dict[str, recipes.Recipe] = importlib.import_module(f"{recipes.__name__}.{name}").RECIPES
        shown = _shown(name, text(open_instance(data / rows[0]["file"]), "Modality"))
        for part, recipe in table.items():
            try:
                task = recipe.task(sources, replace(recipe.options, fold=None))
            except (KeyError, NoLabels, OSError):
                continue  # the set has no truth for this part
            found = _target(task, part, networks, shown)
            if found is not None:
                yield part, found


def index_of(rows: Sequence[Row], data: Path, folder: Path) -> None:
    """An index of these rows alone, so that no more is prepared than is attacked."""
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows({**row, "file": str((data / row["file"]).absolute())} for row in rows)


def _shown(name: str, modality: str) -> tuple[str, float]:
    """In what a bound on a canvas is counted, and how many of it lie between 0 and 1 there."""
    if modality == "CT":
        black, white = importlib.import_module(f"pipelines.{name}").LOOK.window
        return "HU", white - black
    return (GREY, 255.0) if modality == "XC" else (PERCENT, 100.0)


def _target(task: object, part: str, networks: Networks, shown: tuple[str, float]) -> Attacked | None:
    nets, points = networks.members(part), networks.card.points.get(part, {})
    if isinstance(task, Classify):
        return of_classes(task, nets, shown, networks.beside(part), points.get("strangest"))
    if isinstance(task, Outline):
        return of_outlines(task, nets, shown)
    if isinstance(task, NucleiTask):
        return of_nuclei(task, nets, nuclei.Rule(**points["rule"]))
    if isinstance(task, SmearTask):
        return of_smears(task, nets, smears.Rule(**points["rule"]))
    if isinstance(task, VesselTask):
        return of_vessels(task, nets, points["threshold"])
    if isinstance(task, HippocampusTask):
        return of_volumes(task, nets, points)
    return None


def _mean(nets: Sequence[nn.Module], images: Tensor) -> Tensor:
    """Logits: the mean over the members."""
    return torch.stack([finest(net(images)).float() for net in nets]).mean(0)


def of_classes(
    task: Classify, nets: Sequence[nn.Module], shown: tuple[str, float], known: dict[str, Tensor], strangest: Any
) -> Attacked:
    places = list(task.judged_by or range(task.examples.labels.shape[1]))
    kept = [i for i, row in enumerate(task.examples.labels[:, places]) if not row.isnan().any()]
    own = task.examples.at(kept)

    def target(at: Tensor) -> Target:
        labels = own.labels[at]

        def loss(images: Tensor) -> Tensor:
            logits = _mean(nets, images)
            if task.exclusive:
                return F.cross_entropy(logits, labels.argmax(1), reduction="sum")
            return F.binary_cross_entropy_with_logits(logits[:, places], labels[:, places], reduction="sum")

        def found(images: Tensor) -> Found:
            with torch.inference_mode():
                logits = _mean(nets, images)
            said = logits.log_softmax(1) if task.exclusive else logits
            return torch.cat((said[:, places], labels[:, places]), 1).double().numpy()

        def refused(images: Tensor) -> int:
            with torch.inference_mode():
                far = strangeness(nets[0].embed(images).float(), images, known)  # type: ignore[operator]
            return int((far > strangest).sum())

        images = own.images[at].float() / 255
        groups = [group_of(own.rows[i]) for i in at]
        return Target(images, 1 / shown[1], loss, found, groups, refused if known and strangest else None)

    def statistic(found: Found) -> Statistic:
        areas = [auroc_of(found[:, i], found[:, len(places) + i] > 0.5) for i in range(len(places))]
        return lambda weights: float(np.mean([area(weights) for area in areas]))

    return Attacked("mean AUROC of the networks", shown[0], [target(at) for at in _batches(len(own))], statistic)


def of_outlines(task: Outline, nets: Sequence[nn.Module], shown: tuple[str, float]) -> Attacked:
    own = task.examples.at(torch.nonzero(task.examples.masks.flatten(1).any(1))[:, 0].tolist())

    def target(at: Tensor) -> Target:
        masks = own.masks[at]

        def loss(images: Tensor) -> Tensor:
            return F.binary_cross_entropy_with_logits(_mean(nets, images), masks.float(), reduction="sum")

        def found(images: Tensor) -> Found:
            with torch.inference_mode():
                ours = (_mean(nets, images) > 0).numpy()
            pairs = [
                [(a, b) for a, b in zip(one, drawn, strict=True) if b.any()]
                for one, drawn in zip(ours, masks.numpy(), strict=True)
            ]
            return np.array([[np.mean([dice(a, b) for a, b in each])] for each in pairs])

        groups = [group_of(own.rows[i]) for i in at]
        return Target(own.images[at].float() / 255, 1 / shown[1], loss, found, groups)

    return Attacked("mean Dice of the networks", shown[0], [target(at) for at in _batches(len(own))], first)


def of_nuclei(task: NucleiTask, nets: Sequence[nn.Module], rule: nuclei.Rule) -> Attacked:
    def target(place: int, picture: learnt_nuclei.NucleiPicture) -> Target:
        rows, columns = picture.image.shape[1:]
        pads = (0, -columns % nuclei.MULTIPLE, 0, -rows % nuclei.MULTIPLE)

        def loss(images: Tensor) -> Tensor:
            logits = _mean(nets, F.pad(images, pads, mode="replicate"))[:, :, :rows, :columns]
            return F.binary_cross_entropy_with_logits(logits, picture.truth[None, :2])

        def found(images: Tensor) -> Found:
            return _counted(learnt_nuclei.score(*learnt_nuclei.maps(nets, images[0]), picture, rule))

        return Target(picture.image[None], 1 / 100, loss, found, [str(place)])

    targets = [target(place, each) for place, each in enumerate(task.pictures)]
    return Attacked("box F1", PERCENT, targets, _f1)


def of_smears(task: SmearTask, nets: Sequence[nn.Module], rule: smears.Rule) -> Attacked:
    def target(place: int, smear: learnt_smears.Smear) -> Target:
        middles, edges = learnt_smears.target(smear.boxes, smear.kinds)

        def loss(images: Tensor) -> Tensor:
            return sum((task.loss(net(images), (middles[None], edges[None])) for net in nets), torch.zeros(()))

        def found(images: Tensor) -> Found:
            cells = smears.cells(learnt_smears.maps(nets, replace(smear.view, image=images[0])), smear.view, rule)
            return _counted(learnt_smears.score(cells, smear))

        return Target(smear.view.image[None], 1 / 255, loss, found, [str(place)])

    return Attacked("box F1", GREY, [target(place, each) for place, each in enumerate(task.pictures)], _f1)


def of_vessels(task: VesselTask, nets: Sequence[nn.Module], threshold: float) -> Attacked:
    """The local mean and deviation that even out the light stay as they are."""

    def target(picture: Fundus) -> Target:
        def loss(images: Tensor) -> Tensor:
            return F.binary_cross_entropy_with_logits(_mean(nets, images)[0], picture.truth)

        def found(images: Tensor) -> Found:
            likely = picture.view.back(vessels(nets, replace(picture.view, image=images[0])))
            return np.array([[dice(likely > threshold, picture.mask)]])

        low, high = float(picture.view.image.min()), float(picture.view.image.max())
        return Target(picture.view.image[None], picture.view.unit, loss, found, [picture.name], inside=(low, high))

    return Attacked("mean Dice", GREY, [target(each) for each in task.pictures], first)


def _batches(count: int) -> Sequence[Tensor]:
    return torch.split(torch.arange(count), BATCH)


def _counted(each: Counts) -> Found:
    return np.array([[each.hits, each.wrong, each.missed]], np.float64)


def _f1(found: Found) -> Statistic:
    return f1_of(*found.T)
