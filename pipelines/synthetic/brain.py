"""A brain: cortex and its folds, white matter, deep nuclei, cerebellum, ventricles, vessels.

Folds are the zero lines of a band-limited random field. Coordinates are those of an adult in an atlas, in mm from a
point between the lateral ventricles; the left side is given and mirrored.
"""

from __future__ import annotations

import numpy as np

from pipelines.synthetic.fields import FAR, Field, Grid, Space, inside, noise, step
from pipelines.synthetic.skull import SCALP_MM, SKULL_MM
from pipelines.synthetic.tissue import Tissue, paint

CORTEX_MM = 2.8

_NUCLEI = (  # caudate, putamen and pallidum, thalamus of the left side
    ((13.0, -22.0, 8.0), (4.0, 10.0, 10.0)),
    ((25.0, -6.0, 2.0), (6.0, 16.0, 11.0)),
    ((10.0, 11.0, 4.0), (8.0, 13.0, 9.0)),
)


def paint_brain(shares: Field, space: Space, grid: Grid, surface: Field, rng: np.random.Generator) -> Field:
    """Lay a brain into its cavity; ``surface`` is mm outside of it. Returns the share that is cerebellum."""
    brain = inside(surface)
    cerebellum = step(-16 - 0.12 * (space.v - 20) - space.w, 1.2) * step(space.v - 22, 2)
    reach = 17 + 3 * noise(rng, grid, 40)  # mm that a sulcus goes in
    shallow = step(reach + surface, 2.5)
    sulcus = np.minimum(_distance_to_zero(noise(rng, grid, 19), grid), fissures(space))
    cortex = np.minimum(-surface, np.where(shallow > 0.5, np.maximum(sulcus - 0.5, 0), FAR))
    paint(shares, Tissue.WHITE, brain)
    paint(shares, Tissue.GREY, brain * inside(cortex - CORTEX_MM, 1.6) * (1 - cerebellum))
    for side in (-1, 1):
        _paint_nuclei(shares, space, brain, side)
    folds = np.maximum(inside(sulcus - 0.55, 1.4) * shallow, inside(fissures(space) - 0.8, 1.4))
    paint(shares, Tissue.CSF, folds * brain * (1 - cerebellum) * 0.9)
    _paint_cerebellum(shares, space, grid, surface, cerebellum, rng)
    return cerebellum


def _paint_nuclei(shares: Field, space: Space, brain: Field, side: int) -> None:
    """Deep grey matter, the insula and the cleft that leads to it."""
    for (u, v, w), radii in _NUCLEI:
        paint(shares, Tissue.DEEP_GREY, inside(space.ellipsoid((side * u, v, w), radii), 2.5) * brain)
    insula = space.ellipsoid((side * 41, -4, 2), (2.0, 17, 12))
    paint(shares, Tissue.GREY, inside(insula - 3) * brain)
    paint(shares, Tissue.CSF, inside(insula) * brain * 0.8)
    paint(shares, Tissue.CSF, inside(space.ellipsoid((side * 52, -8, -2), (14, 2.0, 12))) * brain * 0.8)


def fissures(space: Space) -> Field:
    """mm from the cleft between the hemispheres, which the corpus callosum and the deep grey close."""
    callosum = space.ellipsoid((0, 2, 4), (60, 42, 22))
    midline = np.where(space.w > -18, np.abs(space.u), 99)
    return np.maximum(midline, -callosum).astype(np.float32)


def _distance_to_zero(field: Field, grid: Grid) -> Field:
    """mm to the nearest zero of a smooth field, to first order."""
    slopes = np.gradient(field, *grid.spacing)
    steep = np.sqrt(sum(s**2 for s in slopes))
    return np.asarray(np.abs(field) / np.maximum(steep, 0.35 * steep.mean()), np.float32)


def _paint_cerebellum(
    shares: Field, space: Space, grid: Grid, brain: Field, cerebellum: Field, rng: np.random.Generator
) -> None:
    """Fine folia on a white core, the brain stem in front of it, cisterns around both."""
    leaf = inside(_distance_to_zero(noise(rng, grid, 9), grid) - 0.5, 1.4)
    core = step(-brain - 14, 3)
    share = cerebellum * inside(brain)
    paint(shares, Tissue.GREY, share * (1 - core))
    paint(shares, Tissue.CSF, share * leaf * (1 - core) * 0.35)
    tent = np.abs(-16 - 0.12 * (space.v - 20) - space.w) - 1.0
    paint(shares, Tissue.CSF, inside(tent, 3) * inside(brain) * step(space.v - 24, 2) * 0.5)
    stem = space.tube([(0, 12, -12, 15), (0, 20, -32, 14), (0, 26, -60, 12)])
    cistern = inside(stem - 4, 2) * inside(-stem, 2) * step(-space.w - 14, 2) * inside(brain)
    paint(shares, Tissue.CSF, cistern * 0.8)
    paint(shares, Tissue.WHITE, inside(stem) * step(-space.w - 12, 2) * inside(brain))
    star = inside(space.ellipsoid((0, -4, -25), (13, 9, 7)), 2)
    paint(shares, Tissue.CSF, star)


def paint_ventricles(shares: Field, space: Space, rng: np.random.Generator) -> Field:
    """Lateral, third and fourth ventricle; returns their signed distance."""
    wide = rng.uniform(0.75, 1.35)
    parts = [
        space.ellipsoid((0, 4, -4), (1.6 * wide, 13, 9)),
        space.ellipsoid((0, 42, -42), (6 * wide, 4, 9)),
    ]
    for side in (-1, 1):
        swell = wide * rng.uniform(0.9, 1.1)
        body = [(12, -38, 2, 2.5), (7.5, -22, 10, 4.6), (9, 4, 17, 5.2), (19, 28, 11, 6.2), (23, 52, 3, 2.2)]
        horn = [(21, 30, 6, 4.2), (31, 18, -14, 2.0), (31, -2, -24, 1.6)]
        parts += [space.tube([(side * u, v, w, r * swell) for u, v, w, r in path]) for path in (body, horn)]
    ventricles = np.minimum.reduce(parts)
    paint(shares, Tissue.CSF, inside(ventricles, 1.6))
    return np.asarray(ventricles, np.float32)


def paint_vessels(shares: Field, space: Space, skin: Field) -> None:
    """What shines after gadolinium: the sagittal sinus, the arteries of the base, and their branches."""
    rim = np.abs(skin + SCALP_MM + SKULL_MM + 2.5) - 2.2
    sinus = np.maximum(rim, np.abs(space.u) - 2.2) + 99 * (space.v < -55)
    paint(shares, Tissue.VESSEL, inside(sinus) * step(space.w + 10, 3) * 0.9)
    paint(shares, Tissue.VESSEL, inside(space.tube([(0, 4, -52, 1.6), (0, 3, -28, 1.6)])))
    for side in (-1, 1):
        middle = [(side * 9, -10, -25, 1.7), (side * 25, -14, -20, 1.4), (side * 40, -10, -10, 1.2)]
        branch = [(side * 40, -10, -10, 1.1), (side * 42, 2, 4, 1.0), (side * 44, 16, 14, 0.8)]
        anterior = [(side * 3, -16, -22, 1.2), (side * 2, -40, 0, 1.1), (side * 2, -38, 24, 1.0)]
        straight = [(side * 3, 22, 6, 1.2), (side * 1, 38, 2, 1.4), (0, 75, -8, 1.8)]
        transverse = [(side * 2, 78, -14, 3.0), (side * 30, 70, -20, 3.0), (side * 56, 38, -28, 3.0)]
        for path in (middle, branch, anterior, straight, transverse):
            paint(shares, Tissue.VESSEL, inside(space.tube(path)) * 0.85)
