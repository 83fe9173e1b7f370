"""A slice of CT at one scale, and the windows that a network of small patches looks through: over the lungs alone.

Arrays and tensors; no header, no network.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage

SIDE = 48  # pixels of a window
MM = 2.0  # of such a pixel
STRIDE = 24
AIR_HU = -1350.0  # what lies beyond a slice
LUNG_HU = -500.0  # below it is lung, or air outside
SMALLEST_LUNG = 200  # pixels of 2 mm: 8 cm2; less is bowel, trachea, a fold of skin

Corner = tuple[int, int]  # top, left


def at_scale(picture: NDArray[np.float32], spacing: tuple[float, float]) -> NDArray[np.float32]:
    """A slice (rows, columns) with pixels of ``spacing`` mm, at 2 mm; what is below a window has air around it."""
    size = [max(1, round(n * mm / MM)) for n, mm in zip(picture.shape, spacing, strict=True)]
    small = _resized(torch.from_numpy(picture), size).numpy() if size != list(picture.shape) else picture
    lacks = [max(0, SIDE - n) for n in size]
    pads = [(lack // 2, lack - lack // 2) for lack in lacks]
    return np.pad(small, pads, constant_values=AIR_HU) if any(lacks) else small


def from_scale(chances: torch.Tensor, shape: tuple[int, int], spacing: tuple[float, float]) -> NDArray[np.float32]:
    """The way back of ``at_scale``: (rows, columns) at 2 mm → ``shape`` of the source."""
    size = [max(1, round(n * mm / MM)) for n, mm in zip(shape, spacing, strict=True)]
    first = [(has - n) // 2 for has, n in zip(chances.shape, size, strict=True)]
    part = chances[first[0] : first[0] + size[0], first[1] : first[1] + size[1]]
    back: NDArray[np.float32] = _resized(part, shape).numpy()
    return back


def _resized(picture: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return F.interpolate(picture[None, None], size=tuple(size), mode="bilinear", antialias=True)[0, 0]


def lungs(picture: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where a slice at 2 mm shows lung: dark, and not the air around the patient."""
    parts, count = ndimage.label(picture < LUNG_HU)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    is_lung = sizes >= SMALLEST_LUNG
    edges = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    is_lung[edges] = False
    is_lung[0] = False
    return np.asarray(is_lung[parts])


def corners(picture: NDArray[np.float32]) -> list[Corner]:
    """Of the windows to look through: the only one of a patch; of a whole slice those with lung in their middle."""
    tops, lefts = (_starts(size) for size in picture.shape)
    if len(tops) == len(lefts) == 1:
        return [(tops[0], lefts[0])]
    # a tumour at the pleura or the mediastinum is no lung by itself: it lies beside it
    near = ndimage.binary_dilation(lungs(picture), iterations=4)
    inner = slice(SIDE // 4, SIDE - SIDE // 4)
    return [
        (top, left) for top in tops for left in lefts if near[top : top + SIDE, left : left + SIDE][inner, inner].any()
    ]


def _starts(size: int) -> list[int]:
    if size <= SIDE + 1:  # a patch, but for rounding
        return [0]
    return [*range(0, size - SIDE, STRIDE), size - SIDE]


def cut(picture: NDArray[np.float32], places: Sequence[Corner]) -> NDArray[np.float32]:
    """(windows, SIDE, SIDE)."""
    return np.stack([picture[top : top + SIDE, left : left + SIDE] for top, left in places])


def put_together(chances: torch.Tensor, places: Sequence[Corner], shape: tuple[int, int]) -> torch.Tensor:
    """(windows, SIDE, SIDE) → (rows, columns): a mean in which the middle of a window counts most; elsewhere 0."""
    ramp = 1 - torch.linspace(-1, 1, SIDE + 2)[1:-1].abs()
    weight = torch.outer(ramp, ramp)
    total, weights = torch.zeros(shape), torch.zeros(shape)
    for chance, (top, left) in zip(chances, places, strict=True):
        total[top : top + SIDE, left : left + SIDE] += chance * weight
        weights[top : top + SIDE, left : left + SIDE] += weight
    return total / weights.clamp_min(1e-6)
