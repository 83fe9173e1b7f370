"""What a detection is worth: boxes matched to boxes, and F1. Numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]  # x, y, width, height


@dataclass(frozen=True)
class Counts:
    """Boxes that were found rightly, found wrongly, and missed."""

    hits: int = 0
    wrong: int = 0
    missed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.hits + other.hits, self.wrong + other.wrong, self.missed + other.missed)

    @property
    def f1(self) -> float:
        """1.0 where there is nothing and nothing was said."""
        said = 2 * self.hits + self.wrong + self.missed
        return 1.0 if said == 0 else 2 * self.hits / said


def overlaps(one: Sequence[Box], other: Sequence[Box]) -> NDArray[np.float64]:
    """Intersection over union of each with each, shape (len(one), len(other))."""
    a, b = (np.asarray(each, np.float64).reshape(-1, 4) for each in (one, other))
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum((a[:, :2] + a[:, 2:])[:, None], (b[:, :2] + b[:, 2:])[None])
    common = np.clip(high - low, 0, None).prod(-1)
    union = a[:, 2:].prod(-1)[:, None] + b[:, 2:].prod(-1)[None] - common
    return np.asarray(common / np.maximum(union, 1e-9))


def matched(found: Sequence[Box], truth: Sequence[Box], *, least: float = 0.5) -> NDArray[np.bool_]:
    """Which of ``found``, the surest first, hit a box of the truth that none before has hit."""
    hit, taken = np.zeros(len(found), bool), np.zeros(len(truth), bool)
    if not len(found) or not len(truth):
        return hit
    shared = overlaps(found, truth)
    for place in range(len(found)):
        open_to = np.where(taken, -1.0, shared[place])
        best = int(open_to.argmax())
        if open_to[best] >= least:
            hit[place] = taken[best] = True
    return hit


def counts(found: Sequence[Box], truth: Sequence[Box], *, least: float = 0.5) -> Counts:
    """``found``: the surest first."""
    hits = int(matched(found, truth, least=least).sum())
    return Counts(hits, len(found) - hits, len(truth) - hits)
