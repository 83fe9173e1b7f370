"""Changes that a picture may undergo without meaning something else: named, and chosen per modality.

None mirrors left to right unless it is told to: a side is a finding. Batches in, batches out; everything follows from
torch's own generator, so from the run's seed and step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augment:
    """How far each change may go; 0 leaves it out.

    Attributes:
        turn: Degrees either way.
        size: Share by which it grows or shrinks.
        shift: Share of the canvas.
        bend: Share of the canvas by which a smooth deformation moves its points.
        mirror: Left to right, half of the pictures; only where sides mean nothing.
        flip: Top to bottom, half of the pictures; only where up means nothing.
        gamma, gain: Spread of the logarithm of the exponent and of the contrast.
        noise: Of white; up to so much.
        blur: Share of pictures that lose resolution.
        tint: Spread of the logarithm of each colour's gain.
        erase: Share of pictures that lose a rectangle.
    """

    turn: float = 10.0
    size: float = 0.15
    shift: float = 0.06
    bend: float = 0.0
    mirror: bool = False
    flip: bool = False
    gamma: float = 0.2
    gain: float = 0.1
    noise: float = 0.03
    blur: float = 0.15
    tint: float = 0.0
    erase: float = 0.0


def augmented(images: Tensor, masks: Tensor, how: Augment) -> tuple[Tensor, Tensor]:
    """Images 0 to 1 (N, channels, rows, columns) and masks (N, labels, rows, columns), both float and both changed."""
    grid = _grid(images, how)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if masks.shape[1]:
        moved = F.grid_sample(masks, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        masks = (moved > 0.5).float()
    return _erased(_grey_values(images, how), how), masks


def _uniform(n: int, most: float) -> Tensor:
    return torch.empty(n).uniform_(-1, 1) * most


def _grid(images: Tensor, how: Augment) -> Tensor:
    """(N, rows, columns, 2)."""
    n, _, rows, columns = images.shape
    angle = _uniform(n, math.radians(how.turn))
    size = torch.exp(_uniform(n, how.size))
    squeeze = torch.exp(_uniform(n, how.size / 3))
    side = torch.where(torch.rand(n) < 0.5 * how.mirror, -1.0, 1.0)
    up = torch.where(torch.rand(n) < 0.5 * how.flip, -1.0, 1.0)
    cos, sin, ratio = torch.cos(angle), torch.sin(angle), rows / columns
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = side * cos * size * squeeze, -sin * size * ratio * up
    theta[:, 1, 0], theta[:, 1, 1] = side * sin * size / ratio, cos * size / squeeze * up
    theta[:, :, 2] = torch.empty(n, 2).uniform_(-2, 2) * how.shift
    grid = F.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    if not how.bend:
        return grid
    bend = (torch.randn(n, 2, 7, 7) * 2 * how.bend).to(images.device)
    return grid + F.interpolate(bend, size=(rows, columns), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)


def _grey_values(x: Tensor, how: Augment) -> Tensor:
    n, channels = x.shape[:2]
    x = x.clamp(1e-4, 1).pow(torch.exp(_uniform(n, how.gamma))[:, None, None, None].to(x.device))
    gain = torch.exp(_uniform(n, how.gain)[:, None] + _uniform(n * channels, how.tint).view(n, channels))
    x = x * gain[:, :, None, None].to(x.device)
    coarse = torch.nonzero(torch.rand(n) < how.blur).flatten().to(x.device)
    if len(coarse):
        small = F.avg_pool2d(x[coarse], 2)
        x[coarse] = F.interpolate(small, size=x.shape[2:], mode="bilinear", align_corners=False)
    spread = torch.rand(n)[:, None, None, None] * how.noise * (torch.rand(n) < 0.5)[:, None, None, None]
    return (x + torch.randn_like(x) * spread.to(x.device)).clamp(0, 1)


def _erased(x: Tensor, how: Augment) -> Tensor:
    rows, columns = x.shape[2:]
    for place in torch.nonzero(torch.rand(x.shape[0]) < how.erase).flatten().tolist():
        high, wide = (int(size * float(torch.empty(()).uniform_(0.1, 0.35))) for size in (rows, columns))
        top, left = int(torch.randint(rows - high, ())), int(torch.randint(columns - wide, ()))
        x[place, :, top : top + high, left : left + wide] = float(torch.rand(()))
    return x
