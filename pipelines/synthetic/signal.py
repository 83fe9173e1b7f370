"""MR signal of a head: relaxation times and acquisition values to magnitude images, with coil shading and noise.

Spin echo: PD (1 - exp(-TR/T1)) exp(-TE/T2); inversion recovery: PD |1 - 2 exp(-TI/T1) + exp(-TR/T1)| exp(-TE/T2)
(Bernstein, Handbook of MRI Pulse Sequences, 14.2 and 16.3). It writes nothing and knows no patient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.synthetic.anatomy import Head
from pipelines.synthetic.fields import Field, noise
from pipelines.synthetic.tissue import Tissue

SCALE = 2000  # stored value of a signal of 1: white matter comes to a few hundred, fat to about 1500


@dataclass(frozen=True)
class Relaxation:
    """Proton density relative to water, and T1 and T2 in ms, at 1.5 T."""

    density: float
    t1: float
    t2: float


# Grey, white, fat and muscle as BrainWeb has them (Kwan, Evans and Pike 1999, IEEE TMI 18:1085); T2 of fat is longer in
# a fast spin echo, for J-coupling (Henkelman 1994, JMRI 4:683). CSF as nulled by the usual TI; glioma about the middle
# of published values (Just and Thelen 1988, Radiology 169:779). Blood has flowed away before its echo is taken.
RELAXATION: Mapping[Tissue, Relaxation] = {
    Tissue.AIR: Relaxation(0.0, 1, 1),
    Tissue.FAT: Relaxation(0.90, 320, 100),
    Tissue.MUSCLE: Relaxation(0.85, 900, 50),
    Tissue.BONE: Relaxation(0.05, 500, 10),
    Tissue.MARROW: Relaxation(0.45, 400, 100),
    Tissue.CSF: Relaxation(1.0, 3800, 1500),
    Tissue.GREY: Relaxation(0.86, 880, 80),
    Tissue.DEEP_GREY: Relaxation(0.82, 760, 76),
    Tissue.WHITE: Relaxation(0.77, 540, 74),
    Tissue.VESSEL: Relaxation(0.12, 1200, 60),
    Tissue.LESION: Relaxation(0.92, 1250, 150),
    Tissue.RIM: Relaxation(0.90, 1150, 125),
}
# After gadolinium: what has no blood-brain barrier takes it up, 1/T1 grows; blood shines instead of having flowed away.
WITH_GADOLINIUM: Mapping[Tissue, Relaxation] = {
    **RELAXATION,
    Tissue.MUSCLE: Relaxation(0.85, 620, 50),
    Tissue.GREY: Relaxation(0.86, 820, 80),
    Tissue.VESSEL: Relaxation(0.85, 260, 80),
    Tissue.RIM: Relaxation(0.90, 330, 110),
}


@dataclass(frozen=True)
class Sequence:
    """Acquisition values in ms; ``inversion`` None for a spin echo, ``agent`` as in Contrast/Bolus Agent."""

    name: str
    repetition: float
    echo: float
    inversion: float | None = None
    agent: str = ""


SEQUENCES: Mapping[str, Sequence] = {
    s.name: s
    for s in (
        Sequence("T1 PRE", 550, 10),
        Sequence("FLAIR", 9000, 120, 2250),
        Sequence("T1 POST", 550, 10, agent="GADOLINIUM"),
        Sequence("T2", 4500, 95),
    )
}


def signal_of(relaxation: Relaxation, sequence: Sequence) -> float:
    """Magnitude of the echo of one tissue, 0 to 1."""
    recovery = 1 - np.exp(-sequence.repetition / relaxation.t1)
    if sequence.inversion is not None:
        recovery -= 2 * np.exp(-sequence.inversion / relaxation.t1) - 2 * np.exp(-sequence.repetition / relaxation.t1)
    return float(relaxation.density * abs(recovery) * np.exp(-sequence.echo / relaxation.t2))


def acquire(head: Head, sequence: Sequence, seed: int) -> NDArray[np.uint16]:
    """Images of the head, ``(frames, rows, columns)``, 12 bits."""
    rng = np.random.default_rng([seed, 2, *sequence.name.encode()])
    table = WITH_GADOLINIUM if sequence.agent else RELAXATION
    signals = np.array([signal_of(table[tissue], sequence) for tissue in Tissue], np.float32)
    ideal = np.tensordot(signals, head.shares, axes=1)
    ideal *= 1 + 0.025 * noise(rng, head.grid, 12, 0.8)  # tissue is not the same everywhere
    blurred = ndimage.gaussian_filter(ideal, (0, 0.55, 0.55))  # the point spread of a clinical matrix
    shaded = blurred * _shading(head, rng)
    level = float(signals[Tissue.WHITE])
    return _magnitude(shaded, level / rng.uniform(35, 60), rng)


def _shading(head: Head, rng: np.random.Generator) -> Field:
    """Sensitivity of a head coil: a smooth field, a little brighter towards the surface."""
    x, y, _ = head.grid.axes()
    surface = (x**2 + y**2) / 90**2
    return np.asarray(
        np.clip(1 + 0.07 * noise(rng, head.grid, 160, 0.5) + 0.06 * (surface - 0.5), 0.5, 1.6), np.float32
    )


def _magnitude(image: Field, sigma: float, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Noise in both channels of the receiver makes Rician noise of the magnitude (Gudbjartsson and Patz 1995)."""
    real = image + sigma * rng.standard_normal(image.shape, dtype=np.float32)
    imaginary = sigma * rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(np.clip(np.round(np.hypot(real, imaginary) * SCALE), 0, 4095), np.uint16)
