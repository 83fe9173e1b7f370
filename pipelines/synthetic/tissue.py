"""Tissues, and how one is laid over another: every voxel holds a share of each."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from pipelines.synthetic.fields import Field, Real


class Tissue(IntEnum):
    """The order of the first axis of the shares."""

    AIR = 0
    FAT = 1
    MUSCLE = 2
    BONE = 3
    MARROW = 4
    CSF = 5
    GREY = 6
    DEEP_GREY = 7
    WHITE = 8
    VESSEL = 9
    LESION = 10
    RIM = 11


def paint(shares: Field, tissue: Tissue, share: Real) -> None:
    """Lay a tissue over what is there; ``shares`` is (tissue, frames, rows, columns), ``share`` without the first."""
    frames = np.flatnonzero(share.any(axis=(1, 2)))
    if len(frames):
        some = slice(frames[0], frames[-1] + 1)
        shares[:, some] *= 1 - share[some]
        shares[tissue, some] += share[some]
