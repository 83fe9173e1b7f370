"""A detector of round things: for every class a map of their middles, and how far their edges are from there.

SqueezeNet 1.1's features (Iandola et al. 2016), joined from coarse to fine at a quarter of the picture's size (Lin et
al. 2017); middles as in CenterNet (Zhou et al. 2019), edges as in FCOS (Tian et al. 2019). Tensors in, maps out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.models.unet import Levelled, squeeze_features

STRIDE = 4
_WIDTHS = (128, 256, 512)  # of the features at a quarter, an eighth and a sixteenth
_RARE = -3.0  # logit that the maps of middles start from: few points are one


class SqueezeDetector(nn.Module):
    """(N, 3, rows, columns), 0 to 1, divisible by 16 → (N, classes + 4, rows / 4, columns / 4).

    The last four are the logarithms of the distances to the left, top, right and bottom edge, in steps of the grid.
    """

    def __init__(self, classes: int, width: int = 48) -> None:
        super().__init__()
        self.features = squeeze_features(3)
        self.levelled = nn.ModuleList(Levelled(each) for each in _WIDTHS)
        self.across = nn.ModuleList(nn.Conv2d(each, width, 1) for each in _WIDTHS)
        self.smooth = nn.ModuleList(_block(width, width) for _ in _WIDTHS)
        self.middles = nn.Sequential(_block(width, width), nn.Conv2d(width, classes, 1))
        self.edges = nn.Sequential(_block(width, width), nn.Conv2d(width, 4, 1))
        nn.init.constant_(self.middles[-1].bias, _RARE)  # type: ignore[arg-type]
        nn.init.constant_(self.edges[-1].bias, 1.5)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.features["0"]((x - 0.45) / 0.225))  # half
        found = []
        for group in (("3", "4"), ("6", "7"), ("9", "10", "11", "12")):
            x = F.max_pool2d(x, 3, 2, 1)
            for key in group:
                x = self.features[key](x)
            found.append(x)
        joined: Tensor | None = None
        for place in reversed(range(len(found))):
            own = self.across[place](self.levelled[place](found[place]))
            if joined is not None:
                own = own + F.interpolate(joined, scale_factor=2.0, mode="nearest")
            joined = self.smooth[place](own)
        return torch.cat((self.middles(joined), self.edges(joined)), 1)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )
