"""The way to the canvas and back, on phantoms whose answer is known by geometry."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines import imaging
from pipelines.training.metrics import dice


def phantom(*, frames: int = 6, size: int = 200, centre: tuple[float, float] = (100, 96), gain: float = 1.0):
    """A head, an ellipse 150 × 118 pixels, and a lesion in it: (volume, lesion)."""
    rows, columns = np.mgrid[:size, :size] * 200 / size
    head = ((rows - centre[0]) / 75) ** 2 + ((columns - centre[1]) / 59) ** 2 < 1
    lesion = ((rows - centre[0] + 20) / 18) ** 2 + ((columns - centre[1] - 25) / 14) ** 2 < 1
    texture = 100 + 15 * np.sin(rows / 5) * np.cos(columns / 7)
    picture = gain * (texture * head + 80 * lesion)
    return np.stack([picture] * frames).astype(np.float32), np.stack([lesion] * frames)


@pytest.mark.parametrize("size", [128, 200, 512])
def test_an_outline_comes_back_from_the_canvas_where_it_was(size: int) -> None:
    volume, lesion = phantom(size=size)
    box = imaging.head_box(imaging.head_mask(volume))
    back = imaging.paste(imaging.cut(lesion.astype(np.float32), box), box, volume.shape) > 0.5
    assert dice(back, lesion) > 0.97


def test_the_box_follows_the_head() -> None:
    still = imaging.head_box(imaging.head_mask(phantom()[0]))
    moved = imaging.head_box(imaging.head_mask(phantom(centre=(110, 80))[0]))
    assert (moved.row - still.row, moved.column - still.column) == (10, -16)
    assert (moved.rows, moved.columns) == (still.rows, still.columns)


def test_the_canvas_does_not_depend_on_the_matrix() -> None:
    canvases = []
    for size in (200, 400):
        volume, _ = phantom(size=size)
        head = imaging.head_mask(volume)
        canvases.append(imaging.cut(volume, imaging.head_box(head)))
    assert float((canvases[0] - canvases[1]).abs().mean()) < 0.03 * float(canvases[0].max())


def test_pixels_twice_as_high_as_wide_make_the_box_twice_as_wide() -> None:
    volume, _ = phantom()
    squashed = volume[:, ::2]
    box = imaging.head_box(imaging.head_mask(squashed), pixel_ratio=2.0)
    assert box.columns / box.rows == pytest.approx(2 * imaging.CANVAS[1] / imaging.CANVAS[0], rel=0.02)


def test_scores_do_not_change_with_the_scanner_s_gain() -> None:
    volume, _ = phantom()
    louder, _ = phantom(gain=7.5)
    head = imaging.head_mask(volume)
    np.testing.assert_allclose(imaging.standardise(volume, head), imaging.standardise(louder, head), atol=1e-3)


@pytest.mark.parametrize("value", [0.0, 37.0])
def test_an_empty_volume_has_no_head(value: float) -> None:
    with pytest.raises(imaging.NoHead, match="empty"):
        imaging.head_mask(np.full((8, 64, 64), value, np.float32))


def test_a_network_sees_the_neighbours_and_the_mirror_image() -> None:
    images = torch.arange(5 * 3 * 4 * 2, dtype=torch.float32).reshape(5, 3, 4, 2)
    seen = imaging.stack(images, torch.tensor([0, 3]))
    assert seen.shape == (2, len(imaging.CHANNELS), 4, 2)
    assert torch.equal(seen[1, 1], images[3, 1])
    assert torch.equal(seen[1, 3], images[2, 1])
    assert torch.equal(seen[1, 6], images[4, 1])  # two slices on there is none: the last repeats
    assert torch.equal(seen[0, 3], images[0, 1])
    assert torch.equal(seen[1, imaging.MIRRORED], images[3, 1].flip(-1))


def test_small_components_are_dropped_and_the_largest_stays() -> None:
    mask = np.zeros((3, 40, 40), bool)
    mask[1, 5:25, 5:25] = True
    mask[1, 30:33, 30:33] = True
    kept = imaging.keep_components(mask, smallest=20, share=0.0)
    assert kept.sum() == 400
    assert imaging.keep_components(mask, smallest=1, share=0.05).sum() == 400
    assert imaging.keep_components(mask, smallest=9, share=0.0).sum() == 409
    assert not imaging.keep_components(mask, smallest=401, share=0.0).any()
