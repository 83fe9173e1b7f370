"""Lanes: at most one delivery per destination is under way, so that a slow destination holds up itself alone."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterator


class Lanes:
    """One thread per destination at a time: who comes second leaves its number and is free again.

    What was left is done by its priority, 0 the most urgent, and then by its number.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, list[tuple[int, int]]] = {}  # a destination that is in here is being served

    def through(self, destination: str, number: int, priority: int) -> Iterator[int]:
        """The numbers to do now, in this thread: none if another thread serves the destination already."""
        with self._lock:
            if destination in self._waiting:
                if (priority, number) not in self._waiting[destination]:
                    heapq.heappush(self._waiting[destination], (priority, number))
                return
            self._waiting[destination] = []
        try:
            yield number
            while (following := self._next(destination)) is not None:
                yield following
        except BaseException:
            with self._lock:
                self._waiting.pop(destination, None)  # the clock rings again for what was left
            raise

    def _next(self, destination: str) -> int | None:
        with self._lock:
            if self._waiting[destination]:
                return heapq.heappop(self._waiting[destination])[1]
            del self._waiting[destination]
            return None
