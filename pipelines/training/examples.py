"""Labelled pictures for pipelines that read picture by picture: from DICOM, by the very look that the pipeline has.

A row of ``index.csv`` is a picture. Which labels and masks it has is the recipe's to say; here they are put beside the
picture and kept on disk, since decoding costs more than reading.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.instance import Unreadable, open_instance, text
from pipelines.pictures import Look, pictures
from pipelines.pixels import BadPixels
from pipelines.series import Series
from pipelines.training.cases import fold_of
from pipelines.training.prepare import NoLabels, index_rows
from pipelines.training.recipes import Sources

Row = dict[str, str]
UNKNOWN = float("nan")


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of one picture.

    Attributes:
        labels: 0 to 1 for each class, ``UNKNOWN`` where nobody said.
        masks: bool (labels, rows, columns) on the source's grid; None where nobody drew.
    """

    labels: Sequence[float] = ()
    masks: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class Examples:
    """Pictures on the canvas with their truth.

    Attributes:
        images: uint8 (N, channels, *canvas), 255 for white.
        labels: float32 (N, classes); NaN where nobody said.
        masks: bool (N, labels, *canvas); without labels (N, 0, *canvas).
        rows: Of the index, as they are there: patient_id and whatever else the set says.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor
    rows: tuple[Row, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def patients(self) -> tuple[str, ...]:
        return tuple(row["patient_id"] for row in self.rows)

    def at(self, places: Sequence[int]) -> Examples:
        index = torch.tensor(places, dtype=torch.long)
        return Examples(
            self.images[index], self.labels[index], self.masks[index], tuple(self.rows[place] for place in places)
        )

    def parted(self, fold: int | None) -> tuple[Examples, Examples]:
        """To learn from, and to judge by: the patients of the fold."""
        kept = [fold_of(group_of(row)) == fold for row in self.rows]
        places = range(len(self))
        return self.at([i for i in places if not kept[i]]), self.at([i for i in places if kept[i]])


def group_of(row: Row) -> str:
    """What must not be torn apart: the patient, or the look-alikes; where the set knows neither, the picture."""
    patient = row["patient_id"]
    return row["sop_uid"] if patient in ("", "unknown") else patient


def examples(
    sources: Sources,
    look: Look,
    truth: Callable[[Row, Path], Truth | None],
    *,
    keep: Callable[[Row], bool] = lambda _: True,
) -> Examples:
    """Every picture of the splits that ``truth`` knows something of; from the cache if it holds these very ones.

    Args:
        truth: Row of the index and the folder of labels → what is known; None leaves the picture out.

    Raises:
        NoLabels: If nothing is left to learn from.
    """
    rows = [row for row in index_rows(sources.data, wanted=sources.splits, columns=_COLUMNS) if keep(row)]
    key = hashlib.sha256(
        json.dumps([repr(look), truth.__module__, truth.__qualname__, rows], sort_keys=True).encode()
    ).hexdigest()
    file = sources.cache / f"{key[:16]}.npz"
    if not file.exists():
        _prepare(rows, sources, look, truth).save(file)
    return _load(file)


_COLUMNS = ("study_uid", "sop_uid", "file", "patient_id", "split")


@dataclass(eq=False)
class _Prepared:
    images: list[NDArray[np.uint8]]
    labels: list[Sequence[float]]
    masks: list[NDArray[np.bool_]]
    rows: list[Row]

    def save(self, file: Path) -> None:
        if not self.rows:
            raise NoLabels("no picture of the index could be read and has labels")
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part.npz")
        np.savez(
            part,
            images=np.stack(self.images),
            labels=np.asarray(self.labels, np.float32),
            masks=np.packbits(np.stack(self.masks), axis=-1),
            rows=json.dumps(self.rows),
        )
        part.rename(file)


def _prepare(
    rows: Sequence[Row], sources: Sources, look: Look, truth: Callable[[Row, Path], Truth | None]
) -> _Prepared:
    made = _Prepared([], [], [], [])
    for count, row in enumerate(rows):
        known = truth(row, sources.labels)
        if known is None:
            continue
        try:
            header = open_instance(sources.data / row["file"])
            (picture,) = pictures(Series(text(header, "SeriesInstanceUID"), text(header, "Modality"), (header,)))
        except (Unreadable, BadPixels) as reason:
            sources.said(f"{row['file']} is left out: {reason}")
            continue
        made.images.append((look.at(picture.pixels).image * 255).round().to(torch.uint8).numpy())
        made.labels.append(known.labels)
        drawn = known.masks if known.masks is not None else np.zeros((0, 1, 1), bool)
        on_canvas = [look.mask_at(mask).numpy() for mask in drawn]
        made.masks.append(np.stack(on_canvas) if on_canvas else np.zeros((0, *look.canvas), bool))
        made.rows.append(row)
        if count % 100 == 0:
            sources.said(f"prepared {count} of {len(rows)} pictures")
    return made


def _load(file: Path) -> Examples:
    with np.load(file, allow_pickle=False) as held:
        images = torch.from_numpy(held["images"])
        masks = np.unpackbits(held["masks"], axis=-1, count=images.shape[-1]).astype(bool)
        return Examples(
            images, torch.from_numpy(held["labels"]), torch.from_numpy(masks), tuple(json.loads(str(held["rows"])))
        )
