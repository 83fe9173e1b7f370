"""The recipe of ``mr_brain`` made small: a network that outlines after half a minute on one core, for comparisons.

A quarter of the canvas (48 × 40), 16 to 112 channels, batches of 12. What it is worth says little of what ships.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines import imaging
from pipelines.imaging import CHANNELS, LIMIT
from pipelines.models.store import tensors_of
from pipelines.models.unet import ResidualUNet
from pipelines.training.batches import FLAIR_CHANNELS, Sampler
from pipelines.training.brain import outline_loss, predict
from pipelines.training.cases import Case
from pipelines.training.loop import Options, fit
from pipelines.training.metrics import dice

WIDTHS = (16, 32, 64, 112)
BATCH = 12
SHRINK = 4  # of the pipeline's canvas


@dataclass(frozen=True, eq=False)
class Small:
    """The recipe of ``mr_brain`` on a small canvas (``loop.Task``).

    Attributes:
        wide: The grey values are drawn at random two to three times as widely.
    """

    training: Sequence[Case]
    options: Options
    steps: int
    wide: bool = False
    measure: str = "nothing is kept apart"
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def batches(self) -> int:
        return self.steps

    def network(self) -> nn.Module:
        return network()

    def draw(self, step: int) -> tuple[Tensor, Tensor]:
        sampler = Sampler(self.training, self.options.batch, self.options.seed)
        images, masks = sampler.draw(step)
        if self.wide:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(1_000_003 * self.options.seed + step)
                images = widely(images)
        return images.to(memory_format=torch.channels_last), masks

    def loss(self, outputs: list[Tensor], truth: Tensor) -> Tensor:
        return outline_loss(outputs, truth)

    def judge(self, net: nn.Module) -> float | None:  # noqa: ARG002  # nothing is kept apart
        return None


def network() -> nn.Module:
    return ResidualUNet(len(CHANNELS), WIDTHS).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def widely(x: Tensor) -> Tensor:
    """Once more what ``batches.augment`` does to grey values, stronger: gamma, gain, offset, blur, noise."""
    n, channels, rows, columns = x.shape
    gone = x.flatten(2).abs().amax(2) == 0

    def drawn(*shape: int, spread: float) -> Tensor:
        values = torch.randn(n, channels, *shape) * spread
        values[:, FLAIR_CHANNELS] = values[:, 1:2]  # one for all channels of FLAIR
        return values

    low = -1.5  # about where air lies
    gain = F.interpolate(drawn(4, 4, spread=0.25), size=(rows, columns), mode="bilinear", align_corners=False)
    x = (x - low).div(4).clamp(min=1e-4).pow(torch.exp(drawn(1, 1, spread=0.35)))
    x = x * 4 * torch.exp(gain + drawn(1, 1, spread=0.25)) + low + drawn(1, 1, spread=0.3)
    coarse = torch.nonzero(torch.rand(n) < 0.3).flatten()
    if len(coarse):
        x[coarse] = F.interpolate(F.avg_pool2d(x[coarse], 2), size=(rows, columns), mode="bilinear")
    x = x + torch.randn_like(x) * torch.rand(n, 1, 1, 1) * 0.5 * (torch.rand(n, 1, 1, 1) < 0.5)
    x[gone] = 0.0
    return x.clamp(-LIMIT, LIMIT)


def shrunk(case: Case) -> Case:
    """The pictures on the small canvas; the truth, too, for training."""
    images = F.avg_pool2d(case.images.float(), SHRINK).half()
    return replace(case, images=images, mask=F.avg_pool2d(case.mask[:, None].float(), SHRINK)[:, 0] > 0.5)


def learnt(name: str, training: Sequence[Case], runs: Path, steps: int, *, wide: bool = False) -> nn.Module:
    """A network trained on these patients; of an earlier run where it is there."""
    options = Options(network="residual", batch=BATCH, epochs=1, budget_seconds=None, fold=None, checks=1, seed=1)
    out, done = runs / name, runs / name / "done.json"
    if not done.is_file():
        task = Small(training, options, steps, wide)
        result = fit(
            task, out, options, resume=True, progress=lambda said: said_on_the_way(f"{name}: step {said.step}")
        )
        done.write_text(json.dumps({"seconds": result.seconds, "steps": result.steps, "patients": len(training)}))
    net = network()
    net.load_state_dict(tensors_of(out / "weights.safetensors"))
    return net.eval()


def said_on_the_way(said: str) -> None:
    print(f"\r{said}   ", end="", file=sys.stderr, flush=True)


def overlap(net: nn.Module, small: Case, whole: Case) -> float:
    """Dice of a volume on the canvas of the pipeline."""
    found = F.interpolate(predict(net, small.images)[None], size=whole.mask.shape[1:], mode="bilinear")[0]
    return dice(found.numpy() > 0.5, whole.mask.numpy())


def mixed(some: Sequence[Case], *, batch: int = 32) -> Iterator[Tensor]:
    """All slices, in batches of many studies."""
    places = [(case, place) for case in some for place in range(len(case.images))]
    order = np.random.default_rng(0).permutation(len(places))
    for part in np.array_split(order, max(1, len(order) // batch)):
        each = [imaging.stack(case.images, torch.tensor([place])) for case, place in (places[i] for i in part)]
        yield torch.cat(each).float().contiguous(memory_format=torch.channels_last)
