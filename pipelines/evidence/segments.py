"""The segments of a run on the grid of their series: one for each label, a part of their frames, all in one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.base import Findings, Segment
from pipelines.evidence.errors import InvalidEvidence
from pipelines.evidence.stacks import Stack
from pipelines.evidence.voxels import label_type
from pipelines.instance import number as number_of
from pipelines.probability import Probability
from pipelines.series import Series


def merged(findings: Findings) -> list[Segment]:
    """The segments of the findings, one per label: masks of one label become one."""
    found: dict[str, Segment] = {}
    for segment in (finding.segment for finding in findings.findings if finding.segment):
        before = found.get(segment.label)
        if before is None or before is segment:
            found[segment.label] = segment
        elif before.mask.shape == segment.mask.shape:
            mask, likely = before.mask | segment.mask, _likelier(before.probability, segment.probability)
            found[segment.label] = Segment(segment.label, mask, before.category, before.property_type, likely)
        else:
            raise InvalidEvidence(f"two masks of {segment.label!r} have different shapes")
    return list(found.values())


def _likelier(one: Probability | None, other: Probability | None) -> Probability | None:
    if one is None or other is None or one.threshold != other.threshold:
        return None
    return Probability(np.maximum(one.steps, other.steps), one.threshold)


def refuse_off_grid(segment: Segment, series: Series) -> None:
    grid = (len(series.frames), number_of(series.header, "Rows"), number_of(series.header, "Columns"))
    if segment.mask.shape != grid:
        shape, expected = ("×".join(f"{each:.0f}" for each in sizes if each) for sizes in (segment.mask.shape, grid))
        raise InvalidEvidence(f"the mask of {segment.label!r} is {shape}, but its series is {expected}")


def part(mask: NDArray[Any], stack: Stack) -> NDArray[Any]:
    """The frames of the stack; no copy where these are all."""
    return mask if stack.frames == tuple(range(len(mask))) else mask[list(stack.frames)]


def label_array(masks: Sequence[NDArray[np.bool_]]) -> NDArray[Any]:
    """(frames, rows, columns) of segment numbers, which highdicom encodes fastest; a stack only where they overlap."""
    labels = np.zeros(masks[0].shape, label_type(len(masks)))
    for number, mask in enumerate(masks, start=1):
        frames = np.flatnonzero(mask.any(axis=(1, 2)))
        slab = slice(frames[0], frames[-1] + 1)  # most segments lie in few frames
        if number > 1 and labels[slab][mask[slab]].any():
            return np.stack(masks, axis=-1).view(np.uint8)  # (frames, rows, columns, segments)
        np.copyto(labels[slab], number, where=mask[slab], casting="unsafe")
    return labels
