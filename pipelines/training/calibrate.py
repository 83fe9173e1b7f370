"""Operating points of pictures, from folds that the members had not seen: calibration, cutoffs, thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipelines.training.cases import fold_of
from pipelines.training.metrics import auroc, dice

MISS = 0.1  # of the pictures with a class, and of those without it, that a set may miss
NOISE = 0.003  # of Dice: thresholds that differ by less are told apart by the distance from one half


def calibrated(logits: Tensor, labels: Tensor, *, exclusive: bool) -> dict[str, Any]:
    """Scale and offsets that make probabilities of logits (N, classes), by maximum likelihood (Guo et al. 2017).

    Returns:
        ``{"scale": [number per class], "offset": […], "exclusive": bool}``: probability = softmax, or sigmoid, of
        logits times scale plus offset. One scale for all where the classes exclude each other.
    """
    classes = logits.shape[1]
    scale = torch.zeros(1 if exclusive else classes, requires_grad=True)  # of its logarithm
    offset = torch.zeros(classes, requires_grad=True)
    known = ~labels.isnan()
    optimizer = torch.optim.LBFGS([scale, offset], max_iter=200)

    def loss() -> Tensor:
        optimizer.zero_grad()
        scaled = logits * scale.exp() + offset
        if exclusive:
            fit = F.cross_entropy(scaled, labels.argmax(1))
        else:
            fit = F.binary_cross_entropy_with_logits(scaled[known], labels[known])
        # A hint of the plain logits: few pictures that are told apart without fault would ask for certainty 1.
        total = fit + 0.01 * (scale.square().sum() + offset.square().mean())
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    scales = scale.exp().detach().expand(classes)
    return {"scale": _rounded(scales), "offset": _rounded(offset.detach()), "exclusive": exclusive}


def certainty_fit(scores: Sequence[float], hits: Sequence[bool]) -> list[float]:
    """Offset and slope: how often a detection of such a score was right, as the sigmoid of the score's log odds."""
    odds = torch.logit(torch.tensor(scores, dtype=torch.float32), eps=1e-4)[:, None]
    fit = calibrated(odds, torch.tensor(hits, dtype=torch.float32)[:, None], exclusive=False)
    return [fit["offset"][0], fit["scale"][0]]


def cutoff(scores: NDArray[np.float64], truth: NDArray[np.float64], *, sensitivity: float | None = None) -> float:
    """Probability from which a class is called present.

    Args:
        sensitivity: The highest cutoff that reaches it; None: the cutoff of the largest Youden's J.
    """
    known = ~np.isnan(truth)
    scores, is_there = scores[known], truth[known] > 0.5
    candidates = np.unique(scores)
    middles = np.concatenate([candidates[:1], (candidates[1:] + candidates[:-1]) / 2])
    found = np.array([(scores[is_there] >= each).mean() for each in middles])
    if sensitivity is not None:
        return float(middles[found >= sensitivity].max())
    quiet = np.array([(scores[~is_there] < each).mean() for each in middles])
    return float(middles[int(np.argmax(found + quiet))])


def conformal(
    chances: NDArray[np.float64], truth: NDArray[np.float64], *, miss: float = MISS
) -> dict[str, list[float] | float]:
    """From which chance on a class may be there, and from which of the contrary it may be absent.

    Class-conditional split conformal prediction (Vovk 2012): of new pictures with a class, no more than ``miss`` lie
    below ``there``, and of those without it no more lie below ``absent``, whatever the network is worth. Where there
    are too few pictures to say so, the bound is 0: anything may be.

    Args:
        chances, truth: (N, classes) of pictures that were learnt from by nobody; truth NaN where nobody said.
    """
    columns = [(chances[:, i], truth[:, i]) for i in range(chances.shape[1])]
    return {
        "miss": miss,
        "there": [_lowest(chance[known == 1], miss) for chance, known in columns],
        "absent": [_lowest(1 - chance[known == 0], miss) for chance, known in columns],
    }


def _lowest(chances: NDArray[np.float64], miss: float) -> float:
    rank = int((len(chances) + 1) * miss)  # so many may be lower
    return round(float(np.sort(chances)[rank - 1]) - 5e-7, 6) if rank else 0.0


def covered(chances: NDArray[np.float64], truth: NDArray[np.float64], groups: Sequence[str]) -> dict[str, Any]:
    """What such sets are worth on pictures that they were not made of: two halves, each judged by the other's bounds.

    Args:
        groups: Patients, who stay together.

    Returns:
        Share of the pictures with and without each class whose set holds the truth, and share with both in the set.
    """
    half = np.array([fold_of(f"half {group}") % 2 for group in groups])
    held: dict[str, list[NDArray[np.float64]]] = {"there": [], "absent": [], "undecided": []}
    for side in (0, 1):
        bounds = conformal(chances[half != side], truth[half != side])
        can, cannot = chances[half == side] >= bounds["there"], 1 - chances[half == side] >= bounds["absent"]
        own = truth[half == side]
        held["there"].append(np.where(own == 1, can, np.nan))
        held["absent"].append(np.where(own == 0, cannot, np.nan))
        held["undecided"].append(np.where(np.isnan(own), np.nan, can == cannot))
    shares = {name: np.nanmean(np.concatenate(each), axis=0) for name, each in held.items()}
    return {name: [round(float(share), 3) for share in each] for name, each in shares.items()}


def threshold(probabilities: NDArray[np.float32], masks: NDArray[np.bool_]) -> tuple[float, float]:
    """Threshold of the best mean Dice over pictures (N, rows, columns) that have a mask, and that Dice."""
    drawn = [i for i in range(len(masks)) if masks[i].any()]
    tried = {
        round(each, 2): float(np.mean([dice(probabilities[i] > each, masks[i]) for i in drawn]))
        for each in np.arange(0.2, 0.81, 0.05)
    }
    best = max(tried.values())
    chosen = min((each for each, score in tried.items() if score > best - NOISE), key=lambda each: abs(each - 0.5))
    return chosen, tried[chosen]


def judged_auroc(scores: NDArray[np.float64], labels: Tensor) -> list[float | None]:
    return [auroc(scores[:, place], labels[:, place].numpy()) for place in range(labels.shape[1])]


def _rounded(values: Tensor) -> list[float]:
    return [round(float(value), 4) for value in values]
