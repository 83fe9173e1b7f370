"""Batch norms folded into the convolutions before them: the same answers, a pass over the features less for each.

Only of networks that learn no more: a folded network has no statistics to go on with.
"""

from __future__ import annotations

import itertools

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)


def folded(net: nn.Module) -> nn.Module:
    """The network itself, in eval mode, its batch norms gone where a convolution stands before them in a sequence."""
    net.eval()
    for part in [each for each in net.modules() if isinstance(each, nn.Sequential)]:
        for before, after in itertools.pairwise(list(part._modules)):
            first, second = part._modules[before], part._modules[after]
            if isinstance(first, _CONVOLUTIONS) and isinstance(second, _NORMS):
                part._modules[before] = fuse_conv_bn_eval(first, second)
                part._modules[after] = nn.Identity()
    return net


def laid_out(net: nn.Module) -> nn.Module:
    """The network with its weights as a processor reads them best: the channels of a pixel, or voxel, side by side."""
    is_flat = all(weight.dim() != 5 for weight in net.parameters())
    return net.to(memory_format=torch.channels_last if is_flat else torch.channels_last_3d)  # type: ignore[call-overload,no-any-return]
