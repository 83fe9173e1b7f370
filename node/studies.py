"""When a study has arrived: quiet time, open associations, the longest wait, counts.

    counted   as many instances as the sender or the PACS announced                     → at once
    short     fewer than announced                                                      → at the end of the longest wait
    released  nobody told how many, and the sender released its association             → after the quiet time
    open      nobody told how many, and an association that sent some of it is open     → after the patient time

A study that settled too early loses nothing: what comes later makes a new revision. Pure functions of numbers; the
ledger keeps the numbers, and the caller has the clock.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds.

    Attributes:
        quiet: Without an instance, after the association was released.
        open: Without an instance, while the association is open: a scanner that reconstructs pauses, but some never
            release.
        longest: From the first instance of a revision, whatever else.
    """

    quiet: float = 3.0
    open: float = 30.0
    longest: float = 900.0

    def __post_init__(self) -> None:
        if self.quiet < 0 or self.longest <= 0:
            raise ValueError(f"quiet is {self.quiet} and longest {self.longest}; allowed: 0 and above, above 0")
        if self.open < self.quiet:  # a long quiet time was set for a peer: an open line is no reason to wait less
            object.__setattr__(self, "open", self.quiet)


@dataclass(frozen=True)
class Progress:
    """What is known of a study that is receiving; times in seconds since the epoch."""

    opened_at: float  # the first instance of this revision
    last_arrival: float
    arrived: int  # distinct instances, of all revisions
    expected: int | None = None
    open_associations: int = 0
    released_at: float | None = None


def settle_time(progress: Progress, patience: Patience) -> float:
    """When the study may settle, if nothing else happens."""
    latest = progress.opened_at + patience.longest
    match progress.expected:
        case int(expected) if progress.arrived == expected:
            return progress.last_arrival
        case int(expected) if progress.arrived < expected:
            return latest
    if progress.open_associations:
        return min(after_an_instance(progress.last_arrival, patience), latest)
    quiet_since = max(progress.last_arrival, progress.released_at or 0.0)
    return min(after_release(quiet_since, patience), latest)


def is_due(progress: Progress, patience: Patience, now: float) -> bool:
    return settle_time(progress, patience) <= now


def after_an_instance(now: float, patience: Patience) -> float:
    """``settle_at`` for ``Ledger.record``: the association is still open."""
    return now + patience.open


def after_release(now: float, patience: Patience) -> float:
    """``when`` for ``Ledger.settle_at``: the association is released, or the line is dead."""
    return now + patience.quiet
