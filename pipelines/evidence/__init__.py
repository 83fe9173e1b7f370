"""Findings to DICOM evidence: reports, outlines, pictures, maps, structures, pages, each checked before it is left.

``write`` is the way in. Reads pixels for pictures alone, runs no network, sends nothing.
"""

from pipelines.evidence import tables
from pipelines.evidence.errors import InvalidEvidence
from pipelines.evidence.outcome import write
from pipelines.evidence.sr import Predecessor
from pipelines.evidence.told import NotEvaluated

__all__ = ["InvalidEvidence", "NotEvaluated", "Predecessor", "write"]

tables.install()
