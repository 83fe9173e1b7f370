"""Nuclei of a microscope picture: the picture as the network sees it, and its maps as numbered nuclei.

The network gives two maps: how likely a pixel is of a nucleus, and how likely of a nucleus's core, without its rim.
Cores are the seeds, and they grow over what is of a nucleus: so nuclei that touch stay apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage

LONGEST = 256  # pixels of the longer side that the network was trained on; larger pictures are reduced to it
MULTIPLE = 16  # rows and columns must be divisible by it
_NEIGHBOURS = np.ones((3, 3), bool)


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture as the network sees it.

    Attributes:
        image: float32 (3, rows, columns), padded to a multiple; 0 to 1.
        size: Rows, columns of the picture in it, from the top left corner.
        shape: Rows, columns of the source.
    """

    image: torch.Tensor
    size: tuple[int, int]
    shape: tuple[int, int]

    @property
    def picture(self) -> torch.Tensor:
        """The image without what it was padded by."""
        return self.image[:, : self.size[0], : self.size[1]]


@dataclass(frozen=True)
class Rule:
    """What makes a nucleus of the maps, chosen on folds of train.

    Attributes:
        threshold: Likelihood from which a pixel is of a nucleus.
        seed: Likelihood from which it is of a core.
        smallest: Pixels of the smallest nucleus.
        share: What a nucleus has at least of the 75th percentile of the areas in its picture: less is a fragment.
        least: Score from which a nucleus is said.
    """

    threshold: float
    seed: float
    smallest: int
    share: float
    least: float


@dataclass(frozen=True)
class Nucleus:
    """One nucleus of the picture that was shown.

    Attributes:
        number: Its value in the numbered map.
        box: x, y, width, height, of pixels as they were shown.
        area: Pixels.
        score: Mean likelihood of its pixels.
    """

    number: int
    box: tuple[int, int, int, int]
    area: int
    score: float


def shown(pixels: NDArray[np.float32] | NDArray[np.uint8]) -> Shown:
    """A grey (rows, columns) or colour (rows, columns, 3) picture; its own darkest and brightest become 0 and 1."""
    values = pixels.astype(np.float32)
    planes = np.moveaxis(values, -1, 0) if values.ndim == 3 else np.repeat(values[None], 3, axis=0)
    low, high = np.percentile(planes, (0.5, 99.8))
    scaled = ((planes - low) / max(float(high - low), 1e-6)).astype(np.float32)
    image = torch.from_numpy(np.ascontiguousarray(scaled))[None].clamp(0, 1)
    rows, columns = image.shape[2:]
    scale = min(1.0, LONGEST / max(rows, columns))
    size = (max(1, round(rows * scale)), max(1, round(columns * scale)))
    if size != (rows, columns):
        image = F.interpolate(image, size=size, mode="bilinear", antialias=True)
    below, beside = (-length % MULTIPLE for length in size)
    return Shown(F.pad(image, (0, beside, 0, below), mode="replicate")[0], size, (rows, columns))


def mirrored(image: torch.Tensor) -> torch.Tensor:
    """(3, rows, columns) → (4, 3, rows, columns): itself, mirrored either way, and both."""
    return torch.stack([image, image.flip(-1), image.flip(-2), image.flip(-1, -2)])


def merged(logits: torch.Tensor) -> torch.Tensor:
    """Logits (members, 4, 2, rows, columns) of what ``mirrored`` gives → mean probabilities (2, rows, columns)."""
    chances = logits.sigmoid()
    back = (chances[:, 0], chances[:, 1].flip(-1), chances[:, 2].flip(-2), chances[:, 3].flip(-1, -2))
    return torch.stack(back).mean((0, 1))


def on_source(box: tuple[int, int, int, int], view: Shown) -> tuple[float, float, float, float]:
    """A box of pixels as they were shown, in pixels of the source."""
    down, across = view.shape[0] / view.size[0], view.shape[1] / view.size[1]
    x, y, width, height = box
    return round(x * across, 2), round(y * down, 2), round(width * across, 2), round(height * down, 2)


def mask_on_source(mask: NDArray[np.bool_], view: Shown) -> NDArray[np.bool_]:
    """bool (rows, columns) as it was shown → on the grid of the source."""
    if view.size == view.shape:
        return mask
    return np.asarray(map_on_source(mask.astype(np.float32), view) > 0.5)


def map_on_source(likely: NDArray[np.float32], view: Shown) -> NDArray[np.float32]:
    """The same of a map of 0 to 1."""
    if view.size == view.shape:
        return likely
    small = torch.from_numpy(likely)[None, None]
    return np.asarray(F.interpolate(small, size=view.shape, mode="bilinear")[0, 0].numpy())


def numbered(
    likely: NDArray[np.float32], core: NDArray[np.float32], rule: Rule
) -> tuple[NDArray[np.int32], list[Nucleus]]:
    """Maps (rows, columns) of 0 to 1 → the map of numbers, 0 where there is none, and the nuclei that keep the rule."""
    inside = likely > rule.threshold
    seeds = inside & (core > rule.seed)
    whole, count = ndimage.label(inside, _NEIGHBOURS)
    seeded = np.zeros(count + 1, bool)
    seeded[np.unique(whole[seeds])] = True
    seeds |= inside & ~seeded[whole]  # what has no core is one nucleus
    numbers = _grown(ndimage.label(seeds, _NEIGHBOURS)[0].astype(np.int32), inside)
    return numbers, _nuclei(numbers, likely, rule)


def _grown(numbers: NDArray[np.int32], inside: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Every pixel that is inside gets the number of the seed that reaches it first, step by step."""
    cross = ndimage.generate_binary_structure(2, 1)
    for step in range(sum(numbers.shape)):
        free = inside & (numbers == 0)
        if not free.any():
            break
        # squares and crosses by turns: about as round as a circle
        grown = ndimage.grey_dilation(numbers, footprint=cross if step % 2 else _NEIGHBOURS)
        numbers = np.where(free, grown, numbers)
    return numbers


def _nuclei(numbers: NDArray[np.int32], likely: NDArray[np.float32], rule: Rule) -> list[Nucleus]:
    count = int(numbers.max(initial=0))
    areas = np.bincount(numbers.ravel(), minlength=count + 1)
    sums = np.bincount(numbers.ravel(), weights=likely.ravel(), minlength=count + 1)
    found = []
    for number, place in enumerate(ndimage.find_objects(numbers), start=1):
        if place is None or areas[number] < rule.smallest or sums[number] / areas[number] < rule.least:
            continue
        down, right = place
        box = (right.start, down.start, right.stop - right.start, down.stop - down.start)
        found.append(Nucleus(number, box, int(areas[number]), float(sums[number] / areas[number])))
    usual = float(np.percentile([each.area for each in found], 75)) if found else 0.0
    return [each for each in found if each.area >= rule.share * usual]
