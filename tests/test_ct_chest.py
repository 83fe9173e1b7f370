"""The pipeline ``ct_chest``: slices at one scale and back, windows over lungs, and real patches."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom.dataset import Dataset
from scipy.ndimage import gaussian_filter

from pipelines.base import UnsuitableStudy, WithheldStudy
from pipelines.ct_chest import CARD, LABEL, UNMEASURED, LungTumour, step_of
from pipelines.evidence import codes
from pipelines.series import Series
from pipelines.training.metrics import dice
from pipelines.windows import SIDE, at_scale, corners, cut, from_scale, lungs, put_together
from tests.findings import slices, study_of, verdict
from tests.peers import needs_shared
from tests.wrapped import Wrapped, needs_weights, outlines, runs_of, wrapped


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pipeline() -> LungTumour:
    return LungTumour()


def chest(size: int = 180, *, nodule: bool = False) -> np.ndarray:
    """HU of a slice: air, a body, two lungs; with a nodule of 2 cm in the right one."""
    row, column = np.mgrid[:size, :size] / size - 0.5
    picture = np.full((size, size), -1000.0, np.float32)
    picture[np.hypot(row / 0.35, column / 0.45) < 1] = 40
    for side in (-0.2, 0.2):
        picture[np.hypot(row / 0.22, (column - side) / 0.14) < 1] = -850
    if nodule:
        picture[np.hypot(row, column + 0.2) < 10 / (2 * size)] = 40
    return picture


def ct(pictures: list[np.ndarray], mm: float, **elements: object) -> list[Dataset]:
    made = slices(len(pictures), modality="CT", **elements)
    for image, picture in zip(made, pictures, strict=True):
        image.Rows, image.Columns = picture.shape
        image.PixelData = np.clip(picture + 1024, 0, 4095).astype("<u2").tobytes()
        image.RescaleSlope, image.RescaleIntercept = "1", "-1024"
        image.PixelSpacing, image.BodyPartExamined = [mm, mm], "CHEST"
    return made


def test_a_slice_at_two_millimetres_goes_back_to_its_own_grid() -> None:
    mask = np.zeros((300, 260), np.float32)
    mask[100:160, 90:170] = 1
    small = at_scale(mask, (0.7, 0.8))
    assert small.shape == (105, 104)
    back = from_scale(torch.from_numpy(small), mask.shape, (0.7, 0.8))
    assert dice(back > 0.5, mask > 0.5) > 0.97


def test_a_patch_is_seen_as_it_is() -> None:
    patch = np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype(np.float32)
    assert np.array_equal(at_scale(patch, (2.0, 2.0)), patch)
    assert corners(patch) == [(0, 0)]


def test_a_smaller_patch_has_air_around_it() -> None:
    small = at_scale(np.zeros((40, 44), np.float32), (2.0, 2.0))
    assert small.shape == (SIDE, SIDE)
    assert small[0, 0] < -1000
    assert from_scale(torch.from_numpy(small), (40, 44), (2.0, 2.0)).shape == (40, 44)


def test_lungs_are_dark_and_inside_the_patient() -> None:
    picture = chest()
    found = lungs(picture)
    assert found[90, 54]
    assert found[90, 126]
    assert not found[2, 2]
    assert not found[picture > 0].any()


def test_windows_are_put_where_there_is_lung() -> None:
    picture = chest()
    places = corners(picture)
    covered = np.zeros(picture.shape, bool)
    for top, left in places:
        covered[top : top + SIDE, left : left + SIDE] = True
    assert covered[lungs(picture)].all()
    assert not covered[:20].any()
    assert corners(np.full((180, 180), -1000, np.float32)) == []


def test_windows_that_agree_are_put_together_to_what_they_were_cut_from() -> None:
    picture = np.random.default_rng(0).random((120, 100)).astype(np.float32)
    places = [(top, left) for top in (0, 24, 48, 72) for left in (0, 24, 48, 52)]
    made = put_together(torch.from_numpy(cut(picture, places)), places, (120, 100))
    assert torch.allclose(made, torch.from_numpy(picture), atol=1e-4)


@needs_weights(CARD)
def test_a_whole_ct_says_that_it_was_never_measured(pipeline: LungTumour, tmp_path: Path) -> None:
    study = study_of(ct([chest(256, nodule=True)] * 3, 1.4), tmp_path / "in")
    (findings,) = pipeline(study)
    assert UNMEASURED in findings.notes
    assert [each.label for each in findings.findings] == [LABEL]


@pytest.mark.parametrize(("mm", "step"), [(0.6, 3), (1.0, 2), (1.5, 1), (5.0, 1)])
def test_of_slices_thinner_than_two_millimetres_some_are_read(mm: float, step: int) -> None:
    images = ct([chest(64)] * 4, 2.0)
    for image in images:
        image.ImagePositionPatient = [0, 0, mm * float(image.InstanceNumber)]
    assert step_of(Series("1.2", "CT", tuple(images))) == step


@needs_weights(CARD)
def test_pixels_of_unknown_size_cannot_be_read(pipeline: LungTumour, tmp_path: Path) -> None:
    images = ct([chest()], 2.0)
    del images[0].PixelSpacing
    with pytest.raises(WithheldStudy, match="do not say how far"):
        pipeline(study_of(images, tmp_path / "in"))


@needs_weights(CARD)
def test_another_body_part_is_unsuitable(pipeline: LungTumour, tmp_path: Path) -> None:
    images = ct([chest()], 2.0)
    images[0].BodyPartExamined = "HEAD"
    with pytest.raises(UnsuitableStudy, match="the body part is HEAD"):
        pipeline(study_of(images, tmp_path / "in"))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Wrapped:
    return wrapped("ct_lung_tumour_patches", tmp_path_factory.mktemp("ct"), limit=30)


@needs_weights(CARD)
@needs_shared("data", "ct_lung_tumour_patches")
def test_tumours_of_real_patches_are_outlined(pipeline: LungTumour, real: Wrapped, tmp_path: Path) -> None:
    runs = [run for study in real.studies for run in runs_of(pipeline, study, tmp_path / study.uid)]
    assert len(runs) == len(real.rows)
    found = outlines([file for run in runs for file in run.objects], LABEL)
    drawn = {uid: real.drawn(uid) for uid in real.rows}
    scores = [dice(found.get(uid, np.zeros((SIDE, SIDE), bool)), mask) for uid, mask in drawn.items() if mask.any()]
    assert np.mean(scores) > 0.5
    assert all(m.name == codes.AREA for run in runs for each in run.findings for m in each.measurements)
    assert not any(UNMEASURED in run.notes for run in runs)
    if shutil.which("dciodvfy"):
        assert [verdict(file) for file in runs[0].objects] == [[] for _ in runs[0].objects]


@needs_weights(CARD)
@needs_shared("data", "ct_lung_tumour_patches")
def test_patches_that_were_blurred_are_withheld(pipeline: LungTumour, real: Wrapped, tmp_path: Path) -> None:
    patches = real.studies[0].series[0].volume()
    assert pipeline(study_of(ct(list(patches), 2.0), tmp_path / "sharp"))
    with pytest.raises(WithheldStudy, match="a patch is blurred"):
        pipeline(study_of(ct([gaussian_filter(each, 2.0) for each in patches], 2.0), tmp_path / "blurred"))
