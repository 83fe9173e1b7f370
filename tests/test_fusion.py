"""Where a mask of one series lies on the frames of another, known by geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.fusion import shown_on
from pipelines.series import Series
from pipelines.study import read_files
from tests.slices import MR, saved, slice_of

SAGITTAL = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0]  # rows run to the back, columns to the feet; the normal to the right


def series_of(folder: Path, places: list[list[float]], **elements: Any) -> Series:
    """Frames of 8 × 8 pixels of 1 mm, each at its place."""
    made = []
    for number, place in enumerate(places, start=1):
        told = {"SOPClassUID": MR, "Modality": "MR", "ImagePositionPatient": place} | elements
        made.append(saved(slice_of(number, np.zeros((8, 8), np.int16), **told), folder / f"{number}.dcm"))
    (study,), _ = read_files(made)
    return study.series[0]


@pytest.fixture
def axial(tmp_path: Path) -> Series:
    """Six slices, 2 mm apart."""
    return series_of(tmp_path / "axial", [[0.0, 0.0, 2.0 * z] for z in range(6)])


def block(frames: slice, rows: slice, columns: slice) -> NDArray[np.bool_]:
    mask = np.zeros((6, 8, 8), bool)
    mask[frames, rows, columns] = True
    return mask


def test_on_its_own_series_a_mask_is_where_it_was_drawn(axial: Series) -> None:
    mask = block(slice(2, 4), slice(1, 4), slice(0, 2))
    assert shown_on(mask, axial, axial).tolist() == [0, 0, 6, 6, 0, 0]  # type: ignore[union-attr]


def test_on_coarser_slices_it_is_on_the_nearest_and_what_they_do_not_reach_is_on_none(
    axial: Series, tmp_path: Path
) -> None:
    coarse = series_of(tmp_path / "coarse", [[0.0, 0.0, 4.5], [0.0, 0.0, 8.5]])  # reach from 2.5 to 10.5
    found = shown_on(block(slice(None), slice(0, 1), slice(0, 3)), axial, coarse)
    assert found.tolist() == [6, 6]  # type: ignore[union-attr]  # z = 4, 6 and 8, 10; not 0 and 2


@pytest.mark.parametrize("column", [0, 5])
def test_on_sagittal_slices_it_is_where_its_columns_are(axial: Series, tmp_path: Path, column: int) -> None:
    places = [[float(x), 0.0, 10.0] for x in range(8)]
    sagittal = series_of(tmp_path / "sagittal", places, ImageOrientationPatient=SAGITTAL)
    found = shown_on(block(slice(1, 3), slice(0, 4), slice(column, column + 1)), axial, sagittal)
    at = {
        int(frame.plane.position[0]): count  # type: ignore[union-attr]
        for frame, count in zip(sagittal.frames, found.tolist(), strict=True)  # type: ignore[union-attr]
    }
    assert at == {x: 8 if x == column else 0 for x in range(8)}


def test_in_another_frame_of_reference_it_is_nowhere(axial: Series, tmp_path: Path) -> None:
    places = [[0.0, 0.0, 2.0 * z] for z in range(6)]
    other = series_of(tmp_path / "other", places, FrameOfReferenceUID="1.2.3.6")
    unsaid = series_of(tmp_path / "unsaid", places, FrameOfReferenceUID=None)
    mask = block(slice(None), slice(None), slice(None))
    assert shown_on(mask, axial, other) is None
    assert shown_on(mask, axial, unsaid) is None
    assert shown_on(mask, unsaid, unsaid) is None
