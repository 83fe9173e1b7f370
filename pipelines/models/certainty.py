"""Logits to probabilities that may be called so, and pictures that are unlike those of the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

USUAL = 0.99  # of the pictures that were kept apart: what they do not exceed is usual
STRANGEST = 2.5  # times what is usual: beyond, a picture is not read; of folds kept apart none came to 2, a blank to 5
_OCTAVES = 4
_FAINT = 1e-5  # mean square of one grey level of 256 between neighbours
_ROUNDED = 1e-3  # of the size of features: what half precision loses of them must not make a picture strange
_SPREAD = 0.1  # deviations of texture below it are taken for it: another encoder must not make a picture strange


def probabilities(logits: Tensor, points: dict[str, Any]) -> Tensor:
    """Of logits (…, classes), by the card's ``scale`` and ``offset``; softmax where classes exclude each other."""
    scaled = logits * torch.tensor(points["scale"]) + torch.tensor(points["offset"])
    return scaled.softmax(-1) if points["exclusive"] else scaled.sigmoid()


def undecided(chances: Sequence[float], points: Mapping[str, Any]) -> tuple[str, ...]:
    """Classes that may as well be there as not, by the card's ``sets`` (``calibrate.conformal``).

    Those of which both or neither is likely enough; none where the card has no sets.
    """
    if "sets" not in points:
        return ()
    bounds = zip(points["classes"], chances, points["sets"]["there"], points["sets"]["absent"], strict=True)
    return tuple(name for name, chance, there, absent in bounds if (chance >= there) == (1 - chance >= absent))


def strangeness(features: Tensor, images: Tensor, known: dict[str, Tensor]) -> Tensor:
    """(N,) of the features (N, D) of images (N, channels, rows, columns), 0 to 1, on the canvas.

    The largest of three, each 1 where it is at the upper end of what is usual: how far along the main axes of the
    training's features, how far off them, and how far its texture is from theirs. A network answers a blank or striped
    picture with features that lie among those of the training: only its texture betrays it.

    Args:
        known: What ``familiar`` gives. Cards from before there was an ``usual`` have ``mean`` and ``axes`` alone; then
            it is the distance along the axes, of pictures of the training about 1.
    """
    if "usual" not in known:
        return _along(features, known)
    return (_parts(features, images, known) / known["usual"]).amax(1)


def familiar(
    features: Tensor, images: Tensor, kept_apart: tuple[Tensor, Tensor], *, axes: int = 32
) -> dict[str, Tensor]:
    """What ``strangeness`` needs, of the features (N, D) and images of the training.

    Args:
        kept_apart: Features and images that the network was not trained on: they say what is usual.
    """
    size = max(float(features.norm(dim=1).mean()), 0.05)
    mean, whitening = _whitened(features, least=_ROUNDED * size, most=axes)
    texture_mean, texture_axes = _whitened(texture(images), least=_SPREAD)
    known = {"mean": mean, "axes": whitening, "texture_mean": texture_mean, "texture_axes": texture_axes}
    usual = torch.quantile(_parts(*kept_apart, known), USUAL, dim=0)
    return known | {"usual": usual.clamp(min=torch.tensor([0.1, 10 * _ROUNDED * size, 0.1]))}


def texture(images: Tensor) -> Tensor:
    """(N, 8) of images (N, channels, rows, columns): logarithms of how much neighbours differ, at four sizes."""
    grey, found = images.mean(1, keepdim=True), []
    for _ in range(_OCTAVES):
        found += [grey.diff(dim=axis).square().mean((1, 2, 3)) for axis in (3, 2)]
        grey = F.avg_pool2d(grey, 2)
    return (torch.stack(found, 1) + _FAINT).log()


def _parts(features: Tensor, images: Tensor, known: dict[str, Tensor]) -> Tensor:
    """(N, 3): along the axes, off them, texture."""
    inside = features - known["mean"]
    directions = F.normalize(known["axes"], dim=0)
    off = (inside - inside @ directions @ directions.T).norm(dim=1)
    shown = (texture(images) - known["texture_mean"]) @ known["texture_axes"]
    return torch.stack((_along(features, known), off, shown.square().mean(1).sqrt()), 1)


def _along(features: Tensor, known: dict[str, Tensor]) -> Tensor:
    """Root of the mean squared Mahalanobis distance along the main axes."""
    return ((features - known["mean"]) @ known["axes"]).square().mean(1).sqrt()


def _whitened(values: Tensor, *, least: float, most: int | None = None) -> tuple[Tensor, Tensor]:
    """Mean (D,) of values (N, D), and their main axes (D, k) divided by their deviations, at least ``least``."""
    mean = values.mean(0)
    _, spread, directions = torch.linalg.svd(values - mean, full_matrices=False)
    kept = max(1, int((spread > 1e-6).sum()))
    kept = kept if most is None else min(kept, most)
    deviations = spread[:kept] / max(1, len(values) - 1) ** 0.5
    return mean, directions[:kept].T / deviations.clamp(min=least)
