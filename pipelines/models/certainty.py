"""Logits to probabilities that may be called so, and pictures that are unlike those of the training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def probabilities(logits: Tensor, points: dict[str, Any]) -> Tensor:
    """Of logits (…, classes), by the card's ``scale`` and ``offset``; softmax where classes exclude each other."""
    scaled = logits * torch.tensor(points["scale"]) + torch.tensor(points["offset"])
    return scaled.softmax(-1) if points["exclusive"] else scaled.sigmoid()


def strangeness(features: Tensor, known: dict[str, Tensor]) -> Tensor:
    """(N,) of features (N, D): root of the mean squared Mahalanobis distance along the main axes of the training's.

    Args:
        known: ``mean`` (D,) and ``axes`` (D, k), which whiten: of the training pictures the result is about 1.
    """
    inside = (features - known["mean"]) @ known["axes"]
    return inside.square().mean(1).sqrt()


def familiar(features: Tensor, *, axes: int = 32) -> dict[str, Tensor]:
    """What ``strangeness`` needs, of the features (N, D) of training pictures."""
    mean = features.mean(0)
    _, spread, directions = torch.linalg.svd(features - mean, full_matrices=False)
    kept = min(axes, int((spread > 1e-6).sum()))
    deviations = spread[:kept] / max(1, len(features) - 1) ** 0.5
    return {"mean": mean, "axes": directions[:kept].T / deviations}
