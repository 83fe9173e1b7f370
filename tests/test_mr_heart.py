"""The pipeline ``mr_heart``: levels and phases, what a beat is worth, and the ventricle of real patients."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.base import UnsuitableStudy
from pipelines.cine import Place, beside, places
from pipelines.evidence import codes
from pipelines.mr_heart import CARD, LABEL, HeartCine, objection, one_cavity, said_of
from pipelines.pictures import Middle
from pipelines.series import Series
from pipelines.training.metrics import dice
from pipelines.ventricle import beat, ejection_fraction
from tests.findings import slices, study_of, verdict
from tests.peers import needs_shared
from tests.wrapped import Wrapped, needs_weights, outlines, runs_of, wrapped


def cine(levels: int = 4, phases: int = 3, *, left_out: tuple[tuple[int, int], ...] = (), **elements: object) -> Series:
    """Frames of one series, some left out by (level, phase); phases are 40 ms apart."""
    made = []
    for phase in range(phases):
        for level, image in enumerate(slices(levels)):
            if (level, phase) in left_out:
                continue
            image.SOPInstanceUID = f"1.2.3.4.{level}.{phase}"
            image.InstanceNumber = level * phases + phase + 1
            image.TriggerTime, image.BodyPartExamined, image.SeriesDescription = 40.0 * phase, "HEART", "CINE SAX"
            for keyword, value in elements.items():
                setattr(image, keyword, value)
            made.append(image)
    return Series("1.2.3.4", "MR", tuple(made))


def test_every_frame_has_its_level_and_its_phase() -> None:
    assert places(cine(2, 3)) == tuple(Place(level, phase) for level in range(2) for phase in range(3))


def test_a_missing_frame_moves_no_other_to_another_phase() -> None:
    where = places(cine(3, 3, left_out=((1, 0),)))
    assert Place(1, 0) not in where
    assert Place(1, 2) in where


def test_levels_whose_hearts_beat_at_different_rates_keep_their_phases() -> None:
    series = cine(2, 3)
    for frame in series.frames[3:]:
        frame.instance.TriggerTime = float(frame.instance.TriggerTime) * 1.1
    assert [place.phase for place in places(series)] == [0, 1, 2, 0, 1, 2]


def test_a_frame_stands_between_those_of_the_neighbouring_levels_at_its_time() -> None:
    where = places(cine(3, 2))
    images = torch.arange(6.0).view(6, 1, 1, 1)
    three = beside(images, where)[:, :, 0, 0]
    assert three[2].tolist() == [0, 2, 4]  # level 1, phase 0
    assert three[5].tolist() == [3, 5, 5]  # the last level has none after it


def test_volumes_and_ejection_fraction_are_those_of_the_discs() -> None:
    series = cine(4, 3)
    mask = np.zeros((12, 20, 24), bool)
    for index, place in enumerate(places(series)):
        mask[index, : (10, 6, 8)[place.phase], :10] = True
    whole = said_of(mask, series, places(series))[0][0]
    values = {each.name: each.value for each in whole.measurements}
    voxel = float(np.prod(series.spacing or ()))
    assert values[codes.LV_ED_VOLUME] == pytest.approx(4 * 100 * voxel / 1000)
    assert values[codes.LV_ES_VOLUME] == pytest.approx(4 * 60 * voxel / 1000)
    assert values[codes.LV_EJECTION_FRACTION] == pytest.approx(40)


def test_a_level_without_both_ends_of_the_beat_has_no_part_in_the_ejection_fraction_and_that_is_said() -> None:
    series = cine(4, 2, left_out=((3, 1),))
    where = places(series)
    areas = np.array([100.0 if place.phase == 0 else 50.0 for place in where])
    found = beat(areas, where)
    assert found is not None
    assert found.levels == (0, 1, 2)
    assert ejection_fraction(found, areas, where) == pytest.approx(0.5)
    mask = np.zeros((7, 20, 24), bool)
    for index, area in enumerate(areas):
        mask[index].flat[: int(area)] = True
    assert any(note.startswith("1 levels have no frame at both") for note in said_of(mask, series, where)[1])


def test_each_level_has_its_area_at_both_ends_of_the_beat() -> None:
    series = cine(3, 2)
    mask = np.zeros((6, 20, 24), bool)
    mask[0::2, 2:12, 3:13], mask[1::2, 4:9, 5:15] = True, True
    findings, _ = said_of(mask, series, places(series))
    assert [each.label for each in findings[1:3]] == [
        "left ventricle, level 1, end-diastole",
        "left ventricle, level 1, end-systole",
    ]
    assert findings[1].box == (3, 2, 10, 10)
    assert findings[2].measurements[0].value == pytest.approx(50 * 0.8 * 0.7)


def test_an_empty_picture_has_no_ventricle() -> None:
    series = cine()
    findings, notes = said_of(np.zeros((12, 20, 24), bool), series, places(series))
    assert [each.present for each in findings] == [False]
    assert "no left ventricle was found in the middle of the pictures" in notes


def test_a_cavity_is_one_piece_without_holes() -> None:
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15], mask[9:11, 9:11], mask[0, 0] = True, False, True
    assert one_cavity(mask).sum() == 100


def test_the_middle_of_a_picture_goes_to_the_canvas_and_back() -> None:
    mask = np.zeros((100, 80), bool)
    mask[40:60, 30:50] = True
    look = Middle((64, 64), share=0.5)
    back = look.at(mask.astype(np.float32)).back(look.mask_at(mask)[None].float())[0]
    assert back.shape == mask.shape
    assert dice(back > 0.5, mask) > 0.9
    assert not back[:25].any()


@pytest.mark.parametrize(
    "elements",
    [{"SeriesDescription": "CINE 4CH"}, {"SeriesDescription": "LAX"}, {"SeriesDescription": "LGE SAX"}],
)
def test_other_views_are_not_read(elements: dict[str, str]) -> None:
    assert "another view" in str(objection(cine(**elements)))


@needs_weights(CARD)
def test_still_pictures_of_a_heart_are_unsuitable(tmp_path: Path) -> None:
    empty = np.zeros((64, 64), "<u2").tobytes()
    stills = [each.instance for each in cine(4, 1, Rows=64, Columns=64, PixelData=empty).frames]
    study = study_of(stills, tmp_path / "in")
    with pytest.raises(UnsuitableStudy, match="no two frames of one heart beat"):
        HeartCine()(study)


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Wrapped:
    return wrapped("cine_mr_lv", tmp_path_factory.mktemp("cine"), limit=30)


@needs_weights(CARD)
@needs_shared("data", "cine_mr_lv")
def test_the_ventricle_of_a_patient_is_outlined_in_one_segmentation_per_phase(patient: Wrapped, tmp_path: Path) -> None:
    (run,) = runs_of(HeartCine(), patient.studies[0], tmp_path)
    found = outlines(run.objects, LABEL)
    uids = [str(each.SOPInstanceUID) for each in patient.studies[0].series[0].instances]
    scores = [dice(found.get(uid, np.zeros((256, 256), bool)), patient.drawn(uid)) for uid in uids]
    assert np.mean(scores) > 0.8
    names = {each.name for each in run.findings[0].measurements}
    assert codes.LV_EJECTION_FRACTION in names
    assert 5 < next(m.value for m in run.findings[0].measurements if m.name == codes.LV_EJECTION_FRACTION) < 90
    if shutil.which("dciodvfy"):
        assert [verdict(file) for file in run.objects] == [[] for _ in run.objects]
