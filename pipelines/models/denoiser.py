"""What in a picture is noise: a small residual network that is told how strong the noise is (Zhang et al. 2017, 2018).

Its answer is bounded: no pixel moves by more than ``LIMIT`` standard deviations of the noise, whatever it has learnt.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LIMIT = 3.0


class Denoiser(nn.Module):
    """(N, 2, rows, columns): picture, about 0 to 1, and the deviation of its noise → the noise (N, 1, rows, columns).

    Works at half the size, four pixels to a place (FFDNet), so that it is quick and sees 13 pixels around.
    """

    reads_exactly = True  # it divides what it sees by the noise: in half precision that would be noise of its own

    def __init__(self, width: int = 24, depth: int = 6) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(5, width, 3, 1, 1), nn.ReLU(inplace=True)]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(width, width, 3, 1, 1), nn.ReLU(inplace=True)]
        last = nn.Conv2d(width, 4, 3, 1, 1)
        nn.init.zeros_(last.weight)  # at first nothing is noise
        self.layers = nn.Sequential(*layers, last)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[2:]
        even = F.pad(x, (0, columns % 2, 0, rows % 2), mode="replicate")
        strength = even[:, 1:]
        # In units of the noise around the middle of the scale: faint things look alike whatever the dose.
        centred = (even[:, :1] - 0.5) / strength.clamp(min=1e-3) / 10
        small = torch.cat((F.pixel_unshuffle(centred, 2), F.avg_pool2d(strength, 2) * 10), 1)
        found = F.pixel_shuffle(self.layers(small), 2)
        return (LIMIT * torch.tanh(found / LIMIT) * strength)[:, :, :rows, :columns]
