"""Two tasks on pictures: to say what is there (``Classify``), and to outline it (``Outline``)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.models.kinds import KINDS
from pipelines.models.shipped import finest
from pipelines.training.augment import Augment, augmented
from pipelines.training.brain import outline_loss
from pipelines.training.examples import Examples
from pipelines.training.loop import Options
from pipelines.training.metrics import auroc, dice
from pipelines.training.placing import device_of


class NoSuchNetwork(ValueError):
    """The network that was asked for instead of the recipe's cannot take its place."""


@dataclass(frozen=True, eq=False)
class Batches:
    """Draws pictures at random, and changes them at random; the same for the same seed and step.

    Attributes:
        often: How often each picture is drawn, relative to the others, (N,).
    """

    examples: Examples
    often: Tensor
    options: Options
    augment: Augment

    def draw(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Images 0 to 1, masks and labels of one batch."""
        rng = np.random.default_rng((self.options.seed, step))
        share = (self.often / self.often.sum()).double().numpy()
        device = self.options.device
        part = self.examples.at(rng.choice(len(self.examples), self.options.batch, p=share / share.sum()).tolist())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            images, masks = augmented(part.images.to(device).float() / 255, part.masks.to(device).float(), self.augment)
        return images.to(memory_format=torch.channels_last), masks, part.labels


@dataclass(frozen=True, eq=False)
class Classify:
    """From pictures to the classes that they show.

    Attributes:
        kind, args: The network, as a model card names it; it gives a logit per class.
        classes: Their names, in the order of the labels.
        exclusive: Each picture is of one class (softmax); else each class is there or not (sigmoid).
        judged_by: Places of the classes whose mean AUROC judges; empty: all.
        balance: 0: each picture is drawn as often as the others; 1: each class is.
        smoothing: Of the labels.
    """

    examples: Examples
    options: Options
    augment: Augment
    kind: str
    args: dict[str, Any]
    classes: tuple[str, ...]
    exclusive: bool = False
    judged_by: tuple[int, ...] = ()
    balance: float = 0.5
    smoothing: float = 0.05
    measure: str = "mean AUROC"
    facts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        training, judged = self.examples.parted(self.options.fold)
        often = balanced(training.labels, self.balance)
        object.__setattr__(self, "judged", judged)
        object.__setattr__(self, "_batches", Batches(training, often, self.options, self.augment))

    judged: Examples = field(init=False)
    _batches: Batches = field(init=False)

    @property
    def batches(self) -> int:
        return math.ceil(len(self._batches.examples) / self.options.batch)

    def network(self) -> nn.Module:
        return network_of(self.kind, self.args)

    def draw(self, step: int) -> tuple[Tensor, Tensor]:
        images, _, labels = self._batches.draw(step)
        return images, labels

    def loss(self, outputs: Tensor, truth: Tensor) -> Tensor:
        logits, smooth = outputs.float(), self.smoothing
        if self.exclusive:
            return F.cross_entropy(logits, truth.argmax(1), label_smoothing=smooth)
        known = ~truth.isnan()
        target = truth.nan_to_num() * (1 - smooth) + smooth / 2
        each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return each[known].mean() if known.any() else logits.sum() * 0

    def judge(self, net: nn.Module) -> float | None:
        if not len(self.judged):
            return None
        return self.score(outputs_of(net, self.judged.images))

    def score(self, outputs: Tensor) -> float | None:
        """Mean AUROC of the logits (N, classes) of the pictures kept apart."""
        logits = outputs.numpy()
        wanted = self.judged_by or tuple(range(logits.shape[1]))
        scores = [auroc(logits[:, place], self.judged.labels[:, place].numpy()) for place in wanted]
        known = [score for score in scores if score is not None]
        return sum(known) / len(known) if known else None


@dataclass(frozen=True, eq=False)
class Outline:
    """From pictures to outlines, a logit map per label.

    Attributes:
        kind, args: The network, as a model card names it.
        names: Of the labels, in the order of the masks.
        empty: How often a picture without any outline is drawn, relative to one with.
        apart: The Dice that is learnt is of each picture by itself, not of the batch.
    """

    examples: Examples
    options: Options
    augment: Augment
    kind: str
    args: dict[str, Any]
    names: tuple[str, ...]
    empty: float = 0.5
    apart: bool = False
    measure: str = "mean Dice"
    facts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        training, judged = self.examples.parted(self.options.fold)
        often = torch.where(training.masks.flatten(1).any(1), 1.0, self.empty)
        object.__setattr__(self, "judged", judged)
        object.__setattr__(self, "_batches", Batches(training, often, self.options, self.augment))

    judged: Examples = field(init=False)
    _batches: Batches = field(init=False)

    @property
    def batches(self) -> int:
        return math.ceil(len(self._batches.examples) / self.options.batch)

    def network(self) -> nn.Module:
        return network_of(self.kind, self.args)

    def draw(self, step: int) -> tuple[Tensor, Tensor]:
        images, masks, _ = self._batches.draw(step)
        return images, masks

    def loss(self, outputs: list[Tensor], truth: Tensor) -> Tensor:
        return outline_loss(outputs, truth, apart=self.apart)

    def judge(self, net: nn.Module) -> float | None:
        """Mean over pictures and labels, of pictures where the label is drawn."""
        if not len(self.judged):
            return None
        found = (outputs_of(net, self.judged.images) > 0).numpy()
        drawn = self.judged.masks.numpy()
        scores = [
            dice(found[i, label], drawn[i, label])
            for i in range(len(drawn))
            for label in range(drawn.shape[1])
            if drawn[i, label].any()
        ]
        return sum(scores) / len(scores) if scores else None


def network_of(kind: str, args: dict[str, Any]) -> nn.Module:
    """Untrained.

    Raises:
        NoSuchNetwork: If there is none, or it takes other arguments.
    """
    if kind not in KINDS:
        raise NoSuchNetwork(f"there is no network {kind!r}; there are {', '.join(KINDS)}")
    try:
        return KINDS[kind](**args)
    except TypeError as error:
        raise NoSuchNetwork(f"the network {kind} cannot stand here: it does not take {', '.join(args)}") from error


def balanced(labels: Tensor, power: float) -> Tensor:
    """How often to draw each picture, by how rare its combination of labels is: at ``power`` 1 all equally often."""
    keys = [tuple(row) for row in labels.nan_to_num(-1).tolist()]
    counts = {key: keys.count(key) for key in set(keys)}
    return torch.tensor([counts[key] ** -power for key in keys])


@torch.inference_mode()
def outputs_of(net: nn.Module, images: Tensor, *, batch: int = 32) -> Tensor:
    """Logits of uint8 images (N, channels, rows, columns); of an outlining network the finest.

    In single precision: in half, pictures that a network hardly tells apart yet have the very same logit.
    """
    out, device = [], device_of(net)
    for part in torch.split(images, batch):
        x = (part.to(device).float() / 255).to(memory_format=torch.channels_last)
        out.append(finest(net(x)).cpu())
    return torch.cat(out)
