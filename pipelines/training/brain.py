"""What ``mr_brain`` learns: from slices of three sequences to the outline of the lesion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.imaging import CHANNELS, stack
from pipelines.models.precision import half_pays
from pipelines.models.unet import NETWORKS
from pipelines.training.batches import Sampler
from pipelines.training.cases import Case, split
from pipelines.training.loop import Options
from pipelines.training.metrics import dice
from pipelines.training.placing import device_of


@dataclass(frozen=True, eq=False)
class BrainTask:
    """The cases less the fold to train on, the fold to judge by."""

    cases: Sequence[Case]
    options: Options
    measure: str = "mean volume Dice"
    facts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        training, judged = split(self.cases, self.options.fold)
        object.__setattr__(self, "_judged", judged)
        object.__setattr__(self, "_training", training)
        object.__setattr__(
            self, "_sampler", Sampler(training, self.options.batch, self.options.seed, self.options.device)
        )

    @property
    def batches(self) -> int:
        """As many draws of slices with a lesion as there are such slices; they are drawn with replacement."""
        training: Sequence[Case] = self._training  # type: ignore[attr-defined]
        positives = sum(int(case.mask.flatten(1).any(1).sum()) for case in training)
        return math.ceil(positives * 8 / 5 / self.options.batch)

    def network(self) -> nn.Module:
        return NETWORKS[self.options.network](len(CHANNELS)).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def draw(self, step: int) -> tuple[Tensor, Tensor]:
        images, masks = self._sampler.draw(step)  # type: ignore[attr-defined]
        return images.to(memory_format=torch.channels_last), masks

    def loss(self, outputs: list[Tensor], truth: Tensor) -> Tensor:
        return outline_loss(outputs, truth)

    def judge(self, net: nn.Module) -> float | None:
        judged: Sequence[Case] = self._judged  # type: ignore[attr-defined]
        scores = [dice(predict(net, case.images).numpy() > 0.5, case.mask.numpy()) for case in judged]
        return sum(scores) / len(scores) if scores else None


def outline_loss(logits: list[Tensor], masks: Tensor, *, apart: bool = False) -> Tensor:
    """Cross-entropy and soft Dice over the whole batch, so that slices without a lesion count; coarser ones less.

    Args:
        logits: Finest first, each half as fine as the one before: (N, labels, rows, columns).
        masks: 0 to 1, (N, labels, rows, columns); the Dice is of each label by itself.
        apart: The Dice is of each picture by itself, too, so that a small outline counts as much as a large one.
    """
    over = (2, 3) if apart else (0, 2, 3)
    total = masks.new_zeros(())
    for level, logit in enumerate(logits):
        target = F.avg_pool2d(masks, 2**level) if level else masks
        logit = logit.float()
        probability = logit.sigmoid()
        overlap = (2 * (probability * target).sum(over) + 1) / (probability.sum(over) + target.sum(over) + 1)
        total = total + 0.5**level * (F.binary_cross_entropy_with_logits(logit, target) + 1 - overlap.mean())
    return total


@torch.inference_mode()
def predict(net: nn.Module, images: Tensor, *, batch: int = 16) -> Tensor:
    """Probabilities (frames, rows, columns) of a case's images (frames, sequences, rows, columns)."""
    out, device = [], device_of(net)
    for places in torch.split(torch.arange(images.shape[0]), batch):
        x = stack(images, places).float().to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=half_pays(device.type)):
            out.append(net(x)[0].float().sigmoid()[:, 0].cpu())
    return torch.cat(out)
