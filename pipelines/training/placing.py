"""Where tensors lie while a network learns."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import torch
from torch import nn

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # mallopt(3)
_MOST = 2**31 - 1


def keep_freed() -> None:
    """Let the allocator of the C library keep freed blocks, however large, until the process ends; elsewhere nothing.

    Otherwise glibc takes each large block from the kernel and gives it back, and the kernel clears its pages every
    time: a third of a step on a processor.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, _MOST)


def moved(held: Any, device: str) -> Any:
    """Tensors, and tuples of them, to a device."""
    return tuple(moved(each, device) for each in held) if isinstance(held, tuple) else held.to(device)


def device_of(net: nn.Module) -> torch.device:
    """Where the network is, and what it takes must be."""
    return next(net.parameters()).device
