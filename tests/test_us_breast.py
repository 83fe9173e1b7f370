"""The pipeline ``us_breast``: the size of what is outlined, what it reads, and real pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom.dataset import Dataset

from pipelines.base import UnsuitableStudy, WithheldStudy
from pipelines.evidence import codes
from pipelines.frames import frames_of
from pipelines.scale import Pixel, mm_per_pixel, size_of
from pipelines.training.metrics import dice
from pipelines.us_breast import CARD, CLASSES, LABEL, BreastUltrasound
from tests.findings import image, study_of, verdict
from tests.peers import needs_shared
from tests.wrapped import Wrapped, needs_weights, outlines, runs_of, wrapped


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pipeline() -> BreastUltrasound:
    return BreastUltrasound()


def region(left: int, right: int, *, units: int = 3) -> Dataset:
    """An ultrasound region between two columns, of 0.2 mm across and 0.1 mm down."""
    made = Dataset()
    made.RegionLocationMinX0, made.RegionLocationMinY0 = left, 0
    made.RegionLocationMaxX1, made.RegionLocationMaxY1 = right, 199
    made.PhysicalUnitsXDirection = made.PhysicalUnitsYDirection = units
    made.PhysicalDeltaX, made.PhysicalDeltaY = 0.02, -0.01
    return made


def breast(number: int = 1, pixels: np.ndarray | None = None, **elements: object) -> Dataset:
    pixels = np.zeros((200, 200), np.uint8) if pixels is None else pixels
    own = {
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelData": pixels.tobytes(),
        "BodyPartExamined": "BREAST",
    }
    return image(number, modality="US", shape=pixels.shape, ImageType=["ORIGINAL", "PRIMARY"], **(own | elements))


MASK = np.zeros((200, 200), bool)
MASK[50:70, 120:160] = True


def test_a_lesion_is_measured_in_the_units_of_the_region_that_it_lies_in() -> None:
    (frame,) = frames_of(breast(SequenceOfUltrasoundRegions=[region(0, 99, units=4), region(100, 199)]))
    pixel = mm_per_pixel(frame, MASK)
    assert (pixel.rows, pixel.columns, pixel.is_mm) == (pytest.approx(0.1), pytest.approx(0.2), True)
    area, long, short = size_of(MASK, pixel)
    assert (area.value, area.unit) == (pytest.approx(20 * 40 * 0.02), codes.SQUARE_MILLIMETER)
    assert (long.unit, short.unit) == (codes.MILLIMETER, codes.MILLIMETER)


def test_where_no_scale_is_said_a_lesion_is_measured_in_pixels() -> None:
    (frame,) = frames_of(breast())
    area, long, _ = size_of(MASK, mm_per_pixel(frame, MASK))
    assert (area.value, area.unit) == (800, codes.PIXELS)
    assert (long.value, long.unit) == (pytest.approx(np.hypot(20, 40), rel=0.01), codes.PIXELS)


def test_pixel_spacing_serves_where_there_is_no_region() -> None:
    (frame,) = frames_of(breast(PixelSpacing=[0.5, 0.25]))
    assert mm_per_pixel(frame, MASK) == Pixel(0.5, 0.25, is_mm=True)


def test_the_axes_of_an_ellipse_are_found_whichever_way_it_lies() -> None:
    row, column = np.mgrid[:200, :200] - 100
    turned = np.cos(0.7) * row + np.sin(0.7) * column, -np.sin(0.7) * row + np.cos(0.7) * column
    ellipse = (turned[0] / 60) ** 2 + (turned[1] / 25) ** 2 <= 1
    _, long, short = size_of(ellipse, Pixel())
    assert long.value == pytest.approx(120, abs=2.5)
    assert short.value == pytest.approx(50, abs=2.5)


@needs_weights(CARD)
def test_other_organs_and_clips_are_unsuitable(pipeline: BreastUltrasound, tmp_path: Path) -> None:
    with pytest.raises(UnsuitableStudy, match="the body part is THYROID"):
        pipeline(study_of([breast(BodyPartExamined="THYROID")], tmp_path / "other"))
    two = np.zeros((2, 200, 200), np.uint8)
    clip = breast(NumberOfFrames=2)
    clip.PixelData = two.tobytes()
    with pytest.raises(UnsuitableStudy, match="clips are not read"):
        pipeline(study_of([clip], tmp_path / "clip"))


@needs_weights(CARD)
def test_noise_is_withheld(pipeline: BreastUltrasound, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (144, 144)).astype(np.uint8)
    with pytest.raises(WithheldStudy, match="unlike the ultrasound that was validated"):
        pipeline(study_of([breast(pixels=noise)], tmp_path / "in"))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Wrapped:
    return wrapped("breast_us", tmp_path_factory.mktemp("us"), limit=125)


@needs_weights(CARD)
@needs_shared("data", "breast_us")
def test_every_class_is_given_and_exactly_one_is_present(pipeline: BreastUltrasound, real: Wrapped) -> None:
    for study in real.studies[:6]:
        (findings,) = pipeline(study)
        classes = [each for each in findings.findings if each.label in CLASSES]
        assert [each.label for each in classes] == list(CLASSES)
        assert sum(each.present for each in classes) == 1
        assert sum(each.certainty or 0 for each in classes) == pytest.approx(1, abs=1e-3)


@needs_weights(CARD)
@needs_shared("data", "breast_us")
def test_class_and_outline_that_disagree_are_said_to(pipeline: BreastUltrasound, real: Wrapped) -> None:
    for study in real.studies[:12]:
        (findings,) = pipeline(study)
        present = {each.label: each.present for each in findings.findings}
        disagree = present["normal"] == present[LABEL]
        assert disagree == any("the two disagree" in note for note in findings.notes)


@needs_weights(CARD)
@needs_shared("data", "breast_us")
def test_lesions_of_real_pictures_are_outlined(pipeline: BreastUltrasound, real: Wrapped, tmp_path: Path) -> None:
    scores = []
    for study in real.studies:
        uid = str(study.series[0].header.SOPInstanceUID)
        if real.rows[uid]["mask"] and real.drawn(uid).any():
            (run,) = runs_of(pipeline, study, tmp_path / uid)
            drawn = real.drawn(uid)
            scores.append(dice(outlines(run.objects, LABEL).get(uid, np.zeros(drawn.shape, bool)), drawn))
    assert len(scores) > 8
    assert np.mean(scores) > 0.6
    if shutil.which("dciodvfy"):
        assert [verdict(file) for file in run.objects] == [[] for _ in run.objects]
