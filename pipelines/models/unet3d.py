"""A residual U-Net in three dimensions for small volumes: volumes in, logits out, at the resolution of the voxels.

Takes (N, 1, frames, rows, columns) with every size divisible by 8 and gives (N, labels, frames, rows, columns); in
training mode coarser logits follow (deep supervision). Where weights come from is not known here: see ``store``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEP = 8  # every size must be divisible by it: three times halved


def conv(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm3d(outputs),
        nn.LeakyReLU(0.01, inplace=True),
    )


class Residual(nn.Module):
    """Two convolutions and a way past them (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.first = conv(inputs, outputs, stride=stride)
        self.second = nn.Sequential(nn.Conv3d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm3d(outputs))
        self.past: nn.Module = nn.Identity()
        if inputs != outputs or stride != 1:
            self.past = nn.Sequential(nn.Conv3d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm3d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.second(self.first(x)) + self.past(x), 0.01, inplace=True)


class ResidualUNet3D(nn.Module):
    """Ronneberger et al. 2015 in three dimensions: residual blocks on the way down, convolutions on the way up.

    On the voxels' own grid there are few channels and two convolutions, the rest is half as fine: half of the time.
    """

    def __init__(self, labels: int, widths: tuple[int, ...] = (32, 64, 128), fine: tuple[int, int] = (8, 12)) -> None:
        """``widths`` from the grid of half the resolution down; ``fine``: channels at full resolution, in and out."""
        super().__init__()
        self.fine = conv(1, fine[0])
        self.stem = nn.Sequential(conv(fine[0], widths[0], stride=2), Residual(widths[0], widths[0]))
        self.down = nn.ModuleList(Residual(a, b, stride=2) for a, b in itertools.pairwise(widths))
        # Narrowed while it is coarse: an eighth of the work of doing so afterwards.
        self.narrow = nn.ModuleList(nn.Conv3d(b, a, 1, bias=False) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(nn.Sequential(conv(2 * a, a), conv(a, a)) for a in widths[:-1])
        self.last = nn.Conv3d(widths[0], fine[1], 1, bias=False)
        self.join = conv(sum(fine), fine[1])
        self.heads = nn.ModuleList(nn.Conv3d(width, labels, 1) for width in (fine[1], *widths[:-1]))

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.fine(x)
        features = [self.stem(fine)]
        for step in self.down:
            features.append(step(features[-1]))
        x, logits = features[-1], []
        for level in reversed(range(len(self.up))):
            x = self.up[level](torch.cat((features[level], twice(self.narrow[level](x))), 1))
            if self.training:
                logits.append(self.heads[level + 1](x))
        x = self.join(torch.cat((fine, twice(self.last(x))), 1))
        return [self.heads[0](x), *reversed(logits)]


def twice(x: Tensor) -> Tensor:
    """On the grid that is twice as fine, trilinear: by a matrix per axis, four times as fast as ``F.interpolate``."""
    frames, rows, columns = (_finer(size, x) for size in x.shape[2:])
    y = x.permute(0, 2, 3, 4, 1)  # as it lies in memory: the channels of a voxel side by side
    count, size, *others = y.shape
    y = columns @ y.flatten(0, 2)
    y = rows @ y.reshape(count * size, others[0], -1)
    y = frames @ y.reshape(count, size, -1)
    return y.reshape(count, 2 * size, 2 * others[0], 2 * others[1], -1).permute(0, 4, 1, 2, 3)


def _finer(size: int, like: Tensor) -> Tensor:
    """(2 × size, size): what each point of the finer grid takes of those of the coarse one."""
    return F.interpolate(torch.eye(size, device=like.device)[None], scale_factor=2.0, mode="linear")[0].T.to(like.dtype)


def padded(image: Tensor) -> Tensor:
    """(frames, rows, columns) → (1, 1, …) of sizes divisible by ``STEP``; beyond the image its edge repeats."""
    pads = [(-size) % STEP for size in image.shape]
    edges = [edge for pad in reversed(pads) for edge in (pad // 2, pad - pad // 2)]
    return F.pad(image[None, None], edges, mode="replicate")


def unpadded(x: Tensor, shape: Sequence[int]) -> Tensor:
    """The way back of ``padded``: (…, frames, rows, columns) of ``shape``."""
    frames, rows, columns = (slice((-size) % STEP // 2, (-size) % STEP // 2 + size) for size in shape)
    return x[..., frames, rows, columns]


@torch.inference_mode()
def probabilities(net: nn.Module, image: Tensor) -> Tensor:
    """(labels, frames, rows, columns) of one network for an image (frames, rows, columns)."""
    x = padded(image).contiguous(memory_format=torch.channels_last_3d)
    out: Tensor = net(x)[0][0].float().softmax(0)
    return unpadded(out, image.shape)
