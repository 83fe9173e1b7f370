"""Batch norms for features that have none: to learn from scratch with, and folded away when that is done.

MobileNetV2 as it ships, and SqueezeNet, have convolutions alone. From other weights that is well; from random ones the
signal dies on the way, and they hardly begin to learn. With a batch norm behind each convolution they do, and the
network that they are folded into is of the same kind as before, its tensors of the same names and shapes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class Normed(nn.Module):
    """A convolution and a batch norm.

    Attributes:
        is_kept: The first batch sets the norm so that nothing changes by it: what the weights know is not lost.
    """

    is_kept: Tensor

    def __init__(self, conv: nn.Conv2d, *, kept: bool) -> None:
        super().__init__()
        bias = conv.bias
        self.conv, self.norm = conv, nn.BatchNorm2d(conv.out_channels)
        self.conv.bias = None
        if kept and bias is not None:
            self.norm.bias.data.copy_(bias.data)
        self.register_buffer("is_kept", torch.tensor(kept))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.training and self.is_kept:
            self._set(x.detach().float())
        return self.norm(x)  # type: ignore[no-any-return]

    @torch.no_grad()
    def _set(self, x: Tensor) -> None:
        spread, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
        self.norm.weight.copy_((spread + self.norm.eps).sqrt())
        self.norm.bias.add_(mean)
        self.norm.running_mean.copy_(mean)  # type: ignore[union-attr]
        self.norm.running_var.copy_(spread)  # type: ignore[union-attr]
        self.is_kept.fill_(False)


def normed(net: nn.Module, *, kept: bool = False) -> nn.Module:
    """The network itself, a batch norm behind each convolution of its ``features`` that has a bias.

    A network without ``features`` has norms of its own here, and stays as it is.

    Args:
        kept: Its weights are worth something; else they are random, and so are its biases forgotten.
    """
    features = getattr(net, "features", nn.Identity())
    for part in list(features.modules()):
        for name, each in part.named_children():
            if isinstance(each, nn.Conv2d) and each.bias is not None:
                setattr(part, name, Normed(each, kept=kept))
    return net


def plain(net: nn.Module) -> nn.Module:
    """The way back of ``normed``: the network itself, in eval mode, that gives the same answers without those norms."""
    net.eval()
    for part in list(net.modules()):
        for name, each in part.named_children():
            if isinstance(each, Normed):
                setattr(part, name, fuse_conv_bn_eval(each.conv, each.norm))
    return net
