"""Several series on one grid, and that grid turned so that rows run to the left and columns to the back of the patient.

Geometry only: it reads no tags of acquisition and knows no network. Axes are (frames, rows, columns), mm are LPS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.geometry import SAME_POSITION, heights
from pipelines.study import Series

_Pixel = TypeVar("_Pixel", np.float32, np.bool_)
EDGE = 0.5  # of a pixel or slice: so far a picture reaches beyond the centres of its outermost ones


@dataclass(frozen=True)
class Turn:
    """How to come from a series' own axes to (foot to head, front to back, right to left), and back."""

    order: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]  # of the turned axes

    def there(self, volume: NDArray[_Pixel]) -> NDArray[_Pixel]:
        turned: NDArray[_Pixel] = np.flip(volume.transpose(self.order), self._flips)
        return turned

    def back(self, volume: NDArray[_Pixel]) -> NDArray[_Pixel]:
        own: NDArray[_Pixel] = np.flip(volume, self._flips)
        turned: NDArray[_Pixel] = own.transpose([int(place) for place in np.argsort(self.order)])
        return turned

    @property
    def _flips(self) -> tuple[int, ...]:
        return tuple(axis for axis in range(3) if self.flipped[axis])


def turn_of(series: Series) -> Turn:
    """The turn for a series whose planes are known; each axis goes to the nearest of the patient's."""
    assert series.planes is not None
    row, column = np.array(series.planes[0].orientation).reshape(2, 3)
    axes = np.stack([series.planes[0].normal, column, row])  # directions of frames, rows, columns
    remaining, order, flipped = {0, 1, 2}, [], []
    for patient_axis in (2, 1, 0):  # head, posterior, left
        own = max(remaining, key=lambda axis: abs(axes[axis, patient_axis]))
        remaining.discard(own)
        order.append(own)
        flipped.append(bool(axes[own, patient_axis] < 0))
    return Turn((order[0], order[1], order[2]), (flipped[0], flipped[1], flipped[2]))


def onto(series: Series, target: Series) -> tuple[NDArray[np.float32], NDArray[np.bool_]] | None:
    """``series`` on the grid of ``target``, and where it reaches; None where geometry does not tell how.

    Slices at the same places are taken as they are; an even grid is interpolated linearly. Beyond its reach it is 0.
    """
    if not series.planes or not target.planes:
        return None
    volume = series.volume()
    same = _same_slices(series, target)
    if same is not None and volume.shape[1:] == (target.header.Rows, target.header.Columns):
        taken = np.stack([np.zeros(volume.shape[1:], np.float32) if place < 0 else volume[place] for place in same])
        reached = np.array([place >= 0 for place in same])[:, None, None]
        return taken, np.broadcast_to(reached, taken.shape)
    to_mm = series.affine
    if to_mm is None or target.spacing is None:
        return None
    from_mm = np.linalg.inv(to_mm)
    _, between_rows, between_columns = target.spacing
    rows, columns = np.mgrid[: int(target.header.Rows), : int(target.header.Columns)].astype(np.float64)
    out = np.empty((len(target.planes), *rows.shape), np.float32)
    covered = np.empty(out.shape, bool)
    last = np.array(volume.shape)[:, None, None] - 1.0
    for place, plane in enumerate(target.planes):
        along_row, along_column = np.array(plane.orientation).reshape(2, 3)
        mm = (
            np.array(plane.position)[:, None, None]
            + along_column[:, None, None] * rows * between_rows
            + along_row[:, None, None] * columns * between_columns
        )
        index = np.tensordot(from_mm[:3, :3], mm, 1) + from_mm[:3, 3][:, None, None]
        covered[place] = ((index >= -EDGE) & (index <= last + EDGE)).all(axis=0)
        ndimage.map_coordinates(volume, np.clip(index, 0.0, last), output=out[place], order=1, mode="nearest")
    out[~covered] = 0.0
    return out, covered


def shown_on(mask: NDArray[np.bool_], drawn_on: Series, series: Series) -> NDArray[np.intp] | None:
    """How many voxels of a mask lie in each frame of another series, whatever the two orientations.

    A voxel lies in the nearest frame, where that is at most half of the usual distance between frames away. Both need
    planes and a spacing; None where they do not say that they share a frame of reference.
    """
    assert drawn_on.planes is not None
    assert series.planes is not None
    if not series.frame_of_reference or series.frame_of_reference != drawn_on.frame_of_reference:
        return None
    assert drawn_on.spacing is not None
    assert series.spacing is not None
    frames, rows, columns = np.nonzero(mask)
    normal = series.planes[0].normal
    along_row, along_column = np.array(drawn_on.planes[0].orientation).reshape(2, 3) @ normal
    first = np.array([plane.position for plane in drawn_on.planes]) @ normal  # of each frame's first pixel
    _, between_rows, between_columns = drawn_on.spacing
    height = first[frames] + rows * between_rows * along_column + columns * between_columns * along_row
    places = heights(series.planes)  # rising
    right = np.clip(np.searchsorted(places, height), 1, len(places) - 1)
    nearest = np.where(height - places[right - 1] <= places[right] - height, right - 1, right)
    inside = np.abs(places[nearest] - height) <= EDGE * series.spacing[0] + SAME_POSITION
    return np.bincount(nearest[inside], minlength=len(places))


def _same_slices(series: Series, target: Series) -> list[int] | None:
    """Per slice of ``target`` the one of ``series`` at the same place, -1 for none; None if the grids differ."""
    assert series.planes is not None
    assert target.planes is not None
    if series.planes[0].orientation != target.planes[0].orientation or series.spacing is None or target.spacing is None:
        return None
    if series.spacing[1:] != target.spacing[1:]:
        return None
    places = np.array([plane.position for plane in series.planes])
    found = []
    for plane in target.planes:
        away = np.abs(places - np.array(plane.position)).max(axis=1)
        found.append(int(away.argmin()) if away.min() < 0.1 else -1)
    return found if sum(place >= 0 for place in found) >= 0.5 * len(found) else None
