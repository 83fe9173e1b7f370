"""Whether the peers answer: asked in the background, so that a page never waits for one that is off."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from node.web.site import Place

ASK_SECONDS = 30.0


@dataclass(frozen=True)
class Heard:
    """``fault``: None if the peer answered; ``at``: when it was asked, in seconds since the epoch."""

    fault: str | None
    at: float


class Watch:
    """A thread per peer, since one that hangs must not keep the others from being asked."""

    def __init__(self, places: Sequence[Place], *, every: float = ASK_SECONDS) -> None:
        self._heard: dict[str, Heard] = {}
        self._every, self._stop = every, threading.Event()
        for place in places:
            threading.Thread(target=self._ask, args=(place,), name=f"watch {place.name}", daemon=True).start()

    def heard(self, name: str) -> Heard | None:
        """What the peer last said; None: it was not asked yet."""
        return self._heard.get(name)

    def close(self) -> None:
        self._stop.set()

    def _ask(self, place: Place) -> None:
        while not self._stop.is_set():
            try:
                fault = place.probe()
            except Exception as error:  # whatever a peer makes of a question is the answer to it
                fault = f"{type(error).__name__}: {error}"
            self._heard[place.name] = Heard(fault, time.time())
            self._stop.wait(self._every)
