"""Masks go out as Segmentations and come back, voxel for voxel, wherever the images lie; and right is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.probability import STEPS
from tests.findings import blurred
from tests.geometries import KINDS, masks_on, series_of
from tests.lateralities import RIGHT_OR_LEFT, case, said_of
from tests.roundtrip import (
    DCMQI,
    by_dcmqi,
    by_highdicom,
    fractions_by_dcmqi,
    fractions_by_highdicom,
    on_frames,
    written,
)

# dcmqi's volumes are boxes of one step: slices that lie unevenly, or shear out of the box, it cannot hold.
BOXES = [number for number in range(24) if KINDS[number % len(KINDS)] not in ("unequal", "tilted")]


@pytest.mark.timeout(1200)  # some seconds, on a machine that has nothing else to do
def test_highdicom_reads_the_masks_back_over_200_geometries(tmp_path: Path) -> None:
    for number in range(200):
        kind, series = series_of(number)
        masks = masks_on(series, number)
        read = by_highdicom(written(series, masks, tmp_path / "seg.dcm"), series)
        assert np.array_equal(read, np.stack(masks)), (number, kind)


@pytest.mark.skipif(not DCMQI.exists(), reason="not installed here: dcmqi")
def test_dcmqi_reads_the_masks_back_where_they_lie(tmp_path: Path) -> None:
    for number in BOXES:
        kind, series = series_of(number)
        masks = masks_on(series, number)
        found = by_dcmqi(written(series, masks, tmp_path / f"{number}.dcm"), tmp_path / str(number))
        for volume, mask in zip(found, masks, strict=True):
            assert np.array_equal(on_frames(volume, series), mask), (number, kind)


def test_probabilities_come_back_step_by_step_too(tmp_path: Path) -> None:
    for number in range(3 * len(KINDS)):
        kind, series = series_of(number)
        masks = masks_on(series, number)
        likely = (blurred(masks[0], 0.3), blurred(masks[1], 0.6))
        path = written(series, masks, tmp_path / f"{number}.dcm", likely)
        steps = np.stack([each.steps for each in likely])
        assert np.array_equal(np.rint(fractions_by_highdicom(path, series) * STEPS), steps), (number, kind)
        if DCMQI.exists() and number in BOXES:
            found = fractions_by_dcmqi(path, tmp_path / str(number))
            assert np.array_equal([on_frames(volume, series) for volume in found], steps), (number, kind)


def test_right_and_left_are_never_mistaken() -> None:
    said = [0, 0]
    for number in range(600):
        truth, finding, series = case(number)
        found = said_of(finding, series)
        assert found in (None, RIGHT_OR_LEFT[truth]), number
        said[found is None] += 1
    assert said[0] > 400  # what lies near the middle is left unsaid
