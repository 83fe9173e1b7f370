"""What triage would do to a reading list: how long positives wait, and what that costs the others, with intervals.

A replication draws who is positive, what the model says of each, and how long each is read; and reads them twice, in
the order of arrival and with what is flagged first. The same cases in both, so that only the order differs. What the
model was measured on is small: each replication draws its sensitivity and specificity from what n cases tell (Beta,
Jeffreys), so the intervals hold that doubt, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.triage.closed_form import mean_waits
from node.triage.reading_room import Times, waits

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0  # seconds
INTERVAL = (2.5, 97.5)  # percentiles of the replications
GROUPS = ("positives", "positives that it finds", "positives that it misses", "negatives", "all")


@dataclass(frozen=True)
class Measured:
    """A share that was measured on ``n`` cases; without, it is taken to be exact."""

    value: float
    n: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.value <= 1:
            raise ValueError(f"{self.value:g} is no share of 0 to 1")

    def draw(self, rng: np.random.Generator) -> float:
        if self.n is None:
            return self.value
        hits = self.value * self.n
        return float(rng.beta(hits + 0.5, self.n - hits + 0.5))


@dataclass(frozen=True)
class Assumed:
    """What a simulation stands on.

    Attributes:
        reading_minutes: The mean; times are exponential.
        model_minutes: From the arrival of a case until its flag is known.
    """

    sensitivity: Measured
    specificity: Measured
    prevalence: float
    readers: int
    reading_minutes: float
    model_minutes: float = 0.0

    def load(self, per_hour: float) -> float:
        """Mean number of readers that are busy, at so many cases an hour."""
        return per_hour * self.reading_minutes / 60


@dataclass(frozen=True)
class Arrivals:
    """When cases come, in seconds: the site's own, the same in every replication; or at random at a rate.

    Attributes:
        counted_from: Cases before it fill the queue and are not counted.
    """

    draw: Callable[[np.random.Generator], Times]
    per_hour: float
    days: float
    counted_from: float = 0.0
    source: str = "the ledger"


def at_rate(per_hour: float, days: float) -> Arrivals:
    """Cases at random; a day before, uncounted, fills the queue as it is on any day."""

    def draw(rng: np.random.Generator) -> Times:
        count = rng.poisson(per_hour * 24 * (days + 1))
        return np.sort(rng.uniform(0, (days + 1) * DAY, count))

    return Arrivals(draw, per_hour, days, DAY, f"{per_hour:g} cases an hour, at random")


def as_they_came(times: Times) -> Arrivals:
    """The arrivals of a site, seconds since any moment."""
    came = np.sort(times) - times.min()
    days = max(float(came[-1]), HOUR) / DAY
    return Arrivals(lambda _: came, len(came) / days / 24, days, 0.0, f"{len(came)} cases of {days:.3g} days, replayed")


def simulate(assumed: Assumed, arrivals: Arrivals, *, replications: int = 200, seed: int = 0) -> dict[str, Any]:
    """The report: per group its mean wait and its 95th percentile without and with triage, in minutes.

    Raises:
        ValueError: If at a given rate the readers cannot keep up.
    """
    rng = np.random.default_rng(seed)
    exact = _closed_form(assumed, arrivals.per_hour) if arrivals.counted_from else None
    told = [_replication(assumed, arrivals, rng) for _ in range(replications)]
    groups = {}
    for group in GROUPS:
        values = {key: [one[group][key] for one in told if group in one] for key in MEASURES}
        groups[group] = {key: _estimate(drawn) for key, drawn in values.items()}
    return {
        "assumed": asdict(assumed)
        | {"arrivals": arrivals.source, "per_hour": arrivals.per_hour, "days": arrivals.days},
        "replications": replications,
        "seed": seed,
        "busy": assumed.load(arrivals.per_hour) / assumed.readers,
        "minutes": groups,
        "closed_form": exact,
        "curves": _curves(told),
    }


def _closed_form(assumed: Assumed, per_hour: float) -> dict[str, float]:
    """Mean waits in minutes where every flag is known at once."""
    found, called = assumed.sensitivity.value, 1 - assumed.specificity.value
    rate = per_hour / 60
    flagged = rate * (assumed.prevalence * found + (1 - assumed.prevalence) * called)
    first, second = mean_waits([flagged, rate - flagged], assumed.reading_minutes, assumed.readers)
    (without,) = mean_waits([rate], assumed.reading_minutes, assumed.readers)
    return {
        "without": without,
        "positives": found * first + (1 - found) * second,
        "negatives": called * first + (1 - called) * second,
    }


MEASURES = ("n", "mean_without", "mean_with", "change", "p95_without", "p95_with")
_POINTS = np.array([0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 360, 480, 720, 1440], np.float64)


def _replication(assumed: Assumed, arrivals: Arrivals, rng: np.random.Generator) -> dict[str, Any]:
    came = arrivals.draw(rng)
    count = len(came)
    positive = rng.random(count) < assumed.prevalence
    said = np.where(positive, assumed.sensitivity.draw(rng), 1 - assumed.specificity.draw(rng))
    flagged = rng.random(count) < said
    reading = rng.exponential(assumed.reading_minutes * MINUTE, count)
    known = np.where(flagged, came + assumed.model_minutes * MINUTE, np.inf)
    without = waits(came, reading, assumed.readers) / MINUTE
    sorted_ = waits(came, reading, assumed.readers, flagged_at=known) / MINUTE
    counted = came >= arrivals.counted_from
    members = (positive, positive & flagged, positive & ~flagged, ~positive, np.ones(count, bool))
    result: dict[str, Any] = {}
    for group, which in zip(GROUPS, members, strict=True):
        chosen = which & counted
        if chosen.any():
            result[group] = _measures(without[chosen], sorted_[chosen])
    return result


def _measures(without: Times, with_: Times) -> dict[str, Any]:
    return {
        "n": float(len(without)),
        "mean_without": float(without.mean()),
        "mean_with": float(with_.mean()),
        "change": float((with_ - without).mean()),
        "p95_without": float(np.percentile(without, 95)),
        "p95_with": float(np.percentile(with_, 95)),
        "unread_without": (without[:, None] > _POINTS).mean(axis=0),
        "unread_with": (with_[:, None] > _POINTS).mean(axis=0),
    }


def _estimate(drawn: list[float]) -> dict[str, Any]:
    if not drawn:
        return {"value": None, "interval": None}
    low, high = np.percentile(drawn, INTERVAL)
    return {"value": float(np.mean(drawn)), "interval": [float(low), float(high)]}


def _curves(told: list[dict[str, Any]]) -> dict[str, Any]:
    """The share of a group that still waits after so many minutes, over the replications."""
    curves: dict[str, Any] = {"after_minutes": _POINTS.tolist()}
    for group in ("positives", "negatives"):
        for key in ("unread_without", "unread_with"):
            drawn: list[NDArray[np.float64]] = [one[group][key] for one in told if group in one]
            if drawn:
                low, high = np.percentile(drawn, INTERVAL, axis=0)
                band = {"mean": np.mean(drawn, axis=0).tolist(), "low": low.tolist(), "high": high.tolist()}
                curves.setdefault(group, {})[key.removeprefix("unread_")] = band
    return curves
