"""Asks a PACS in the background how many instances of a study it has, so that a slow one holds up nobody's settling.

It says what the PACS said, and when there is nobody to ask; what a count means for a study is the clock's to decide.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from node import delivery, log
from node.delivery import Destination
from node.errors import NodeError

AT_ONCE = 4  # questions
ANSWER_SECONDS = 5.0
SILENT_SECONDS = 30.0  # for which a PACS that does not answer is not asked again

_events = log.get("counts")
_Ask = Callable[[Destination, str], int | None]


class Pending(Exception):
    """The PACS is being asked; look again in a moment."""


class Counts:
    """How many instances of a study the PACS has that its sender's studies are counted by.

    Args:
        per_caller: Which destination to ask for the studies that an AE title sent first.
    """

    def __init__(self, per_caller: Mapping[str, Destination], *, ask: _Ask = delivery.count) -> None:
        self._per_caller = {
            caller: replace(
                to, connect_seconds=ANSWER_SECONDS, acse_seconds=ANSWER_SECONDS, dimse_seconds=ANSWER_SECONDS
            )
            for caller, to in per_caller.items()
        }
        self._ask = ask
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="counts")
        self._asked: dict[str, Future[int | None]] = {}
        self._silent_until: dict[str, float] = {}  # of time.monotonic, per destination

    def of(self, study_uid: str, caller: str) -> int | None:
        """What the PACS says now; None if it does not know or does not answer, or there is none to ask.

        Raises:
            Pending: While it is being asked.
        """
        destination = self._per_caller.get(caller)
        if destination is None or self._silent_until.get(destination.name, 0.0) > time.monotonic():
            self._asked.pop(study_uid, None)
            return None
        if study_uid not in self._asked:
            self._asked[study_uid] = self._pool.submit(self._ask, destination, study_uid)
        if not self._asked[study_uid].done():
            raise Pending
        try:
            return self._asked.pop(study_uid).result()
        except NodeError as fault:
            self._silent_until[destination.name] = time.monotonic() + SILENT_SECONDS
            _events.warning(
                "it does not tell how many instances there are", destination=destination.name, reason=str(fault)
            )
            return None

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
