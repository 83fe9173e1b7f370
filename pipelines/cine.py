"""The frames of a cine by level and phase: which slice through the heart, and when in its cycle.

Looks at headers only, but for ``beside``, which puts each picture between those of the neighbouring levels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipelines import geometry
from pipelines.frames import Frame
from pipelines.series import Series

# When a frame was taken, the surest first: which of the phases (PS3.3 C.8.3.1, C.7.6.16.2.2.4) …
_PHASES = ("TemporalPositionIdentifier", "TemporalPositionIndex")
# … or so many milliseconds after the R wave (PS3.3 C.7.6.18.1, C.7.6.16.2.7)
_TIMES = ("TriggerTime", "NominalCardiacTriggerDelayTime")


@dataclass(frozen=True)
class Place:
    """Where a frame belongs: levels are counted along the slice normal, phases in time, both from 0."""

    level: int
    phase: int


def places(series: Series) -> tuple[Place, ...]:
    """Of each of ``series.frames``. Without geometry every frame is a level of its own."""
    levels = _levels(series)
    return tuple(Place(level, phase) for level, phase in zip(levels, _phases(series.frames, levels), strict=True))


def _levels(series: Series) -> list[int]:
    if series.planes is None:
        return list(range(len(series.frames)))
    heights = np.round(geometry.heights(series.planes) / geometry.SAME_POSITION).astype(int)
    known = sorted(set(heights.tolist()))
    return [known.index(height) for height in heights.tolist()]


def _phases(frames: Sequence[Frame], levels: Sequence[int]) -> list[int]:
    for keyword in _PHASES:
        found = _numbers(frames, keyword)
        if found is not None and len(set(found)) > 1:
            return _ranks(found)
    times = next((found for keyword in _TIMES if (found := _numbers(frames, keyword)) is not None), None)
    counts = Counter(levels)
    if times is not None and len(set(counts.values())) > 1:
        return _ranks(times)
    # Each level has its own heart beats, so its own times: what counts is which frame of the level it is.
    order = times if times is not None else list(range(len(frames)))
    own = {level: sorted(order[i] for i in range(len(frames)) if levels[i] == level) for level in counts}
    return [own[level].index(when) for when, level in zip(order, levels, strict=True)]


def _numbers(frames: Sequence[Frame], keyword: str) -> list[float] | None:
    """None unless every frame says it."""
    found = []
    for frame in frames:
        try:
            found.append(float(frame.get(keyword)))
        except (TypeError, ValueError):
            return None
    return found


def _ranks(values: Sequence[float]) -> list[int]:
    known = sorted(set(values))
    return [known.index(value) for value in values]


def beside(images: torch.Tensor, where: Sequence[Place]) -> torch.Tensor:
    """(frames, 1, rows, columns) → (frames, 3, rows, columns): the level before, the frame itself, the level after.

    Of a neighbouring level the frame nearest in time; where there is none, the frame itself.
    """
    by_level: dict[int, list[int]] = {}
    for index, place in enumerate(where):
        by_level.setdefault(place.level, []).append(index)

    def neighbour(index: int, away: int) -> int:
        place = where[index]
        found = by_level.get(place.level + away, [index])
        return min(found, key=lambda other: abs(where[other].phase - place.phase))

    channels = [images[[neighbour(i, away) for i in range(len(where))]] for away in (-1, 0, 1)]
    return torch.cat(channels, 1)
