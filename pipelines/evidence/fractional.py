"""What a FRACTIONAL Segmentation holds: probabilities where the pipeline has them, else all or nothing.

An object has one Segmentation Fractional Type (0062,0010), so the two go into objects of their own. Each segment says
of its probabilities above which it is outlined, to people and, in Algorithm Parameters (0066,0032), to programs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pipelines.base import Segment
from pipelines.evidence.errors import InvalidEvidence
from pipelines.instance import items, text
from pipelines.probability import STEPS, last_below

PROBABILITY, OCCUPANCY = "PROBABILITY", "OCCUPANCY"  # (0062,0010)
_THRESHOLD = re.compile(r"^threshold=([0-9.e+-]+)$", re.MULTILINE)


def by_type(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Those that have probabilities, then those that have none; of neither an empty list."""
    for is_known in (True, False):
        if alike := [each for each in segments if (each.probability is not None) == is_known]:
            yield alike


def refuse_contradicting(segment: Segment) -> None:
    """Above its threshold the probability is the mask, or whoever draws the line there sees something else.

    Raises:
        InvalidEvidence: If it is not.
    """
    if segment.probability is None:
        return
    below = last_below(segment.probability.threshold)
    for steps, mask in zip(segment.probability.steps, segment.mask, strict=True):
        if not np.array_equal(steps > below, mask):
            raise InvalidEvidence(f"the probability of {segment.label!r} is not above its threshold where its mask is")


def described(descriptions: Sequence[Dataset], segments: Sequence[Segment]) -> list[NDArray[Any]]:
    """Put into the items of the Segment Sequence what their fractions are, and give these: steps, or the mask."""
    for description, segment in zip(descriptions, segments, strict=True):
        if segment.probability is None:
            description.SegmentDescription = "all or nothing: of these pixels no probability is known"
            continue
        threshold = float(segment.probability.threshold)
        description.SegmentDescription = f"probability by the networks; outlined is what is above {threshold:g}"
        algorithm = description.SegmentationAlgorithmIdentificationSequence[0]
        algorithm.AlgorithmParameters = f"threshold={threshold!r}"
    return [segment.mask if segment.probability is None else segment.probability.steps for segment in segments]


def type_of(descriptions: Sequence[Dataset]) -> str:
    """Segmentation Fractional Type, by what the segments say."""
    return OCCUPANCY if any(threshold_of(each) is None for each in descriptions) else PROBABILITY


def shares(steps: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """(frames, rows, columns, segments) of 0 to 1, as highdicom wants probabilities."""
    return np.divide(np.stack(steps, axis=-1), STEPS, dtype=np.float32)


def threshold_of(description: Dataset) -> float | None:
    """What an item of the Segment Sequence says that it is outlined above, 0 to 1; None: nothing."""
    for algorithm in items(description, "SegmentationAlgorithmIdentificationSequence"):
        if found := _THRESHOLD.search(text(algorithm, "AlgorithmParameters")):
            return float(found[1])
    return None
