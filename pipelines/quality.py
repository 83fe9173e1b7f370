"""How a picture was taken and kept, in a few numbers that hardly ask what it shows: noise, blur, light, colour, JPEG.

Images are float32 (channels, rows, columns), 0 to 1, as a network sees them, without what lies beside the picture. What
a pipeline was validated on is a range of some of these numbers, on its card; ``benchmarks/quality.py`` fits them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Range = Sequence[float | None]  # least, most; None: no bound
_FAINT = 1e-5  # mean square of one grey level of 256 between neighbours
_FEW = 1e-3  # share of the pixels that does not count
_BLOCK = 8  # pixels: what JPEG compresses by itself
# What is said of a picture below, and above the range; what is empty has no bound on that side.
SAID = {
    "blocks": ("", "shows the blocks of compression"),
    "fineness": ("", "is noisy"),
    "edges": ("is blurred, or its pixels are coarse", ""),
    "light": ("is dark", "is bright"),
    "white": ("", "is cut off at white"),
    "red": ("has too little red", "has too much red"),
    "blue": ("has too little blue", "has too much blue"),
}


def measures(image: Tensor) -> dict[str, float]:
    """Number by name; ``red`` and ``blue`` mean something in colour pictures alone.

    ``blocks``: how much more neighbours differ where blocks of eight meet than elsewhere, in shares of how they differ.
    ``fineness``: logarithm of how much neighbours differ, over how much they do where pixels are twice as large.
    ``edges``: logarithm of how sharp the sharpest hundredth of the places is.
    ``light``: the mean. ``white``: logarithm of the share at white. ``red``, ``blue``: logarithm of each over green.
    """
    grey = image.mean(0).double()
    red, green, blue = (image if len(image) == 3 else image[:1].expand(3, -1, -1)).double().mean((1, 2)) + _FEW
    bend = F.conv2d(grey[None, None], _LAPLACE)[0, 0].abs()
    return {
        "blocks": max(_blocks(grey.numpy()), _blocks(grey.T.numpy())),
        "fineness": float((_differ(grey) / _differ(F.avg_pool2d(grey[None], 2)[0])).log()),
        "edges": float((bend.quantile(0.99) + _FEW).log()),
        "light": float(grey.mean()),
        "white": float(((grey > 0.98).double().mean() + _FEW).log()),
        "red": float((red / green).log()),
        "blue": float((blue / green).log()),
    }


def of_colours(pixels: NDArray[np.uint8]) -> Tensor:
    """RGB, uint8 (rows, columns, 3), as an image."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, 0)).astype(np.float32)) / 255


def complaint(image: Tensor, usual: Mapping[str, Range]) -> str | None:
    """What of a picture is beyond the ranges that were validated, by name; None if nothing is."""
    found = measures(image)
    for name, (least, most) in usual.items():
        is_more = most is not None and found[name] > most
        if is_more or (least is not None and found[name] < least):
            side, bound = ("at most", most) if is_more else ("at least", least)
            return f"{SAID[name][is_more]} ({name} {found[name]:.2f}; {side} {bound:.2f} was validated)"
    return None


_LAPLACE = torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]], dtype=torch.double)[None, None]


def _differ(grey: Tensor) -> Tensor:
    return grey.diff(dim=0).square().mean() + grey.diff(dim=1).square().mean() + _FAINT


def _blocks(grey: NDArray[np.float64]) -> float:
    """Along the rows, wherever the first block begins. By medians: a single edge of another kind makes no blocks."""
    steps = np.abs(np.diff(grey, axis=0)).mean(1)
    beyond = steps[1:-1] - (steps[:-2] + steps[2:]) / 2
    if len(beyond) < 2 * _BLOCK:
        return 0.0
    phases = np.sort([float(np.median(beyond[phase::_BLOCK])) for phase in range(_BLOCK)])
    return float((phases[-1] - phases[:-1].mean()) / (steps.mean() + _FEW))
