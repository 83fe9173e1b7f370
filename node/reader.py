"""The worker's reader: asks the child for readings and reports, and knows which pipelines are well.

What does not fit on the GPU is read once more on the CPU; a pipeline that cannot be loaded is disabled and tried again
every minute. It knows neither jobs nor the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pydicom.sr.coding import Code

from node import log
from node.errors import NodeError
from node.outcome import complaint, is_no_room, is_out_of_memory
from node.warm import Child, Limits, PipelineFault, StudyFault, TookTooMuch
from pipelines.base import Algorithm
from pipelines.passing import may_pass

LOAD_AGAIN_SECONDS = 60.0
AWAY_SECONDS = 4 * 3600.0  # what cannot be read now is waited for, and then given up

_events = log.get("analysis")
Ask = dict[str, Any]
Wanted = Callable[[], bool]


class NoRoom(NodeError):
    """The disk is full."""


class Away(NodeError):
    """The study's files, or those of the pipeline, cannot be read now."""


class Reader:
    """One lasting child, and what became of the pipelines in it. To be called from one thread.

    Args:
        seconds: The limit of one reading, or of one report.
    """

    def __init__(self, limits: Limits, *, seconds: float) -> None:
        self._child = Child(limits)
        self._seconds = seconds
        self._about: dict[str, dict[str, Any]] = {}  # pipelines that were loaded: what they say of themselves
        self._disabled: dict[str, tuple[str, float]] = {}  # pipelines that cannot be loaded: why, and when to retry

    @property
    def pid(self) -> int | None:
        return self._child.pid

    def close(self) -> None:
        self._child.close()

    def warm(self, use: str) -> None:
        """Load the pipeline; one that cannot be loaded is said, and its jobs wait."""
        begun = time.monotonic()
        if self.is_well(use):
            _events.info(
                "warm", pipeline=use, seconds=round(time.monotonic() - begun, 3), device=self._child.limits.device,
                precision=self._about[use]["precision"],
            )  # fmt: skip

    def is_well(self, use: str) -> bool:
        """Whether the pipeline is loaded or can be; one that could not is tried again every minute."""
        if use in self._disabled and time.monotonic() < self._disabled[use][1]:
            return False
        try:
            self._about[use] = self._child.load(use)
        except PipelineFault as fault:
            self.disable(use, str(fault))
            return False
        if self._disabled.pop(use, None):
            _events.info("the pipeline can be loaded again", pipeline=use)
        return True

    @property
    def disabled(self) -> frozenset[str]:
        """``use`` of the pipelines that could not be loaded, and are not to be tried again yet."""
        return frozenset(use for use, (_, until) in self._disabled.items() if time.monotonic() < until)

    def why_not(self, use: str) -> str:
        """Why the pipeline is not well."""
        return self._disabled[use][0]

    def disable(self, use: str, reason: str) -> None:
        if use not in self._disabled:
            _events.error("a pipeline is disabled; its jobs wait", pipeline=use, reason=reason)
        self._disabled[use] = (reason, time.monotonic() + LOAD_AGAIN_SECONDS)

    def compares(self, use: str) -> bool:
        """Whether the pipeline, if it was loaded, says what changed since an earlier study."""
        return bool(self._about.get(use, {}).get("compares"))

    def device(self, use: str) -> str:
        """The Device UID of the pipeline, which is loaded: retraining changes it."""
        said = self._about[use]["algorithm"]
        algorithm = Algorithm(**said | {"family": Code(*said["family"])})
        return algorithm.device_uid

    def read(self, ask: Ask, wanted: Wanted) -> dict[str, Any]:
        """The runs of a reading, as child.py answers.

        Args:
            wanted: Is asked several times a second whether to go on, also while the pipeline loads.

        Raises:
            Away, NoRoom, PipelineFault, StudyFault, ChildFault: One sentence each.
        """
        try:
            reply = self._child.read(ask, seconds=self._seconds, wanted=wanted)
        except StudyFault as fault:
            if may_pass(str(fault)):
                raise Away(f"the study cannot be read now: {fault}") from fault
            raise
        if complaint(reply, is_out_of_memory) and self._child.limits.device != "cpu":
            _events.warning("no room on the GPU: once more on the CPU", device=self._child.limits.device)
            self._child.close()  # what a failed allocation leaves of the GPU's memory is in pieces
            slow = Child(replace(self._child.limits, device="cpu"))
            try:
                reply = slow.read(ask, seconds=self._seconds, wanted=wanted)
            finally:
                slow.close()
        refused = next(filter(may_pass, reply["refused"]), None)
        if why := refused or complaint(reply, may_pass):
            raise Away(f"the study cannot be read now: {why}")
        if why := complaint(reply, is_no_room):
            raise NoRoom(f"the evidence of {ask['name']} could not be written: {why}")
        if why := complaint(reply, is_out_of_memory):
            self._child.close()
            limit = self._child.limits.memory_bytes / 2**30
            raise TookTooMuch(f"it needs more memory than the limit of {limit:.3g} GiB ({why})")
        return reply

    def report(self, ask: Ask, reason: str, wanted: Wanted) -> dict[str, Any]:
        """A report that says why the study is not read, by a child in which the pipeline need not be loaded.

        Raises:
            StudyFault, ChildFault: One sentence each.
        """
        about = {"reason": reason, "algorithm": self._about[ask["use"]]["algorithm"]}
        return self._child.report(ask | about, seconds=self._seconds, wanted=wanted)
