"""CT slices for benchmarks: a body of ellipses with noise as filtered back-projection leaves it.

The noise is made anew for each slice, because a picture without noise compresses and hashes too well to be honest.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy import fft, ndimage

from pipelines.synthetic.instances import Examination, abdomen_examination, fill, header, place, save

SLICE_MM, FIELD_OF_VIEW_MM, NOISE_HU = 1.25, 380.0, 14.0
WATER = 1024  # stored value of 0 HU
# centre (x, y), radii (x, y) in parts of half the field of view, HU: later ones lie over earlier ones
ORGANS = (
    ((0.00, 0.00), (0.86, 0.62), -95),  # subcutaneous fat
    ((0.00, 0.00), (0.79, 0.55), 55),  # muscle
    ((0.00, -0.05), (0.70, 0.44), -85),  # fat around the bowel
    ((-0.34, -0.05), (0.34, 0.34), 60),  # liver
    ((0.44, 0.05), (0.16, 0.22), 50),  # spleen
    ((0.12, -0.20), (0.20, 0.12), 30),  # stomach
    ((-0.28, 0.26), (0.11, 0.11), 35),  # kidneys
    ((0.30, 0.26), (0.11, 0.11), 35),
    ((0.03, 0.16), (0.06, 0.06), 42),  # aorta
    ((0.00, 0.36), (0.13, 0.12), 220),  # vertebra
    ((0.00, 0.36), (0.10, 0.09), 160),
)


def ct_slices(out: Path, *, count: int, size: int = 512, seed: int) -> list[Path]:
    """Write one series of ``count`` slices to ``out/<n>.dcm``."""
    key = f"ct {seed} {count} {size}"
    examination = abdomen_examination(key, f"SYN-CT{seed:04d}")
    return save(_instances(examination, count, size, seed), out)


def _instances(examination: Examination, count: int, size: int, seed: int) -> Iterator[Dataset]:
    rng = np.random.default_rng([seed, 5])
    spectrum = _noise_spectrum(size)
    pixel = FIELD_OF_VIEW_MM / size
    corner = -(size - 1) / 2 * pixel
    for index in range(count):
        hounsfield = _body(size, index / max(count - 1, 1)) + _noise(rng, spectrum)
        ds = header(examination, series=1, number=index + 1, description="CT ABDOMEN")
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.KVP, ds.ExposureTime, ds.XRayTubeCurrent, ds.ConvolutionKernel = "120", 500, 200, "STANDARD"
        place(ds, (corner, corner, index * SLICE_MM), pixel_mm=pixel, slice_mm=SLICE_MM)
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = str(-WATER), "1", "HU"
        ds.WindowCenter, ds.WindowWidth = "40", "400"
        fill(ds, np.clip(np.round(hounsfield + WATER), 0, 4095).astype(np.uint16))
        yield ds


def _body(size: int, height: float) -> NDArray[np.float32]:
    """HU of the slice at ``height`` 0 to 1; organs swell and shrink along it."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    x, y = axis[None, :], axis[:, None]
    image = np.full((size, size), -1000, np.float32)
    for number, ((cx, cy), (rx, ry), hounsfield) in enumerate(ORGANS):
        swell = 1 + 0.08 * np.sin(2 * np.pi * height * (1 + number % 3) + number)
        image[((x - cx) / (rx * swell)) ** 2 + ((y - cy) / (ry * swell)) ** 2 < 1] = hounsfield
    return np.asarray(ndimage.uniform_filter(image, 3), np.float32)


def _noise_spectrum(size: int) -> NDArray[np.float32]:
    """Noise of filtered back-projection: a ramp times the kernel's fall (Riederer, Pelc and Chesler 1978)."""
    radius = np.hypot(fft.fftfreq(size)[:, None], fft.rfftfreq(size)[None, :])
    power = np.sqrt(radius) * np.exp(-((radius / 0.3) ** 2))
    return np.asarray(power / np.sqrt((power**2).mean()), np.float32)


def _noise(rng: np.random.Generator, spectrum: NDArray[np.float32]) -> NDArray[np.float32]:
    size = len(spectrum)
    white = fft.rfft2(rng.standard_normal((size, size), dtype=np.float32))
    return np.asarray(NOISE_HU * fft.irfft2(white * spectrum, (size, size)), np.float32)
