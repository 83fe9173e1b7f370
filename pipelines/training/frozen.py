"""Features as they are, and a last layer alone that learns: the short way to see what weights are worth to start from.

A logistic regression on what reaches the last layer (linear evaluation), with one strength of regularisation for all:
nothing is chosen by the result. It says what the features know already, not what a whole training would make of
them.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.models import store
from pipelines.models.norms import normed, plain
from pipelines.training.examples import Examples, group_of
from pipelines.training.picture_tasks import Classify

DECAY = 0.01  # of the weights, on features of mean 0 and deviation 1 divided by the root of their number
STEPS = 60  # of L-BFGS at most


@torch.no_grad()
def features_of(task: Classify, init: str | None, seed: int) -> tuple[Tensor, Tensor]:
    """What reaches the last layer, (N, features): of the pictures to learn from, and of those that judge.

    From scratch the weights are random, and batch norms bring their features to one scale before they are folded away.
    """
    learnt, judged = task.examples.parted(task.options.fold)
    torch.manual_seed(seed)
    net = task.network()
    if init:
        store.initialise(net, init)
    else:
        for each in normed(net).train().modules():
            if isinstance(each, nn.BatchNorm2d):
                each.momentum = None  # the mean of all batches
        for part in torch.split(learnt.images[torch.randperm(len(learnt))[:256]], 64):
            net(part.float() / 255)
    plain(net)
    return _embedded(net, learnt.images), _embedded(net, judged.images)


def _embedded(net: nn.Module, images: Tensor) -> Tensor:
    parts = [net.embed(part.float() / 255).float() for part in torch.split(images, 32)]  # type: ignore[operator]
    return torch.cat(parts)


def drawn(learnt: Examples, share: float, seed: int) -> list[int]:
    """Places of the pictures of a share of the patients, drawn with replacement: every seed learns from others."""
    groups: dict[str, list[int]] = {}
    for place, row in enumerate(learnt.rows):
        groups.setdefault(group_of(row), []).append(place)
    names = sorted(groups)
    chosen = np.random.default_rng((seed, 1)).choice(len(names), max(1, round(share * len(names))))
    return [place for each in chosen.tolist() for place in groups[names[each]]]


def fitted(features: Tensor, labels: Tensor, *, exclusive: bool) -> nn.Module:
    """Features (N, features) and labels (N, classes), NaN where nobody said → a layer that gives logits of them."""
    mean, deviation = features.mean(0), features.std(0).clamp_min(1e-6)
    scale = deviation * math.sqrt(features.shape[1])
    x, known = (features - mean) / scale, ~labels.isnan()
    layer = nn.Linear(features.shape[1], labels.shape[1])
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = layer(x)
        if exclusive:
            wrong = F.cross_entropy(logits, labels.argmax(1))
        else:
            wrong = F.binary_cross_entropy_with_logits(logits[known], labels[known])
        total = wrong + DECAY * layer.weight.square().sum() / features.shape[1]
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    made = copy.deepcopy(layer)
    with torch.no_grad():
        made.weight.div_(scale)
        made.bias.sub_(made.weight @ mean)
    return made.eval()
