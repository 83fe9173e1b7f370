"""The waits of M/M/c queues whose most urgent waiting case is read next and whose readers are not interrupted.

Cobham, Operations Research 2 (1954) 70–76; for several servers Kella and Yechiali, Stochastic Models 1 (1985) 257–262.
Cases come at random (Poisson), reading times are exponential and the same for all classes. Rates are per any one unit
of time, waits in that unit.
"""

from __future__ import annotations

from collections.abc import Sequence


def share_that_waits(load: float, readers: int) -> float:
    """Erlang's C: the chance that all readers are busy when a case comes.

    Args:
        load: Mean number of busy readers, below ``readers``.
    """
    # Erlang's B by its recursion, which neither overflows nor cancels; then C from B.
    blocked = 1.0
    for count in range(1, readers + 1):
        blocked = load * blocked / (count + load * blocked)
    return blocked / (1 - load / readers * (1 - blocked))


def mean_waits(rates: Sequence[float], reading_time: float, readers: int) -> list[float]:
    """The mean wait of each class, the most urgent first.

    Raises:
        ValueError: If the readers cannot keep up: there is no mean then.
    """
    load = sum(rates) * reading_time
    if load >= readers:
        raise ValueError(f"{load:.2f} readers are kept busy, and there are {readers}: the queue grows for ever")
    until_free = share_that_waits(load, readers) * reading_time / readers
    waits, busy = [], 0.0
    for rate in rates:
        before, busy = busy, busy + rate * reading_time / readers
        waits.append(until_free / ((1 - before) * (1 - busy)))
    return waits
