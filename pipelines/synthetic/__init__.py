"""Synthetic studies for the demonstration and the tests: a head by parameters, imaged by the equations of MR.

    brain_mr → anatomy (which tissue where) → lesion → signal (how it looks) → instances (DICOM files)

Every object says that it is synthetic. Never for claims of accuracy: what a network finds here says that the node
works, not that the network does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.synthetic.anatomy import grow
from pipelines.synthetic.ct import ct_slices
from pipelines.synthetic.fields import Grid
from pipelines.synthetic.instances import brain_examination, mr_series, save
from pipelines.synthetic.lesion import Lesion, implant, random_lesion
from pipelines.synthetic.signal import SEQUENCES, acquire

__all__ = ["BRAIN_SEQUENCES", "Lesion", "Truth", "brain_mr", "ct_slices", "demo_studies"]

BRAIN_SEQUENCES = ("T1 PRE", "FLAIR", "T1 POST")


@dataclass(frozen=True, eq=False)
class Truth:
    """What a synthetic study holds.

    Attributes:
        mask: bool ``(slices, rows, columns)`` on the grid of every series; all False without a lesion.
        volume_cm3: Of the mask, as rasterised.
        title: A few words for people.
    """

    study_uid: str
    files: tuple[Path, ...]
    lesion: Lesion | None
    mask: NDArray[np.bool_]
    volume_cm3: float
    title: str = ""


def brain_mr(
    out: Path,
    *,
    seed: int,
    lesion: Lesion | Literal["random"] | None,
    sequences: Sequence[str] = BRAIN_SEQUENCES,
    slices: int = 24,
    matrix: int = 256,
    patient: str = "SYN-0001",
    title: str = "",
) -> Truth:
    """Write one brain MR to ``out/<series number>/<n>.dcm``.

    The same arguments make the same bytes; another choice of ``sequences`` makes other series of the same study.
    """
    if unknown := [name for name in sequences if name not in SEQUENCES]:
        raise ValueError(f"there is no sequence {unknown[0]!r}; there are {', '.join(SEQUENCES)}")
    if not patient.startswith("SYN-"):
        raise ValueError(f"a synthetic patient is called SYN-…, not {patient!r}")
    grid = Grid(slices, matrix)
    head = grow(grid, seed)
    grown = random_lesion(head, seed) if lesion == "random" else lesion
    mask = implant(head, grown, seed) if grown else np.zeros(head.parenchyma.shape, np.bool_)
    examination = brain_examination(f"brain {seed} {grown} {slices} {matrix} {patient}", patient)
    files: list[Path] = []
    for name in sequences:
        number = list(SEQUENCES).index(name) + 1
        images = acquire(head, SEQUENCES[name], seed)
        files += save(mr_series(examination, SEQUENCES[name], images, grid, number=number), out / str(number))
    volume = float(mask.sum()) * grid.voxel_cm3
    return Truth(examination.study_uid, tuple(files), grown, mask, volume, title)


LARGE = Lesion((34.0, -12.0, 26.0), (21.0, 27.0, 19.0), enhancing=True)  # 45 cm3, left frontal
SMALL = Lesion((-36.0, 22.0, 22.0), (13.0, 15.0, 14.0))  # 11 cm3, right parietal
MEDIUM = Lesion((-32.0, -30.0, 24.0), (17.0, 21.0, 16.0))  # 24 cm3, right frontal


# seed, title, lesion and sequences of the studies 1, 2, … of the demonstration
_DEMONSTRATION: tuple[tuple[int, str, Lesion | None, Sequence[str]], ...] = (
    (11, "large lesion", LARGE, BRAIN_SEQUENCES),
    (12, "small lesion", SMALL, BRAIN_SEQUENCES),
    (31, "no lesion", None, BRAIN_SEQUENCES),
    (14, "no T1 after contrast", MEDIUM, ("T1 PRE", "FLAIR")),
    (15, "no FLAIR", None, ("T1 PRE", "T1 POST")),
)


def demo_studies(out: Path, *, slices: int = 24, matrix: int = 256) -> list[Truth]:
    """The studies of ``wetread demo``, one folder each: lesions, none, a sequence missing, nothing to read."""
    return [
        brain_mr(
            out / str(number),
            seed=seed,
            lesion=lesion,
            sequences=sequences,
            slices=slices,
            matrix=matrix,
            patient=f"SYN-{number:04d}",
            title=title,
        )
        for number, (seed, title, lesion, sequences) in enumerate(_DEMONSTRATION, start=1)
    ]
