"""Batches: which slices, and how they are changed so that no two are alike. Everything follows from (seed, step)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipelines.imaging import CHANNELS, LIMIT, MIRRORED, stack
from pipelines.training.cases import Case

FLAIR_CHANNELS = [place for place, (sequence, _) in enumerate(CHANNELS) if sequence == 1]
AIR = -1.5  # about where air lies after the z-score: bias fields and gamma leave it alone
SYNTHETIC_SHARE = 0.05

_Table = tuple[list[int], NDArray[np.float64]]  # places of cases, and how often each is drawn


@dataclass(frozen=True, eq=False)
class Sampler:
    """Draws five eighths of each batch from slices with a lesion, the patients about equally often."""

    cases: Sequence[Case]
    size: int
    seed: int
    device: str = "cpu"  # where pictures are changed
    _tables: dict[bool, dict[bool, _Table]] = field(init=False, repr=False)
    _places: dict[int, list[NDArray[np.intp]]] = field(init=False, repr=False)

    def draw(self, step: int) -> tuple[Tensor, Tensor]:
        """Images (size, CHANNELS, rows, columns) and masks (size, 1, rows, columns), changed at random."""
        rng = np.random.default_rng((self.seed, step))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            pairs = [self._slice(rng, with_lesion=place % 8 < 5) for place in range(self.size)]
            images = torch.cat([image for image, _ in pairs])
            masks = torch.cat([mask for _, mask in pairs])
            return augment(images.to(self.device), masks.to(self.device))

    def _slice(self, rng: np.random.Generator, *, with_lesion: bool) -> tuple[Tensor, Tensor]:
        table = self._tables[bool(rng.random() < SYNTHETIC_SHARE) and bool(self._tables[True][with_lesion][0])]
        places, weights = table[with_lesion]
        case = self.cases[places[int(rng.choice(len(places), p=weights))]]
        slices = self._places[id(case)][with_lesion]
        index = torch.tensor([int(rng.choice(slices))])
        # Neighbours two slices off now and then: the distance between slices differs from scanner to scanner.
        images = stack(case.images, index, step=2 if rng.random() < 0.2 else 1).float()
        return images, case.mask[index][:, None].float()

    @staticmethod
    def _slices(case: Case, with_lesion: bool) -> NDArray[np.intp]:
        return np.flatnonzero(case.mask.flatten(1).any(1).numpy() == with_lesion)

    def __post_init__(self) -> None:
        places = {id(case): [self._slices(case, with_lesion) for with_lesion in (False, True)] for case in self.cases}
        object.__setattr__(self, "_places", places)
        tables = {
            synthetic: {with_lesion: self._table(synthetic, with_lesion) for with_lesion in (False, True)}
            for synthetic in (False, True)
        }
        object.__setattr__(self, "_tables", tables)

    def _table(self, synthetic: bool, with_lesion: bool) -> _Table:
        """Places of the cases that have such slices, and how often each is drawn: by the root of their number."""
        counts = {
            place: len(self._places[id(case)][with_lesion])
            for place, case in enumerate(self.cases)
            if case.is_synthetic == synthetic
        }
        places = [place for place, count in counts.items() if count]
        weights = np.sqrt([counts[place] for place in places])
        return places, weights / weights.sum() if places else weights


def augment(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Move, bend and mirror both; then change the grey values, and take sequences away."""
    missing = images.flatten(2).abs().amax(2) == 0  # (N, CHANNELS)
    grid = _grid(images)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    masks = (F.grid_sample(masks, grid, mode="bilinear", padding_mode="zeros", align_corners=False) > 0.5).float()
    images = _grey_values(images)
    images[missing | _taken_away(images).to(images.device)] = 0.0
    return images, masks


def _uniform(count: int, low: float, high: float) -> Tensor:
    return torch.empty(count).uniform_(low, high)


def _grid(images: Tensor) -> Tensor:
    """(N, rows, columns, 2): turn ±20°, size ±20 %, shift ±8 %, mirror left to right, bend."""
    n, _, rows, columns = images.shape
    ratio = rows / columns
    angle = _uniform(n, -0.35, 0.35) * (torch.rand(n) < 0.7)
    size = torch.exp(_uniform(n, -0.2, 0.2) * (torch.rand(n) < 0.8))
    squeeze = torch.exp(_uniform(n, -0.08, 0.08))
    side = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = side * cos * size * squeeze, -sin * size * ratio
    theta[:, 1, 0], theta[:, 1, 1] = side * sin * size / ratio, cos * size / squeeze
    theta[:, :, 2] = torch.empty(n, 2).uniform_(-0.08, 0.08)
    grid = F.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    bend = (torch.randn(n, 2, 8, 7) * 0.025 * (torch.rand(n, 1, 1, 1) < 0.5)).to(images.device)
    bend = F.interpolate(bend, size=(rows, columns), mode="bilinear", align_corners=False)
    return grid + bend.permute(0, 2, 3, 1)


def _per_sequence(n: int, spread: float) -> Tensor:
    """(N, CHANNELS, 1, 1) normal numbers, one for all channels of FLAIR."""
    values = torch.randn(n, len(CHANNELS)) * spread
    values[:, FLAIR_CHANNELS] = values[:, 1:2]
    return values[:, :, None, None]


def _grey_values(x: Tensor) -> Tensor:
    """Gamma, gain that differs over the field of view, offset, lower resolution, noise. Changes ``x`` in place."""
    n, channels, rows, columns = x.shape
    field = torch.randn(n, channels, 4, 4) * 0.15
    field[:, FLAIR_CHANNELS] = field[:, 1:2]
    gain = 4 * torch.exp(field + _per_sequence(n, 0.12))
    gain = F.interpolate(gain.to(x.device), size=(rows, columns), mode="bilinear", align_corners=False)
    x.sub_(AIR).div_(4).clamp_(min=1e-4).pow_(torch.exp(_per_sequence(n, 0.15)).to(x.device))
    x.mul_(gain).add_((_per_sequence(n, 0.12) + AIR).to(x.device))
    coarse = torch.nonzero(torch.rand(n) < 0.15).flatten().to(x.device)
    if len(coarse):
        small = F.avg_pool2d(x[coarse], 2)
        x[coarse] = F.interpolate(small, size=(rows, columns), mode="bilinear", align_corners=False)
    noisy = torch.nonzero(torch.rand(n) < 0.4).flatten()
    if len(noisy):
        spread = _uniform(len(noisy), 0.0, 0.25)[:, None, None, None].to(x.device)
        noisy = noisy.to(x.device)
        x[noisy] += torch.randn_like(x[noisy]) * spread
    return x.clamp_(-LIMIT, LIMIT)


def _taken_away(x: Tensor) -> Tensor:
    """(N, CHANNELS) bool: T1 before or after contrast, or both, the neighbours, or the mirror image."""
    n = x.shape[0]
    away = torch.zeros(n, len(CHANNELS), dtype=torch.bool)
    both = torch.rand(n) < 0.06
    away[:, 0] = (torch.rand(n) < 0.1) | both
    away[:, 2] = (torch.rand(n) < 0.1) | both
    alone = torch.rand(n) < 0.05
    for place in FLAIR_CHANNELS[1:-1]:
        away[:, place] = alone
    away[:, MIRRORED] = torch.rand(n) < 0.1
    return away
