"""From trained members of ``mr_hippocampus`` to what ships: operating points on the folds, then one file and its card.

    python -m pipelines.training.ship_hippocampus --member 0=runs/a/weights.safetensors \\
        --member 1=runs/b/weights.safetensors --data DICOM --labels MASKS \\
        --card pipelines/weights/mr_hippocampus-1.0.0.json

Each member is judged by the fold that it left out, and by nothing else. Dev and test are not opened.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.models.shipped import Member
from pipelines.models.store import tensors_of
from pipelines.models.unet3d import padded, unpadded
from pipelines.mr_hippocampus import LABELS, ROLE, outline
from pipelines.training.hippocampus import HippocampusTask, parts_dice
from pipelines.training.pack import pack_roles
from pipelines.training.recipes.mr_hippocampus import OUTLINE
from pipelines.training.ship import members_of
from pipelines.training.volumes import Volume, prepare_all

THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
NOISE = 0.001  # of Dice: of points that differ by less, the one nearest to 0.5 is taken
ROOM = 0.5  # of the reference volumes of train: a part may be so much smaller or larger than any of them
DOUBT = 0.9  # of the lowest sureness on the folds


@dataclass(frozen=True, eq=False)
class Judged:
    """A volume of a fold, and the probabilities (3, …) of the member that was not trained on it."""

    volume: Volume
    probabilities: NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--member", action="append", required=True, metavar="FOLD=WEIGHTS")
    parser.add_argument("--data", type=Path, required=True, help="DICOM studies with index.csv")
    parser.add_argument("--labels", type=Path, required=True, help="the folder that the masks' paths start from")
    parser.add_argument("--card", type=Path, required=True, help="the JSON card to write; the weights lie beside it")
    parser.add_argument("--version", default="1.0.0")
    args = parser.parse_args()
    try:
        members = members_of(args.member)
        cache = next(iter(members.values())).parent / "cases"  # where ``train`` has put them
        said = lambda note: print(note, file=sys.stderr)  # noqa: E731, T201
        volumes = prepare_all(args.data, args.labels, cache, wanted=("train",), said=said)
        points, report = choose(judge(members, volumes), volumes)
        held = [Member(ROLE, OUTLINE.network, {"labels": 1 + len(LABELS)}) for _ in members]
        tensors = {
            f"{place}.{name}": value
            for place, file in enumerate(members.values())
            for name, value in tensors_of(file).items()
        }
        pack_roles(held, tensors, {ROLE: points}, args.card, name="mr_hippocampus", version=args.version)
    except ValueError as error:
        parser.error(str(error))
    print(json.dumps(report | points, indent=1))  # noqa: T201


@torch.inference_mode()
def judge(members: Mapping[int, Path], volumes: Sequence[Volume]) -> list[Judged]:
    """Every volume of the folds, over image and mirror image as the pipeline reads it."""
    judged = []
    for fold, weights in members.items():
        task = HippocampusTask(volumes, OUTLINE)
        net = task.network()
        net.load_state_dict(tensors_of(weights))
        net.eval()
        for volume in task.of_fold(fold):
            x = padded(volume.image)
            seen = net(torch.cat((x, x.flip(-1))))[0].softmax(1)
            mean = unpadded((seen[0] + seen[1].flip(-1)) / 2, volume.image.shape)
            judged.append(Judged(volume, mean.numpy()))
    return judged


def choose(judged: Sequence[Judged], volumes: Sequence[Volume]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The operating points, and what the folds said of them.

    Args:
        volumes: All of train; their references say how large a part may be.
    """
    if not judged:
        raise ValueError("there is no volume to choose the operating point on")
    scores = {each: np.array([_dices(one, each) for one in judged]) for each in THRESHOLDS}
    worse = {each: float(found.mean(axis=0).min()) for each, found in scores.items()}
    threshold = min((each for each in THRESHOLDS if worse[each] >= max(worse.values()) - NOISE), key=_from_half)
    sureness = [outline(one.probabilities, {"threshold": threshold}).sureness for one in judged]
    counts = [int((each.labels == part).sum()) / 1000 for each in volumes for part in range(1, 1 + len(LABELS))]
    points = {
        "threshold": threshold,
        "volume_cm3": [round(min(counts) * ROOM, 2), round(max(counts) * (1 + ROOM), 2)],
        "sure_from": round(DOUBT * min(sureness), 3),
    }
    mean = scores[threshold].mean(axis=0)
    report = {
        "n": len(judged),
        "Dice": {name: round(float(each), 4) for name, each in zip(LABELS, mean, strict=True)},
        "worse part by threshold": {str(each): round(score, 4) for each, score in worse.items()},
        "sureness, lowest and median": [round(float(np.min(sureness)), 3), round(float(np.median(sureness)), 3)],
    }
    return points, report


def _from_half(threshold: float) -> float:
    return abs(threshold - 0.5)


def _dices(one: Judged, threshold: float) -> list[float]:
    found = outline(one.probabilities, {"threshold": threshold})
    return parts_dice(found.parts, one.volume.labels)


if __name__ == "__main__":
    main()
