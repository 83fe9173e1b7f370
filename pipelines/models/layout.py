"""A small classifier that knows where in the picture something is: tensors in, logits out."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.models.unet import conv


class LayoutClassifier(nn.Module):
    """(N, channels, rows, columns), 0 to 1 → logits (N, outputs), from what lies in each of 4 by 4 parts.

    For what the arrangement says, as which way up a picture is: a mean over the whole picture would not know.
    """

    def __init__(self, channels: int, outputs: int, *, widths: tuple[int, int, int] = (16, 32, 48)) -> None:
        super().__init__()
        first, second, third = widths
        self.features = nn.Sequential(
            conv(channels, first, stride=2), conv(first, second, stride=2), conv(second, third, stride=2)
        )
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(16 * third, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.embed(x)))  # type: ignore[no-any-return]

    def embed(self, x: Tensor) -> Tensor:
        """(N, 16 × the last width): what the head decides by."""
        return F.adaptive_avg_pool2d(self.features(x - 0.5), 4).flatten(1)
