"""Single pictures with their rows of ``index.csv``, read by the way that a pipeline reads them. It trains nothing.

For sets whose truth is a column or a mask per picture; stacks of slices are the affair of ``prepare``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.pictures import Picture, pictures
from pipelines.study import read_files
from pipelines.training.cases import fold_of
from pipelines.training.prepare import NoLabels

COLUMNS = ("sop_uid", "file", "patient_id", "split", "path")


@dataclass(frozen=True, eq=False)
class LabelledPicture:
    """A picture, and what the index says of it.

    Attributes:
        row: Every column of its row.
    """

    picture: Picture
    row: dict[str, str]

    @property
    def fold(self) -> int:
        """By the patient where one is known, else by the picture."""
        patient = self.row["patient_id"]
        return fold_of(patient if patient not in ("", "unknown") else self.row["path"])

    def mask(self, labels: Path) -> NDArray[np.int32]:
        """The values of its mask (rows, columns): classes, or the numbers of instances.

        Raises:
            NoLabels: If it cannot be read or has another size than the picture.
        """
        file = labels / self.row["mask"]
        try:
            mask = np.asarray(Image.open(file)).astype(np.int32)
        except OSError as error:
            raise NoLabels(f"the mask {file} cannot be read: {error.strerror or 'it is no picture'}") from error
        if mask.shape != self.picture.pixels.shape[:2]:
            raise NoLabels(f"the mask {file} is {mask.shape}, its picture {self.picture.pixels.shape[:2]}")
        return mask

    def boxes(self) -> list[tuple[str, tuple[float, float, float, float]]]:
        """Label and [x, y, width, height] in pixels of the picture, from the column ``boxes_json`` of fractions."""
        rows, columns = self.picture.pixels.shape[:2]
        held = [(each["label"], each["xywh"]) for each in json.loads(self.row["boxes_json"])]
        return [(label, (x * columns, y * rows, w * columns, h * rows)) for label, (x, y, w, h) in held]


def labelled_pictures(data: Path, splits: Collection[str]) -> Iterator[LabelledPicture]:
    """The pictures of these splits, in the order of the index.

    Raises:
        NoLabels: If there is no such index, it names no picture of these splits, or a picture cannot be read.
    """
    for row in _rows(data, splits):
        studies, refused = read_files([data / row["file"]])
        if refused or not studies:
            raise NoLabels(f"{row['file']} cannot be read: {refused[0].reason if refused else 'nothing is in it'}")
        for picture in pictures(studies[0].series[0]):
            yield LabelledPicture(picture, row)


def _rows(data: Path, splits: Collection[str]) -> list[dict[str, str]]:
    index = data / "index.csv"
    if not index.is_file():
        raise NoLabels(f"{data} has no index.csv that says what is known of each instance")
    with index.open(newline="") as file:
        reader = csv.DictReader(file)
        if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
            raise NoLabels(f"{index} has no column {', '.join(missing)}; it needs {', '.join(COLUMNS)}")
        rows = [row for row in reader if row["split"] in splits]
    if not rows:
        raise NoLabels(f"{index} has no row of the split {' or '.join(splits)}")
    return rows
