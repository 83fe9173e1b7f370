"""A task on pictures: to tell noise from what is shown, and to take nothing faint for noise (``Denoise``).

To a picture of a set the noise of its modality is added; what was added is to be found. Beside each picture stands the
same one with faint things in it and the same noise: what is found must not change with them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.models.denoiser import Denoiser
from pipelines.noise import strength
from pipelines.training.examples import Examples
from pipelines.training.loop import Options
from pipelines.training.noise import ADDED, drawn

CROP = 64
AIR = 0.1  # weight of what is darker than 0.05: the floor of noise there is easy, and nobody looks at it
THINGS, SMALLEST, LARGEST = 8, 2.0, 9.0  # in each crop, all of about one size; radii in pixels
FAINT = (0.3, 2.0)  # contrast, in deviations of the noise
KEPT = 2.0  # weight of what is kept beside what is taken away


@dataclass(frozen=True, eq=False)
class Denoise:
    """Attributes:
    modality: mr, ct or us: whose noise is added.
    turn: Whether up and down mean nothing to the noise either.
    """

    examples: Examples
    options: Options
    modality: str
    points_of: dict[str, Any]
    turn: bool = True
    measure: str = "share of the noise taken away"
    kind: str = "denoiser"
    args: dict[str, Any] = field(default_factory=lambda: {"width": 24, "depth": 6})
    facts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        training, judged = self.examples.parted(self.options.fold)
        object.__setattr__(self, "training", training)
        object.__setattr__(self, "judged", judged)

    training: Examples = field(init=False)
    judged: Examples = field(init=False)

    @property
    def batches(self) -> int:
        return math.ceil(len(self.training) / self.options.batch)

    def network(self) -> nn.Module:
        return Denoiser(**self.args).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def draw(self, step: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Pictures and their strength, first without and then with things in them; noise, strength, things, weight."""
        rng = np.random.default_rng((self.options.seed, step))
        part = self.training.at(rng.integers(0, len(self.training), self.options.batch // 2).tolist())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            clean = _cropped(part.images.float() / 255, turn=self.turn)
            strengths = drawn(self.modality, len(clean))
            seed = int(torch.randint(2**62, ()))
            noisy = self._noisy(clean, strengths, seed)
            felt = strength(noisy).clamp(min=1e-3)
            things = faint_things(clean, felt)
            beside = self._noisy(clean + things, strengths, seed)
        noise = torch.cat((noisy - clean, beside - clean - things))
        levels = felt.repeat(2).view(-1, 1, 1, 1)
        seen = torch.cat((noisy, beside))
        weight = torch.where(clean.repeat(2, 1, 1, 1) > 0.05, 1.0, AIR)
        return torch.cat((seen, levels.expand_as(seen)), 1), (noise, levels, things, weight)

    def _noisy(self, clean: Tensor, strengths: Tensor, seed: int) -> Tensor:
        torch.manual_seed(seed)
        return ADDED[self.modality](clean, strengths)

    def loss(self, outputs: Tensor, truth: tuple[Tensor, ...]) -> Tensor:
        noise, levels, things, weight = truth
        found = outputs.float()
        each = nn.functional.huber_loss(found / levels, noise / levels, delta=1.5, reduction="none")
        missed = (each * weight).sum() / weight.sum()
        without, beside = found.chunk(2)
        taken = (beside - without).square().mean((1, 2, 3)) / things.square().mean((1, 2, 3)).clamp(min=1e-9)
        return missed + KEPT * taken.mean()

    @torch.inference_mode()
    def judge(self, net: nn.Module) -> float | None:
        """1 where what was added to the tissue of the fold is gone, 0 where nothing is."""
        if not len(self.judged):
            return None
        left, added = 0.0, 0.0
        for place, images in enumerate(torch.split(self.judged.images[:96], 16)):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(place)
                clean = images.float() / 255
                noisy = ADDED[self.modality](clean, drawn(self.modality, len(clean)))
            levels = strength(noisy).clamp(min=1e-3).view(-1, 1, 1, 1)
            found = net(torch.cat((noisy, levels.expand_as(noisy)), 1)).float()
            noise, seen = (noisy - clean) / levels, clean > 0.05
            left += float((noise - found / levels)[seen].square().sum())
            added += float(noise[seen].square().sum())
        return 1 - math.sqrt(left / added)

    def points(self, nets: dict[int, nn.Module]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the pipeline goes by is fixed beforehand; what the folds said."""
        said = {str(fold): round(self.judge(net) or 0.0, 4) for fold, net in nets.items()}
        return dict(self.points_of), {"n": len(self.judged), self.measure: said}


def faint_things(clean: Tensor, levels: Tensor) -> Tensor:
    """Pictures (N, 1, rows, columns) of ellipses with soft rims, brighter or darker by little than what is there."""
    count, rows, columns = len(clean), *clean.shape[2:]
    row = torch.arange(rows, dtype=torch.float32).view(1, -1, 1)
    column = torch.arange(columns, dtype=torch.float32).view(1, 1, -1)
    made = torch.zeros(count, rows, columns)
    size = SMALLEST * (LARGEST / SMALLEST) ** torch.rand(count, 1, 1)  # small ones weigh as much as large ones
    for _ in range(THINGS):
        middle, radii = torch.rand(2, count, 1, 1), size * (0.8 + 0.4 * torch.rand(2, count, 1, 1))
        away = torch.hypot((row - middle[0] * rows) / radii[0], (column - middle[1] * columns) / radii[1])
        rim = ((1 - away) * radii.mean(0) + 0.5).clamp(0, 1)
        sign = torch.randint(0, 2, (count, 1, 1)) * 2.0 - 1
        contrast = FAINT[0] + (FAINT[1] - FAINT[0]) * torch.rand(count, 1, 1)
        made = torch.where(rim > 0, sign * contrast * levels.view(-1, 1, 1) * rim, made)
    return made[:, None] * (clean > 0.02)  # no signal, no contrast


def _cropped(images: Tensor, *, turn: bool) -> Tensor:
    """Crops of each, at places that hold something where there are such, mirrored, and turned where that may be."""
    made = []
    for image in images:
        size = [min(CROP, each) for each in image.shape[1:]]
        best = None
        for _ in range(4):
            top, left = (
                int(torch.randint(0, whole - part + 1, ())) for whole, part in zip(image.shape[1:], size, strict=True)
            )
            best = image[:, top : top + size[0], left : left + size[1]]
            if float((best > 0.1).float().mean()) > 0.4:
                break
        assert best is not None
        made.append(best)
    crops = torch.stack(made)
    if torch.rand(()) < 0.5:
        crops = crops.flip(3)
    if turn and torch.rand(()) < 0.5:
        crops = crops.transpose(2, 3)
    return crops.contiguous()
