"""Sessions of the dashboard, and how often somebody may ask: both in the memory of the web process.

A restart signs everybody out. A session ends when it was idle for too long, or after a working day.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from node.accounts import Role

LONGEST_SECONDS = 12 * 3600.0
MOST_SESSIONS = 10_000
MOST_ADDRESSES = 10_000


@dataclass
class Session:
    """Somebody who is signed in.

    Attributes:
        role: Of somebody for whom an identity provider vouches, for as long as the session lasts; None: the account's.
        csrf: Stands in each of the forms that are made for it.
        said: What was done, to be shown once on the next page.
    """

    user: str
    began: float  # of time.monotonic, as ``seen``
    seen: float
    role: Role | None = None
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    said: list[str] = field(default_factory=list)


class Sessions:
    def __init__(self, *, idle_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._idle, self._clock = idle_seconds, clock
        self._held: OrderedDict[str, Session] = OrderedDict()  # the longest unseen first
        self._lock = threading.Lock()

    def begin(self, user: str, role: Role | None = None) -> tuple[str, Session]:
        """A new session and the number that its cookie holds: never one that the browser came with."""
        number, now = secrets.token_urlsafe(32), self._clock()
        with self._lock:
            self._held[number] = Session(user, now, now, role)
            while len(self._held) > MOST_SESSIONS:
                self._held.popitem(last=False)
            return number, self._held[number]

    def get(self, number: str, *, is_live: bool = False) -> Session | None:
        """
        Args:
            is_live: The page asks by itself, without a person: that keeps no session awake.
        """
        now = self._clock()
        with self._lock:
            session = self._held.get(number)
            if session is None:
                return None
            if now - session.seen > self._idle or now - session.began > LONGEST_SECONDS:
                del self._held[number]
                return None
            if not is_live:
                session.seen = now
                self._held.move_to_end(number)
            return session

    def end(self, number: str) -> None:
        with self._lock:
            self._held.pop(number, None)


class Allowance:
    """So many at once, and so many a second from then on, per key (a token bucket)."""

    def __init__(self, *, at_once: float, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._rate, self._clock = at_once, per_second, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key: what is left, and when that was so
        self._lock = threading.Lock()

    def take(self, key: str) -> float:
        """Take one: 0.0, or the seconds after which there is one again."""
        now = self._clock()
        with self._lock:
            left, since = self._left.get(key, (self._most, now))
            left = min(self._most, left + (now - since) * self._rate)
            wait = 0.0 if left >= 1 else (1 - left) / self._rate
            self._left[key] = (left if wait else left - 1, now)
            self._left.move_to_end(key)
            if len(self._left) > MOST_ADDRESSES:
                self._left.popitem(last=False)
            return wait
