"""From the area of a ventricle on each frame of a cine to its volumes and its ejection fraction. Numbers alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines import geometry
from pipelines.cine import Place
from pipelines.series import Series

UNEVEN = 1.5  # times the usual distance between levels: there is room for another


@dataclass(frozen=True)
class Beat:
    """The two ends of a heart beat.

    Attributes:
        diastole, systole: Phases, as in ``Place``.
        levels: Those with a frame at both.
    """

    diastole: int
    systole: int
    levels: tuple[int, ...]


def beat(areas: NDArray[np.float64], where: Sequence[Place]) -> Beat | None:
    """End-diastole is the phase of the largest sum of areas, end-systole that of the smallest.

    Phases are compared on the levels that all of them have; a phase with frames on fewer than half of the levels that
    the fullest one has is no candidate. None where no two phases can be compared, or nothing was outlined on them.
    """
    known: dict[int, set[int]] = {}
    for place in where:
        known.setdefault(place.phase, set()).add(place.level)
    most = max(map(len, known.values()))
    candidates = [phase for phase, levels in known.items() if 2 * len(levels) >= most]
    common = set.intersection(*(known[phase] for phase in candidates))
    if len(candidates) < 2 or not common:
        return None
    sums = {phase: volume(areas, where, sorted(common), phase) for phase in sorted(candidates)}
    diastole, systole = max(sums, key=lambda each: sums[each]), min(sums, key=lambda each: sums[each])
    if sums[diastole] == sums[systole]:
        return None
    return Beat(diastole, systole, tuple(sorted(known[diastole] & known[systole])))


def volume(areas: NDArray[np.float64], where: Sequence[Place], levels: Sequence[int], phase: int) -> float:
    """Sum of the areas of a phase over levels: times their distance, a volume (the sum of discs)."""
    return float(
        sum(area for area, place in zip(areas, where, strict=True) if place.phase == phase and place.level in levels)
    )


def ejection_fraction(found: Beat, areas: NDArray[np.float64], where: Sequence[Place]) -> float | None:
    """Share of the end-diastolic volume that is pumped out; None where there was none."""
    full, empty = (volume(areas, where, found.levels, phase) for phase in (found.diastole, found.systole))
    return (full - empty) / full if full > 0 else None


def level_gaps(series: Series) -> str | None:
    """A sentence where levels are missing in between; None where they are not, or nobody says where they lie."""
    if series.planes is None:
        return "the frames do not say where they lie, so levels are not known and there are no volumes"
    apart = geometry.steps(series.planes)
    between = apart[apart > geometry.SAME_POSITION]
    usual = geometry.slice_distance(series.planes)
    if usual is None or not (between > UNEVEN * usual).any():
        return None
    return (
        f"{int((between > UNEVEN * usual).sum())} gaps between levels are wider than usual: volumes are too small there"
    )
