"""Weights on disk: safetensors in half precision or eight bits, never a pickle.

It knows names of tensors, not what they are for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from pipelines.models.eighths import restored
from pipelines.models.foreign import Origin, as_ours, checkpoint, refuse_strangers


class DamagedWeights(ValueError):
    """A weights file is missing, torn, or not the one that its card names."""


def save(net: nn.Module, file: Path, facts: dict[str, str]) -> None:
    """Write float16; ``facts`` go into the file's own header."""
    save_tensors(net.state_dict(), file, facts)


def save_tensors(tensors: Mapping[str, torch.Tensor], file: Path, facts: dict[str, str]) -> None:
    """As ``save``, some of a network's tensors."""
    part = file.with_suffix(".part")
    halves = {
        # The variance of a batch norm can be beyond 65,504, the largest number of half precision.
        name: (value.half() if value.is_floating_point() and "running" not in name else value).contiguous().cpu()
        for name, value in tensors.items()
    }
    save_file(halves, part, metadata=facts)
    part.replace(file)


def tensors_of(file: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file, in single precision where they are numbers of any.

    Raises:
        DamagedWeights: If the file cannot be read.
    """
    try:
        tensors = restored(load_file(file))
    except KeyError as error:
        raise DamagedWeights(f"the weights {file} lack {error}") from error
    except (OSError, SafetensorError) as error:
        raise DamagedWeights(f"the weights {file} cannot be read: {str(error).splitlines()[0]}") from error
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def initialise(net: nn.Module, given: Path | str) -> frozenset[str]:
    """Copy what fits by name and shape from other weights, as an ImageNet encoder; the names that they gave.

    A first convolution of three inputs is spread over ours: T1 before contrast, FLAIR and T1 after contrast are its
    red, green and blue; the other channels start at a tenth of green, so that they disturb little at first.

    Args:
        given: A checkpoint file, or ``FILE@sha256``.

    Raises:
        RefusedWeights: If it is not safe to read, not the file that was meant, or hardly fits.
    """
    origin, own = Origin.parse(str(given)), net.state_dict()
    theirs = as_ours(checkpoint(origin), own)
    first = origin.file.with_name(origin.file.name.replace("_imagenet", "_conv1_rgb"))
    if first != origin.file and first.exists():
        theirs |= load_file(first)
    fitted = {name: _fitted(value, own[name].shape) for name, value in theirs.items() if name in own}
    taken = frozenset(name for name, value in fitted.items() if value.shape == own[name].shape)
    refuse_strangers(own, taken, theirs, origin.file)
    for name in taken:
        own[name].copy_(fitted[name])
    return taken


def _fitted(value: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A convolution of red, green and blue for another number of channels; all else as it is."""
    value = value.float() if value.is_floating_point() else value
    if value.shape == shape or value.dim() != 4 or value.shape[1] != 3 or len(shape) != 4:
        return value
    if shape[1] == 1:
        return value.sum(1, keepdim=True)  # a grey picture: red, green and blue are one
    return torch.cat((value, value[:, 1:2].expand(-1, shape[1] - 3, -1, -1) * 0.1), 1) if shape[1] > 3 else value
