"""How a picture was taken: what spoils it moves the number that is named for it, and a picture as before moves none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.quality import SAID, complaint, measures
from pipelines.training.corruptions import corruptions, greys_of


def picture(seed: int) -> NDArray[np.float32]:
    """RGB, 0 to 255 (rows, columns, 3): dark discs before a bright ground that is not quite even."""
    rng = np.random.default_rng(seed)
    ground = 190 + 60 * ndimage.gaussian_filter(rng.standard_normal((160, 160)), 3)
    y, x = np.mgrid[:160, :160]
    for row, column in rng.integers(15, 145, (8, 2)):
        ground[np.hypot(y - row, x - column) < 9] -= 60
    return np.clip(ground[..., None] * [1.0, 0.8, 0.9], 0, 255).astype(np.float32)


def seen(pixels: NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, 0))) / 255


@pytest.fixture(scope="module")
def usual() -> dict[str, tuple[float, float]]:
    """Of twelve such pictures, and as much again on either side."""
    found = [measures(seen(picture(seed))) for seed in range(12)]
    ends = {name: (min(each[name] for each in found), max(each[name] for each in found)) for name in SAID}
    return {name: (2 * low - high, 2 * high - low) for name, (low, high) in ends.items()}


def test_a_picture_as_before_is_read(usual: dict[str, tuple[float, float]]) -> None:
    assert [complaint(seen(picture(seed)), usual) for seed in range(20, 26)] == [None] * 6


@pytest.mark.parametrize(
    ("name", "degree", "measure"),
    [
        ("compression", 10, "blocks"),
        ("photon noise", 60, "fineness"),
        ("blur", 2.0, "edges"),
        ("coarse pixels", 4, "edges"),
        ("exposure", 0.6, "light"),
        ("exposure", 1.5, "light"),
        ("colour cast", 0.25, "red"),
        ("colour cast", 0.25, "blue"),
    ],
)
def test_what_spoils_a_picture_is_named(
    name: str, degree: float, measure: str, usual: dict[str, tuple[float, float]]
) -> None:
    before = picture(30)
    (corruption,) = (each for each in corruptions("GM") if each.name == name)
    after = corruption.spoil(before, degree, greys_of([before], "GM"), np.random.default_rng(1))
    said = complaint(seen(after), {measure: usual[measure]})
    assert said is not None
    assert said.startswith(SAID[measure][measures(seen(after))[measure] > usual[measure][1]])


def test_a_side_without_a_bound_has_no_complaint() -> None:
    image = seen(picture(1))
    low = measures(image)["light"] + 0.1
    assert complaint(image, {"light": (None, low)}) is None
    assert complaint(image, {"light": (low, None)}) is not None


def test_a_shift_of_the_picture_makes_no_blocks() -> None:
    whole = picture(2)
    moved = np.zeros_like(whole)
    moved[24:, 16:] = whole[:-24, :-16]
    assert measures(seen(moved))["blocks"] < 0.5
    for shift in range(8):  # wherever the first block of JPEG begins
        (jpeg,) = (each for each in corruptions("GM") if each.name == "compression")
        spoilt = jpeg.spoil(whole, 10, greys_of([whole], "GM"), np.random.default_rng(0))
        assert measures(seen(spoilt[shift:, shift:]))["blocks"] > 1
