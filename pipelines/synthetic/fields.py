"""Space for a phantom: the grid that it is sampled on, signed distances of simple solids, and smooth random fields.

It knows no anatomy, no signal and no DICOM. Axes are always ``(frames, rows, columns)``; millimetres are the
patient's, left, posterior and head-wards positive (PS3.3 C.7.6.2.1.1), with the origin inside the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

Field = NDArray[np.float32]
Real = NDArray[np.floating[Any]]
Point = tuple[float, float, float]

FIELD_OF_VIEW_MM = 240.64  # 256 pixels of 0.94 mm
COVERAGE_MM = 120.0  # 24 slices of 5 mm
FAR, MARGIN_MM = 99.0, 12.0  # what a solid's distance is beyond its margin
LOWEST_SLICE_MM = -50.0  # the skull base, when the origin lies between the lateral ventricles


@dataclass(frozen=True)
class Grid:
    """Axial slices from the skull base to the vertex; fewer slices are thicker, so the head is always whole."""

    slices: int
    matrix: int

    def __post_init__(self) -> None:
        if self.slices < 3 or self.matrix < 32:
            raise ValueError(f"a head needs 3 slices of 32 pixels, not {self.slices} of {self.matrix}")

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Between slices, rows and columns, in mm."""
        pixel = FIELD_OF_VIEW_MM / self.matrix
        return COVERAGE_MM / self.slices, pixel, pixel

    @property
    def voxel_cm3(self) -> float:
        return float(np.prod(self.spacing)) / 1000

    def position(self, frame: int) -> Point:
        """Centre of the first pixel of a slice: Image Position (Patient)."""
        step, pixel, _ = self.spacing
        corner = -(self.matrix - 1) / 2 * pixel
        return corner, corner, LOWEST_SLICE_MM + frame * step

    def axes(self) -> tuple[Field, Field, Field]:
        """x (1, 1, C), y (1, R, 1) and z (S, 1, 1) in mm."""
        step, pixel, _ = self.spacing
        inside = ((np.arange(self.matrix) - (self.matrix - 1) / 2) * pixel).astype(np.float32)
        upwards = (LOWEST_SLICE_MM + np.arange(self.slices) * step).astype(np.float32)
        return inside[None, None, :], inside[None, :, None], upwards[:, None, None]


@dataclass(frozen=True, eq=False)
class Space:
    """Where each voxel lies in the head's own axes: ``u`` to the left, ``v`` backwards, ``w`` upwards, in mm."""

    u: Real
    v: Real
    w: Real

    def ellipsoid(self, centre: Point, radii: Point) -> Field:
        """Signed distance in mm, negative inside: first order, exact on the surface, ``FAR`` where it is not near."""
        box = self._box([c - r for c, r in zip(centre, radii, strict=True)], np.add(centre, radii))
        offsets = [a[box] - c for a, c in zip((self.u, self.v, self.w), centre, strict=True)]
        level = np.sqrt(sum((o / r) ** 2 for o, r in zip(offsets, radii, strict=True)))
        slope = np.sqrt(sum((o / r**2) ** 2 for o, r in zip(offsets, radii, strict=True)))
        distance = np.full(self.u.shape, FAR, np.float32)
        distance[box] = level * (level - 1) / np.maximum(slope, 1e-3)
        return distance

    def tube(self, path: Sequence[tuple[float, float, float, float]]) -> Field:
        """Signed distance of a chain of capsules through ``(u, v, w, radius)``, ``FAR`` where it is not near."""
        points = np.array(path, np.float32)
        box = self._box((points[:, :3] - points[:, 3:]).min(axis=0), (points[:, :3] + points[:, 3:]).max(axis=0))
        near = [a[box] for a in (self.u, self.v, self.w)]
        distance = np.full(self.u.shape, FAR, np.float32)
        for start, end in pairwise(points):
            along = end[:3] - start[:3]
            offsets = [a - s for a, s in zip(near, start[:3], strict=True)]
            t = np.clip(sum(o * a for o, a in zip(offsets, along, strict=True)) / np.dot(along, along), 0, 1)
            square = sum((o - t * a) ** 2 for o, a in zip(offsets, along, strict=True))
            distance[box] = np.minimum(distance[box], np.sqrt(square) - (start[3] + t * (end[3] - start[3])))
        return distance

    def _box(self, low: ArrayLike, high: ArrayLike) -> tuple[slice, ...]:
        """The voxels within ``MARGIN_MM`` of a box in the head's axes; judged on every eighth pixel, all slices."""
        near = np.ones(self.u[:, ::8, ::8].shape, np.bool_)
        for axis, least, most in zip((self.u, self.v, self.w), np.asarray(low), np.asarray(high), strict=True):
            coarse = axis[:, ::8, ::8]
            near &= (coarse > least - MARGIN_MM) & (coarse < most + MARGIN_MM)
        frames, rows, columns = (np.flatnonzero(near.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1)))
        if not len(frames):
            return slice(0), slice(0), slice(0)
        return tuple(
            slice(max(0, first * size - size + 1), (last + 1) * size)
            for first, last, size in ((f[0], f[-1], n) for f, n in ((frames, 1), (rows, 8), (columns, 8)))
        )


def inside(distance: Real, edge_mm: float = 1.2) -> Field:
    """Share of a voxel that lies inside: 1 within, 0 without, a slope ``edge_mm`` wide on the surface."""
    return np.asarray(np.clip(0.5 - distance / edge_mm, 0, 1), np.float32)


def step(value: Real, width: float) -> Field:
    """0 far below zero, 1 far above, smooth between."""
    return np.asarray(0.5 + 0.5 * np.tanh(value / width), np.float32)


def noise(rng: np.random.Generator, grid: Grid, wavelength_mm: float, octaves: float = 0.35) -> Field:
    """A random field of one characteristic wavelength, mean 0 and standard deviation 1: its zero lines meander."""
    shape = (grid.slices, grid.matrix, grid.matrix)
    spectrum = fft.rfftn(rng.standard_normal(shape, dtype=np.float32))
    frequencies = [fft.fftfreq(n, d) for n, d in zip(shape[:2], grid.spacing[:2], strict=True)]
    fz, fy, fx = np.meshgrid(*frequencies, fft.rfftfreq(shape[2], grid.spacing[2]), indexing="ij", sparse=True)
    radius = np.sqrt(fz**2 + fy**2 + fx**2) * wavelength_mm
    spectrum *= np.exp(-0.5 * (np.log2(np.maximum(radius, 1e-6)) / octaves) ** 2)
    field = fft.irfftn(spectrum, shape)
    return np.asarray((field - field.mean()) / max(float(field.std()), 1e-6), np.float32)
