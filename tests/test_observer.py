"""The model observer sees what it must by signal theory, and misses what was taken away."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pipelines import observer
from pipelines.noise import strength
from pipelines.training.noise import ADDED, DECIBELS, projected, rician, speckled

LEVEL = 0.05


def flat(count: int = 4, *, seed: int = 0) -> Tensor:
    """Even tissue with white noise."""
    torch.manual_seed(seed)
    return 0.5 + LEVEL * torch.randn(count, 1, 256, 256)


def seen(images: Tensor, noise_of: object, diameter: int = 9) -> observer.Visibility:
    levels = torch.full((len(images),), LEVEL)
    (answers,) = observer.responses(images, noise_of, levels, [diameter])  # type: ignore[arg-type]
    return answers.visibility(1.0)


def test_a_disc_is_as_faint_as_it_must_be_and_stays_so_where_nothing_is_taken_away() -> None:
    for diameter in (5, 9, 15):
        found = seen(flat(), torch.zeros_like, diameter)
        assert found.before == pytest.approx(observer.VISIBLE, rel=0.01)
        assert (found.low, found.ratio, found.high) == pytest.approx((1, 1, 1))


@pytest.mark.parametrize("diameter", [5, 9])
def test_the_observer_is_nearly_as_good_as_one_can_be_in_white_noise(diameter: int) -> None:
    """The best that any observer can do is contrast times the root of the disc's energy over the noise."""
    found = seen(flat(8), torch.zeros_like, diameter)
    best = found.contrast * np.sqrt(np.square(observer.disc(31, diameter)).sum()) / LEVEL
    assert 0.7 < found.before / best < 1.1


def test_as_much_noise_again_halves_what_is_known_of_a_disc() -> None:
    torch.manual_seed(5)
    more = LEVEL * torch.randn(8, 1, 256, 256)
    found = seen(flat(8), lambda _: -more)
    assert found.low < 2**-0.5 < found.high
    assert found.ratio == pytest.approx(2**-0.5, abs=0.1)


def test_a_filter_that_cuts_out_the_frequencies_of_a_disc_hides_it() -> None:
    def low(images: Tensor) -> Tensor:
        passed = torch.hypot(torch.fft.fftfreq(256)[:, None], torch.fft.rfftfreq(256)) < 0.12
        return torch.fft.irfft2(torch.fft.rfft2(images - 0.5) * passed, s=(256, 256))

    assert seen(flat(), low, 15).high < 0.9


def test_what_takes_faint_things_for_noise_is_found_out() -> None:
    """A median flattens a disc of five pixels and leaves the mottle of the noise."""

    def median(images: Tensor) -> Tensor:
        patches = torch.nn.functional.unfold(torch.nn.functional.pad(images, (4,) * 4, mode="reflect"), 9)
        return images - patches.median(1).values.view_as(images)

    small = seen(flat(2), median, 5)
    assert small.high < 0.95


def test_too_little_tissue_is_said() -> None:
    with pytest.raises(observer.TooFewPlaces, match="30 are needed"):
        observer.responses(torch.zeros(1, 1, 128, 128), torch.zeros_like, torch.ones(1), [9])


def test_the_strength_of_noise_is_seen_in_even_tissue() -> None:
    assert strength(flat()).tolist() == pytest.approx([LEVEL] * 4, rel=0.2)
    assert strength(torch.zeros(1, 1, 64, 64)).item() == 0


def test_air_on_mr_is_as_bright_as_the_noise_is_strong() -> None:
    torch.manual_seed(0)
    air = rician(torch.zeros(16, 1, 64, 64), torch.full((16,), 0.1))
    assert air.mean().item() == pytest.approx(0.1 * 1.05 * np.sqrt(np.pi / 2), rel=0.1)  # Rayleigh; 0.7 to 1.4 times
    assert air.min() >= 0


def test_noise_of_ct_has_little_of_low_frequencies_and_none_in_air() -> None:
    torch.manual_seed(0)
    images = torch.full((8, 1, 64, 64), 0.5)
    images[..., :16] = 0
    noise = projected(images, torch.full((8,), 0.05)) - images
    assert not noise[..., :16].any()
    assert noise[..., 16:].std().item() == pytest.approx(0.05, rel=0.25)
    everywhere = projected(torch.full((32, 1, 64, 64), 0.5), torch.full((32,), 0.05)) - 0.5
    power = torch.fft.rfft2(everywhere).abs().square().mean((0, 1))
    assert power[0, 0] < 0.1 * power[3:6, 3:6].mean()


def test_speckle_is_the_same_number_of_decibels_in_dark_and_bright_tissue() -> None:
    torch.manual_seed(0)
    spreads = []
    for level in (0.3, 0.7):
        images = torch.full((8, 1, 64, 64), level)
        spreads.append((speckled(images, torch.full((8,), 0.2)) - images).std().item())
    assert spreads[0] == pytest.approx(spreads[1], rel=0.05)
    assert spreads[0] * DECIBELS == pytest.approx(20 / np.log(10) * 0.2 / 2**0.5, rel=0.25)


@pytest.mark.parametrize("name", ADDED)
def test_stronger_noise_is_further_away(name: str) -> None:
    images = torch.full((4, 1, 48, 48), 0.5)
    torch.manual_seed(0)
    away = [(ADDED[name](images, torch.full((4,), each)) - images).std().item() for each in (0.02, 0.05, 0.1)]
    assert away == sorted(away)
