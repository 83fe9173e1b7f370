"""How ``dx_chest`` is trained: outlines, which way up, and findings with the place of an opacity."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipelines.dx_chest import CLASS_LOOK, FINDINGS, OUTLINE_LOOK, OUTLINES, ROTATED, SAID, TURN_LOOK, TURNS
from pipelines.training.augment import Augment
from pipelines.training.examples import UNKNOWN, Examples, Row, Truth, examples
from pipelines.training.loop import Options
from pipelines.training.picture_tasks import Batches, Classify, Outline
from pipelines.training.recipes import Recipe, Sources
from pipelines.training.truths import Judged

# How probable an opacity is where only a text program has read the report: the share of the pictures of train with
# that label in which a radiologist of the RSNA saw one; the highest of a picture's labels, and nothing: the lowest.
TOLD = {"No Finding": 0.05, "Edema": 0.65, "Pneumonia": 0.45, "Infiltration": 0.4, "Consolidation": 0.35}
TOLD_OTHERWISE = 0.25
TRUSTED = 0.3  # weight of such a picture beside one that a radiologist has read
ELSEWHERE = 0.3  # weight of all other findings together beside the opacity
BOX_CANVAS = (224, 224)


def drawn(row: Row, labels: Path) -> Truth | None:
    """None where somebody forgot a lung."""
    lungs, heart = (np.asarray(Image.open(labels / row[column])) for column in ("mask", "mask_heart"))
    masks = np.stack([lungs == 1, lungs == 2, heart > 0])
    return Truth(masks=masks) if masks.any(axis=(1, 2)).all() else None


def _outline(sources: Sources, options: Options) -> Outline:
    return Outline(
        examples(sources, OUTLINE_LOOK, drawn),
        options,
        Augment(turn=12, size=0.2, shift=0.08, bend=0.012, gamma=0.35, gain=0.2, erase=0.2),
        "squeeze_outliner",
        {"channels": 1, "inner": [16, 32, 48, 64], "outputs": len(OUTLINES), "deepest": 96},
        OUTLINES,
    )


def _upright(_: Row, __: Path) -> Truth:
    return Truth([1.0, 0.0, 0.0, 0.0])


def _turned(sources: Sources, options: Options) -> Classify:
    return Classify(
        turned(examples(sources, TURN_LOOK, _upright)),
        options,
        # Never mirrored: the mirror image of a picture turned to one side is one turned to the other.
        Augment(turn=15, size=0.25, shift=0.1, gamma=0.35, gain=0.2, erase=0.2),
        "layout_classifier",
        {"channels": 1, "outputs": len(TURNS)},
        TURNS,
        exclusive=True,
    )


def turned(upright: Examples) -> Examples:
    """Each picture as it is and turned by 90, 180 and 270 degrees counterclockwise, with the label of that turn."""
    count = len(upright)
    return Examples(
        torch.cat([torch.rot90(upright.images, turn, (2, 3)) for turn in range(4)]),
        torch.eye(4).repeat_interleave(count, 0),
        torch.cat([torch.rot90(upright.masks, turn, (2, 3)) for turn in range(4)]),
        upright.rows * 4,
    )


def _read(row: Row, _: Path) -> Truth:
    """What the radiologist of the RSNA said of an opacity and where, and what the text program made of the report."""
    told = row["label"].replace("_", " ").casefold().split("|")
    known = {"": UNKNOWN, "Lung Opacity": 1.0}.get(row["rsna_class"], 0.0)
    others = [float(name in told) for name in FINDINGS[1:]]
    return Truth([known, *others], masks=_boxes(row)[None])


def _boxes(row: Row) -> NDArray[np.bool_]:
    """bool (rows, columns): the boxes of the RSNA, on a grid of the source's proportions."""
    drawn = np.zeros(BOX_CANVAS, bool)
    for box in json.loads(row["boxes_json"] or "[]"):
        if box["by"] == "RSNA":
            left, top, wide, high = (round(each * 224) for each in box["xywh"])
            drawn[top : top + high, left : left + wide] = True
    return drawn


def _findings(sources: Sources, options: Options) -> FindChest:
    return FindChest(
        examples(sources, CLASS_LOOK, _read),
        options,
        Augment(turn=12, size=0.15, shift=0.06, mirror=True, gamma=0.3, gain=0.2, erase=0.2),
        "mobile_locator",
        {"channels": 1, "outputs": len(FINDINGS)},
        FINDINGS,
        judged_by=(0,),
    )


@dataclass(frozen=True, eq=False)
class FindChest(Classify):
    """Findings of a chest: the opacity with its boxes and with what reports tell of it, the others as they are told."""

    measure: str = "AUROC of opacity"

    def __post_init__(self) -> None:
        super().__post_init__()
        training, _ = self.examples.parted(self.options.fold)
        told = torch.tensor([told_of(row) for row in training.rows])
        with_told = Examples(
            training.images, torch.cat((training.labels, told[:, None]), 1), training.masks, training.rows
        )
        often = torch.where(training.labels[:, 0].isnan(), 1.0, 2.0)
        object.__setattr__(self, "_batches", Batches(with_told, often, self.options, self.augment))

    def draw(self, step: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:  # type: ignore[override]
        images, masks, labels = self._batches.draw(step)
        return images, (masks, labels)

    def loss(self, outputs: list[Tensor], truth: tuple[Tensor, Tensor]) -> Tensor:  # type: ignore[override]
        logits, where = (each.float() for each in outputs)
        boxes, labels = truth
        read, told = labels[:, 0], labels[:, -1]
        is_read = ~read.isnan()
        target = torch.where(is_read, read.nan_to_num(), told)
        target = target * (1 - self.smoothing) + self.smoothing / 2
        weight = torch.where(is_read, 1.0, TRUSTED)
        opacity = F.binary_cross_entropy_with_logits(logits[:, 0], target, reduction="none")
        total = (opacity * weight).sum() / weight.sum()
        others = labels[:, 1:-1] * (1 - self.smoothing) + self.smoothing / 2
        total = total + ELSEWHERE * F.binary_cross_entropy_with_logits(logits[:, 1:], others)
        # Where: the boxes of the read with an opacity, nowhere in the others that were read or told to be clear.
        cells = F.adaptive_avg_pool2d(boxes, (where.shape[2], where.shape[3]))
        sure = (is_read & ((read == 0) | boxes.flatten(1).any(1))) | (told == TOLD["No Finding"])
        each = F.binary_cross_entropy_with_logits(where, cells, reduction="none").mean((1, 2, 3))
        return total + (each * sure).sum() / sure.sum().clamp(min=1)


def told_of(row: Row) -> float:
    """How probable an opacity is by the labels of the text program."""
    return max(
        TOLD.get(name, 0.0) or TOLD_OTHERWISE * (name != "No Finding") for name in row.get("label", "").split("|")
    )


def _radiologist(row: Row, _: Path) -> Truth | None:
    """Of the pictures that a radiologist has read; the others as the text program has them."""
    if not row["rsna_class"]:
        return None
    told = row["label"].replace("_", " ").casefold().split("|")
    return Truth(
        [float(row["rsna_class"] == "Lung Opacity"), *(float(name in told) for name in SAID if name != OPACITY)]
    )


def _way_up(row: Row, _: Path) -> Truth:
    return Truth([float(row["label"] != "upright")])


OPACITY = FINDINGS[0]
JUDGED = {
    "outline": Judged(drawn, labels=OUTLINES, columns=("mask", "mask_heart")),
    "turn": Judged(_way_up, classes=(ROTATED,), columns=("label_margin",)),
    "findings": Judged(_radiologist, classes=tuple(SAID), columns=("rsna_class",)),
}
_CLASSES = Options(
    network="mobile_locator", batch=32, rate=1e-3, encoder_rate=3e-4, average=0.99, checks=4, patience=99, epochs=15
)
_TURNS = Options(network="layout_classifier", batch=64, rate=3e-3, encoder_rate=3e-3, average=0.98, checks=2)
RECIPES = {
    "outline": Recipe(
        Options(
            network="squeeze_outliner",
            batch=16,
            rate=2e-3,
            encoder_rate=5e-4,
            average=0.99,
            checks=4,
            patience=99,
            epochs=200,
        ),
        _outline,
    ),
    "turn": Recipe(_TURNS, _turned),
    "findings": Recipe(_CLASSES, _findings),
}
