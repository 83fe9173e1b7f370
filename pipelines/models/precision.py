"""Whether half precision pays on this machine: measured, not guessed from the name of the processor.

bfloat16 is two to four times faster than single precision where the processor has instructions for it, and twelve times
slower where it has none.
"""

from __future__ import annotations

import time
from functools import cache

import torch

PAYS = 0.9  # of the time of single precision, at most


@cache
def half_pays(device: str = "cpu") -> bool:
    """Whether a convolution is faster in bfloat16; always so on a GPU. Takes some ten milliseconds, once."""
    if not device.startswith("cpu"):
        return True
    net = torch.nn.Conv2d(32, 32, 3, padding=1).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.ones(1, 32, 48, 48).to(memory_format=torch.channels_last)
    seconds = {False: float("inf"), True: float("inf")}
    with torch.inference_mode():
        for turn in range(6):  # the best of three each: the first warms up, and other work may come between
            half, begun = bool(turn % 2), time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                net(x)
            seconds[half] = min(seconds[half], time.perf_counter() - begun)
    return seconds[True] < PAYS * seconds[False]
