"""The least change that does most harm: projected gradient descent within a bound per pixel (Madry et al. 2018).

What it finds is the worst case, not what happens: a picture changed so does not come from a scanner. It goes at the
networks on their canvas, with all that their designer knows; what withholds strange pictures is not asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.models.shipped import finest
from pipelines.training.examples import Examples
from pipelines.training.metrics import auroc, dice
from pipelines.training.picture_tasks import Classify, Outline

STEPS = 7


def attacked(images: Tensor, loss: Callable[[Tensor], Tensor], *, bound: float, steps: int = STEPS) -> Tensor:
    """Images (N, …), 0 to 1, of which no pixel is further than ``bound`` away and whose losses are as large as found.

    Args:
        loss: Images → their losses, summed.
    """
    changed = (images + bound * (2 * torch.rand_like(images) - 1)).clamp(0, 1)
    for _ in range(steps):
        changed = changed.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(changed), changed)
        moved = changed.detach() + 2.5 * bound / steps * slope.sign()
        changed = (images + (moved - images).clamp(-bound, bound)).clamp(0, 1)
    return changed.detach()


@dataclass(frozen=True, eq=False)
class Attacked:
    """A part of a pipeline under attack: a task with the pictures and their truth, and its networks."""

    task: Classify | Outline
    nets: Sequence[nn.Module]
    pictures: Examples

    @property
    def measure(self) -> str:
        return "mean AUROC on the canvas" if isinstance(self.task, Classify) else "mean Dice on the canvas"

    def score(self, bound: float, *, batch: int = 8) -> float | None:
        """Of the mean of the networks' logits, no pixel changed by more than ``bound``; None where it has no value."""
        found = torch.cat(list(self._logits(bound, batch))).numpy()
        if isinstance(self.task, Classify):
            truth = self.pictures.labels.numpy()
            if self.task.exclusive:
                found = torch.from_numpy(found).log_softmax(1).numpy()
            places = self.task.judged_by or range(found.shape[1])
            known = [each for each in (auroc(found[:, i], truth[:, i]) for i in places) if each is not None]
            return float(np.mean(known)) if known else None
        drawn = self.pictures.masks.numpy()
        pairs = [(i, k) for i in range(len(drawn)) for k in range(drawn.shape[1]) if drawn[i, k].any()]
        return float(np.mean([dice(found[i, k] > 0, drawn[i, k]) for i, k in pairs])) if pairs else None

    def _logits(self, bound: float, batch: int) -> Iterator[Tensor]:
        for at in torch.split(torch.arange(len(self.pictures)), batch):
            images = self.pictures.images[at].float() / 255
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(at[0]))
                changed = attacked(images, self._loss_at(at), bound=bound) if bound else images
            with torch.inference_mode():
                yield self._mean_logits(changed)

    def _mean_logits(self, images: Tensor) -> Tensor:
        return torch.stack([finest(net(images)).float() for net in self.nets]).mean(0)

    def _loss_at(self, at: Tensor) -> Callable[[Tensor], Tensor]:
        labels, masks, task = self.pictures.labels[at], self.pictures.masks[at].float(), self.task

        def loss(images: Tensor) -> Tensor:
            logits = self._mean_logits(images)
            if isinstance(task, Outline):
                return F.binary_cross_entropy_with_logits(logits, masks, reduction="sum")
            if task.exclusive:
                return F.cross_entropy(logits, labels.argmax(1), reduction="sum")
            known = ~labels.isnan()
            if task.judged_by:
                known = known & torch.zeros_like(known).index_fill(1, torch.tensor(task.judged_by), True)
            return F.binary_cross_entropy_with_logits(logits[known], labels[known], reduction="sum")

        return loss
