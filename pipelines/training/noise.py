"""Noise as the modalities make it, to be added to pictures (N, 1, rows, columns) on a scale of 0 to 1.

MR: complex Gaussian in k-space, seen as a magnitude (Rician; Gudbjartsson and Patz 1995), smoother where k-space was
filled up. CT: Poisson in the projections, in the picture the texture of filtered back-projection (Riederer, Pelc and
Chesler 1978). US: speckle, which multiplies the echo before it is compressed by a logarithm (Wagner et al. 1983).
Everything follows from torch's own generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

DECIBELS = 60.0  # from black to white of an ultrasound picture
STRENGTHS = {"mr": (0.008, 0.08), "ct": (0.03, 0.25), "us": (0.1, 0.6)}  # CT: 2.4 to 20 HU of a window of 80


def drawn(name: str, count: int) -> Tensor:
    """(count,) strengths, every order of magnitude as often as another."""
    low, high = (math.log(each) for each in STRENGTHS[name])
    return (low + (high - low) * torch.rand(count)).exp()


def rician(images: Tensor, strength: Tensor) -> Tensor:
    """Magnitudes of the signal and complex noise; (N,) strengths are deviations of each part."""
    deviation = strength.view(-1, 1, 1, 1) * _uneven(images, 0.7, 1.4)
    real, imaginary = (_filled_up(torch.randn_like(images)) for _ in range(2))
    return torch.hypot(images + deviation * real, deviation * imaginary)


def projected(images: Tensor, strength: Tensor) -> Tensor:
    """CT: more towards the middle, where the rays are longest; none in air and beyond the window."""
    edge, middle = 0.75, 1.25
    row, column = (torch.linspace(-1, 1, size) for size in images.shape[2:])
    depth = (1 - (row[:, None].square() + column.square()) / 2).clamp(0, 1)
    deviation = strength.view(-1, 1, 1, 1) * (edge + (middle - edge) * depth)
    is_seen = (images > 0.005) & (images < 0.995)
    return torch.where(is_seen, images + deviation * _back_projected(images), images).clamp(0, 1)


def speckled(images: Tensor, strength: Tensor) -> Tensor:
    """US: (N,) strengths are the share of scattered waves beside the echo itself."""
    real, imaginary = (_spread_by_beam(torch.randn_like(images)) for _ in range(2))
    share = strength.view(-1, 1, 1, 1) / math.sqrt(2)
    echo = torch.hypot(1 + share * real, share * imaginary)
    return torch.where(images > 0.005, images + 20 * echo.clamp(min=0.03).log10() / DECIBELS, images).clamp(0, 1)


ADDED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mr": rician, "ct": projected, "us": speckled}


def _uneven(images: Tensor, low: float, high: float) -> Tensor:
    """A smooth field: parallel imaging amplifies noise more in some places than in others."""
    coarse = low + (high - low) * torch.rand(len(images), 1, 3, 3)
    return F.interpolate(coarse, size=images.shape[2:], mode="bicubic", align_corners=True).clamp(low / 2, high * 2)


def _filled_up(white: Tensor) -> Tensor:
    """Noise of a k-space whose outer part was never measured, of deviation 1; each picture has its own share."""
    share = 0.6 + 0.6 * torch.rand(len(white), 1, 1, 1)  # from 1 on all was measured
    row, column = torch.fft.fftfreq(white.shape[2]).abs() * 2, torch.fft.rfftfreq(white.shape[3]).abs() * 2
    measured = (torch.maximum(row[:, None], column)[None, None] <= share).float()
    return _level(_filtered(white, measured))


def _back_projected(images: Tensor) -> Tensor:
    radius = _radius(images)
    fall = 0.15 + 0.25 * torch.rand(len(images), 1, 1, 1)  # of the kernel: from soft to sharp
    return _level(_filtered(torch.randn_like(images), radius.sqrt() * torch.exp(-((radius / fall) ** 2))))


def _spread_by_beam(white: Tensor) -> Tensor:
    """Scatterers seen by a pulse that is short along the beam (down) and wide across it."""
    along, across = 0.6 + 0.6 * torch.rand(len(white), 1, 1, 1), 1.0 + 1.2 * torch.rand(len(white), 1, 1, 1)
    row, column = torch.fft.fftfreq(white.shape[2])[:, None], torch.fft.rfftfreq(white.shape[3])
    power = (row * along).square() + (column * across).square()
    return _level(_filtered(white, torch.exp(-2 * math.pi**2 * power)))


def _radius(images: Tensor) -> Tensor:
    return torch.hypot(torch.fft.fftfreq(images.shape[2])[:, None], torch.fft.rfftfreq(images.shape[3]))[None, None]


def _filtered(white: Tensor, transfer: Tensor) -> Tensor:
    filtered: Tensor = torch.fft.irfft2(torch.fft.rfft2(white) * transfer, s=white.shape[2:])
    return filtered


def _level(noise: Tensor) -> Tensor:
    return noise / noise.std(dim=(2, 3), keepdim=True)
