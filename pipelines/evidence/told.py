"""What a run has to tell: all that an object of evidence is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from pipelines.base import Findings
from pipelines.evidence import codes
from pipelines.evidence.stamp import Stamp
from pipelines.evidence.tracking import Track, tracks
from pipelines.series import Series

# status: outcome (CID 6042), a few words
NOT_EVALUATED = {
    "unsuitable": (codes.NOT_ATTEMPTED, "not evaluated"),
    "withheld": (codes.NOT_ATTEMPTED, "withheld"),
    "failed": (codes.FAILED, "failed"),
}


@dataclass(frozen=True)
class NotEvaluated:
    """Why there are no findings.

    Attributes:
        status: "unsuitable", "withheld" or "failed".
        reason: One sentence.
    """

    status: str
    reason: str

    def __post_init__(self) -> None:
        if self.status not in NOT_EVALUATED:
            raise ValueError(f"the status is {self.status!r}, not one of {', '.join(NOT_EVALUATED)}")


@dataclass(frozen=True, eq=False)
class Told:
    """One run of one pipeline over one study.

    Attributes:
        read: The series that were read, the one that masks lie on first; of a study that was not, all its images.
        stamp: What every object carries; ``stamp.uid("pr", 1)`` gives UIDs, ``stamp.put_on(made)`` completes it.
    """

    outcome: Findings | NotEvaluated
    read: tuple[Series, ...]
    stamp: Stamp

    @property
    def findings(self) -> Findings | None:
        """None where there are none to tell of, but a reason."""
        return self.outcome if isinstance(self.outcome, Findings) else None

    @property
    def tracks(self) -> tuple[Track, ...]:
        """One per finding."""
        return tracks(self.outcome.findings, self.stamp.job) if isinstance(self.outcome, Findings) else ()


# The objects of one kind, also none; also of a run without findings. InvalidEvidence if they cannot be made right.
Builder = Callable[[Told], Sequence[Dataset]]
