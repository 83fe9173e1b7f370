"""What befalls pictures between the patient and the reader, in physical units: noise as the modality makes it, motion,
uneven coils, blur, wrong greys, a patient who lies askew, coarse pixels, lossy compression.

Each takes and gives a picture as its instance stores it in modality values, (rows, columns) or RGB (rows, columns, 3).
Greys are counted in shares of what is shown from black to white (0.5th to 99.5th percentile of the picture, of an MR
of its whole series), in HU for CT; lengths in pixels.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pipelines.training import noise

Pixels = NDArray[np.float32]
CT_RANGE = (-150.0, 250.0)  # HU: what a wrong grey of a CT is counted in, and compression cuts off
_DARKEST = 50.0  # times fewer quanta reach a film where it is white than where it is black


@dataclass(frozen=True)
class Greys:
    """What is black and what is white of a picture, in modality values."""

    modality: str
    black: float
    white: float

    @property
    def range(self) -> float:
        return self.white - self.black

    def shares(self, pixels: Pixels) -> Pixels:
        """0 for black, 1 for white."""
        return np.asarray((pixels - self.black) / self.range, np.float32)

    def values(self, shares: NDArray[Any]) -> Pixels:
        return np.asarray(self.black + self.range * shares, np.float32)


@dataclass(frozen=True)
class Corruption:
    """One way in which pictures are spoilt.

    Attributes:
        unit: Of the degrees, in words.
        light, heavy: Degrees; what goes either way has heavy ones alone.
        spoil: Picture, degree, what is black and white, and a generator → the picture spoilt.
        moves: Where the corruption moves things, how to move a mask alike.
    """

    name: str
    unit: str
    light: tuple[float, ...]
    heavy: tuple[float, ...]
    spoil: Callable[[Pixels, float, Greys, np.random.Generator], Pixels]
    moves: Callable[[NDArray[np.bool_], float], NDArray[np.bool_]] | None = None

    @property
    def degrees(self) -> tuple[float, ...]:
        return (*self.light, *self.heavy)


def greys_of(pictures: Iterable[Pixels], modality: str) -> Greys:
    """Of pictures that are shown alike, as the slices of one MR series are."""
    held = list(pictures)
    if held[0].ndim == 3:
        return Greys(modality, 0.0, 255.0)
    if modality == "CT":
        return Greys(modality, *CT_RANGE)
    low, high = np.percentile(np.concatenate([each.ravel() for each in held]), (0.5, 99.5))
    return Greys(modality, float(low), max(float(high), float(low) + 1e-6))


def corruptions(modality: str) -> Sequence[Corruption]:
    """Those that pictures of a modality can undergo: its own, then what befalls all."""
    return (*_OWN.get(modality, _CAMERA), *_ALL)


def _noise(pixels: Pixels, degree: float, _: Greys, rng: np.random.Generator) -> Pixels:
    return np.asarray(pixels + degree * rng.standard_normal(pixels.shape), np.float32)


def _rician(pixels: Pixels, degree: float, greys: Greys, rng: np.random.Generator) -> Pixels:
    real, imaginary = degree * greys.range * rng.standard_normal((2, *pixels.shape))
    return np.asarray(greys.black + np.hypot(pixels - greys.black + real, imaginary), np.float32)


def _bias(pixels: Pixels, degree: float, greys: Greys, _: np.random.Generator) -> Pixels:
    """A coil at one corner: the signal falls from there to the other, exponentially; the same for every slice."""
    down, across = (np.linspace(-1, 1, size) for size in pixels.shape)
    field = np.exp(-degree * (down[:, None] + across) / 2)
    return np.asarray(greys.black + (pixels - greys.black) * field, np.float32)


def _motion(pixels: Pixels, degree: float, _: Greys, __: np.random.Generator) -> Pixels:
    """Breathing: each line of k-space was filled while things lay elsewhere along the rows, six breaths in all."""
    lines = np.fft.fftfreq(pixels.shape[0])
    away = degree * np.sin(2 * np.pi * 6 * np.arange(pixels.shape[0]) / pixels.shape[0])
    seen = np.fft.fft2(pixels) * np.exp(-2j * np.pi * lines * away)[:, None]
    return np.asarray(np.abs(np.fft.ifft2(seen)), np.float32)


def _speckle(pixels: Pixels, degree: float, greys: Greys, rng: np.random.Generator) -> Pixels:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**62)))
        shown = torch.from_numpy(greys.shares(_grey(pixels)).clip(0, 1))[None, None]
        spoilt = noise.speckled(shown, torch.tensor([degree]))[0, 0].numpy()
    return _as(pixels, greys.values(spoilt))


def _gain(pixels: Pixels, degree: float, greys: Greys, _: np.random.Generator) -> Pixels:
    """Of an echo that is shown as its logarithm, over ``noise.DECIBELS``."""
    return greys.values((greys.shares(pixels) + degree / noise.DECIBELS).clip(0, 1))


def _quanta(pixels: Pixels, degree: float, greys: Greys, rng: np.random.Generator) -> Pixels:
    """Poisson: X-rays that fall off exponentially with what they pass, and are shown as their logarithm."""
    depth = np.log(_DARKEST)
    counts = rng.poisson(degree * np.exp(-depth * greys.shares(pixels).clip(0, 1)))
    return greys.values(-np.log(np.maximum(counts, 0.5) / degree) / depth)


def _photons(pixels: Pixels, degree: float, greys: Greys, rng: np.random.Generator) -> Pixels:
    """Poisson: a camera that shows how much light it saw."""
    return greys.values((rng.poisson(degree * greys.shares(pixels).clip(0, 1)) / degree).clip(0, 1))


def _exposure(pixels: Pixels, degree: float, greys: Greys, _: np.random.Generator) -> Pixels:
    return greys.values((greys.shares(pixels) * degree).clip(0, 1))


def _cast(pixels: Pixels, degree: float, greys: Greys, _: np.random.Generator) -> Pixels:
    """A lamp that is warmer than the camera takes it for: more red, less blue."""
    if pixels.ndim == 2:
        return pixels
    return greys.values((greys.shares(pixels) * np.array([1 + degree, 1, 1 - degree])).clip(0, 1))


def _blur(pixels: Pixels, degree: float, _: Greys, __: np.random.Generator) -> Pixels:
    return np.asarray(ndimage.gaussian_filter(pixels, _in_plane(pixels, degree)), np.float32)


def _gamma(pixels: Pixels, degree: float, greys: Greys, _: np.random.Generator) -> Pixels:
    return greys.values(greys.shares(pixels).clip(0, 1) ** degree)


def _offset(pixels: Pixels, degree: float, _: Greys, __: np.random.Generator) -> Pixels:
    return np.asarray(pixels + degree, np.float32)


def _turn(pixels: Pixels, degree: float, _: Greys, __: np.random.Generator) -> Pixels:
    turned = ndimage.rotate(pixels, degree, axes=(1, 0), reshape=False, order=1, mode="constant", cval=pixels.min())
    return np.asarray(turned, np.float32)


def _turn_mask(mask: NDArray[np.bool_], degree: float) -> NDArray[np.bool_]:
    turned = ndimage.rotate(mask.astype(np.float32), degree, axes=(1, 0), reshape=False, order=1, mode="constant")
    return np.asarray(turned > 0.5)


def _shift(pixels: Pixels, degree: float, _: Greys, __: np.random.Generator) -> Pixels:
    return _shifted(pixels, degree, pixels.min())


def _shift_mask(mask: NDArray[np.bool_], degree: float) -> NDArray[np.bool_]:
    return _shifted(mask, degree, False)


def _shifted(picture: NDArray[Any], degree: float, beyond: Any) -> NDArray[Any]:
    """Down and to the right, by a share of rows and of columns."""
    down, right = (round(degree * size) for size in picture.shape[:2])
    moved = np.full_like(picture, beyond)
    moved[down:, right:] = picture[: picture.shape[0] - down, : picture.shape[1] - right]
    return moved


def _coarse(pixels: Pixels, degree: float, _: Greys, __: np.random.Generator) -> Pixels:
    """As a detector with larger pixels would have it, on the old grid."""
    mean = ndimage.uniform_filter(pixels, _in_plane(pixels, degree))
    step = int(degree)
    rows, columns = (np.arange(size) // step * step + step // 2 for size in pixels.shape[:2])
    seen = mean[rows.clip(max=pixels.shape[0] - 1)][:, columns.clip(max=pixels.shape[1] - 1)]
    return np.asarray(ndimage.uniform_filter(seen, _in_plane(pixels, degree)), np.float32)


def _compress(pixels: Pixels, degree: float, greys: Greys, _: np.random.Generator) -> Pixels:
    """To JPEG and back, of what lies between black and white."""
    seen = np.clip(greys.shares(pixels) * 255, 0, 255).round().astype(np.uint8)
    held = io.BytesIO()
    Image.fromarray(seen).save(held, "JPEG", quality=int(degree))
    back = greys.values(np.asarray(Image.open(held), np.float32) / 255)
    beyond = (pixels < greys.black) | (pixels > greys.white)
    return np.where(beyond, pixels, back).astype(np.float32) if pixels.ndim == 2 else back


def _in_plane(pixels: Pixels, size: float) -> tuple[Any, ...]:
    """A filter's size, for rows and columns alone."""
    return (size, size, 0 if isinstance(size, float) else 1)[: pixels.ndim]


def _grey(pixels: Pixels) -> Pixels:
    return np.asarray(pixels.mean(2) if pixels.ndim == 3 else pixels, np.float32)


def _as(pixels: Pixels, grey: Pixels) -> Pixels:
    return np.repeat(grey[..., None], 3, 2) if pixels.ndim == 3 else grey


_GAMMA = Corruption("gamma", "exponent", (), (0.7, 1.4), _gamma)
_CAMERA = (
    Corruption("photon noise", "photons a pixel where it is white", (400,), (60,), _photons),
    Corruption("exposure", "times", (), (0.6, 1.5), _exposure),
    Corruption("colour cast", "of red more, of blue less", (0.1,), (0.25,), _cast),
)
_X_RAY = (
    Corruption("quantum noise", "X-rays a pixel where it is black", (5000,), (500,), _quanta),
    _GAMMA,
)
_OWN: dict[str, tuple[Corruption, ...]] = {
    "CT": (
        Corruption("noise", "HU", (5,), (15,), _noise),
        Corruption("calibration", "HU added", (), (-10, 10), _offset),
    ),
    "MR": (
        Corruption("Rician noise", "of the range", (0.03,), (0.08,), _rician),
        Corruption("bias field", "nepers from the middle to a corner", (0.3,), (0.8,), _bias),
        Corruption("motion", "pixels either way", (1.0,), (3.0,), _motion),
        _GAMMA,
    ),
    "US": (
        Corruption("speckle", "of the echo scattered", (0.2,), (0.5,), _speckle),
        Corruption("gain", "decibels", (), (-10, 10), _gain),
        _GAMMA,
    ),
    "CR": _X_RAY,
    "DX": _X_RAY,
}
_ALL = (
    Corruption("blur", "pixels", (1.0,), (2.0,), _blur),
    Corruption("rotation", "degrees", (5,), (15,), _turn, _turn_mask),
    Corruption("shift", "of rows and columns", (0.05,), (0.1,), _shift, _shift_mask),
    Corruption("coarse pixels", "times larger", (2,), (4,), _coarse),
    Corruption("compression", "JPEG quality", (40,), (10,), _compress),
)
