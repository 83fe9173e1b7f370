"""What surrounds a brain: scalp, skull, eyes, sinuses; and how much room they leave for it."""

from __future__ import annotations

import numpy as np

from pipelines.synthetic.fields import Field, Space, inside, step
from pipelines.synthetic.tissue import Tissue, paint

SCALP_MM, SKULL_MM = 4.5, 6.0


def outline(space: Space) -> Field:
    """The skin: an egg, wider behind, round above and nearly a cylinder below."""
    egg = Space(space.u / (1 + 0.06 * np.tanh(space.v / 60)), space.v, np.where(space.w > 0, space.w, space.w * 0.45))
    return egg.ellipsoid((0, 0, 0), (76, 95, 86))


def floor(space: Space) -> Field:
    """Height of the skull base: a plateau, sunk in for the temporal lobes and, behind, for the cerebellum."""
    heights = [-20 - 4 * step(space.v + 33, 6), _bowl(space, (0, 50), (64, 46), -88)]
    heights += [_bowl(space, (side * 40, -6), (29, 38), -45) for side in (-1, 1)]
    return np.asarray(np.minimum.reduce(heights), np.float32)


def _bowl(space: Space, centre: tuple[float, float], radii: tuple[float, float], depth: float) -> Field:
    """Height of a round hollow: ``depth`` at its centre, level with the plateau at its radii."""
    radius = ((space.u - centre[0]) / radii[0]) ** 2 + ((space.v - centre[1]) / radii[1]) ** 2
    return np.asarray(depth + (-22 - depth) * radius**2, np.float32)


def paint_cover(shares: Field, space: Space, skin: Field, cavity: Field, rng: np.random.Generator) -> None:
    """Scalp, skull, and what lies under the brain: muscle, orbits, air of the sinuses."""
    under = skin + SCALP_MM
    paint(shares, Tissue.MUSCLE, inside(skin))
    paint(shares, Tissue.FAT, inside(skin + 1.0) * inside(-under))
    paint(shares, Tissue.BONE, inside(under) * inside(cavity - SKULL_MM))
    diploe = inside(np.abs(under + SKULL_MM / 2) - rng.uniform(0.6, 1.2), 1.5)
    paint(shares, Tissue.MARROW, diploe * step(space.w + 25, 6) * 0.8)
    clivus = space.tube([(0, -2, -38, 7), (0, 6, -60, 8)])
    paint(shares, Tissue.MARROW, inside(clivus) * inside(-cavity) * 0.8)
    for side in (-1, 1):
        _paint_orbit(shares, space, under, side)
        temporalis = space.ellipsoid((side * 62, -22, -34), (9, 30, 30))
        paint(shares, Tissue.MUSCLE, inside(temporalis) * inside(under) * inside(-cavity + SKULL_MM / 2))
        paint(shares, Tissue.AIR, inside(space.ellipsoid((side * 50, 28, -54), (13, 17, 12))) * 0.7)  # mastoid
    for centre, radii in (((0, -62, -40), (9, 20, 16)), ((0, -82, -18), (13, 4, 9)), ((0, -28, -46), (11, 10, 8))):
        paint(shares, Tissue.AIR, inside(space.ellipsoid(centre, radii)) * inside(under) * 0.95)  # of the sinuses
    paint(shares, Tissue.CSF, inside(cavity))


def _paint_orbit(shares: Field, space: Space, under: Field, side: int) -> None:
    """Fat, the eye and its muscles; the globe holds water."""
    orbit = np.maximum(space.ellipsoid((side * 31, -62, -36), (18, 22, 16)), under)
    paint(shares, Tissue.BONE, inside(orbit - 2) * inside(under))
    paint(shares, Tissue.FAT, inside(orbit))
    strands = [
        [(side * u, -70, w, 1.8), (side * 21, -44, -35, 1.6)] for u, w in ((45, -37), (18, -37), (31, -26), (31, -47))
    ]
    nerve = [(side * 32, -60, -36, 2.0), (side * 18, -38, -32, 2.0)]
    for path in (*strands, nerve):
        paint(shares, Tissue.MUSCLE, inside(np.maximum(space.tube(path), orbit)))
    paint(shares, Tissue.CSF, inside(space.ellipsoid((side * 32, -73, -36), (11.5, 11.5, 11.5))))
