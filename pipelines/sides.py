"""On which side of the patient something lies, from patient coordinates: x grows to the left (PS3.3 C.7.6.2.1.1).

The middle is not where x is 0: who reads the images has to find it, as that of a head. Nothing is said of what lies
near it, nor of images that lie nowhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.sr.coding import Code

from pipelines.evidence import codes
from pipelines.series import Series

SHARE = 0.95  # of its voxels that lie on the side that is said
FAR_MM = 10.0  # of its centre from the middle


def side_of(mask: NDArray[np.bool_], series: Series, middle: float | None) -> Code | None:
    """``codes.RIGHT`` or ``codes.LEFT``, or None where neither can be said.

    Args:
        mask: bool, (frames, rows, columns), on the grid of the series.
        middle: x of the patient's middle in mm (LPS), as ``middle_of`` has it of a head.
    """
    x = across(mask, series)
    if middle is None or x is None or not len(x) or abs(float(x.mean()) - middle) < FAR_MM:
        return None
    share = float(np.mean(x > middle))
    return codes.LEFT if share >= SHARE else codes.RIGHT if share <= 1 - SHARE else None


def middle_of(mask: NDArray[np.bool_], series: Series) -> float | None:
    """x, in mm (LPS), of the centre of a part of the body that is alike on both sides; None where it lies nowhere."""
    x = across(mask, series)
    return None if x is None or not len(x) else float(x.mean())


def across(mask: NDArray[np.bool_], series: Series) -> NDArray[np.float64] | None:
    """x of every voxel of a mask in mm (LPS), frame by frame; None where a frame lies nowhere."""
    found = [np.empty(0)]
    for frame in np.flatnonzero(mask.any(axis=(1, 2))).tolist():
        plane = series.frames[frame].plane
        if plane is None or plane.spacing is None:
            return None
        rows, columns = np.nonzero(mask[frame])
        between_rows, between_columns = plane.spacing
        along_row, along_column = plane.orientation[0], plane.orientation[3]
        found.append(plane.position[0] + along_row * columns * between_columns + along_column * rows * between_rows)
    return np.concatenate(found)
