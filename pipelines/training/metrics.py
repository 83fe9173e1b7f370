"""What an outline is worth: overlap, surface, and intervals by patient. Arrays in, numbers out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import rankdata


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Dice of two masks of one shape; 1.0 if both are empty (Maier-Hein et al. 2024)."""
    total = int(one.sum()) + int(other.sum())
    return 1.0 if total == 0 else 2.0 * int((one & other).sum()) / total


def hausdorff95(one: NDArray[np.bool_], other: NDArray[np.bool_], spacing: tuple[float, ...]) -> float:
    """95th percentile of the distances between two surfaces in mm, both ways; infinite if one alone is empty."""
    if not one.any() or not other.any():
        return 0.0 if one.any() == other.any() else float("inf")
    distances = [_to_surface(one, other, spacing), _to_surface(other, one, spacing)]
    return float(max(np.percentile(each, 95) for each in distances))


def surface_dice(
    one: NDArray[np.bool_], other: NDArray[np.bool_], spacing: tuple[float, ...], *, tolerance: float
) -> float:
    """Share of both surfaces that lies within ``tolerance`` mm of the other (normalised surface distance)."""
    if not one.any() or not other.any():
        return float(one.any() == other.any())
    there, back = _to_surface(one, other, spacing), _to_surface(other, one, spacing)
    return float(((there <= tolerance).sum() + (back <= tolerance).sum()) / (there.size + back.size))


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(mask & ~ndimage.binary_erosion(mask))


def _to_surface(
    source: NDArray[np.bool_], target: NDArray[np.bool_], spacing: tuple[float, ...]
) -> NDArray[np.float64]:
    """From each surface voxel of ``source`` to the nearest of ``target``, in mm."""
    window = ndimage.find_objects((source | target).astype(np.uint8))[0]  # the rest of the image has no say
    source, target = np.pad(source[window], 1), np.pad(target[window], 1)
    away = ndimage.distance_transform_edt(~_surface(target), sampling=spacing)
    return np.asarray(away[_surface(source)])


def interval(
    values: Sequence[float],
    statistic: Callable[[NDArray[np.float64]], float] = lambda each: float(np.mean(each)),
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % interval of ``statistic`` by resampling patients with replacement."""
    array, rng = np.asarray(values, np.float64), np.random.default_rng(seed)
    drawn = [statistic(array[rng.integers(0, array.size, array.size)]) for _ in range(resamples)]
    return float(np.percentile(drawn, 2.5)), float(np.percentile(drawn, 97.5))


def auroc(scores: NDArray[np.float64], truth: NDArray[np.float64]) -> float | None:
    """Area under the ROC curve by ranks (Mann and Whitney 1947), ties counted half; NaN in ``truth`` is left out.

    None where one of the two kinds is missing: there is no such number then.
    """
    known = ~np.isnan(truth)
    scores, is_there = np.asarray(scores, np.float64)[known], truth[known] > 0.5
    positives, negatives = int(is_there.sum()), int((~is_there).sum())
    if not positives or not negatives:
        return None
    ranks = rankdata(scores)
    return float((ranks[is_there].sum() - positives * (positives + 1) / 2) / (positives * negatives))
