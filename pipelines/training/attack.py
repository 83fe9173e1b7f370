"""The least change that does most harm: projected gradient descent within a bound per pixel (Madry et al. 2018).

What it finds is the worst case, not what happens: a picture changed so does not come from a scanner. It goes at the
networks as they take pictures, with all that their designer knows; what is made of which part of a pipeline to be
attacked, ``targets`` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.training.resampling import Estimate, Statistic, estimate

STEPS = 7
PERCENT = "% of what is shown"
GREY = "grey levels of 256"


def attacked(
    images: Tensor,
    loss: Callable[[Tensor], Tensor],
    *,
    bound: float | Tensor,
    inside: tuple[float, float] = (0.0, 1.0),
    steps: int = STEPS,
) -> Tensor:
    """Images of which no value is further than ``bound`` away and whose loss is as large as found.

    Args:
        loss: Images → the sum of their losses.
        bound: One for all, or of a shape that fits the images.
        inside: What values images can have.
    """
    away = torch.as_tensor(bound, dtype=images.dtype)
    changed = (images + away * (2 * torch.rand_like(images) - 1)).clamp(*inside)
    for _ in range(steps):
        changed = changed.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(changed), changed)
        moved = changed.detach() + 2.5 * away / steps * slope.sign()
        changed = (images + torch.minimum(torch.maximum(moved - images, -away), away)).clamp(*inside)
    return changed.detach()


@dataclass(frozen=True, eq=False)
class Target:
    """Some pictures, or one volume, and the networks that look at them.

    Attributes:
        images: As the networks take them.
        unit: Of the bound, in values of the images: one for all, or of a shape that fits them.
        loss: Images → the sum of their losses.
        found: Images → what the statistic is of, (pictures, …).
        groups: Of each picture: its patient.
        refused: Images → how many of the pictures would not be read; None: nothing says so by the picture alone.
        inside: What values images can have.
    """

    images: Tensor
    unit: float | Tensor
    loss: Callable[[Tensor], Tensor]
    found: Callable[[Tensor], NDArray[np.float64]]
    groups: Sequence[str]
    refused: Callable[[Tensor], int] | None = None
    inside: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Attacked:
    """A part of a pipeline under attack.

    Attributes:
        measure: What the statistic is.
        unit: Of the bounds, in words.
        statistic: Of what the targets found.
    """

    measure: str
    unit: str
    targets: Sequence[Target]
    statistic: Callable[[NDArray[np.float64]], Statistic]

    def score(self, bound: float) -> tuple[Estimate, float | None]:
        """Of pictures no value of which is changed by more than ``bound``; and the share that would not be read."""
        changed = list(self._changed(bound))
        found = np.concatenate([target.found(images) for target, images in changed])
        groups = [group for target in self.targets for group in target.groups]
        refused = [target.refused(images) for target, images in changed if target.refused]
        return estimate(self.statistic(found), groups), sum(refused) / len(groups) if refused else None

    def _changed(self, bound: float) -> Iterator[tuple[Target, Tensor]]:
        for place, target in enumerate(self.targets):
            if not bound:
                yield target, target.images
                continue
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(place)
                away = bound * target.unit
                yield target, attacked(target.images, target.loss, bound=away, inside=target.inside)
