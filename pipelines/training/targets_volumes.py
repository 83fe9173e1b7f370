"""What is attacked of the pipelines of volumes: a whole volume, or some slices of one with what lies beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines import mr_brain, mr_hippocampus
from pipelines.imaging import stack
from pipelines.models.shipped import finest
from pipelines.models.unet3d import padded, unpadded
from pipelines.training.attack import PERCENT, Attacked, Target
from pipelines.training.cases import Case
from pipelines.training.hippocampus import HippocampusTask, parts_dice
from pipelines.training.metrics import dice
from pipelines.training.prepare import case_of, labelled_studies
from pipelines.training.resampling import Statistic, mean_of
from pipelines.training.volumes import Volume

SLICES = 6  # of a brain: evenly among those with a lesion
Found = NDArray[np.float64]


def of_volumes(task: HippocampusTask, nets: Sequence[nn.Module], points: dict[str, Any]) -> Attacked:
    def target(volume: Volume) -> Target:
        def chances(image: Tensor) -> Tensor:
            return unpadded(
                torch.stack([finest(net(padded(image))).float().softmax(1) for net in nets]).mean(0), image.shape
            )

        def loss(image: Tensor) -> Tensor:
            return F.nll_loss(chances(image).clamp_min(1e-6).log(), volume.labels[None].long())

        def outline(image: Tensor) -> mr_hippocampus.Outline:
            with torch.inference_mode():
                return mr_hippocampus.outline(chances(image)[0].numpy(), points)

        def found(image: Tensor) -> Found:
            return np.array([[np.mean(parts_dice(outline(image).parts, volume.labels))]])

        def refused(image: Tensor) -> int:
            return int(outline(image).sureness < points["sure_from"])

        low, high = float(volume.image.min()), float(volume.image.max())
        unit = _range(volume.image) / 100
        return Target(volume.image, unit, loss, found, [volume.patient], refused, (low, high))

    return Attacked("mean Dice of both parts", PERCENT, [target(each) for each in task.volumes], first)


def of_brains(pipeline: mr_brain.BrainTumour, data: Path, labels: Path) -> Attacked:
    """Some slices of each brain, with all sequences and the neighbours that the networks look at."""
    nets = pipeline.networks.members

    def target(case: Case) -> Target:
        images = case.images.float()
        lesion = torch.nonzero(case.mask.flatten(1).any(1))[:, 0]
        at = lesion[torch.linspace(0, len(lesion) - 1, min(SLICES, len(lesion))).round().long()]
        drawn = case.mask[at]

        def logits(whole: Tensor) -> Tensor:
            return torch.stack([finest(net(stack(whole, at))).float() for net in nets]).mean(0)[:, 0]

        def loss(whole: Tensor) -> Tensor:
            return F.binary_cross_entropy_with_logits(logits(whole), drawn.float())

        def found(whole: Tensor) -> Found:
            with torch.inference_mode():
                ours = logits(whole).sigmoid() > pipeline.card.threshold
            return np.array([[dice(ours.numpy(), drawn.numpy())]])

        unit = torch.tensor([_range(images[:, place]) for place in range(images.shape[1])]).view(1, -1, 1, 1) / 100
        return Target(images, unit, loss, found, [case.patient], inside=(float(images.min()), float(images.max())))

    cases = [case_of(each) for each in labelled_studies(data, labels)]
    targets = [target(case) for case in cases if case.mask.any()]
    return Attacked(f"mean Dice of up to {SLICES} slices with a lesion", PERCENT, targets, first)


def _range(values: Tensor) -> float:
    """From black to white."""
    low, high = np.percentile(values.numpy(), (0.5, 99.5))
    return float(high - low)


def first(found: Found) -> Statistic:
    return mean_of(found[:, 0])
