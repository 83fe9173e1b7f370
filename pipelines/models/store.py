"""Weights on disk: safetensors in half precision, never a pickle. It knows names of tensors, not what they are for."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn


class DamagedWeights(ValueError):
    """A weights file is missing, torn, or not the one that its card names."""


def save(net: nn.Module, file: Path, facts: dict[str, str]) -> None:
    """Write float16; ``facts`` go into the file's own header."""
    part = file.with_suffix(".part")
    tensors = {
        # The variance of a batch norm can be beyond 65,504, the largest number of half precision.
        name: (value.half() if value.is_floating_point() and "running" not in name else value).contiguous()
        for name, value in net.state_dict().items()
    }
    save_file(tensors, part, metadata=facts)
    part.replace(file)


def tensors_of(file: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file, in single precision where they are numbers of any.

    Raises:
        DamagedWeights: If the file cannot be read.
    """
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise DamagedWeights(f"the weights {file} cannot be read: {str(error).splitlines()[0]}") from error
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def initialise(net: nn.Module, file: Path) -> frozenset[str]:
    """Copy what fits by name from a file of other weights (an ImageNet encoder); the names that it gave.

    A first convolution of three inputs is spread over ours: T1 before contrast, FLAIR and T1 after contrast are its
    red, green and blue; the other channels start at a tenth of green, so that they disturb little at first.
    """
    given, own = load_file(file), net.state_dict()
    first = file.with_name(file.name.replace("_imagenet", "_conv1_rgb"))
    if first != file and first.exists():
        given |= load_file(first)
    taken = set()
    for name, value in given.items():
        if name not in own:
            continue
        value = value.float()
        if own[name].shape != value.shape and value.dim() == 4 and value.shape[1] == 3 and own[name].shape[1] == 1:
            value = value.sum(1, keepdim=True)  # a grey picture: red, green and blue are one
        elif own[name].shape != value.shape and value.dim() == 4 and value.shape[1] == 3:
            extra = own[name].shape[1] - 3
            value = torch.cat((value, value[:, 1:2].expand(-1, extra, -1, -1) * 0.1), 1)
        if own[name].shape == value.shape:
            own[name].copy_(value)
            taken.add(name)
    return frozenset(taken)
