"""Findings to DICOM evidence: Segmentations and a Measurement Report for every run, checked before they are left.

``write`` is the way in. Reads no pixels, runs no network, sends nothing.
"""

from pipelines.evidence.errors import InvalidEvidence
from pipelines.evidence.outcome import write
from pipelines.evidence.sr import Predecessor
from pipelines.evidence.told import NotEvaluated

__all__ = ["InvalidEvidence", "NotEvaluated", "Predecessor", "write"]
