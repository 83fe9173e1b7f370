"""The prepared patients: arrays as the network sees them, cached, and the folds they fall into. It draws no batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

FOLDS = 5


@dataclass(frozen=True, eq=False)
class Case:
    """One patient on the canvas of ``imaging``.

    Attributes:
        images: float16 (frames, sequences, rows, columns), z-scored; a missing sequence is all 0.
        mask: bool (frames, rows, columns).
    """

    patient: str
    institution: str
    images: torch.Tensor
    mask: torch.Tensor
    is_synthetic: bool = False

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{self.patient}.part.npz"
        np.savez(
            part,
            images=self.images.numpy(),
            mask=self.mask.numpy(),
            patient=self.patient,
            institution=self.institution,
            is_synthetic=self.is_synthetic,
        )
        part.rename(folder / f"{self.patient}.npz")


def load(folder: Path) -> tuple[Case, ...]:
    """Every case of a cache folder, in the order of its name."""
    return tuple(_load(path) for path in sorted(folder.glob("*.npz")) if not path.name.endswith(".part.npz"))


def _load(path: Path) -> Case:
    with np.load(path, allow_pickle=False) as held:
        return Case(
            patient=str(held["patient"]),
            institution=str(held["institution"]),
            images=torch.from_numpy(held["images"]),
            mask=torch.from_numpy(held["mask"]),
            is_synthetic=bool(held["is_synthetic"]),
        )


def fold_of(patient: str) -> int:
    """0 to 4, by a hash of the patient alone: it does not change when patients are added."""
    return int(hashlib.sha256(f"fold {patient}".encode()).hexdigest(), 16) % FOLDS


def split(cases: Iterable[Case], fold: int | None) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Cases to train on and cases to judge by; ``fold`` None: all to train on. Synthetic ones never judge."""
    cases = tuple(cases)
    judged = {case.patient for case in cases if not case.is_synthetic and fold_of(case.patient) == fold}
    return (
        tuple(case for case in cases if case.patient not in judged),
        tuple(case for case in cases if case.patient in judged),
    )
