"""Two tasks that need no labels: to know a picture again (``Recognise``), and to fill in what is hidden (``Restore``).

The first is for networks that say what is there: two changes of one picture are to be near one another, those of other
patients far (contrastive learning with the temperature-scaled cross-entropy; Chen et al. 2020). The second is for
networks that outline: squares of the picture are hidden, and the whole network, encoder and decoder, restores them
(Pathak et al. 2016). Where the features have no batch norms they learn with them, and are folded afterwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.models import store
from pipelines.models.norms import normed
from pipelines.models.shipped import finest
from pipelines.training.augment import Augment, augmented
from pipelines.training.examples import Examples, group_of
from pipelines.training.loop import Options
from pipelines.training.picture_tasks import Classify, Outline, network_of
from pipelines.training.placing import device_of

WIDTH = 128  # of the space that pictures are compared in
WARMTH = 0.2  # the temperature: the lower, the more the most similar strangers count
SQUARE = 16  # pixels of the canvas
HIDDEN = 0.5  # share of the squares
SEEN = 0.2  # weight of what was not hidden


class Siamese(nn.Module):
    """(N, channels, rows, columns) → directions (N, WIDTH), of length 1; ``encoder`` is what is kept."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        width: int = encoder.head.in_features  # type: ignore[union-attr,assignment]
        self.projection = nn.Sequential(
            nn.Linear(width, 512, bias=False), nn.BatchNorm1d(512), nn.ReLU(inplace=True), nn.Linear(512, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.projection(self.encoder.embed(x)).float(), dim=1)  # type: ignore[operator]


@dataclass(frozen=True, eq=False)
class _Unlabelled:
    """Pictures alone.

    Attributes:
        of: The task that is prepared for: its network, its pictures, and how they may be changed.
        init: Weights that the features start from.
    """

    of: Classify | Outline
    options: Options
    init: str | None = None
    facts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        training, judged = self.of.examples.parted(self.options.fold)
        object.__setattr__(self, "training", training)
        object.__setattr__(self, "judged", judged)

    training: Examples = field(init=False)
    judged: Examples = field(init=False)

    @property
    def batches(self) -> int:
        return math.ceil(len(self.training) / self.options.batch)

    def _drawn(self, step: int) -> tuple[Tensor, list[int], int]:
        """Pictures 0 to 1 of a batch, their places, and a seed for what is done to them."""
        rng = np.random.default_rng((self.options.seed, step))
        count = min(self.options.batch, len(self.training))
        places = rng.choice(len(self.training), count, replace=False).tolist()
        images = self.training.images[places].to(self.options.device).float() / 255
        return images, places, int(rng.integers(2**62))

    def _network(self, **other: Any) -> nn.Module:
        net = network_of(self.of.kind, {**self.of.args, **other})
        if self.init:
            store.initialise(net, self.init)
        return normed(net, kept=bool(self.init)).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


@dataclass(frozen=True, eq=False)
class Recognise(_Unlabelled):
    """Which of the batch is the other change of the same picture; its patient's other pictures are left out of it."""

    measure: str = "share of pictures known again"

    def network(self) -> nn.Module:
        return Siamese(self._network())

    def draw(self, step: int) -> tuple[Tensor, Tensor]:
        images, places, seed = self._drawn(step)
        names = [group_of(self.training.rows[place]) for place in places]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        groups = torch.tensor([numbers[name] for name in names])
        return two_views(images, stronger(self.of.augment), seed), groups.repeat(2)

    def loss(self, outputs: Tensor, truth: Tensor) -> Tensor:
        return contrast(outputs, truth)

    @torch.inference_mode()
    def judge(self, net: nn.Module) -> float | None:
        """Of how many pictures kept apart the other change is the nearest among all of them."""
        if len(self.judged) < 2:
            return None
        found = []
        for start in range(0, len(self.judged), 32):
            images = self.judged.images[start : start + 32].to(device_of(net)).float() / 255
            found.append(net(two_views(images, stronger(self.of.augment), seed=start)).view(2, -1, WIDTH).cpu())
        one, other = torch.cat(found, 1)
        return float(((one @ other.T).argmax(1) == torch.arange(len(one))).float().mean())


@dataclass(frozen=True, eq=False)
class Restore(_Unlabelled):
    """What lay where the picture was hidden."""

    measure: str = "share of the hidden that is restored"

    def network(self) -> nn.Module:
        return self._network(outputs=self.training.images.shape[1])

    def draw(self, step: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        images, _, seed = self._drawn(step)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            images, _ = augmented(images, images[:, :0], replace(self.of.augment, erase=0.0, noise=0.0, blur=0.0))
        covered, hidden = hide(images, seed)
        return covered.to(memory_format=torch.channels_last), (images, hidden)

    def loss(self, outputs: list[Tensor], truth: tuple[Tensor, Tensor]) -> Tensor:
        images, hidden = truth
        total = images.new_zeros(())
        for level, logits in enumerate(outputs):
            target, weight = images, hidden * (1 - SEEN) + SEEN
            if level:
                target, weight = F.avg_pool2d(target, 2**level), F.avg_pool2d(weight, 2**level)
            apart = (logits.float().sigmoid() - target).abs() * weight
            total = total + 0.5**level * apart.mean() / weight.mean()
        return total

    @torch.inference_mode()
    def judge(self, net: nn.Module) -> float | None:
        """Of the squares' variance about the picture's mean; 0 is what that mean would reach."""
        if not len(self.judged):
            return None
        wrong = spread = 0.0
        for start in range(0, len(self.judged), 32):
            images = self.judged.images[start : start + 32].to(device_of(net)).float() / 255
            covered, hidden = hide(images, seed=start)
            found = finest(net(covered.to(memory_format=torch.channels_last))).sigmoid()
            wrong += float(((found - images).square() * hidden).sum())
            spread += float(((images - images.mean((1, 2, 3), keepdim=True)).square() * hidden).sum())
        return 1 - wrong / max(spread, 1e-9)


def stronger(how: Augment) -> Augment:
    """More of what a picture may undergo, and nothing that it may not: sides and top stay what they are."""
    return replace(
        how, size=0.4, shift=0.12, gamma=0.5, gain=0.3, noise=0.06, blur=0.4, tint=2 * how.tint, erase=0.5
    )  # fmt: skip


def two_views(images: Tensor, how: Augment, seed: int) -> Tensor:
    """(N, channels, rows, columns) → (2 N, …): all of them changed, and all of them changed otherwise."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        views, _ = augmented(images.repeat(2, 1, 1, 1), images.new_zeros(2 * len(images), 0, *images.shape[2:]), how)
    return views.to(memory_format=torch.channels_last)


def contrast(directions: Tensor, groups: Tensor) -> Tensor:
    """How surely each finds its other view among the strangers.

    Args:
        directions: (2 N, WIDTH) of length 1; the other view of place i is at i + N.
        groups: (2 N): who is the same patient is no stranger.
    """
    count = len(directions)
    own = (torch.arange(count, device=directions.device) + count // 2) % count
    alike = directions @ directions.T / WARMTH
    known = groups[:, None] == groups[None]
    known[torch.arange(count), own] = False
    return F.cross_entropy(alike.masked_fill(known, -math.inf), own)


def hide(images: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The pictures, some squares as grey as the picture's mean; and where, 0 or 1 (N, 1, rows, columns)."""
    count, _, rows, columns = images.shape
    chance = torch.rand(
        count, 1, math.ceil(rows / SQUARE), math.ceil(columns / SQUARE), generator=torch.Generator().manual_seed(seed)
    )
    squares = (chance < HIDDEN).float().repeat_interleave(SQUARE, 2).repeat_interleave(SQUARE, 3)
    hidden = squares[:, :, :rows, :columns].to(images.device)
    return images * (1 - hidden) + images.mean((1, 2, 3), keepdim=True) * hidden, hidden
