"""What ``mr_hippocampus`` learns: from patches of a small volume to its two parts. All follows from (seed, step)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.models.kinds import KINDS
from pipelines.models.unet3d import probabilities
from pipelines.mr_hippocampus import LABELS
from pipelines.training.cases import fold_of
from pipelines.training.loop import Options
from pipelines.training.metrics import dice
from pipelines.training.placing import device_of
from pipelines.training.volumes import Volume

PATCH = (32, 48, 32)  # voxels; a volume has about 35 × 50 × 35
PARTS = range(1, 1 + len(LABELS))  # values of the labels; 0 is neither
DRAWS = 8  # of each volume in what the loop calls an epoch


@dataclass(frozen=True, eq=False)
class HippocampusTask:
    """The volumes less the fold to train on, the fold to judge by."""

    volumes: Sequence[Volume]
    options: Options
    measure: str = "mean Dice of the worse part"
    facts: dict[str, str] = field(default_factory=dict)

    def of_fold(self, fold: int | None) -> list[Volume]:
        return [each for each in self.volumes if fold_of(each.patient) == fold]

    @property
    def training(self) -> list[Volume]:
        return [each for each in self.volumes if fold_of(each.patient) != self.options.fold]

    @property
    def batches(self) -> int:
        return math.ceil(DRAWS * len(self.training) / self.options.batch)

    def network(self) -> nn.Module:
        net = KINDS[self.options.network](labels=1 + len(LABELS))
        return net.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload,no-any-return]

    def draw(self, step: int) -> tuple[Tensor, Tensor]:
        """Images (batch, 1, *PATCH) and truth (batch, 3, *PATCH), one-hot, the background first."""
        rng = np.random.default_rng((self.options.seed, step))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            pairs = [patch(self._drawn(rng)) for _ in range(self.options.batch)]
        images = torch.stack([image for image, _ in pairs]).to(memory_format=torch.channels_last_3d)
        return images, torch.stack([truth for _, truth in pairs])

    def _drawn(self, rng: np.random.Generator) -> Volume:
        training = self.training
        return training[int(rng.integers(len(training)))]

    def loss(self, outputs: list[Tensor], truth: Tensor) -> Tensor:
        return parts_loss(outputs, truth)

    def judge(self, net: nn.Module) -> float | None:
        scores = []
        for each in self.of_fold(self.options.fold):
            found = probabilities(net, each.image.to(device_of(net))).argmax(0).cpu().numpy()
            scores.append(parts_dice([found == part for part in PARTS], each.labels))
        return float(np.mean(scores, axis=0).min()) if scores else None


def parts_dice(found: Sequence[NDArray[np.bool_]], labels: Tensor) -> list[float]:
    """Dice of each part: masks (frames, rows, columns) against labels of the same shape."""
    return [dice(mask, (labels == part).numpy()) for mask, part in zip(found, PARTS, strict=True)]


def parts_loss(logits: list[Tensor], truth: Tensor) -> Tensor:
    """Cross-entropy and soft Dice of each part over the batch; coarser logits count half of the finer ones.

    Args:
        logits: Finest first, each half as fine as the one before: (N, 3, frames, rows, columns).
        truth: (N, 3, frames, rows, columns), one-hot, the background first.
    """
    total, over = truth.new_zeros(()), (0, 2, 3, 4)
    for level, logit in enumerate(logits):
        target = F.avg_pool3d(truth, 2**level) if level else truth
        log = logit.float().log_softmax(1)
        probability = log.exp()
        overlap = (2 * (probability * target).sum(over) + 1) / (probability.sum(over) + target.sum(over) + 1)
        total = total + 0.5**level * (-(target * log).sum(1).mean() + 1 - overlap[1:].mean())
    return total


def patch(volume: Volume) -> tuple[Tensor, Tensor]:
    """One patch, moved, turned, bent and its grey values changed at random: (1, *PATCH) and one-hot (3, *PATCH).

    Mirrored left to right in half of the draws: the set has hippocampi of both sides and does not say which is which.
    """
    grid = _grid(volume.image.shape)[None]
    image = F.grid_sample(volume.image[None, None], grid, padding_mode="border", align_corners=True)
    parts = torch.stack([volume.labels == part for part in PARTS]).float()
    moved = F.grid_sample(parts[None], grid, padding_mode="zeros", align_corners=True)[0]
    inside = moved.sum(0) > 0.5
    anterior = inside & (moved[0] >= moved[1])
    truth = torch.stack([~inside, anterior, inside & ~anterior]).float()
    return _grey_values(image[0]), truth


def _uniform(low: float, high: float, *size: int) -> Tensor:
    return torch.empty(size).uniform_(low, high)


def _grid(shape: Sequence[int]) -> Tensor:
    """(*PATCH, 3) for ``grid_sample``, x first: turns up to 17°, size ±20 %, moved about the volume, bent."""
    size = torch.tensor(shape, dtype=torch.float32)
    lines = [torch.arange(count) - (count - 1) / 2 for count in PATCH]
    points = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1)  # voxels from the patch's centre
    angles = _uniform(-0.3, 0.3, 3) * (torch.rand(3) < 0.6)
    matrix = torch.eye(3)
    for axis, angle in enumerate(angles):
        one, other = (place for place in range(3) if place != axis)
        turn = torch.eye(3)
        turn[one, one] = turn[other, other] = torch.cos(angle)
        turn[one, other], turn[other, one] = -torch.sin(angle), torch.sin(angle)
        matrix = matrix @ turn
    scale = torch.exp(_uniform(-0.18, 0.18, 1) * (torch.rand(1) < 0.7) + _uniform(-0.06, 0.06, 3))
    matrix = matrix * scale
    if torch.rand(()) < 0.5:
        matrix[2] = -matrix[2]  # left to right
    points = points @ matrix.T
    if torch.rand(()) < 0.5:
        bend = torch.randn(1, 3, 5, 6, 5) * float(_uniform(0.5, 2.0, 1))
        bend = F.interpolate(bend, size=PATCH, mode="trilinear", align_corners=True)
        points = points + bend[0].permute(1, 2, 3, 0)
    room = (size - torch.tensor(PATCH)).clamp(min=0) / 2 + 2
    centre = (size - 1) / 2 + _uniform(-1.0, 1.0, 3) * room
    return ((points + centre) / (size - 1) * 2 - 1).flip(-1)


def _grey_values(x: Tensor) -> Tensor:
    """Gamma, gain, offset, a bias field, lower resolution, noise, as one scanner differs from another."""
    low, high = x.min(), x.max()
    if torch.rand(()) < 0.5:
        gamma = torch.exp(_uniform(-0.35, 0.35, 1))
        x = ((x - low) / (high - low + 1e-6)).pow(gamma) * (high - low) + low
    if torch.rand(()) < 0.3:
        field = torch.randn(1, 1, 3, 3, 3) * 0.12
        field = F.interpolate(field, size=x.shape[1:], mode="trilinear", align_corners=True)[0]
        x = (x - low) * torch.exp(field) + low
    x = x * torch.exp(torch.randn(()) * 0.12) + torch.randn(()) * 0.12
    if torch.rand(()) < 0.15:
        small = F.avg_pool3d(x[None], 2)
        x = F.interpolate(small, size=x.shape[1:], mode="trilinear", align_corners=False)[0]
    if torch.rand(()) < 0.4:
        x = x + torch.randn(x.shape) * float(_uniform(0.0, 0.25, 1))
    return x
