"""Pictures are spoilt by known degrees, and truth moves with them. The attack: ``test_attack``."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from pipelines.base import Algorithm, Finding, Findings, Segment, WithheldStudy
from pipelines.evidence import codes
from pipelines.instance import open_instance
from pipelines.series import Series
from pipelines.study import Study
from pipelines.training.corruptions import Corruption, corruptions, greys_of
from pipelines.training.examples import Row, Truth
from pipelines.training.robustness import natural, spoil
from pipelines.training.truths import Judged
from tests.slices import saved, slice_of

SIDE = 48
CASES = [(modality, each) for modality in ("CT", "MR", "US", "CR", "XC") for each in corruptions(modality)]
_ROW, _COLUMN = np.mgrid[:SIDE, :SIDE]
SQUARE = (_ROW > 6) & (_ROW < 18) & (_COLUMN > 26) & (_COLUMN < 40)


def picture(modality: str) -> np.ndarray:
    rng = np.random.default_rng(3)
    grey = (20 + 40 * SQUARE + rng.normal(0, 2, SQUARE.shape)).astype(np.float32)
    return np.repeat(grey[..., None], 3, 2) if modality == "XC" else grey


def spoilt(corruption: Corruption, before: np.ndarray, degree: float, modality: str) -> np.ndarray:
    return corruption.spoil(before, degree, greys_of([before], modality), np.random.default_rng(0))


def named(modality: str, name: str) -> Corruption:
    (found,) = (each for each in corruptions(modality) if each.name == name)
    return found


@pytest.mark.parametrize(("modality", "corruption"), CASES, ids=[f"{m} {c.name}" for m, c in CASES])
def test_a_picture_is_spoilt_more_by_the_heavier_degree_and_keeps_its_form(
    modality: str, corruption: Corruption
) -> None:
    before = picture(modality)
    away = []
    for degree in corruption.degrees:
        after = spoilt(corruption, before, degree, modality)
        assert after.shape == before.shape
        assert after.dtype == np.float32
        away.append(float(np.abs(after - before).mean()))
    assert min(away) > 0
    assert len(corruption.heavy) == 2 or away[0] < away[1]


def test_the_slices_of_an_mr_are_spoilt_alike(tmp_path: Path) -> None:
    """By what is black and white in the whole series: a dark slice stays dark."""
    rows: list[Row] = []
    for number, brightness in enumerate((200, 1000)):
        pixels = (brightness * SQUARE).astype(np.int16)
        ds = slice_of(number + 1, pixels, Modality="MR", StudyInstanceUID="1.2", SOPInstanceUID=f"1.2.{number}")
        saved(ds, tmp_path / f"{number}.dcm")
        rows.append({"series_uid": "1.2.9", "sop_uid": f"1.2.{number}", "file": f"{number}.dcm"})
    gamma = named("MR", "gamma")
    spoil(rows, tmp_path, tmp_path / "out", gamma, 1.4, "MR")
    dark, bright = (series.volume().max() for series in read_series(tmp_path / "out"))
    assert bright == pytest.approx(1000, abs=2)
    assert dark == pytest.approx(1000 * 0.2**1.4, abs=2)


def read_series(folder: Path) -> list[Series]:
    """Each instance as a series of its own."""
    headers = [open_instance(file) for file in sorted(folder.iterdir())]
    return [Series("1.2.9", "MR", (header,)) for header in headers]


def test_a_coil_at_a_corner_makes_that_corner_bright_and_the_other_dark() -> None:
    flat = np.full((SIDE, SIDE), 100, np.float32)
    after = named("MR", "bias field").spoil(
        flat, 0.3, greys_of([np.array([[0.0, 200.0]])], "MR"), np.random.default_rng(0)
    )
    assert after[0, 0] == pytest.approx(100 * np.exp(0.3), rel=0.02)
    assert after[-1, -1] == pytest.approx(100 * np.exp(-0.3), rel=0.02)
    assert after[SIDE // 2, SIDE // 2] == pytest.approx(100, rel=0.03)


def test_x_rays_are_noisier_where_few_come_through() -> None:
    halves = np.zeros((SIDE, SIDE), np.float32)
    halves[SIDE // 2 :] = 1000
    after = spoilt(named("CR", "quantum noise"), halves, 5000, "CR")
    assert after[SIDE // 2 :].std() > 3 * after[: SIDE // 2].std() > 0


def test_a_mask_turns_with_its_picture() -> None:
    turn = named("CT", "rotation")
    turned = spoilt(turn, picture("CT"), 15, "CT") > 40
    mask = turn.moves(SQUARE, 15)
    assert 2 * (turned & mask).sum() / (turned.sum() + mask.sum()) > 0.9
    assert 2 * (turned & SQUARE).sum() / (turned.sum() + SQUARE.sum()) < 0.9


def test_a_mask_moves_with_its_picture() -> None:
    shift = named("CT", "shift")
    moved = spoilt(shift, picture("CT"), 0.1, "CT") > 40
    mask = shift.moves(SQUARE, 0.1)
    assert 2 * (moved & mask).sum() / (moved.sum() + mask.sum()) > 0.95
    assert 2 * (moved & SQUARE).sum() / (moved.sum() + SQUARE.sum()) < 0.7


class Threshold:
    """Outlines what is brighter than 40 HU."""

    algorithm = Algorithm("threshold", "1.0.0", codes.ARTIFICIAL_INTELLIGENCE, "0" * 64)

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        (series,) = study.series
        mask = series.volume() > 40
        segment = Segment("square", mask, codes.ANATOMICAL_STRUCTURE, codes.LESION) if mask.any() else None
        return (Findings(series, (Finding(codes.LESION, present=bool(mask.any()), segment=segment),)),)


def test_a_pipeline_is_judged_on_spoilt_dicom(tmp_path: Path) -> None:
    rows: list[Row] = []
    for number in range(3):
        study = f"1.2.{number}"
        ds = slice_of(1, picture("CT").round().astype(np.int16), StudyInstanceUID=study, SOPInstanceUID=f"{study}.1")
        saved(ds, tmp_path / f"{number}.dcm")
        rows.append({"study_uid": study, "sop_uid": f"{study}.1", "file": f"{number}.dcm", "patient_id": str(number)})
    parts = {"outline": Judged(lambda *_: Truth(masks=SQUARE[None]), labels=("square",))}
    lines = list(natural(Threshold(), parts, rows, tmp_path, tmp_path))
    found = {(line["name"], line["degree"]): line["value"] for line in lines}
    assert found["as it is", None] > 0.99
    assert found["rotation", 15] > 0.9
    assert found["calibration", -10] > 0.95
    assert found["coarse pixels", 4] < found["as it is", None]
    assert found["noise", 15] < 0.9
    assert {line["unread"] for line in lines} == {0.0}
    with (tmp_path / "x.csv").open("w") as file:
        csv.DictWriter(file, lines[0]).writeheader()  # every line has the same keys
    assert all(line.keys() == lines[0].keys() for line in lines)


class Wary:
    """Reads nothing that is noisy."""

    algorithm = Algorithm("wary", "1.0.0", codes.ARTIFICIAL_INTELLIGENCE, "0" * 64)

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        (series,) = study.series
        if series.volume()[~ndimage.binary_dilation(SQUARE, iterations=12)[None]].std() > 4:
            raise WithheldStudy("noise")
        return (Findings(series, (Finding(codes.LESION, present=True, certainty=0.5, label="x"),)),)


def test_what_is_withheld_is_counted_and_the_lighter_degrees_can_be_left_out(tmp_path: Path) -> None:
    rows: list[Row] = []
    for number in range(2):
        ds = slice_of(1, picture("CT").round().astype(np.int16), StudyInstanceUID=f"1.2.{number}")
        ds.SOPInstanceUID = f"1.2.{number}.1"
        saved(ds, tmp_path / f"{number}.dcm")
        row = {"study_uid": f"1.2.{number}", "sop_uid": f"1.2.{number}.1", "file": f"{number}.dcm"}
        rows.append({**row, "patient_id": str(number)})
    parts = {"class": Judged(lambda row, _: Truth([float(row["patient_id"])]), classes=("x",))}
    lines = list(natural(Wary(), parts, rows, tmp_path, tmp_path, heaviest=True))
    unread = {(line["name"], line["degree"]): line["unread"] for line in lines}
    assert unread["as it is", None] == 0
    assert unread["noise", 15] == 1
    assert unread["blur", 2] == 0
    assert ("noise", 5) not in unread
    assert {("calibration", -10), ("calibration", 10)} <= unread.keys()
