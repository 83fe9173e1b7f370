"""Classifiers on SqueezeNet 1.1 (Iandola et al. 2016): tensors in, logits out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.models.unet import squeeze_features


class SqueezeClassifier(nn.Module):
    """(N, channels, rows, columns), 0 to 1 → logits (N, outputs); the features keep torchvision's names."""

    def __init__(self, channels: int, outputs: int, *, dropout: float = 0.3) -> None:
        super().__init__()
        self.features = squeeze_features(channels)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(512, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.embed(x)))  # type: ignore[no-any-return]

    def embed(self, x: Tensor) -> Tensor:
        """(N, 512): what the head decides by, and what tells a picture that is unlike those of the training."""
        return self.maps(x).mean((2, 3))

    def maps(self, x: Tensor) -> Tensor:
        """(N, 512, rows / 16, columns / 16): where in the picture, for class activation maps."""
        x = F.relu(self.features["0"]((x - 0.45) / 0.225))
        for group in (("3", "4"), ("6", "7"), ("9", "10", "11", "12")):
            x = F.max_pool2d(x, 3, 2, 1)
            for key in group:
                x = self.features[key](x)
        return x


class SqueezeLocator(SqueezeClassifier):
    """Says of its first class where, too: (N, channels, rows, columns) → logits (N, outputs) and a logit map of it.

    The first class is as sure as its surest places and the picture as a whole; the map is
    (N, 1, rows / 16, columns / 16).
    """

    def __init__(self, channels: int, outputs: int, *, dropout: float = 0.3, surest: float = 0.05) -> None:
        """``surest``: the share of the places that speaks for the picture."""
        super().__init__(channels, outputs, dropout=dropout)
        self.place = nn.Conv2d(512, 1, 1)
        self.surest = surest

    def forward(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        maps = self.maps(x)
        return located(self.head(self.dropout(maps.mean((2, 3)))), self.place(maps), self.surest)


def located(logits: Tensor, where: Tensor, surest: float) -> list[Tensor]:
    """Logits (N, outputs), of which the first gains what its surest places (N, 1, rows, columns) say; and the places.

    Args:
        surest: The share of the places that speaks for the picture.
    """
    spots = where.flatten(1)
    top = spots.topk(max(1, round(surest * spots.shape[1])), dim=1).values.mean(1, keepdim=True)
    return [torch.cat((logits[:, :1] + top, logits[:, 1:]), 1), where]
