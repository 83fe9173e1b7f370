"""Where the frames of a series lie in the patient: order, distances, the affine, and what is wrong with them.

Pure: numbers in, numbers out. Positions are mm in the patient's LPS frame (PS3.3 C.7.6.2.1.1). Where the numbers do
not fit together the answer is None and a sentence, never a guess.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SAME_POSITION = 1e-3  # mm
SAME_DIRECTION = 1e-3  # of a direction cosine; decimal strings carry six digits and scanners round
UNEVEN = 0.1  # of the distance between slices: beyond it, distances are not called equal


@dataclass(frozen=True)
class Plane:
    """Where one frame lies.

    Attributes:
        position: Image Position (Patient): the centre of the first pixel.
        orientation: Image Orientation (Patient): the direction of a row, then of a column.
        spacing: Pixel Spacing: between rows, between columns, in mm.
    """

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, float] | None

    @property
    def is_sound(self) -> bool:
        """Whether the direction cosines are two unit vectors at right angles."""
        row, column = np.array(self.orientation).reshape(2, 3)
        lengths = np.abs(np.linalg.norm([row, column], axis=1) - 1).max()
        return bool(lengths < 0.01 and abs(row @ column) < 0.01)

    @property
    def normal(self) -> NDArray[np.float64]:
        row, column = np.array(self.orientation).reshape(2, 3)
        normal: NDArray[np.float64] = np.cross(row, column)
        return normal / np.linalg.norm(normal)


def is_parallel(planes: Sequence[Plane]) -> bool:
    """Whether all frames have one orientation."""
    directions = np.array([plane.orientation for plane in planes])
    return bool(np.abs(directions - directions[0]).max() < SAME_DIRECTION)


def heights(planes: Sequence[Plane]) -> NDArray[np.float64]:
    """mm along the normal of the first plane, per plane."""
    normal = planes[0].normal
    return np.array([normal @ np.array(plane.position) for plane in planes])


def steps(planes: Sequence[Plane]) -> NDArray[np.float64]:
    """mm between neighbours along the normal; the planes are in order."""
    return np.diff(heights(planes))


def are_distinct(planes: Sequence[Plane]) -> bool:
    """Whether no two planes of an ordered stack lie at one position."""
    return bool((steps(planes) > SAME_POSITION).all())


def is_even(planes: Sequence[Plane]) -> bool:
    """Whether an ordered stack has equal distances and its corners lie on one line."""
    if len(planes) < 3:
        return True
    positions = np.array([plane.position for plane in planes])
    moves = np.diff(positions, axis=0)
    typical = np.median(moves, axis=0)
    return bool(np.abs(moves - typical).max() <= UNEVEN * np.linalg.norm(typical))


def slice_distance(planes: Sequence[Plane]) -> float | None:
    """The usual mm between neighbours along the normal; None for fewer than two positions."""
    apart = sorted(step for step in steps(planes) if step > SAME_POSITION)
    return float(apart[(len(apart) - 1) // 2]) if apart else None  # one of them: the mean of two may be none


def affine(planes: Sequence[Plane], thickness: float | None) -> NDArray[np.float64] | None:
    """(frame, row, column, 1) to mm in LPS, shape (4, 4); None unless the ordered stack is one even grid.

    A tilted gantry makes the step no multiple of the normal; the affine has the shear. One plane alone steps by
    ``thickness`` along its normal.
    """
    first, last, spacing = planes[0], planes[-1], planes[0].spacing
    if spacing is None or not is_even(planes):
        return None
    if len(planes) > 1:
        if not are_distinct(planes):
            return None
        step = (np.array(last.position) - np.array(first.position)) / (len(planes) - 1)
    elif thickness:
        step = first.normal * thickness
    else:
        return None
    row, column = np.array(first.orientation).reshape(2, 3)
    matrix = np.eye(4)
    matrix[:3] = np.stack([step, column * spacing[0], row * spacing[1], np.array(first.position)], axis=1)
    return matrix


def faults(planes: Sequence[Plane], names: Sequence[str]) -> tuple[str, ...]:
    """What is wrong with an ordered stack, in sentences that call the frames by ``names``."""
    distances = steps(planes)
    typical = slice_distance(planes)
    said: list[str] = []
    doubled = int((distances <= SAME_POSITION).sum())
    if doubled and (positions := len(planes) - doubled) > 1:
        said.append(_doubled_sentence(distances, names, positions))
    elif doubled:
        said.append(f"{'both' if len(planes) == 2 else f'all {len(planes)}'} slices lie at one position")
    if typical is None:
        return tuple(said)
    gaps = [i for i, step in enumerate(distances) if step > 1.5 * typical]
    if len(gaps) <= max(3, len(planes) // 10):
        for i in gaps:
            count = round(distances[i] / typical) - 1
            what = "slice missing" if count <= 1 else f"{count} slices missing"
            said.append(f"{what} between {names[i]} and {names[i + 1]}")
    apart = distances[distances > SAME_POSITION]
    usual = apart[apart <= 1.5 * typical] if len(gaps) <= max(3, len(planes) // 10) else apart
    if usual.size and usual.max() - usual.min() > UNEVEN * typical:
        said.append(f"the distance between slices varies from {usual.min():.2f} to {usual.max():.2f} mm")
    elif not gaps and not doubled and not is_even(planes):
        said.append("the slices do not lie on one line")
    return tuple(said)


def _doubled_sentence(distances: NDArray[np.float64], names: Sequence[str], positions: int) -> str:
    pairs = [i for i, step in enumerate(distances) if step <= SAME_POSITION]
    if len(pairs) == 1:
        return f"two slices at one position: {names[pairs[0]]} and {names[pairs[0] + 1]}"
    per_position = Counter(np.cumsum([0, *(distances > SAME_POSITION)]).tolist())
    counts = sorted(set(per_position.values()))
    if len(counts) == 1:
        return f"{counts[0]} slices at each of {positions} positions"
    return f"up to {counts[-1]} slices at one position, {len(names)} slices at {positions} positions"
