"""A model observer: how well faint discs can be seen in pictures, before and after something was done to them.

A channelised Hotelling observer (Myers and Barrett 1987) with sparse difference-of-Gaussians channels (Abbey and
Barrett 2001) looks at places of the picture itself, without and with a disc. It knows where the disc would be and how
large it is, not what lies behind it: that and the noise differ from place to place. Each disc is as faint as it must be
for the observer to see it no better than ``VISIBLE`` in the original. Judge by this, not by how smooth a picture looks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipelines.noise import body, local_spread

VISIBLE = 2.0  # d': seven of eight times right between two pictures (area 0.92 under the curve)
APART, PATCH, CORE = 24, 31, 15  # pixels between places, that the observer looks at, that must lie in the body
SMOOTH = 0.6  # of the places: tumours and bleedings that are faint are looked for in smooth tissue
FEWEST = 30  # places; the fewer, the wider the interval that decides
FAINTEST, CLEAREST = 0.1, 4.0  # contrast, in deviations of the noise
CHANNELS, FIRST, WIDER = 4, 0.015, 2.0  # cycles per pixel
RESAMPLES = 300


class TooFewPlaces(ValueError):
    """The pictures show too little smooth tissue for an observer to say anything."""


@dataclass(frozen=True)
class Visibility:
    """How a disc is seen.

    Attributes:
        diameter: Pixels.
        contrast: On the scale of the pictures.
        before, after: Detectability d' of the observer.
        low, high: Of their ratio, 5th and 95th percentile over resamples of the places.
        places: How many there were.
    """

    diameter: int
    contrast: float
    before: float
    after: float
    low: float
    high: float
    places: int

    @property
    def ratio(self) -> float:
        return self.after / self.before


@dataclass(frozen=True, eq=False)
class Responses:
    """What the channels answer, of one diameter.

    Attributes:
        without, disc: (n, channels) of the original, and (channels,) of the disc itself.
        taken, taken_with: (n, channels) of what is taken away from the original, and from it with discs.
    """

    diameter: int
    contrast: float
    without: NDArray[np.float64]
    disc: NDArray[np.float64]
    taken: NDArray[np.float64]
    taken_with: NDArray[np.float64]

    def visibility(self, share: float) -> Visibility:
        """Where ``share`` of what was found to be noise is taken away."""
        before = (self.without, self.without + self.disc)
        after = (self.without - share * self.taken, self.without + self.disc - share * self.taken_with)
        places = len(self.without)
        rng = np.random.default_rng(0)
        draws = rng.integers(0, places, (RESAMPLES, places))
        ratios = [detectability(*(v[at] for v in after)) / detectability(*(v[at] for v in before)) for at in draws]
        low, high = np.percentile(ratios, (5, 95))
        seen = detectability(*before), detectability(*after)
        return Visibility(self.diameter, self.contrast, *seen, float(low), float(high), places)


def responses(
    images: Tensor, noise_of: Callable[[Tensor], Tensor], strength: Tensor, diameters: Sequence[int]
) -> list[Responses]:
    """Of pictures (N, 1, rows, columns), about 0 to 1, whose noise has the deviations ``strength`` (N,).

    Args:
        noise_of: Pictures → what would be taken away, of the same shape.

    Raises:
        TooFewPlaces: If there is too little to look at.
    """
    places = smooth_places(images)
    if len(places) < FEWEST:
        raise TooFewPlaces(f"there are {len(places)} places of smooth tissue, {FEWEST} are needed")
    filters = channels()
    without = answers(images, places, filters)
    taken = answers(noise_of(images), places, filters)
    spread, found = _shared(np.cov(without.T)), []
    typical = float(strength.median())
    for diameter in diameters:
        unit = np.tensordot(filters, disc(PATCH, diameter), ((1, 2), (0, 1)))
        seen = float(np.sqrt(unit @ np.linalg.solve(spread, unit)))
        contrast = float(np.clip(VISIBLE / seen, FAINTEST * typical, CLEAREST * typical))
        taken_with = answers(noise_of(images + contrast * with_discs(images, places, diameter)), places, filters)
        found.append(Responses(diameter, contrast, without, contrast * unit, taken, taken_with))
    return found


def detectability(without: NDArray[np.float64], with_disc: NDArray[np.float64]) -> float:
    """d' of a Hotelling observer of channel outputs (n, channels)."""
    difference = with_disc.mean(0) - without.mean(0)
    spread = _shared((np.cov(without.T) + np.cov(with_disc.T)) / 2)
    return float(np.sqrt(max(difference @ np.linalg.solve(spread, difference), 1e-12)))


def _shared(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """So that it can be inverted, whatever the places are."""
    size = len(covariance)
    return np.asarray(covariance + np.eye(size) * (1e-6 * np.trace(covariance) / size + 1e-15))


def channels(size: int = PATCH) -> NDArray[np.float64]:
    """(channels, size, size): each answers to an octave of frequencies in all directions, and not to a constant."""
    axis = np.fft.fftfreq(size)
    radius = np.hypot(axis[:, None], axis[None])
    made = []
    for place in range(CHANNELS):
        width = FIRST * 2**place
        passed = np.exp(-((radius / (WIDER * width)) ** 2) / 2) - np.exp(-((radius / width) ** 2) / 2)
        made.append(np.fft.fftshift(np.fft.ifft2(passed).real))
    return np.stack(made)


def disc(size: int, diameter: int) -> NDArray[np.float64]:
    """(size, size), 1 inside and 0 outside, with a rim of one pixel."""
    row, column = np.mgrid[:size, :size] - size // 2
    return np.asarray(np.clip(diameter / 2 + 0.5 - np.hypot(row, column), 0, 1))


def with_discs(images: Tensor, places: NDArray[np.int_], diameter: int) -> Tensor:
    """Pictures of the shape of ``images`` that hold nothing but a disc at each place."""
    made, kernel, half = torch.zeros_like(images), torch.from_numpy(disc(PATCH, diameter)).to(images.dtype), PATCH // 2
    for i, row, column in places:
        around = made[i, 0, row - half : row + half + 1, column - half : column + half + 1]
        torch.maximum(around, kernel, out=around)
    return made


def answers(images: Tensor, places: NDArray[np.int_], filters: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, channels) at places (n, 3): picture, row, column."""
    half = PATCH // 2
    patches = np.stack([images[i, 0, r - half : r + half + 1, c - half : c + half + 1].numpy() for i, r, c in places])
    return np.asarray(np.tensordot(patches.astype(np.float64), filters, ((1, 2), (1, 2))))


def smooth_places(images: Tensor) -> NDArray[np.int_]:
    """(n, 3): picture, row, column, on a grid, of tissue that varies least."""
    half = PATCH // 2
    inside = -F.max_pool2d(-body(images).float(), CORE, 1, CORE // 2) > 0.5
    spread = F.avg_pool2d(local_spread(images), CORE, 1, CORE // 2, count_include_pad=False)
    rows, columns = images.shape[2:]
    on_grid = [
        (i, r, c)
        for i in range(len(images))
        for r in range(half + (rows - PATCH) % APART // 2, rows - half, APART)
        for c in range(half + (columns - PATCH) % APART // 2, columns - half, APART)
        if inside[i, 0, r, c]
    ]
    on_grid.sort(key=lambda place: float(spread[place[0], 0, place[1], place[2]]))
    return np.array(sorted(on_grid[: max(FEWEST, round(SMOOTH * len(on_grid)))]), int).reshape(-1, 3)
