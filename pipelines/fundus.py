"""A fundus photograph as the network sees it: its field of view, brought to one size, lit evenly; and the way back.

Tensors and arrays; no network here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage

FIELD = 540  # pixels across the field of view as the network sees it: that of DRIVE
AS_IT_IS = 0.03  # a field so near to that size is not resampled, which would blur it
MULTIPLE = 16  # rows and columns must be divisible by it
BLUR = 20.0  # pixels, deviation of the Gaussian that says how bright a region is: wider than any vessel
LIMIT = 4.0  # deviations from a region's mean at which brightness is cut off
DARK = 0.12  # of the 95th percentile of brightness: below it lies what the camera's stop leaves black
SMALLEST_SHARE = 0.35  # of the picture that a field of view fills
ROUNDEST = 0.75  # of a disc's area that a field of view covers at least, where it does not touch the rims
REDDEST = 1.25  # a retina is at least so much brighter in red than in blue


class NoFundus(ValueError):
    """The picture shows no field of view such as a fundus camera's; the sentence says why."""


@dataclass(frozen=True, eq=False)
class Shown:
    """A fundus as the network sees it.

    Attributes:
        image: float32 (3, rows, columns), in deviations from the local mean; 0 outside of the field.
        field: bool (rows, columns) of the source: what the camera saw.
        box: Top, left, rows, columns of the part of the source that is shown.
        size: Rows, columns of that part as it is shown, from the top left corner of the image.
        unit: Of the shape of the image: by how much it changes with one grey level of the photograph.
    """

    image: torch.Tensor
    field: NDArray[np.bool_]
    box: tuple[int, int, int, int]
    size: tuple[int, int]
    unit: torch.Tensor

    def there(self, mask: NDArray[np.bool_]) -> torch.Tensor:
        """A mask of the source as shares of pixels of the image: how truth is prepared."""
        top, left, rows, columns = self.box
        part = torch.from_numpy(np.ascontiguousarray(mask[top : top + rows, left : left + columns]).astype(np.float32))
        small = F.interpolate(part[None, None], size=self.size, mode="bilinear", antialias=True)[0, 0]
        whole = torch.zeros(self.image.shape[1:])
        whole[: self.size[0], : self.size[1]] = small
        return whole

    def back(self, probability: torch.Tensor) -> NDArray[np.float32]:
        """Probabilities (rows, columns) of the image on the grid of the source; 0 outside of the field."""
        top, left, rows, columns = self.box
        part = probability[None, None, : self.size[0], : self.size[1]]
        large = F.interpolate(part, size=(rows, columns), mode="bicubic", antialias=True)[0, 0].clamp(0, 1)
        whole = np.zeros(self.field.shape, np.float32)
        whole[top : top + rows, left : left + columns] = large.numpy()
        whole[~self.field] = 0.0
        return whole


def shown(pixels: NDArray[np.uint8]) -> Shown:
    """
    Args:
        pixels: RGB, uint8 (rows, columns, 3).

    Raises:
        NoFundus: If there is no round, reddish field of view in it.
    """
    field = field_of_view(pixels)
    down, right = np.flatnonzero(field.any(1)), np.flatnonzero(field.any(0))
    box = (int(down[0]), int(right[0]), int(down[-1] - down[0] + 1), int(right[-1] - right[0] + 1))
    top, left, rows, columns = box
    scale = FIELD / max(rows, columns)
    is_right = abs(scale - 1) < AS_IT_IS
    size = (rows, columns) if is_right else (max(1, round(rows * scale)), max(1, round(columns * scale)))
    cut = slice(top, top + rows), slice(left, left + columns)
    colours = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels[cut], -1, 0)).astype(np.float32))[None]
    inside = torch.from_numpy(field[cut].astype(np.float32))[None, None]
    if not is_right:
        colours = F.interpolate(colours, size=size, mode="bilinear", antialias=True)
        inside = (F.interpolate(inside, size=size, mode="area") > 0.5).float()
    image, unit = _lit_evenly(colours, inside)
    below, beside = (-length % MULTIPLE for length in size)
    pads = (0, beside, 0, below)
    return Shown(F.pad(image[0], pads), field, box, size, F.pad(unit[0], pads))


def mirrored(image: torch.Tensor) -> torch.Tensor:
    """(3, rows, columns) → (2, 3, rows, columns): itself, and mirrored left to right."""
    return torch.stack([image, image.flip(-1)])


def merged(logits: torch.Tensor) -> torch.Tensor:
    """Logits (members, 2, 1, rows, columns) of what ``mirrored`` gives → mean probability (rows, columns)."""
    chances = logits.sigmoid()[:, :, 0]
    return torch.stack([chances[:, 0], chances[:, 1].flip(-1)]).mean((0, 1))


def field_of_view(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """bool (rows, columns): the largest bright region, without holes.

    Raises:
        NoFundus: If it is small, or not round, or no redder than blue.
    """
    bright = ndimage.uniform_filter(pixels.max(-1).astype(np.float32), 5)
    regions, count = ndimage.label(bright > DARK * np.percentile(bright, 95))
    if not count:
        raise NoFundus("it is dark all over")
    largest = 1 + int(np.argmax(np.bincount(regions.ravel())[1:]))
    field = np.asarray(ndimage.binary_fill_holes(regions == largest))
    _refuse(field, pixels)
    return field


def _refuse(field: NDArray[np.bool_], pixels: NDArray[np.uint8]) -> None:
    if (share := float(field.mean())) < SMALLEST_SHARE:
        raise NoFundus(f"its bright part fills {share:.0%} of it; a field of view fills {SMALLEST_SHARE:.0%} or more")
    if roundness(field) < ROUNDEST or field[[0, 0, -1, -1], [0, -1, 0, -1]].all():
        raise NoFundus("its bright part is not round, as a fundus camera's field of view is")
    red, _, blue = pixels[field].mean(0)
    if red < REDDEST * blue:
        raise NoFundus("it is not reddish: a photograph in colour, without contrast agent, is read")


def roundness(field: NDArray[np.bool_]) -> float:
    """Intersection over union of a region and the disc around its middle, as far as that lies in the picture."""
    down, right = np.flatnonzero(field.any(1)), np.flatnonzero(field.any(0))
    middle = ((down[0] + down[-1]) / 2, (right[0] + right[-1]) / 2)
    radius = max(down[-1] - down[0] + 1, right[-1] - right[0] + 1) / 2
    y, x = np.ogrid[: field.shape[0], : field.shape[1]]
    disc = (y - middle[0]) ** 2 + (x - middle[1]) ** 2 <= radius**2
    return float((field & disc).sum() / (field | disc).sum())


def _lit_evenly(colours: torch.Tensor, inside: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each colour less its local mean, over its local deviation, and what one grey level is in that; means are of the
    field of view alone.

    Args:
        colours: 0 to 255, (1, 3, rows, columns).
        inside: 1 in the field of view, else 0; (1, 1, rows, columns).
    """
    weight = _blurred(inside).clamp_min(1e-3)
    apart = (colours - _blurred(colours * inside) / weight) * inside
    spread = (_blurred(apart**2) / weight).clamp_min(0).sqrt()
    spread = spread + 2  # of 255: flat colours stay flat
    return (apart / spread).clamp(-LIMIT, LIMIT), inside / spread


def _blurred(image: torch.Tensor) -> torch.Tensor:
    """A Gaussian of the deviation ``BLUR``, worked out on a grid a quarter as fine."""
    small = F.avg_pool2d(image, 4, ceil_mode=True, count_include_pad=False).numpy()
    soft = ndimage.gaussian_filter(small, (0, 0, BLUR / 4, BLUR / 4))
    return F.interpolate(torch.from_numpy(soft), size=image.shape[2:], mode="bilinear")
