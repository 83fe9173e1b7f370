"""From registered sequences to what the network sees, and from its probabilities back to the source's grid.

Tensors to tensors: the head is found, each sequence is z-scored inside the head over the whole volume, the head is cut
out and brought to one size, so that pixel spacing and matrix do not matter. No DICOM, no file, no network here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage

CANVAS = (192, 160)  # rows, columns; heads are about 1.25 times as long as wide
MARGIN = 1.05  # the cut-out around the head's box
LIMIT = 5.0  # z-scores are clipped here: scalp fat and vessels are many deviations out
SEQUENCES = ("T1 PRE", "FLAIR", "T1 POST")
# What the network sees of each slice: which sequence, how many slices away, and whether mirrored left to right
# (a lesion is most often where the two halves of the brain differ).
CHANNELS = ((0, 0), (1, 0), (2, 0), (1, -1), (1, 1), (1, -2), (1, 2), (1, 0))
MIRRORED = len(CHANNELS) - 1


@dataclass(frozen=True)
class HeadBox:
    """The rectangle of a slice that goes to the network, in pixels of the source; it may reach beyond the image."""

    row: int
    column: int
    rows: int
    columns: int


class NoHead(ValueError):
    """Nothing in the volume stands out from the background."""


def head_mask(volume: NDArray[np.float32]) -> NDArray[np.bool_]:
    """bool (frames, rows, columns): brighter than air; smoothed in plane so that noise in air does not count."""
    smooth = ndimage.gaussian_filter(volume, (0.0, 1.5, 1.5))
    low, top = np.percentile(smooth, (2.0, 99.0))
    if not np.isfinite(top) or top - low < 1e-6:
        raise NoHead("the image is empty: every pixel has about the same value")
    return np.asarray(smooth > low + 0.15 * (top - low))


def head_box(head: NDArray[np.bool_], *, pixel_ratio: float = 1.0) -> HeadBox:
    """The box of the head over all slices, widened to the canvas's proportions in millimetres.

    Args:
        head: bool (frames, rows, columns).
        pixel_ratio: distance between rows over distance between columns.
    """
    # A row counts when it is head on a sixth of the slices: one bright artefact does not widen the box.
    enough = max(1.0, head.shape[0] / 6)
    row = np.flatnonzero(_largest_run((head.sum(axis=2) > 4).sum(axis=0) >= enough))
    column = np.flatnonzero(_largest_run((head.sum(axis=1) > 4).sum(axis=0) >= enough))
    if row.size < 16 or column.size < 16:
        raise NoHead("the image shows no head: too few pixels stand out from the background")
    aspect = CANVAS[1] / CANVAS[0]
    rows = MARGIN * max(row.size, column.size / pixel_ratio / aspect)
    columns = rows * aspect * pixel_ratio
    return HeadBox(
        row=round((row[0] + row[-1] + 1 - rows) / 2),
        column=round((column[0] + column[-1] + 1 - columns) / 2),
        rows=round(rows),
        columns=round(columns),
    )


def _largest_run(line: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, count = ndimage.label(line)
    if count == 0:
        return line
    return np.asarray(labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:])))


def standardise(volume: NDArray[np.float32], head: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Z-score inside the head over the whole volume; the brightest and darkest percent have no say in it."""
    inside = volume[head]
    if not inside.size or not np.isfinite(inside).all():
        raise NoHead("a sequence is empty or has values that are no numbers")
    low, high = np.percentile(inside, (1.0, 99.0))
    inside = inside[(inside >= low) & (inside <= high)]
    spread = float(inside.std()) if inside.size else 0.0
    if spread < 1e-6:
        raise NoHead("a sequence is empty: every pixel in the head has the same value")
    scores: NDArray[np.float32] = np.clip((volume - float(inside.mean())) / spread, -LIMIT, LIMIT).astype(np.float32)
    return scores


def cut(volume: NDArray[np.float32], box: HeadBox) -> torch.Tensor:
    """(frames, rows, columns) → (frames, *CANVAS): the box, resized; beyond the image its edge is repeated."""
    rows = np.clip(np.arange(box.row, box.row + box.rows), 0, volume.shape[1] - 1)
    columns = np.clip(np.arange(box.column, box.column + box.columns), 0, volume.shape[2] - 1)
    part = torch.from_numpy(np.ascontiguousarray(volume[:, rows][:, :, columns]))
    return F.interpolate(part[None], size=CANVAS, mode="bilinear", antialias=True)[0]


def stack(images: torch.Tensor, slices: torch.Tensor, *, step: int = 1) -> torch.Tensor:
    """(frames, sequences, rows, columns) and slice numbers (n) → (n, CHANNELS, rows, columns); edges repeat."""
    last = images.shape[0] - 1
    planes = [images[(slices + away * step).clamp(0, last), sequence] for sequence, away in CHANNELS]
    planes[MIRRORED] = planes[MIRRORED].flip(-1)
    return torch.stack(planes, 1)


def paste(canvas: torch.Tensor, box: HeadBox, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The way back of ``cut``: (frames, *CANVAS) → (frames, rows, columns) of ``shape``; 0 outside the box."""
    part = F.interpolate(canvas[None].float(), size=(box.rows, box.columns), mode="bilinear", antialias=True)[0].numpy()
    out = np.zeros(shape, np.float32)
    top, left = max(0, box.row), max(0, box.column)
    bottom, right = min(shape[1], box.row + box.rows), min(shape[2], box.column + box.columns)
    out[:, top:bottom, left:right] = part[:, top - box.row : bottom - box.row, left - box.column : right - box.column]
    return out


def keep_components(mask: NDArray[np.bool_], *, smallest: int, share: float) -> NDArray[np.bool_]:
    """Drop 3-D components of fewer than ``smallest`` voxels or less than ``share`` of the largest one."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    keep = sizes >= max(1.0, smallest, share * float(sizes.max()))  # at least 1: the background counts as 0
    return np.asarray(keep[labels])
