"""A picture as a network sees it, on a canvas of one size, and the way back to the source's grid.

Single pictures, as projections, photographs and ultrasound are, and the slices of a stack taken one by one. Volumes are
the affair of ``imaging``. Tensors and arrays; no network here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pipelines.frames import Frame
from pipelines.instance import number, text
from pipelines.pixels import decode
from pipelines.series import Series
from pipelines.volume import stack

_Pixel = TypeVar("_Pixel", np.bool_, np.uint8)
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue (ITU-R BT.601)


@dataclass(frozen=True, eq=False)
class Picture:
    """One frame of a series as a person would see it: never inverted.

    Attributes:
        pixels: Modality values, float32 (rows, columns); of a colour picture 0 to 255, uint8 (rows, columns, 3).
    """

    frame: Frame
    pixels: NDArray[np.float32] | NDArray[np.uint8]

    @property
    def sop_uid(self) -> str:
        return text(self.frame.instance, "SOPInstanceUID")


def pictures(series: Series) -> Iterator[Picture]:
    """Each frame of a series in its order; what is MONOCHROME1 is turned over, so that more is brighter.

    Raises:
        BadPixels: If a frame cannot be decoded.
    """
    for frame in series.frames:
        if (number(frame.instance, "SamplesPerPixel") or 1) > 1 or _has_palette(frame):
            whole = decode(frame.instance)
            yield Picture(frame, whole if whole.ndim == 3 else whole[frame.number - 1])
            continue
        grey = stack([frame])[0]
        inverted = text(frame.instance, "PhotometricInterpretation") == "MONOCHROME1"
        yield Picture(frame, grey.max() - grey if inverted else grey)


def by_size(series: Series) -> list[Series]:
    """The series, in parts whose pictures have one size each: what is outlined lies on one grid."""
    parts: dict[tuple[float | None, float | None], list[Dataset]] = {}
    for instance in series.instances:
        parts.setdefault((number(instance, "Rows"), number(instance, "Columns")), []).append(instance)
    if len(parts) == 1:
        return [series]
    return [Series(series.uid, series.modality, tuple(part)) for part in parts.values()]


def alone(picture: NDArray[_Pixel], place: int, frames: int) -> NDArray[_Pixel]:
    """What belongs to one of so many pictures (rows, columns), as (frames, rows, columns); 0 on the others."""
    whole = np.zeros((frames, *picture.shape), picture.dtype)  # pages that stay zero take no memory
    whole[place] = picture
    return whole


def _has_palette(frame: Frame) -> bool:
    return text(frame.instance, "PhotometricInterpretation") == "PALETTE COLOR"


@dataclass(frozen=True)
class Look:
    """What a network is shown of a picture.

    Attributes:
        canvas: Rows, columns.
        colour: Three channels, else one.
        window: Modality values that are black and white; None: the picture's own 0.5th and 99.5th percentile.
        stretch: Fill the canvas whatever the picture's proportions; else it is centred, with black beside it.
    """

    canvas: tuple[int, int]
    colour: bool = False
    window: tuple[float, float] | None = None
    stretch: bool = False

    @property
    def channels(self) -> int:
        return 3 if self.colour else 1

    def at(self, pixels: NDArray[np.float32] | NDArray[np.uint8]) -> Seen:
        """The picture on the canvas."""
        image = torch.from_numpy(np.ascontiguousarray(self._planes(pixels)))  # (channels, rows, columns), 0 to 1
        rows, columns = image.shape[1:]
        place = self._place(rows, columns)
        small = F.interpolate(image[None], size=place[2:], mode="bilinear", antialias=True)[0]
        canvas = torch.zeros(self.channels, *self.canvas)
        canvas[:, place[0] : place[0] + place[2], place[1] : place[1] + place[3]] = small.clamp(0, 1)
        return Seen(canvas, (rows, columns), place)

    def mask_at(self, mask: NDArray[np.bool_]) -> torch.Tensor:
        """A mask (rows, columns) of a picture as bool on the canvas: how truth is prepared for training."""
        place = self._place(*mask.shape)
        small = F.interpolate(torch.from_numpy(mask.astype(np.float32))[None, None], size=place[2:], mode="area")[0, 0]
        canvas = torch.zeros(self.canvas, dtype=torch.bool)
        canvas[place[0] : place[0] + place[2], place[1] : place[1] + place[3]] = small > 0.5
        return canvas

    def _place(self, rows: int, columns: int) -> tuple[int, int, int, int]:
        """Top, left, rows, columns of the picture on the canvas."""
        if self.stretch:
            return 0, 0, *self.canvas
        scale = min(self.canvas[0] / rows, self.canvas[1] / columns)
        high, wide = max(1, round(rows * scale)), max(1, round(columns * scale))
        return (self.canvas[0] - high) // 2, (self.canvas[1] - wide) // 2, high, wide

    def _planes(self, pixels: NDArray[np.float32] | NDArray[np.uint8]) -> NDArray[np.float32]:
        if pixels.ndim == 3 and self.colour:
            return np.moveaxis(pixels, -1, 0).astype(np.float32) / np.float32(255)
        grey = np.asarray(pixels @ _LUMINANCE if pixels.ndim == 3 else pixels, np.float32)
        low, high = self.window or np.percentile(grey, (0.5, 99.5))
        scaled: NDArray[np.float32] = (grey - np.float32(low)) / np.float32(max(high - low, 1e-6))
        clipped: NDArray[np.float32] = np.clip(scaled, 0, 1)
        return clipped[None].repeat(self.channels, axis=0)


@dataclass(frozen=True, eq=False)
class Seen:
    """A picture on the canvas, and where it lies there.

    Attributes:
        image: float32 (channels, *canvas), 0 to 1.
        shape: Rows, columns of the source.
        place: Top, left, rows, columns of the picture on the canvas.
    """

    image: torch.Tensor
    shape: tuple[int, int]
    place: tuple[int, int, int, int]

    def back(self, canvas: torch.Tensor) -> NDArray[np.float32]:
        """(n, *canvas) → (n, rows, columns) of the source."""
        top, left, rows, columns = self.place
        part = canvas[None, :, top : top + rows, left : left + columns].float()
        return F.interpolate(part, size=self.shape, mode="bilinear", antialias=True)[0].numpy()


@dataclass(frozen=True)
class Middle(Look):
    """Of each picture the middle alone is shown, where what is looked for lies.

    Attributes:
        share: Of its rows and of its columns.
    """

    share: float = 0.5

    def at(self, pixels: NDArray[np.float32] | NDArray[np.uint8]) -> Seen:
        part = self._part(*pixels.shape[:2])
        seen = super().at(pixels[part])
        return _SeenMiddle(seen.image, seen.shape, seen.place, (pixels.shape[0], pixels.shape[1]), part)

    def mask_at(self, mask: NDArray[np.bool_]) -> torch.Tensor:
        return super().mask_at(mask[self._part(*mask.shape)])

    def _part(self, rows: int, columns: int) -> tuple[slice, slice]:
        shown = [max(1, round(size * self.share)) for size in (rows, columns)]
        first = [(size - part) // 2 for size, part in zip((rows, columns), shown, strict=True)]
        return slice(first[0], first[0] + shown[0]), slice(first[1], first[1] + shown[1])


@dataclass(frozen=True, eq=False)
class _SeenMiddle(Seen):
    """``shape`` is that of the ``part``, ``whole`` that of the source; nothing is said of what lies around."""

    whole: tuple[int, int]
    part: tuple[slice, slice]

    def back(self, canvas: torch.Tensor) -> NDArray[np.float32]:
        around = np.zeros((len(canvas), *self.whole), np.float32)
        around[:, self.part[0], self.part[1]] = super().back(canvas)
        return around
