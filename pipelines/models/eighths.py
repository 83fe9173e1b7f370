"""Weights in eight bits on disk: half of half precision, so that twice as many networks ship in the same space.

Of each weight of a convolution or linear layer every output channel has a scale of its own (Krishnamoorthi 2018,
arXiv:1806.08342, 3.1.2); in memory they are single precision again, so nothing but the rounding of the weights is lost.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCALE = ".scale"  # behind the name of the weight that it belongs to
_FEWEST = 1024  # numbers; smaller weights save nothing worth their rounding
_STEPS = 127


def rounded(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Large weights as int8, and their scales (channels,) beside them; everything else as it is."""
    out = dict(tensors)
    for name, value in tensors.items():
        if not value.is_floating_point() or value.dim() < 2 or value.numel() < _FEWEST:
            continue
        rows = value.float().flatten(1)
        scale = rows.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / _STEPS
        out[name] = (rows / scale[:, None]).round().to(torch.int8).reshape(value.shape)
        out[name + SCALE] = scale
    return out


def restored(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What ``rounded`` made of them, in single precision and without the scales."""
    scales = {name: tensors[name + SCALE] for name, value in tensors.items() if value.dtype == torch.int8}
    return {
        name: value.float() * scales[name].float().reshape(-1, *[1] * (value.dim() - 1)) if name in scales else value
        for name, value in tensors.items()
        if name.removesuffix(SCALE) not in scales or name in scales
    }
