"""What ``gm_cells`` learns of blood smears: where the middles of cells are, and how far their edges are from there.

Only what is boxed counts as a cell: many red cells of the set are not, so the detector learns which ones people box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.models.detector import SqueezeDetector
from pipelines.smears import CANVAS, CLASSES, STRIDE, Cell, Rule, Shown, cells, merged, mirrored, shown
from pipelines.training.calibrate import certainty_fit
from pipelines.training.labelled import LabelledPicture
from pipelines.training.loop import Options
from pipelines.training.matching import Box, Counts, counts, matched
from pipelines.training.placing import device_of
from pipelines.training.warp import tint

ARGS: dict[str, Any] = {"classes": len(CLASSES), "width": 48}  # of the network
NAMES = {"RBC": CLASSES[0], "WBC": CLASSES[1], "Platelets": CLASSES[2]}  # as the set has them
RULE = Rule(dict.fromkeys(CLASSES, 0.35), apart=0.5)  # to judge by during training
_LEAST = tuple(round(0.1 + 0.025 * step, 3) for step in range(25))  # scores that the folds choose from
_APART = (0.35, 0.45, 0.55, 0.65)
_SPREAD = 0.15  # of a box's sides: deviation of the bump that marks a middle
_SURE = 0.5  # height of the bump from which a point learns the edges
_GRID = (CANVAS[0] // STRIDE, CANVAS[1] // STRIDE)


@dataclass(frozen=True, eq=False)
class Smear:
    """One prepared picture.

    Attributes:
        boxes: left, top, right, bottom on the canvas, float32 (n, 4).
        kinds: Place in ``CLASSES`` of each.
        truth: Class and x, y, width, height of each on the source.
    """

    fold: int
    view: Shown
    boxes: NDArray[np.float32]
    kinds: NDArray[np.intp]
    truth: tuple[tuple[str, Box], ...]


def prepared(labelled: LabelledPicture) -> Smear:
    """A labelled picture as the detector sees it; boxes without an extent are left out."""
    view = shown(labelled.picture.pixels.astype(np.uint8))
    truth = tuple((NAMES[name], box) for name, box in labelled.boxes() if box[2] >= 1 and box[3] >= 1)
    sides = np.array([box for _, box in truth], np.float32).reshape(-1, 4) * view.scale
    boxes = np.concatenate([sides[:, :2], sides[:, :2] + sides[:, 2:]], 1)
    return Smear(labelled.fold, view, boxes, np.array([CLASSES.index(kind) for kind, _ in truth], np.intp), truth)


@dataclass(frozen=True, eq=False)
class SmearTask:
    """The pictures less a fold to train on, the fold to judge by."""

    pictures: Sequence[Smear]
    options: Options
    measure: str = "box F1 at IoU 0.5"
    facts: dict[str, str] = field(default_factory=dict)
    kind: str = "squeeze_detector"
    args: dict[str, Any] = field(default_factory=lambda: ARGS)

    @property
    def _training(self) -> list[Smear]:
        return [each for each in self.pictures if each.fold != self.options.fold]

    @property
    def batches(self) -> int:
        return max(1, len(self._training) // self.options.batch)

    def network(self) -> nn.Module:
        return SqueezeDetector(**self.args).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def draw(self, step: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Images, and the maps of ``target``."""
        rng, training = np.random.default_rng((self.options.seed, step)), self._training
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            drawn = [_changed(training[place], rng) for place in rng.choice(len(training), size=self.options.batch)]
        images = torch.stack([image for image, _, _ in drawn]).to(memory_format=torch.channels_last)
        middles, edges = zip(*(target(boxes, kinds) for _, boxes, kinds in drawn), strict=True)
        return images, (torch.stack(middles), torch.stack(edges))

    def loss(self, outputs: Tensor, truth: tuple[Tensor, Tensor]) -> Tensor:
        """Focal loss of the middles (Law and Deng 2018); one less the overlap of the boxes, where a middle is near."""
        wanted, edges = truth
        logits, distances = outputs[:, : len(CLASSES)].float(), outputs[:, len(CLASSES) :].float().clamp(-3, 5).exp()
        chance = logits.sigmoid().clamp(1e-4, 1 - 1e-4)
        is_middle = wanted == 1
        hit = -((1 - chance) ** 2 * chance.log())[is_middle].sum()
        miss = -((1 - wanted) ** 4 * chance**2 * (1 - chance).log())[~is_middle].sum()
        near = edges[:, 4] * (edges[:, 4] > _SURE)  # (N, rows, columns)
        overlap = 1 - _overlap(distances, edges[:, :4])
        return (hit + miss) / is_middle.sum().clamp_min(1) + 2 * (overlap * near).sum() / near.sum().clamp_min(1)

    def judge(self, net: nn.Module) -> float | None:
        judged = [each for each in self.pictures if each.fold == self.options.fold]
        if not judged:
            return None
        return sum((score(cells(maps([net], each.view), each.view, RULE), each) for each in judged), Counts()).f1

    def points(self, nets: dict[int, nn.Module]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The rule of the best F1 of each class on the folds that the members had not seen, and certainties."""
        judged = [
            (each, maps([net], each.view)) for fold, net in nets.items() for each in self.pictures if each.fold == fold
        ]

        def found(rule: Rule) -> list[tuple[Smear, list[Cell]]]:
            return [(smear, cells(held, smear.view, rule)) for smear, held in judged]

        def best(apart: float) -> tuple[Rule, dict[str, Counts]]:
            lenient = found(Rule({kind: min(_LEAST) for kind in CLASSES}, apart))
            chosen = {kind: max((_at(lenient, kind, least), least) for least in _LEAST)[1] for kind in CLASSES}
            rule = Rule(chosen, apart)
            return rule, {kind: sum((score_of(kind, c, s) for s, c in found(rule)), Counts()) for kind in CLASSES}

        rule, reached = max(map(best, _APART), key=lambda each: sum(each[1].values(), Counts()).f1)
        points = {"rule": asdict(rule), "certainty": {kind: _fit(kind, found(rule)) for kind in CLASSES}}
        said = {kind: round(each.f1, 4) for kind, each in reached.items()}
        return points, {"n": len(judged), "F1": said | {"all": round(sum(reached.values(), Counts()).f1, 4)}}


def target(boxes: NDArray[np.float32], kinds: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
    """Bumps of 1 at the middles (classes, rows, columns); distances and height of the bump (5, rows, columns)."""
    rows, columns = _GRID
    middles, edges = np.zeros((len(CLASSES), rows, columns), np.float32), np.zeros((5, rows, columns), np.float32)
    down, right = np.mgrid[:rows, :columns] + 0.5
    for (left, top, far, low), kind in zip(boxes / STRIDE, kinds, strict=True):
        x, y = min(int((left + far) / 2), columns - 1), min(int((top + low) / 2), rows - 1)
        across, along = max(_SPREAD * (far - left), 0.6), max(_SPREAD * (low - top), 0.6)
        bump = np.exp(-(((right - x - 0.5) / across) ** 2 + ((down - y - 0.5) / along) ** 2) / 2).astype(np.float32)
        bump[y, x] = 1.0
        middles[kind] = np.maximum(middles[kind], bump)
        distances = np.stack([right - left, down - top, far - right, low - down]).astype(np.float32)
        nearest = (bump > edges[4]) & (distances > 0).all(0)
        edges[:4, nearest], edges[4, nearest] = distances[:, nearest], bump[nearest]
    return torch.from_numpy(middles), torch.from_numpy(edges)


def _overlap(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of boxes around the same point, by their distances (N, 4, …): (N, …)."""
    least, area = torch.minimum(one, other), (one[:, 0] + one[:, 2]) * (one[:, 1] + one[:, 3])
    common = (least[:, 0] + least[:, 2]) * (least[:, 1] + least[:, 3])
    return common / (area + (other[:, 0] + other[:, 2]) * (other[:, 1] + other[:, 3]) - common).clamp_min(1e-3)


def _changed(smear: Smear, rng: np.random.Generator) -> tuple[Tensor, NDArray[np.float32], NDArray[np.intp]]:
    """Resized and moved a little, mirrored both ways, in other light; boxes that are mostly outside are dropped."""
    rows, columns = CANVAS
    scale = float(np.exp(rng.uniform(-0.2, 0.25)))
    sides = np.array([rng.choice((-1.0, 1.0)), rng.choice((-1.0, 1.0))])  # x, y
    slack = np.abs(1 - 1 / scale) * np.array([columns, rows]) / 2
    middle = np.array([columns, rows]) / 2 + rng.uniform(-1, 1, 2) * (slack + 8)
    # where each pixel of the new picture comes from: middle + sides * (pixel - half) / scale
    theta = torch.zeros(1, 2, 3)
    for axis, length in enumerate((columns, rows)):
        theta[0, axis, axis] = float(sides[axis]) / scale
        theta[0, axis, 2] = float(middle[axis]) / length * 2 - 1
    grid = F.affine_grid(theta, [1, 3, rows, columns], align_corners=False)
    image = F.grid_sample(smear.view.image[None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]
    inside = F.grid_sample(torch.ones(1, 1, rows, columns), grid, padding_mode="zeros", align_corners=False)[0]
    image = tint(image + 0.5 * (1 - inside), gain=0.06, gamma=0.15)
    half = np.array([columns, rows]) / 2
    corners = (smear.boxes.reshape(-1, 2, 2) - middle) * sides * scale + half
    low, high = corners.min(1), corners.max(1)
    cut_low, cut_high = np.clip(low, 0, [columns, rows]), np.clip(high, 0, [columns, rows])
    share = (cut_high - cut_low).prod(1) / np.maximum((high - low).prod(1), 1e-6)
    kept = share > 0.35
    return image, np.concatenate([cut_low, cut_high], 1)[kept].astype(np.float32), smear.kinds[kept]


@torch.inference_mode()
def maps(nets: Sequence[nn.Module], view: Shown) -> Tensor:
    """What ``cells`` takes, (classes + 4, rows, columns), as the pipeline has it."""
    images = mirrored(view.image).to(memory_format=torch.channels_last)
    return merged(torch.stack([net(images.to(device_of(net))).float().cpu() for net in nets]))


def score(found: Sequence[Cell], smear: Smear) -> Counts:
    """Over all classes together."""
    return sum((score_of(kind, found, smear) for kind in CLASSES), Counts())


def score_of(kind: str, found: Sequence[Cell], smear: Smear) -> Counts:
    """Of one class; ``found``: the surest first."""
    return counts([each.box for each in found if each.kind == kind], [box for name, box in smear.truth if name == kind])


def _at(found: Sequence[tuple[Smear, list[Cell]]], kind: str, least: float) -> float:
    """F1 of a class if only cells of such a score were said."""
    return sum((score_of(kind, [c for c in each if c.score >= least], smear) for smear, each in found), Counts()).f1


def _fit(kind: str, found: Sequence[tuple[Smear, list[Cell]]]) -> list[float]:
    scores, hits = [], []
    for smear, each in found:
        own = [cell for cell in each if cell.kind == kind]
        scores += [cell.score for cell in own]
        hits += matched([cell.box for cell in own], [box for name, box in smear.truth if name == kind]).tolist()
    return certainty_fit(scores, hits)
