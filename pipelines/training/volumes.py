"""Volumes with a reference in NIfTI, as ``mr_hippocampus`` sees them: prepared from DICOM, cached, split into folds."""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines import mr_hippocampus
from pipelines.base import UnsuitableStudy, WithheldStudy
from pipelines.study import Study, read_folder
from pipelines.training.prepare import NoLabels

COLUMNS = ("study_uid", "file", "mask", "patient_id", "split")


@dataclass(frozen=True, eq=False)
class Volume:
    """One patient, turned so that frames run to the head, rows to the back and columns to the left.

    Attributes:
        image: float32 (frames, rows, columns), z-scored.
        labels: uint8, the same shape: 0 neither, 1 anterior, 2 posterior.
    """

    patient: str
    image: torch.Tensor
    labels: torch.Tensor

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{self.patient}.part.npz"
        np.savez(part, image=self.image.numpy(), labels=self.labels.numpy())
        part.rename(folder / f"{self.patient}.npz")

    @classmethod
    def load(cls, file: Path) -> Volume:
        with np.load(file, allow_pickle=False) as held:
            return cls(file.stem, torch.from_numpy(held["image"]), torch.from_numpy(held["labels"]))


def reference(file: Path) -> NDArray[np.uint8]:
    """Labels of a NIfTI file: uint8 (frames, rows, columns), to the head, to the back, to the left.

    The axes are matched by direction. The origin is not looked at: the volumes of the set have lost theirs.

    Raises:
        NoLabels: If it cannot be read.
    """
    import nibabel  # here alone: whoever reads studies needs no NIfTI
    from nibabel.filebasedimages import ImageFileError

    try:
        image = nibabel.as_closest_canonical(nibabel.load(file))
        held = np.asarray(image.dataobj)
    except (OSError, ValueError, ImageFileError) as error:
        raise NoLabels(f"the mask {file} cannot be read: {error}") from error
    to_the_head = np.rint(held).astype(np.uint8).T  # NIfTI runs (right, front, head)
    return np.ascontiguousarray(to_the_head[:, ::-1, ::-1])


def labelled(
    data: Path, labels: Path, *, wanted: Collection[str], known: Collection[str] = ()
) -> Iterator[tuple[str, Study, NDArray[np.uint8]]]:
    """(patient, study, reference) of each study of the splits ``wanted``, less the patients ``known``.

    Args:
        data: A folder of DICOM studies with an ``index.csv`` of ``COLUMNS``, a row per instance.
        labels: The folder that the ``mask`` column starts from.

    Raises:
        NoLabels: If the index or a mask is not there.
    """
    for row in _first_rows(data, wanted):
        if row["patient_id"] not in known:
            for study in read_folder((data / row["file"]).parents[1])[0]:
                yield row["patient_id"], study, reference(labels / row["mask"])


def _first_rows(data: Path, wanted: Collection[str]) -> list[dict[str, str]]:
    """One row of each study, by patient."""
    index = data / "index.csv"
    if not index.is_file():
        raise NoLabels(f"{data} has no index.csv that says which mask belongs to which study")
    with index.open(newline="") as file:
        reader = csv.DictReader(file)
        if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
            raise NoLabels(f"{index} has no column {', '.join(missing)}; it needs {', '.join(COLUMNS)}")
        first = {row["study_uid"]: row for row in reversed(list(reader)) if row["split"] in wanted}
    if not first:
        raise NoLabels(f"{index} has no row of the split {' or '.join(wanted)}")
    return sorted(first.values(), key=lambda each: each["patient_id"])


def prepare_all(
    data: Path, labels: Path, cache: Path, *, wanted: Collection[str], said: Callable[[str], None]
) -> tuple[Volume, ...]:
    """Every volume of the splits ``wanted``; prepared ones are kept in ``cache``, what does not serve is said."""
    done = {file.stem: file for file in cache.glob("*.npz") if not file.name.endswith(".part.npz")}
    for patient, study, truth in labelled(data, labels, wanted=wanted, known=done):
        try:
            image = mr_hippocampus.prepare(study).image
        except (UnsuitableStudy, WithheldStudy) as reason:
            said(f"{patient} is left out: {reason}")
            continue
        if image.shape != truth.shape:
            raise NoLabels(f"the mask of {patient} is {truth.shape}, its volume {tuple(image.shape)}")
        Volume(patient, image, torch.from_numpy(truth)).save(cache)
        said(f"prepared {patient}")
    wanted_patients = {row["patient_id"] for row in _first_rows(data, wanted)}
    return tuple(Volume.load(file) for file in sorted(cache.glob("*.npz")) if file.stem in wanted_patients)
