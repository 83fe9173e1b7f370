"""A reading room, case by case: who is read when, if what was flagged is read first. Arrays in, arrays out.

Readers are not interrupted, and nobody is idle while a case waits. A flag counts from when it is known: a case that a
reader has begun by then keeps its place.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]


def waits(arrivals: Times, reading: Times, readers: int, *, flagged_at: Times | None = None) -> Times:
    """How long each case waits for its reader, in the unit of the arrivals.

    Args:
        arrivals: Shape (cases,), ascending.
        reading: How long each is read.
        flagged_at: When the flag of each is known, never before its arrival; infinite where it has none. None: nothing
            is flagged, and all are read in the order of arrival.
    """
    count = len(arrivals)
    came, takes = arrivals.tolist(), reading.tolist()
    known = [float("inf")] * count if flagged_at is None else np.maximum(flagged_at, arrivals).tolist()
    flags = sorted((time, case) for case, time in enumerate(known) if time < float("inf"))
    begun = [-1.0] * count
    free = [float("-inf")] * readers
    urgent: list[int] = []  # flagged and known, the oldest first
    flag = oldest = 0
    for _ in range(count):
        while begun[oldest] >= 0:
            oldest += 1
        now = max(heapq.heappop(free), came[oldest])
        while flag < len(flags) and flags[flag][0] <= now:
            heapq.heappush(urgent, flags[flag][1])
            flag += 1
        while urgent and begun[urgent[0]] >= 0:
            heapq.heappop(urgent)
        case = heapq.heappop(urgent) if urgent else oldest
        begun[case] = now
        heapq.heappush(free, now + takes[case])
    return np.asarray(begun) - arrivals
