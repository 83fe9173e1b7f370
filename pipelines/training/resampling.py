"""Numbers with their intervals: 2,000 resamples of the patients, whose pictures stay together. Arrays in, numbers out.

A statistic is a function of a weight per picture, how often its patient was drawn; NaN where it has no value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
FEWEST_FOR_INTERVAL = 3  # of one or two patients the resamples say nothing

Weights = NDArray[np.float64]
Statistic = Callable[[Weights], float]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, and of how many it is."""

    value: float | None
    interval: tuple[float, float] | None
    n: int
    patients: int

    def as_json(self) -> dict[str, object]:
        return {"value": self.value, "interval": self.interval, "n": self.n, "patients": self.patients}


def estimate(statistic: Statistic, groups: Sequence[str], *, seed: int = 0) -> Estimate:
    """A statistic of pictures, and its 95 % interval (percentiles) by resampling the groups with replacement.

    Args:
        groups: Of each picture: its patient.
    """
    _, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    count = int(member.max()) + 1 if len(groups) else 0
    value = statistic(np.ones(len(groups))) if count else float("nan")
    if np.isnan(value):
        return Estimate(None, None, len(groups), count)
    if count < FEWEST_FOR_INTERVAL:
        return Estimate(value, None, len(groups), count)
    rng = np.random.default_rng(seed)
    often = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(np.float64)
    drawn = np.array([statistic(each[member]) for each in often])
    drawn = drawn[~np.isnan(drawn)]
    low, high = np.percentile(drawn, (2.5, 97.5)) if drawn.size else (value, value)
    return Estimate(value, (float(low), float(high)), len(groups), count)


def mean_of(values: NDArray[np.float64]) -> Statistic:
    return lambda weights: _ratio(float(weights @ values), float(weights.sum()))


def share_of(hit: NDArray[np.bool_], of: NDArray[np.bool_]) -> Statistic:
    """How many of ``of`` are ``hit``."""
    both, whole = (hit & of).astype(np.float64), of.astype(np.float64)
    return lambda weights: _ratio(float(weights @ both), float(weights @ whole))


def f1_of(hits: NDArray[np.float64], wrong: NDArray[np.float64], missed: NDArray[np.float64]) -> Statistic:
    """F1 of all boxes together."""
    said = 2 * hits + wrong + missed
    return lambda weights: _ratio(2 * float(weights @ hits), float(weights @ said))


def auroc_of(scores: NDArray[np.float64], is_there: NDArray[np.bool_]) -> Statistic:
    """Area under the ROC curve (Mann and Whitney 1947), ties counted half."""
    _, place = np.unique(scores, return_inverse=True)
    there, not_there = is_there.astype(np.float64), (~is_there).astype(np.float64)

    def area(weights: Weights) -> float:
        positives = np.bincount(place, weights * there)
        negatives = np.bincount(place, weights * not_there)
        below = np.cumsum(negatives) - negatives / 2
        return _ratio(float(positives @ below), float(positives.sum() * negatives.sum()))

    return area


def predictive_of(sensitivity: Statistic, specificity: Statistic, prevalence: float) -> Statistic:
    """Positive predictive value where ``prevalence`` of those examined have it (Bayes)."""

    def value(weights: Weights) -> float:
        found, quiet = sensitivity(weights), specificity(weights)
        return _ratio(prevalence * found, prevalence * found + (1 - prevalence) * (1 - quiet))

    return value


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")
