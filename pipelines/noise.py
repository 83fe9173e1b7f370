"""How strong the noise of a picture is, as the picture itself shows it: the spread in its smoothest places."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 7  # pixels
SMOOTHEST = 0.2  # of the windows that lie in the body
BODY = 0.15  # from this grey on, of a scale of 0 to 1: noise alone is darker
WHITE = 0.98  # and up to this
CUT = 0.1  # of a window, at most, at the ends of the scale: noise reaches them here and there


def strength(images: Tensor, *, smoothest: float = SMOOTHEST) -> Tensor:
    """(N,) of images (N, 1, rows, columns), about 0 to 1: the deviation that a fifth of all windows stay below.

    Windows that touch air, or what is cut off at white, do not count; 0 where nothing else is left.
    """
    spread = local_spread(images)
    seen = body(images)
    found = []
    for each, inside in zip(spread[:, 0], seen[:, 0], strict=True):
        values = each[inside]
        found.append(values.quantile(smoothest) if 0 < len(values) < 2**24 else values.new_zeros(()))
    return torch.stack(found)


def local_spread(images: Tensor) -> Tensor:
    """(N, 1, rows, columns): the standard deviation around each pixel, where a window fits; else of the nearest."""
    mean = _mean(images)
    square = _mean((images - 0.5).square()) - (mean - 0.5).square()
    return square.clamp(min=0).sqrt() * math.sqrt(WINDOW**2 / (WINDOW**2 - 1))


def body(images: Tensor) -> Tensor:
    """bool (N, 1, rows, columns): pixels all around which there is neither air nor much that is cut off."""
    grey, cut = _mean(images), _mean(((images <= 0) | (images >= 1)).float())
    inside = ((grey > BODY) & (grey < WHITE) & (cut < CUT)).float()
    return -F.max_pool2d(-inside, WINDOW, 1, WINDOW // 2) > 0.5


def _mean(images: Tensor) -> Tensor:
    half = WINDOW // 2
    return F.avg_pool2d(F.pad(images, (half,) * 4, mode="replicate"), WINDOW, 1)
