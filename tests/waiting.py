"""Waiting for what is to come true, on a machine that may have much else to do: never for a time, always for a fact."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil

PATIENCE = 120.0  # seconds: far more than anything here takes, and less than pytest allows a test


def until(true: Callable[[], Any], seconds: float = PATIENCE, what: str = "") -> Any:
    """The first truthy answer; fails after ``seconds``."""
    end = time.monotonic() + seconds
    while not (answer := true()):
        assert time.monotonic() < end, f"not so within {seconds:.0f} s: {what}"
        time.sleep(0.05)
    return answer


def has_ended(process: int | psutil.Process) -> bool:
    """Whether a process has ended, also one that nobody has reaped."""
    try:
        known = psutil.Process(process) if isinstance(process, int) else process
        return not known.is_running() or known.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return True
