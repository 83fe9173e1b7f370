"""From DICOM to prepared cases, by the very way that the pipeline reads a study. It trains nothing."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines import imaging, mr_brain
from pipelines.base import UnsuitableStudy, WithheldStudy
from pipelines.series import Series
from pipelines.study import Study, read_folder
from pipelines.synthetic import brain_mr
from pipelines.training.cases import Case

COLUMNS = ("study_uid", "sop_uid", "file", "mask", "patient_id", "institution", "split")


class NoLabels(ValueError):
    """The data folder, or one study of it, holds nothing to learn from; the sentence says what was looked for."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """A study, and what a person has drawn on its FLAIR.

    Attributes:
        masks: SOP Instance UID of a FLAIR slice → bool (rows, columns); slices without a lesion are left out.
    """

    patient: str
    institution: str
    study: Study
    masks: dict[str, NDArray[np.bool_]]

    def truth(self, series: Series) -> NDArray[np.bool_]:
        """bool (frames, rows, columns) on the grid of ``series``."""
        empty = np.zeros((int(series.header.Rows), int(series.header.Columns)), bool)
        masks = [self.masks.get(str(frame.instance.SOPInstanceUID), empty) for frame in series.frames]
        for mask in masks:
            if mask.shape != empty.shape:
                raise NoLabels(f"a mask of {self.patient} is {mask.shape}, its slice {empty.shape}")
        return np.stack(masks)


def index_rows(
    data: Path, *, wanted: Collection[str] | None = None, columns: Sequence[str] = COLUMNS
) -> list[dict[str, str]]:
    """Rows of ``index.csv`` in ``data``, of the splits alone that are ``wanted``.

    Raises:
        NoLabels: If there is no index, a column is missing, or there is no row of those splits.
    """
    index = data / "index.csv"
    if not index.is_file():
        raise NoLabels(f"{data} has no index.csv that says which mask belongs to which instance")
    with index.open(newline="") as file:
        reader = csv.DictReader(file)
        if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
            raise NoLabels(f"{index} has no column {', '.join(missing)}; it needs {', '.join(columns)}")
        rows = [row for row in reader if wanted is None or row["split"] in wanted]
    if not rows:
        raise NoLabels(f"{index} has no row of the split {' or '.join(wanted or ())}")
    return rows


def labelled_studies(
    data: Path, labels: Path, *, wanted: Collection[str] | None = None, left_out: Callable[[str], None] | None = None
) -> Iterator[Labelled]:
    """Studies of a DICOM folder with its ``index.csv``, one after the other.

    Args:
        data: Holds ``index.csv`` with a row per instance and the ``COLUMNS``.
        labels: The folder that the paths in ``mask`` start from; a picture above 0 where the lesion is.
        wanted: Only rows of these splits.
        left_out: Told why a study is left out that, or a mask of which, cannot be read; without it that raises.

    Raises:
        NoLabels: If the index does not serve (``index_rows``), or a study or mask cannot be read.
    """
    by_study: dict[str, list[dict[str, str]]] = {}
    for row in index_rows(data, wanted=wanted):
        by_study.setdefault(row["study_uid"], []).append(row)
    for uid, own in by_study.items():
        try:
            labelled = _labelled(uid, own, data, labels)
        except NoLabels as reason:
            if left_out is None:
                raise
            left_out(f"{own[0]['patient_id']} is left out: {reason}")
            continue
        yield labelled


def _labelled(uid: str, own: list[dict[str, str]], data: Path, labels: Path) -> Labelled:
    studies, _ = read_folder((data / own[0]["file"]).parents[1])
    study = next((each for each in studies if each.uid == uid), None)
    if study is None:
        raise NoLabels(f"the study of {own[0]['file']} cannot be read")
    masks = {row["sop_uid"]: _mask(labels / row["mask"]) for row in own if row["mask"]}
    return Labelled(own[0]["patient_id"], own[0]["institution"], study, masks)


def _mask(file: Path) -> NDArray[np.bool_]:
    try:
        return np.asarray(Image.open(file)) > 0
    except OSError as error:
        raise NoLabels(f"the mask {file} cannot be read: {error.strerror or 'it is no picture'}") from error


def case_of(labelled: Labelled) -> Case:
    """One study on the canvas."""
    prepared = mr_brain.prepare(labelled.study)
    return _case(labelled.patient, labelled.institution, prepared, labelled.truth(prepared.flair))


def _case(patient: str, institution: str, prepared: mr_brain.Prepared, truth: NDArray[np.bool_]) -> Case:
    turned = np.ascontiguousarray(prepared.turn.there(truth.astype(np.float32)))
    mask = imaging.cut(turned, prepared.box) > 0.5
    return Case(patient, institution, prepared.images.half(), mask, is_synthetic=patient.startswith("SYN-"))


def synthetic_cases(count: int, *, seed: int = 0) -> Iterator[Case]:
    """Phantoms, every fourth without a lesion: a small share of the batches, so that they are known too."""
    for number in range(count):
        with tempfile.TemporaryDirectory() as folder:
            patient = f"SYN-{seed:02d}{number:02d}"
            lesion = None if number % 4 == 3 else "random"
            truth = brain_mr(Path(folder), seed=10_000 * (seed + 1) + number, lesion=lesion, patient=patient)  # type: ignore[arg-type]
            studies, _ = read_folder(Path(folder))
            prepared = mr_brain.prepare(studies[0])
            yield _case(patient, "synthetic", prepared, truth.mask)


def prepare_all(
    data: Path,
    labels: Path,
    cache: Path,
    *,
    wanted: Collection[str] = ("train",),
    phantoms: int = 16,
    said: Callable[[str], None],
) -> None:
    """Fill ``cache`` with every case that is not there yet; a study that does not serve is left out, and said."""
    for labelled in labelled_studies(data, labels, wanted=wanted, left_out=said):
        if (cache / f"{labelled.patient}.npz").exists():
            continue
        try:
            case_of(labelled).save(cache)
        except (UnsuitableStudy, WithheldStudy, NoLabels) as reason:
            said(f"{labelled.patient} is left out: {reason}")
            continue
        said(f"prepared {labelled.patient}")
    if len(list(cache.glob("SYN-*.npz"))) < phantoms:
        for case in synthetic_cases(phantoms):
            case.save(cache)
            said(f"prepared {case.patient}")
