"""Labelled pictures for pipelines that read picture by picture: from DICOM, by the very look that the pipeline has.

A row of ``index.csv`` is a picture. Which labels and masks it has is the recipe's to say; here they are put beside the
picture and kept on disk, since decoding costs more than reading.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipelines.instance import Unreadable, open_instance, text
from pipelines.pictures import Look, pictures
from pipelines.pixels import BadPixels, frame_count, has_pixels
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

    def at_most(self, rows: int) -> Examples:
        """The same on a canvas of so many rows, the columns in proportion; as they are where they have no more."""
        high, wide = self.images.shape[2:]
        if high <= rows:
            return self
        size = (rows, round(wide * rows / high))
        images = [F.interpolate(part.float(), size=size, mode="area").round() for part in torch.split(self.images, 256)]
        masks = [F.interpolate(part.float(), size=size, mode="area") > 0.5 for part in torch.split(self.masks, 256)]
        if not self.masks.shape[1]:
            masks = [torch.zeros(len(self), 0, *size, dtype=torch.bool)]
        return Examples(torch.cat(images).to(torch.uint8), self.labels, torch.cat(masks), self.rows)

    def parted(self, fold: int | None) -> tuple[Examples, Examples]:
        """To learn from, and to judge by: the patients of the fold."""
        kept = [fold_of(group_of(row)) == fold for row in self.rows]
        places = range(len(self))
        return self.at([i for i in places if not kept[i]]), self.at([i for i in places if kept[i]])


def joined(parts: Sequence[Examples]) -> Examples:
    """All of them, in their order; of pictures on one canvas."""
    images, labels, masks = (torch.cat([getattr(p, name) for p in parts]) for name in ("images", "labels", "masks"))
    return Examples(images, labels, masks, tuple(row for part in parts for row in part.rows))


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
        truth: Row of the index and the folder of labels → what is known; None leaves the picture out. It is not asked
            where ``sources`` are without labels.

    Raises:
        NoLabels: If nothing is left to learn from.
    """
    if not sources.labelled:
        rows, truth = _unlabelled(sources), _nothing
    else:
        rows = [row for row in index_rows(sources.data, wanted=sources.splits, columns=_COLUMNS) if keep(row)]
    key = hashlib.sha256(
        json.dumps([repr(look), truth.__module__, truth.__qualname__, rows], sort_keys=True).encode()
    ).hexdigest()
    file = sources.cache / f"{key[:16]}.npz"
    if not file.exists():
        _prepare(rows, sources, look, truth).save(file)
    return _load(file)


def _nothing(_: Row, __: Path) -> Truth:
    return Truth()


def _unlabelled(sources: Sources) -> list[Row]:
    """Every picture, whatever the columns beside; without an index every DICOM file that has pixels."""
    if (sources.data / "index.csv").is_file():
        return index_rows(sources.data, wanted=sources.splits, columns=("sop_uid", "file", "patient_id", "split"))
    rows = []
    for file in sorted(each for each in sources.data.rglob("*") if each.is_file()):
        try:
            header = open_instance(file)
        except Unreadable as reason:
            sources.said(f"{file.name} is left out: {reason}")
            continue
        if has_pixels(header):
            uids = {name: text(header, keyword) for name, keyword in _UIDS.items()}
            rows.append(uids | {"file": str(file.relative_to(sources.data))})
    if not rows:
        raise NoLabels(f"{sources.data} holds no DICOM pictures")
    return rows


_UIDS = {
    "study_uid": "StudyInstanceUID",
    "series_uid": "SeriesInstanceUID",
    "sop_uid": "SOPInstanceUID",
    "patient_id": "PatientID",
}
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
            if sources.labelled and frame_count(header) > 1:
                raise BadPixels("it has several frames, and a row of the index is one picture")
            seen = pictures(Series(text(header, "SeriesInstanceUID"), text(header, "Modality"), (header,)))
            picture = next(islice(seen, (frame_count(header) - 1) // 2, None))  # of a clip the middle one
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
