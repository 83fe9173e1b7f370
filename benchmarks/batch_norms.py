"""The batch norms of a network that outlines, brought to a site's pictures: without labels, without training.

A batch norm holds the mean and variance that each of its channels had in training. Another scanner shifts them; of
pictures of the site they can be measured anew (Li et al. 2016).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_CLOSEST, _WIDEST = 0.25, 4.0  # times that a variance may be changed


@dataclass(frozen=True, eq=False)
class Norms:
    """Mean and variance (channels,) each of every batch norm, by its name."""

    of: dict[str, tuple[Tensor, Tensor]]

    @classmethod
    def held_by(cls, net: nn.Module) -> Norms:
        return cls({name: tuple(each.clone() for each in _held(norm)) for name, norm in _norms(net)})  # type: ignore[misc]


def norms_of(net: nn.Module, batches: Iterable[Tensor]) -> Norms:
    """What the batch norms would hold of these pictures (N, channels, rows, columns), each batch counted alike.

    The batches must be mixed: of many studies each, for every batch is brought to its own mean on the way.
    """
    asked = copy.deepcopy(net).eval()
    for _, norm in _norms(asked):
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    with torch.inference_mode():
        for batch in batches:
            asked(batch)
    return Norms.held_by(asked)


def moved(held: Norms, reference: Norms, site: Norms, *, share: float = 1.0) -> Norms:
    """``held``, moved by what sets the site apart from the reference, or by a share of it."""
    made = {}
    for name, (mean, variance) in held.of.items():
        (before, spread), (now, wide) = reference.of[name], site.of[name]
        ratio = ((wide + 1e-5) / (spread + 1e-5)).clamp(_CLOSEST, _WIDEST)
        made[name] = (mean + share * (now - before), variance * ratio**share)
    return Norms(made)


def with_norms(net: nn.Module, norms: Norms) -> nn.Module:
    """A copy of the network that holds these."""
    made = copy.deepcopy(net).eval()
    for name, norm in _norms(made):
        mean, variance = norms.of[name]
        for held, value in zip(_held(norm), (mean, variance), strict=True):
            held.copy_(value)
    return made


def _norms(net: nn.Module) -> list[tuple[str, nn.BatchNorm2d]]:
    return [(name, each) for name, each in net.named_modules() if isinstance(each, nn.BatchNorm2d)]


def _held(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var
