"""The networks that outline: a residual U-Net, and a U-Net on SqueezeNet 1.1 as its encoder. Tensors in, logits out.

Both take (N, channels, rows, columns) with rows and columns divisible by 32 and give (N, outputs, rows, columns); in
training mode coarser logits follow (deep supervision). Inside, the finest grid is half that of the image, and each of
its points answers for its four pixels (pixel shuffle): a third of the time for the same outlines. Where weights come
from is not known here: see ``store``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(inputs: int, outputs: int, *, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    """Two convolutions and a way past them (He et al. 2016); dropout of whole channels between them."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = conv(inputs, outputs, stride=stride)
        self.dropout = nn.Dropout2d(dropout)
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.past: nn.Module = nn.Identity()
        if inputs != outputs or stride != 1:
            self.past = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.dropout(self.first(x))) + self.past(x), inplace=True)


class Decoder(nn.Module):
    """From the coarsest features up, joining the encoder's at each size (Ronneberger et al. 2015)."""

    def __init__(self, widths: Sequence[int], *, inner: Sequence[int], supervised: int = 2, outputs: int = 1) -> None:
        """``widths`` of the encoder's features and ``inner`` of the decoder's, finest first."""
        super().__init__()
        below = (*inner[1:], widths[-1])
        self.steps = nn.ModuleList(
            conv(width + under, own) for width, under, own in zip(widths[:-1], below, inner, strict=True)
        )
        self.smooth = nn.ModuleList(conv(own, own) for own in inner)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Conv2d(own, 4 * outputs, 1), nn.PixelShuffle(2)) for own in inner[: supervised + 1]
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        x, logits = features[-1], []
        for level in reversed(range(len(self.steps))):
            x = F.interpolate(x, size=features[level].shape[2:], mode="nearest")
            x = self.smooth[level](self.steps[level](torch.cat((features[level], x), 1)))
            if level < len(self.heads) and (self.training or level == 0):
                logits.append(self.heads[level](x))
        return logits[::-1]


class ResidualUNet(nn.Module):
    """Trained from scratch."""

    def __init__(self, channels: int, widths: Sequence[int] = (32, 64, 128, 224, 256), *, outputs: int = 1) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), conv(4 * channels, widths[0]), Residual(widths[0], widths[0]))
        self.down = nn.ModuleList(
            Residual(a, b, stride=2, dropout=0.1 if b > 200 else 0.0) for a, b in itertools.pairwise(widths)
        )
        self.decoder = Decoder(widths, inner=widths[:-1], outputs=outputs)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [self.stem(x)]
        for step in self.down:
            features.append(step(features[-1]))
        return cast("list[Tensor]", self.decoder(features))


class Fire(nn.Module):
    """Squeeze to few channels, expand by 1×1 and 3×3 side by side (Iandola et al. 2016); keys as in torchvision."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x), inplace=True)
        return F.relu(torch.cat((self.expand1x1(x), self.expand3x3(x)), 1), inplace=True)


class Levelled(nn.Module):
    """Brings each channel to mean 0 and deviation 1 as the first batch has it, and stays so (Kingma and Dhariwal 2018).

    A batch norm here would cost half of the training time: the gradient that a concatenation hands back is a slice.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", torch.zeros(1, channels, 1, 1))
        self.register_buffer("shift", torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not self.scale.any():
            with torch.no_grad():
                spread, mean = torch.std_mean(x.float(), dim=(0, 2, 3), keepdim=True)
                self.scale.copy_(1 / (spread + 1e-3))
                self.shift.copy_(-mean * self.scale)
        return x * self.scale.to(x.dtype) + self.shift.to(x.dtype)


def squeeze_features(channels: int) -> nn.ModuleDict:
    """SqueezeNet 1.1's layers with weights, named as in torchvision; the first is padded, so that sizes halve."""
    return nn.ModuleDict(
        {
            "0": nn.Conv2d(channels, 64, 3, 2, 1),
            "3": Fire(64, 16, 64),
            "4": Fire(128, 16, 64),
            "6": Fire(128, 32, 128),
            "7": Fire(256, 32, 128),
            "9": Fire(256, 48, 192),
            "10": Fire(384, 48, 192),
            "11": Fire(384, 64, 256),
            "12": Fire(512, 64, 256),
        }
    )


class SqueezeUNet(nn.Module):
    """SqueezeNet 1.1's features (padded, so that sizes halve evenly) and one more step down."""

    def __init__(
        self, channels: int, inner: Sequence[int] = (32, 64, 128, 160), *, outputs: int = 1, deepest: int = 256
    ) -> None:
        """``inner``: widths of the decoder, finest first; ``deepest``: of the step below the encoder."""
        super().__init__()
        self.features = squeeze_features(channels)
        # Without batch norm the encoder's features are hundreds large: they would drown the decoder's.
        self.levelled = nn.ModuleList(Levelled(width) for width in (64, 128, 256, 512))
        self.deepest = Residual(512, deepest, stride=2, dropout=0.1)
        self.decoder = Decoder((64, 128, 256, 512, deepest), inner=inner, outputs=outputs)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [F.relu(self.features["0"](x))]
        for group in (("3", "4"), ("6", "7"), ("9", "10", "11", "12")):
            y = F.max_pool2d(features[-1], 3, 2, 1)
            for key in group:
                y = self.features[key](y)
            features.append(y)
        features = [level(each) for level, each in zip(self.levelled, features, strict=True)]
        features.append(self.deepest(features[-1]))
        return cast("list[Tensor]", self.decoder(features))


class SqueezeOutliner(SqueezeUNet):
    """The same for pictures of 0 to 1: brought to the mean and spread that ImageNet's features were learnt with."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return super().forward((x - 0.45) / 0.225)


NETWORKS: dict[str, type[nn.Module]] = {"residual": ResidualUNet, "squeeze": SqueezeUNet}
