"""From trained members of picture networks to what ships: operating points on the folds, then one file and its card.

    python -m pipelines.training.ship_pictures us_breast --card pipelines/weights/us_breast-1.1.0.json \\
        --part outline DICOM LABELS 0=runs/a/weights.safetensors 1=runs/b/weights.safetensors \\
        --part class DICOM LABELS 0=runs/c/weights.safetensors

Each member is judged by the fold that it left out, and by nothing else; several members of one fold are not allowed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pipelines.models.certainty import STRANGEST, familiar, probabilities
from pipelines.models.eighths import restored, rounded
from pipelines.models.shipped import Member
from pipelines.models.store import tensors_of
from pipelines.training import calibrate
from pipelines.training.examples import group_of
from pipelines.training.metrics import auroc
from pipelines.training.pack import pack_roles
from pipelines.training.picture_tasks import Classify, Outline, outputs_of
from pipelines.training.recipes import Sources, recipe
from pipelines.training.ship import members_of


@runtime_checkable
class Judged(Protocol):
    """A task that finds its operating points itself."""

    kind: str
    args: dict[str, Any]

    def network(self) -> nn.Module: ...

    def points(self, nets: dict[int, nn.Module]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Operating points of members by the fold that each had not seen, and what the folds said."""


@dataclass(frozen=True)
class Part:
    """One role of a pipeline, with its members by the fold that each left out."""

    role: str
    data: Path
    labels: Path
    members: dict[int, Path]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline")
    parser.add_argument("--part", nargs="+", action="append", required=True, metavar="ROLE DATA LABELS FOLD=WEIGHTS")
    parser.add_argument("--card", type=Path, required=True, help="the JSON card to write; the weights lie beside it")
    parser.add_argument("--version", default="1.0.0")
    parser.add_argument("--eight-bits", action="store_true", help="half as large; the folds judge the rounded weights")
    parser.add_argument("--split", action="append", help="splits that the members were trained on; default: train")
    parser.add_argument("--quality", type=Path, help="ranges of how pictures are taken, from benchmarks/quality.py")
    args = parser.parse_args()
    quality = json.loads(args.quality.read_text()) if args.quality else {}
    try:
        parts = [Part(role, Path(data), Path(labels), members_of(rest)) for role, data, labels, *rest in args.part]
        splits = args.split or ("train",)
        said = ship(
            args.pipeline,
            parts,
            args.card,
            version=args.version,
            splits=splits,
            eight_bits=args.eight_bits,
            quality=quality,
        )
    except ValueError as error:
        parser.error(str(error))
    print(json.dumps(said, indent=1))  # noqa: T201


def ship(
    pipeline: str,
    parts: Sequence[Part],
    card: Path,
    *,
    version: str,
    splits: Collection[str] = ("train",),
    eight_bits: bool = False,
    quality: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Write ``card`` and the weights beside it, and give what the folds said of each role.

    Args:
        eight_bits: Ship the weights rounded (``pipelines.models.eighths``), and judge them so.
        quality: Ranges of ``pipelines.quality`` by pipeline and role, as ``quality.json`` has them.

    Raises:
        ValueError: If the file would be too large to be shipped.
    """
    members: list[Member] = []
    tensors: dict[str, Tensor] = {}
    points: dict[str, Any] = {}
    said: dict[str, Any] = {}
    for part in parts:
        tasks = {fold: _task(pipeline, part, fold, splits) for fold in part.members}
        nets: dict[int, nn.Module] = {}
        for fold, weights in part.members.items():
            own = rounded(tensors_of(weights)) if eight_bits else tensors_of(weights)
            nets[fold] = _net(tasks[fold], restored(own))
            tensors |= {f"{len(members)}.{name}": value for name, value in own.items()}
            members.append(Member(part.role, tasks[fold].kind, tasks[fold].args))
        points[part.role], said[part.role], beside = _points(tasks, nets)
        if ranges := quality.get(f"{pipeline} {part.role}"):
            points[part.role]["quality"] = ranges["quality"]
        tensors |= {f"{part.role}.{name}": value.float() for name, value in beside.items()}
    packed = pack_roles(members, tensors, points, card, name=pipeline, version=version)
    return said | {"card": str(packed)}


def _task(pipeline: str, part: Part, fold: int, splits: Collection[str]) -> Classify | Outline | Judged:
    chosen = recipe(pipeline, part.role)
    cache = part.members[fold].parent / "cases"  # where ``train`` has put them
    sources = Sources(part.data, part.labels, cache, splits, lambda note: print(note, file=sys.stderr))  # noqa: T201
    task = chosen.task(sources, replace(chosen.options, fold=fold))
    if not isinstance(task, Classify | Outline | Judged):
        raise ValueError(f"{pipeline} {part.role} is no task on pictures: it is shipped otherwise")
    return task


def _net(task: Classify | Outline | Judged, tensors: dict[str, Tensor]) -> nn.Module:
    net = task.network()
    net.load_state_dict(tensors)
    return net.eval()


def _points(
    tasks: dict[int, Any], nets: dict[int, nn.Module]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensor]]:
    """Operating points, what they were chosen on, and tensors that go beside the networks."""
    first: Classify | Outline | Judged = next(iter(tasks.values()))
    if isinstance(first, Judged):
        return *first.points(nets), {}
    logits = torch.cat([outputs_of(nets[fold], task.judged.images) for fold, task in tasks.items()])
    if isinstance(first, Classify):
        return _of_classes(first, tasks, nets, logits)
    found = logits.sigmoid().numpy()
    masks = torch.cat([task.judged.masks for task in tasks.values()]).numpy()
    chosen = {name: calibrate.threshold(found[:, i], masks[:, i]) for i, name in enumerate(first.names)}
    points = {"labels": list(first.names), "thresholds": {name: each for name, (each, _) in chosen.items()}}
    return points, {"n": len(masks), "Dice": {name: round(score, 4) for name, (_, score) in chosen.items()}}, {}


def _of_classes(
    first: Classify, tasks: dict[int, Any], nets: dict[int, nn.Module], logits: Tensor
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensor]]:
    labels = torch.cat([task.judged.labels for task in tasks.values()])
    points = calibrate.calibrated(logits, labels, exclusive=first.exclusive)
    chances = probabilities(logits, points).double().numpy()
    truth = labels.double().numpy()
    said: dict[str, Any] = {"n": len(labels), "AUROC": {}}
    points["classes"], points["cutoffs"] = list(first.classes), {}
    for place, name in enumerate(first.classes):
        area = auroc(chances[:, place], truth[:, place])
        said["AUROC"][name] = None if area is None else round(area, 4)
        points["cutoffs"][name] = round(calibrate.cutoff(chances[:, place], truth[:, place]), 4)
    points["sets"] = calibrate.conformal(chances, truth)
    groups = [group_of(row) for task in tasks.values() for row in task.judged.rows]
    said["sets, of the other half"] = calibrate.covered(chances, truth, groups)
    fold, net = next(iter(nets.items()))
    if not hasattr(net, "embed"):
        return points, said, {}
    learnt, judged = tasks[fold].examples.parted(fold)[0].images, tasks[fold].judged.images
    points["strangest"] = STRANGEST
    return points, said, familiar(_features(net, learnt), learnt / 255, (_features(net, judged), judged / 255))


@torch.inference_mode()
def _features(net: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([net.embed(part.float() / 255) for part in torch.split(images, 32)])  # type: ignore[operator]


if __name__ == "__main__":
    main()
