"""A lesion of known volume, grown into a head: an ellipsoid with an uneven edge that stays inside the brain.

It says where and how large; ``signal.py`` says how it looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, pi

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.synthetic.anatomy import Head
from pipelines.synthetic.fields import Point, Space, noise
from pipelines.synthetic.tissue import Tissue

SMALLEST_CM3, LARGEST_CM3 = 10.0, 60.0  # of a random lesion
EDGE_MM = 3.0  # width over which it fades into white matter


@dataclass(frozen=True)
class Lesion:
    """An ellipsoid in the patient's axes, before its edge is made uneven.

    Attributes:
        centre_mm: Left, posterior and head-wards of the frame of reference's origin, which lies inside the head.
        radii_mm: Along the same three axes.
        enhancing: Whether a rim of it takes up gadolinium.
    """

    centre_mm: Point
    radii_mm: Point
    enhancing: bool = False

    def __post_init__(self) -> None:
        if not all(isfinite(v) for v in (*self.centre_mm, *self.radii_mm)) or min(self.radii_mm) <= 0:
            raise ValueError(f"the radii of a lesion are {self.radii_mm} mm, not three positive lengths")

    @property
    def volume_cm3(self) -> float:
        return 4 / 3 * pi * float(np.prod(self.radii_mm)) / 1000


def random_lesion(head: Head, seed: int, *, volume_cm3: float | None = None) -> Lesion:
    """A lesion in a white-matter place of the seed's choice, away from the midline and from the ends of the stack."""
    rng = np.random.default_rng([seed, 3])
    volume = volume_cm3 or float(np.exp(rng.uniform(np.log(SMALLEST_CM3), np.log(LARGEST_CM3))))
    x, y, z = head.grid.axes()
    reach = min(18.0, (volume * 1000 * 3 / 4 / pi) ** (1 / 3))
    roomy = head.parenchyma & (head.depth > 0.7 * reach) & (np.abs(x) > 0.9 * reach) & (z > -20) & (z < 48)
    places = np.argwhere(roomy & (np.abs(y) < 75))
    if not len(places):
        raise ValueError(f"there is no room for a lesion of {volume:.1f} cm3 in a head of {head.grid.slices} slices")
    frame, row, column = places[rng.integers(len(places))]
    radii = np.exp(rng.normal(0, 0.15, 3))
    radii *= (volume * 1000 * 3 / 4 / pi / radii.prod()) ** (1 / 3)
    centre = float(x[0, 0, column]), float(y[0, row, 0]), float(z[frame, 0, 0])
    r0, r1, r2 = (float(r) for r in radii)
    return Lesion(centre, (r0, r1, r2), enhancing=bool(rng.random() < 0.5))


def implant(head: Head, lesion: Lesion, seed: int) -> NDArray[np.bool_]:
    """Paint the lesion into the head; returns the voxels that are more lesion than anything else.

    Its volume is that of the ellipsoid, to half a voxel: where skull or ventricle are in the way it grows elsewhere.
    """
    rng = np.random.default_rng([seed, 4])
    space = Space(*(np.asarray(a, np.float32) for a in np.broadcast_arrays(*head.grid.axes())))
    scale = min(lesion.radii_mm)
    distance = space.ellipsoid(lesion.centre_mm, lesion.radii_mm)
    distance += 0.16 * scale * noise(rng, head.grid, 2.2 * scale, 0.6) + 0.06 * scale * noise(
        rng, head.grid, scale, 0.6
    )
    wanted = max(1, round(lesion.volume_cm3 / head.grid.voxel_cm3))
    room = np.where(head.parenchyma, distance, np.inf).ravel()
    if wanted > np.isfinite(room).sum():
        raise ValueError(f"a lesion of {lesion.volume_cm3:.1f} cm3 does not fit into this brain")
    surface = np.partition(room, wanted - 1)[wanted - 1]
    mask = (distance <= surface) & head.parenchyma
    brain = ndimage.gaussian_filter(head.parenchyma.astype(np.float32), (0, 0.7, 0.7))
    share = np.clip(0.5 - (distance - surface) / EDGE_MM, 0, 1) * np.minimum(1, 1.5 * brain)
    uneven = np.clip(0.92 + 0.08 * noise(rng, head.grid, 14, 0.6), 0.6, 1.0)
    head.paint(Tissue.LESION, np.asarray(share * uneven, np.float32))
    if lesion.enhancing:
        inner = surface - 0.35 * scale
        rim = np.clip(1 - np.abs(distance - inner) / 3.0, 0, 1) * share
        patchy = np.clip(0.6 + 0.7 * noise(rng, head.grid, 1.5 * scale, 0.5), 0, 1)
        head.paint(Tissue.RIM, np.asarray(rim * patchy, np.float32))
    return np.asarray(mask, np.bool_)
