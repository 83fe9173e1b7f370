"""A part of a picture and of its truth, turned, mirrored and resized at random: the same for both."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Warp:
    """How much a picture may be changed.

    Attributes:
        size: Rows, columns of what comes out.
        zoom: Smallest and largest factor, drawn evenly on a logarithmic scale; above 1: things look larger.
        turn: Largest angle in degrees, either way; a quarter turn is always drawn beside it where ``quarters``.
        mirror: Left to right, at random.
    """

    size: tuple[int, int]
    zoom: tuple[float, float] = (0.8, 1.25)
    turn: float = 0.0
    quarters: bool = False
    mirror: bool = True

    def draw(self, image: Tensor, truth: Tensor, centre: tuple[float, float] | None = None) -> tuple[Tensor, Tensor]:
        """(channels, rows, columns) each → (channels, *size) each; by torch's random numbers.

        Args:
            centre: Row, column of the source that comes to lie in the middle; by default anywhere that fills the view.
        """
        matrix = self._matrix()
        rows, columns = image.shape[1:]
        if centre is None:
            centre = self._anywhere(rows, columns, matrix)
        grid = self._grid(matrix, centre, (rows, columns))
        seen = F.grid_sample(image[None], grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        known = F.grid_sample(truth[None], grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        return seen[0], known[0]

    def _matrix(self) -> Tensor:
        """(2, 2): pixels of the view to pixels of the source, (row, column)."""
        low, high = math.log(self.zoom[0]), math.log(self.zoom[1])
        scale = math.exp(-float(torch.empty(()).uniform_(low, high)))
        angle = math.radians(float(torch.empty(()).uniform_(-self.turn, self.turn)))
        if self.quarters:
            angle += math.pi / 2 * int(torch.randint(4, ()))
        side = -1.0 if self.mirror and torch.rand(()) < 0.5 else 1.0
        cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
        return torch.tensor([[cos, -sin * side], [sin, cos * side]])

    def _anywhere(self, rows: int, columns: int, matrix: Tensor) -> tuple[float, float]:
        reach = (matrix.abs() @ torch.tensor([float(each) for each in self.size])) / 2
        centre = []
        for length, far in zip((rows, columns), reach.tolist(), strict=True):
            low, high = min(far, length / 2), max(length - far, length / 2)
            centre.append(float(torch.empty(()).uniform_(low, high)) if high > low else length / 2)
        return centre[0], centre[1]

    def _grid(self, matrix: Tensor, centre: tuple[float, float], shape: tuple[int, int]) -> Tensor:
        """(1, rows, columns, 2) as ``grid_sample`` wants it: (x, y) from -1 to 1 over the source."""
        down, right = (torch.arange(length) + 0.5 - length / 2 for length in self.size)
        offsets = torch.stack(torch.meshgrid(down, right, indexing="ij"), -1)  # (rows, columns, 2)
        places = offsets @ matrix.T + torch.tensor([float(each) for each in centre])
        grid = places / torch.tensor([float(each) for each in shape]) * 2 - 1
        return grid.flip(-1)[None]


def tint(image: Tensor, *, gain: float = 0.1, gamma: float = 0.2, noise: float = 0.03) -> Tensor:
    """A picture (channels, rows, columns) of 0 to 1 in other light: gain by channel, gamma, noise."""
    factors = torch.exp(torch.randn(()) * gain + torch.randn(image.shape[0], 1, 1) * gain / 2)
    bent = image.clamp(1e-4, 1).pow(torch.exp(torch.randn(()) * gamma))
    grain = torch.randn_like(image) * noise * torch.rand(())
    return (bent * factors + grain).clamp(0, 1.5)
