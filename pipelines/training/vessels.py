"""What ``op_retina`` learns: which pixels of a fundus photograph are of a vessel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.fundus import Shown, merged, mirrored, shown
from pipelines.models.shipped import finest
from pipelines.models.unet import ResidualUNet
from pipelines.training.brain import outline_loss
from pipelines.training.labelled import LabelledPicture
from pipelines.training.loop import Options
from pipelines.training.metrics import dice
from pipelines.training.placing import device_of
from pipelines.training.warp import Warp

ARGS: dict[str, Any] = {"channels": 3, "widths": [32, 64, 128], "outputs": 1}  # of the network
_WARP = Warp((128, 128), zoom=(0.8, 1.25), turn=45.0, quarters=True)
_THRESHOLDS = tuple(round(0.3 + 0.025 * step, 3) for step in range(17))  # what the folds choose from


@dataclass(frozen=True, eq=False)
class Fundus:
    """One prepared picture.

    Attributes:
        truth: float32 (1, rows, columns) of the image as it is shown: share of each pixel that is vessel.
        mask: bool (rows, columns) of the source.
    """

    name: str
    fold: int
    view: Shown
    truth: Tensor
    mask: NDArray[np.bool_]


def prepared(labelled: LabelledPicture, labels: Path) -> Fundus:
    """A labelled picture as the network sees it."""
    view, mask = shown(labelled.picture.pixels.astype(np.uint8)), labelled.mask(labels) > 0
    return Fundus(labelled.row["patient_id"], labelled.fold, view, view.there(mask)[None], mask)


@dataclass(frozen=True, eq=False)
class VesselTask:
    """The pictures less a fold to train on, the fold to judge by."""

    pictures: Sequence[Fundus]
    options: Options
    measure: str = "mean vessel Dice"
    facts: dict[str, str] = field(default_factory=dict)
    kind: str = "residual"
    args: dict[str, Any] = field(default_factory=lambda: ARGS)

    @property
    def _training(self) -> list[Fundus]:
        return [each for each in self.pictures if each.fold != self.options.fold]

    @property
    def batches(self) -> int:
        """As many patches as cover the pictures once."""
        return max(1, len(self._training) * 18 // self.options.batch)

    def network(self) -> nn.Module:
        return ResidualUNet(**self.args).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def draw(self, step: int) -> tuple[Tensor, Tensor]:
        rng, training = np.random.default_rng((self.options.seed, step)), self._training
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            places = rng.choice(len(training), size=self.options.batch)
            pairs = [self._patch(training[place], rng) for place in places]
        images = torch.stack([image for image, _ in pairs])
        return images.to(memory_format=torch.channels_last), torch.stack([truth for _, truth in pairs])

    def _patch(self, fundus: Fundus, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Around a point of the disc, evenly drawn."""
        rows, columns = fundus.view.size
        far, angle = np.sqrt(rng.random()) * 0.48, rng.random() * 2 * np.pi
        centre = (rows * (0.5 + far * np.sin(angle)), columns * (0.5 + far * np.cos(angle)))
        image, truth = _WARP.draw(fundus.view.image, fundus.truth, centre)
        contrast = torch.exp(torch.randn(3, 1, 1) * 0.15)
        grain = torch.randn_like(image) * 0.25 * torch.rand(())
        return image * contrast + torch.randn(3, 1, 1) * 0.1 + grain, truth

    def loss(self, outputs: list[Tensor], truth: Tensor) -> Tensor:
        return outline_loss(outputs, truth)

    def judge(self, net: nn.Module) -> float | None:
        judged = [each for each in self.pictures if each.fold == self.options.fold]
        scores = [dice(each.view.back(vessels([net], each.view)) > 0.5, each.mask) for each in judged]
        return sum(scores) / len(scores) if scores else None

    def points(self, nets: dict[int, nn.Module]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The threshold of the best mean Dice on the folds that the members had not seen."""
        judged = [
            (each.view.back(vessels([net], each.view)), each.mask)
            for fold, net in nets.items()
            for each in self.pictures
            if each.fold == fold
        ]
        tried = {t: float(np.mean([dice(likely > t, mask) for likely, mask in judged])) for t in _THRESHOLDS}
        chosen = max(tried, key=lambda each: tried[each])
        return {"threshold": chosen}, {"n": len(judged), "Dice": round(tried[chosen], 4)}


@torch.inference_mode()
def vessels(nets: Sequence[nn.Module], view: Shown) -> Tensor:
    """Probabilities (rows, columns) of an image, as the pipeline has them."""
    images = mirrored(view.image).to(memory_format=torch.channels_last)
    logits = [torch.cat([finest(net(each[None].to(device_of(net)))).float().cpu() for each in images]) for net in nets]
    return merged(torch.stack(logits))
