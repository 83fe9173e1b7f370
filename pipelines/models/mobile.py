"""MobileNetV2 (Sandler et al. 2018) and EfficientNet-Lite (after Tan and Le 2019), their batch norms folded into the
convolutions: tensors in, logits out.

The keys are torchvision's; the padding is TensorFlow's, which the weights trained on ImageNet here were trained with:
at stride 2 a row more below than above, a column more to the right. Without batch norms a few pictures are enough to
go on from them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.models.squeeze import located

FEATURES = 1280
# Of each stage: how much wider inside, channels, blocks, stride of the first, kernel.
_MOBILE = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 3, 2, 3), (6, 64, 4, 2, 3), (6, 96, 3, 1, 3), (6, 160, 3, 2, 3),
    (6, 320, 1, 1, 3),
)  # fmt: skip
_LITE = {
    size: tuple(zip((1, 6, 6, 6, 6, 6, 6), widths, counts, (1, 2, 2, 2, 1, 2, 1), (3, 3, 5, 3, 5, 5, 3), strict=True))
    for size, widths, counts in (
        (0, (16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 3, 3, 4, 1)),
        (1, (16, 24, 40, 80, 112, 192, 320), (1, 3, 3, 4, 4, 5, 1)),
        (2, (16, 24, 48, 88, 120, 208, 352), (1, 3, 3, 4, 4, 5, 1)),
    )
}


class Conv(nn.Sequential):
    """A convolution, and no more than 6 of it."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups), nn.ReLU6(inplace=True))
        before, after = (kernel - 2) // 2, kernel // 2
        self.margin = (before, after, before, after) if stride == 2 else None
        self.is_depthwise = groups > 1

    def forward(self, x: Tensor) -> Tensor:
        if self.margin is not None:
            x = F.pad(x, self.margin)
        if not (self.is_depthwise and self.training and x.device.type == "cpu"):
            return super().forward(x)  # type: ignore[no-any-return,no-untyped-call]
        with torch.autocast("cpu", enabled=False):  # its gradient in bfloat16 takes a processor several times as long
            return super().forward(x.float())  # type: ignore[no-any-return,no-untyped-call]


class Inverted(nn.Module):
    """Widened, filtered channel by channel, narrowed again; past it the input where it has that shape."""

    def __init__(self, inputs: int, outputs: int, *, widen: int, stride: int, kernel: int = 3) -> None:
        super().__init__()
        inner = inputs * widen
        layers: list[nn.Module] = [Conv(inputs, inner)] if widen > 1 else []
        layers += [Conv(inner, inner, kernel=kernel, stride=stride, groups=inner), nn.Conv2d(inner, outputs, 1)]
        self.conv = nn.Sequential(*layers)
        self.is_passed = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.is_passed else y


class MobileClassifier(nn.Module):
    """(N, channels, rows, columns), 0 to 1 → logits (N, outputs).

    Args:
        lite: EfficientNet-Lite 0, 1 or 2; None: MobileNetV2.
    """

    def __init__(self, channels: int, outputs: int, *, dropout: float = 0.3, lite: int | None = None) -> None:
        super().__init__()
        layers: list[nn.Module] = [Conv(channels, 32, kernel=3, stride=2)]
        width = 32
        for widen, outputs_of, count, stride, kernel in _MOBILE if lite is None else _LITE[lite]:
            for place in range(count):
                first = stride if place == 0 else 1
                layers.append(Inverted(width, outputs_of, widen=widen, stride=first, kernel=kernel))
                width = outputs_of
        layers.append(Conv(width, FEATURES))
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(FEATURES, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.embed(x)))  # type: ignore[no-any-return]

    def embed(self, x: Tensor) -> Tensor:
        """(N, 1280): what the head decides by, and what tells a picture that is unlike those of the training."""
        return self.maps(x).mean((2, 3))

    def maps(self, x: Tensor) -> Tensor:
        """(N, 1280, rows / 32, columns / 32): where in the picture, for class activation maps."""
        return self.features(2 * x - 1)  # type: ignore[no-any-return]


class MobileLocator(MobileClassifier):
    """Says of its first class where, too, as ``SqueezeLocator`` does: the map is (N, 1, rows / 32, columns / 32)."""

    def __init__(
        self, channels: int, outputs: int, *, dropout: float = 0.3, surest: float = 0.05, lite: int | None = None
    ) -> None:
        super().__init__(channels, outputs, dropout=dropout, lite=lite)
        self.place = nn.Conv2d(FEATURES, 1, 1)
        self.surest = surest

    def forward(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        maps = self.maps(x)
        return located(self.head(self.dropout(maps.mean((2, 3)))), self.place(maps), self.surest)
