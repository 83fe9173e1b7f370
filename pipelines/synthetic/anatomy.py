"""A head by parameters: which share of each voxel is which tissue, varied a little by the seed.

Sizes are those of an adult head, to a few millimetres. It is nobody's anatomy, and it has no signal: ``signal.py``
gives it one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.synthetic import brain, skull
from pipelines.synthetic.fields import Field, Grid, Real, Space, noise
from pipelines.synthetic.tissue import Tissue, paint

ARACHNOID_MM = 1.8


@dataclass(frozen=True, eq=False)
class Head:
    """A sampled head.

    Attributes:
        shares: ``(tissue, frames, rows, columns)``, 0 to 1, summing to 1 over the tissues.
        parenchyma: bool ``(frames, rows, columns)``: where a lesion may grow; no ventricle, no subarachnoid space.
        depth: mm below the surface of the brain, negative outside.
    """

    grid: Grid
    shares: Field
    parenchyma: NDArray[np.bool_]
    depth: Field

    def paint(self, tissue: Tissue, share: Real) -> None:
        """Lay a tissue over what is there."""
        paint(self.shares, tissue, share)


def grow(grid: Grid, seed: int) -> Head:
    """The head of a seed: size, tilt, asymmetry, folds and the width of the ventricles vary."""
    rng = np.random.default_rng([seed, 1])
    space, wobble = _placed(grid, rng)
    shares = np.zeros((len(Tissue), grid.slices, grid.matrix, grid.matrix), np.float32)
    shares[Tissue.AIR] = 1
    skin = skull.outline(space) + wobble
    below = skull.floor(space) - space.w  # positive under the brain
    vault = skin + skull.SCALP_MM + skull.SKULL_MM
    skull.paint_cover(shares, space, skin, np.maximum(vault, below), rng)
    surface = np.maximum(vault + ARACHNOID_MM, below + 1.5)
    bent = Space(space.u + 1.2 * noise(rng, grid, 35), space.v + 1.8 * noise(rng, grid, 35), space.w)
    cerebellum = brain.paint_brain(shares, bent, grid, surface, rng)
    ventricles = brain.paint_ventricles(shares, bent, rng)
    brain.paint_vessels(shares, bent, skin)
    apart = (brain.fissures(bent) > 1) & (ventricles > 0.5) & (cerebellum < 0.5)
    return Head(grid, shares, (surface < 0) & apart, np.asarray(-surface, np.float32))


def _placed(grid: Grid, rng: np.random.Generator) -> tuple[Space, Field]:
    """The patient's axes turned and scaled into the head's own, and how uneven its surface is, in mm."""
    x, y, z = np.broadcast_arrays(*grid.axes())
    nod, turn, roll = np.radians(rng.normal(0, (3.0, 2.5, 0.8)))
    x, y = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    y, z = y * np.cos(nod) - z * np.sin(nod), y * np.sin(nod) + z * np.cos(nod)
    x, z = x * np.cos(roll) - z * np.sin(roll), x * np.sin(roll) + z * np.cos(roll)
    wide, long, high = rng.normal(1, 0.025, 3)
    lean = 1 + 0.02 * rng.standard_normal() * np.sign(x) * np.minimum(np.abs(x) / 30, 1)
    bend = 0.8 * noise(rng, grid, 90, 0.6)
    space = Space(*(np.asarray(a, np.float32) for a in (x / wide * lean + bend, y / long, z / high)))
    return space, 0.6 * noise(rng, grid, 75, 0.6)
