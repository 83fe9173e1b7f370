"""Blood smears: the picture as the detector sees it, and its maps as boxes of cells.

Tensors and arrays; no network here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

CANVAS = (240, 320)  # rows, columns that the detector sees: those of the pictures that it was trained on
STRIDE = 4
CLASSES = ("red blood cell", "white blood cell", "platelet")
_MOST = 400  # cells of one class in a picture
_EDGES = (-3.0, 5.0)  # logarithms of distances in steps of the grid, smallest and largest


@dataclass(frozen=True, eq=False)
class Shown:
    """A smear as the detector sees it.

    Attributes:
        image: float32 (3, *CANVAS), 0 to 1; what is beside the picture is grey.
        scale: Pixels of the canvas per pixel of the source.
        shape: Rows, columns of the source.
    """

    image: torch.Tensor
    scale: float
    shape: tuple[int, int]

    @property
    def picture(self) -> torch.Tensor:
        """The image without what is beside the picture."""
        rows, columns = (max(1, round(size * self.scale)) for size in self.shape)
        return self.image[:, :rows, :columns]


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        kind: Of ``CLASSES``.
        box: x, y, width, height in pixels of the source, within the picture.
        score: 0 to 1, as the detector gives it.
    """

    kind: str
    box: tuple[float, float, float, float]
    score: float


@dataclass(frozen=True)
class Rule:
    """What makes a cell of the maps, chosen on folds of train.

    Attributes:
        least: Score from which a cell of each class is said.
        apart: Intersection over union from which two boxes of a class are one cell.
    """

    least: Mapping[str, float]
    apart: float


def shown(pixels: NDArray[np.uint8]) -> Shown:
    """RGB, uint8 (rows, columns, 3), at the top left of the canvas in its own proportions."""
    rows, columns = pixels.shape[:2]
    scale = min(CANVAS[0] / rows, CANVAS[1] / columns)
    size = (max(1, round(rows * scale)), max(1, round(columns * scale)))
    image = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, 0)).astype(np.float32) / np.float32(255))[
        None
    ]
    if size != (rows, columns):
        image = F.interpolate(image, size=size, mode="bilinear", antialias=True)
    canvas = torch.full((3, *CANVAS), 0.5)
    canvas[:, : size[0], : size[1]] = image[0].clamp(0, 1)
    return Shown(canvas, scale, (rows, columns))


def mirrored(image: torch.Tensor) -> torch.Tensor:
    """(3, rows, columns) → (2, 3, rows, columns): itself, and mirrored left to right."""
    return torch.stack([image, image.flip(-1)])


def merged(outputs: torch.Tensor) -> torch.Tensor:
    """What members make of ``mirrored`` (members, 2, classes + 4, rows, columns) → the maps that ``cells`` takes."""
    count = len(CLASSES)
    maps = torch.cat((outputs[:, :, :count].sigmoid(), outputs[:, :, count:].clamp(*_EDGES).exp()), 2)
    back = maps[:, 1].flip(-1)
    left, top, right, bottom = (count + place for place in range(4))
    back = back[:, [*range(count), right, top, left, bottom]]  # what was to the left is to the right
    return torch.cat((maps[:, 0], back)).mean(0)


def cells(maps: torch.Tensor, view: Shown, rule: Rule) -> list[Cell]:
    """Probabilities of middles and distances to the edges (classes + 4, rows, columns) → cells, the surest first."""
    middles, edges = maps[: len(CLASSES)], maps[len(CLASSES) :]
    peaks = middles * (F.max_pool2d(middles[None], 3, 1, 1)[0] == middles)
    found = []
    for place, kind in enumerate(CLASSES):
        rows, columns = torch.nonzero(peaks[place] >= rule.least[kind], as_tuple=True)
        scores = peaks[place, rows, columns]
        order = scores.argsort(descending=True)[:_MOST]
        boxes = _boxes(edges, rows[order], columns[order])
        for index in _apart(boxes, rule.apart):
            box = _within(boxes[index] / view.scale, view.shape)
            if box[2] > 0 and box[3] > 0:
                found.append(Cell(kind, box, float(scores[order[index]])))
    return sorted(found, key=lambda each: -each.score)


def _boxes(edges: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> NDArray[np.float64]:
    """(n, 4): left, top, right, bottom on the canvas."""
    left, top, right, bottom = (edges[:, rows, columns] * STRIDE).double().numpy()
    x, y = (columns.double().numpy() + 0.5) * STRIDE, (rows.double().numpy() + 0.5) * STRIDE
    return np.stack([x - left, y - top, x + right, y + bottom], 1)


def _apart(boxes: NDArray[np.float64], most: float) -> list[int]:
    """Places of the boxes, the surest first, that overlap no surer one by more than ``most``."""
    kept: list[int] = []
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    for place, box in enumerate(boxes):
        others = boxes[kept]
        common = np.clip(np.minimum(others[:, 2:], box[2:]) - np.maximum(others[:, :2], box[:2]), 0, None).prod(1)
        if not (common > most * (areas[kept] + areas[place] - common)).any():
            kept.append(place)
    return kept


def _within(box: NDArray[np.float64], shape: tuple[int, int]) -> tuple[float, float, float, float]:
    rows, columns = shape
    left, right = np.clip(box[[0, 2]], 0, columns)
    top, bottom = np.clip(box[[1, 3]], 0, rows)
    return round(float(left), 2), round(float(top), 2), round(float(right - left), 2), round(float(bottom - top), 2)
