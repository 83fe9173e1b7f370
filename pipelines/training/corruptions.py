"""What befalls pictures between the patient and the reader, in physical units: noise, blur, wrong greys, rotation,
coarse pixels, lossy compression.

Each takes and gives a picture as its instance stores it in modality values, (rows, columns) or RGB (rows, columns, 3).
Greys are counted in shares of the picture's own range (0.5th to 99.5th percentile), in HU for CT; lengths in pixels.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Pixels = NDArray[np.float32]
CT_RANGE = (-150.0, 250.0)  # HU: what a wrong grey of a CT is counted in, and compression cuts off


@dataclass(frozen=True)
class Corruption:
    """One way in which pictures are spoilt.

    Attributes:
        unit: Of the degrees, in words.
        degrees: From light to heavy.
        spoil: Picture, degree, modality and a generator → the picture spoilt.
        moves: Where the corruption moves things, how to move a mask alike.
    """

    name: str
    unit: str
    degrees: tuple[float, ...]
    spoil: Callable[[Pixels, float, str, np.random.Generator], Pixels]
    moves: Callable[[NDArray[np.bool_], float], NDArray[np.bool_]] | None = None


def corruptions(modality: str) -> Sequence[Corruption]:
    """Those that pictures of a modality can undergo."""
    greys: list[Corruption] = [
        Corruption("gamma", "exponent", (0.7, 1.4), _gamma),
        Corruption("contrast", "times", (0.8, 0.6), _contrast),
    ]
    if modality == "CT":
        greys = [Corruption("calibration", "HU added", (5, 10, -10), _offset)]
    noise = {
        "CT": Corruption("noise", "HU", (5, 15), _noise),
        "MR": Corruption("Rician noise", "of the range", (0.03, 0.08), _rician),
        "US": Corruption("speckle", "of the range", (0.05, 0.12), _noise),
    }.get(modality, Corruption("noise", "of the range", (0.03, 0.08), _noise))
    return [
        noise,
        Corruption("blur", "pixels", (1.0, 2.0), _blur),
        *greys,
        Corruption("rotation", "degrees", (5, 15), _turn, _turn_mask),
        Corruption("coarse pixels", "times larger", (2, 4), _coarse),
        Corruption("compression", "JPEG quality", (40, 10), _compress),
    ]


def grey_range(pixels: Pixels, modality: str) -> tuple[float, float]:
    """Black and white."""
    if pixels.ndim == 3:
        return 0.0, 255.0
    if modality == "CT":
        return CT_RANGE
    low, high = (float(each) for each in np.percentile(pixels, (0.5, 99.5)))
    return low, max(high, low + 1e-6)


def _noise(pixels: Pixels, degree: float, modality: str, rng: np.random.Generator) -> Pixels:
    """White; for US as much as speckle is, two pixels wide across the beam."""
    white = rng.standard_normal(pixels.shape)
    if modality == "US":
        white = ndimage.gaussian_filter(white, (0.5, 1.0))
        white /= white.std()
    low, high = grey_range(pixels, modality)
    size = degree if modality == "CT" else degree * (high - low)
    return np.asarray(pixels + size * white, np.float32)


def _rician(pixels: Pixels, degree: float, modality: str, rng: np.random.Generator) -> Pixels:
    low, high = grey_range(pixels, modality)
    real, imaginary = degree * (high - low) * rng.standard_normal((2, *pixels.shape))
    return np.asarray(low + np.hypot(pixels - low + real, imaginary), np.float32)


def _blur(pixels: Pixels, degree: float, _: str, __: np.random.Generator) -> Pixels:
    return np.asarray(ndimage.gaussian_filter(pixels, _in_plane(pixels, degree)), np.float32)


def _gamma(pixels: Pixels, degree: float, modality: str, _: np.random.Generator) -> Pixels:
    low, high = grey_range(pixels, modality)
    return np.asarray(low + (high - low) * np.clip((pixels - low) / (high - low), 0, 1) ** degree, np.float32)


def _contrast(pixels: Pixels, degree: float, modality: str, _: np.random.Generator) -> Pixels:
    middle = sum(grey_range(pixels, modality)) / 2
    return np.asarray(middle + degree * (pixels - middle), np.float32)


def _offset(pixels: Pixels, degree: float, _: str, __: np.random.Generator) -> Pixels:
    return np.asarray(pixels + degree, np.float32)


def _turn(pixels: Pixels, degree: float, _: str, __: np.random.Generator) -> Pixels:
    turned = ndimage.rotate(pixels, degree, axes=(1, 0), reshape=False, order=1, mode="constant", cval=pixels.min())
    return np.asarray(turned, np.float32)


def _turn_mask(mask: NDArray[np.bool_], degree: float) -> NDArray[np.bool_]:
    turned = ndimage.rotate(mask.astype(np.float32), degree, axes=(1, 0), reshape=False, order=1, mode="constant")
    return np.asarray(turned > 0.5)


def _coarse(pixels: Pixels, degree: float, _: str, __: np.random.Generator) -> Pixels:
    """As a detector with larger pixels would have it, on the old grid."""
    mean = ndimage.uniform_filter(pixels, _in_plane(pixels, degree))
    step = int(degree)
    rows, columns = (np.arange(size) // step * step + step // 2 for size in pixels.shape[:2])
    seen = mean[rows.clip(max=pixels.shape[0] - 1)][:, columns.clip(max=pixels.shape[1] - 1)]
    return np.asarray(ndimage.uniform_filter(seen, _in_plane(pixels, degree)), np.float32)


def _compress(pixels: Pixels, degree: float, modality: str, _: np.random.Generator) -> Pixels:
    """To JPEG and back, of what lies between black and white."""
    low, high = grey_range(pixels, modality)
    seen = np.clip((pixels - low) / (high - low) * 255, 0, 255).round().astype(np.uint8)
    held = io.BytesIO()
    Image.fromarray(seen).save(held, "JPEG", quality=int(degree))
    back = np.asarray(Image.open(held), np.float32) * (high - low) / 255 + low
    beyond = (pixels < low) | (pixels > high)
    return np.where(beyond, pixels, back).astype(np.float32) if pixels.ndim == 2 else np.asarray(back, np.float32)


def _in_plane(pixels: Pixels, size: float) -> tuple[Any, ...]:
    """A filter's size, for rows and columns alone."""
    return (size, size, 0 if isinstance(size, float) else 1)[: pixels.ndim]
