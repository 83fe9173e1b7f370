"""How likely each pixel is of a segment, as the networks have it: kept beside the outline that was drawn from it.

In steps of 1/255, as FRACTIONAL Segmentations have it, so that a volume takes a byte a pixel. Arrays alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

STEPS = 255  # Maximum Fractional Value (0062,000E)


@dataclass(frozen=True, eq=False)
class Probability:
    """Of each pixel, on the grid of a mask.

    Attributes:
        steps: uint8 (frames, rows, columns), 0 to 255.
        threshold: The operating point: what is above it is in the mask, and nothing else.
    """

    steps: NDArray[np.uint8]
    threshold: float

    def __post_init__(self) -> None:
        if self.steps.dtype != np.uint8 or self.steps.ndim != 3:
            raise ValueError(f"steps are uint8 (frames, rows, columns), not {self.steps.dtype} {self.steps.shape}")
        if not 0 <= self.threshold < 1:
            raise ValueError(f"the threshold of a probability is {self.threshold}, not from 0 to below 1")


def in_steps(chances: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Probabilities of 0 to 1, of a picture or a volume, rounded to steps: below half of one is 0."""
    steps = np.empty(chances.shape, np.uint8)
    for part, chance in zip(_pictures(steps), _pictures(chances), strict=True):  # no second volume of floats
        part[...] = np.rint(chance * np.float32(STEPS))
    return steps


def held(steps: NDArray[np.uint8], mask: NDArray[np.bool_], threshold: float) -> NDArray[np.uint8]:
    """The steps, each on the side of the threshold where the mask has it; in place.

    Rounding moves one by a step at most. What a clean-up took away comes to stand at the last step below the threshold,
    what it filled at the first above it: the nearest that does not contradict the outline.
    """
    below = last_below(threshold)
    for part, inside in zip(_pictures(steps), _pictures(mask), strict=True):
        np.minimum(part, below, out=part, where=~inside)
        np.maximum(part, below + 1, out=part, where=inside)
    return steps


def _pictures(array: NDArray[Any]) -> NDArray[Any]:
    return array[None] if array.ndim == 2 else array


def last_below(threshold: float) -> int:
    """The highest step that is not above a threshold."""
    return int(threshold * STEPS)
