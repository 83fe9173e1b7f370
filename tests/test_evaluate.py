"""A pipeline judged on labelled pictures: its findings held against the truth, numbers with intervals, one page."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.sr.coding import Code

from pipelines.base import Algorithm, Finding, Findings, Segment, UnsuitableStudy
from pipelines.evidence import codes
from pipelines.pictures import pictures
from pipelines.study import Study
from pipelines.training import recipes, resampling
from pipelines.training.evaluate import Asked, evaluate
from pipelines.training.examples import Row, Truth
from pipelines.training.figures import agreement
from pipelines.training.judge import counted, shared
from pipelines.training.prepare import NoLabels
from pipelines.training.resampling import estimate
from pipelines.training.truths import Judged, judged
from tests.peers import SHARED, needs_shared
from tests.slices import saved, slice_of

SPOT = ("spot",)


class Spots:
    """Calls what is brighter than 500 a spot: sure of the large ones; it does not read what is all dark."""

    algorithm = Algorithm("spots", "1.0.0", Code("123110", "DCM", "Artificial Intelligence"), "0" * 64)

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        (series,) = study.series
        (picture,) = pictures(series)
        if picture.pixels.max() < 50:
            raise UnsuitableStudy("the picture is dark")
        mask = (picture.pixels > 500)[None]
        chance = float(min(1.0, mask.sum() / 100))
        uids = (picture.sop_uid,)
        said = Finding(codes.LESION, present=chance > 0.5, certainty=chance, sop_uids=uids, label="spot")
        ys, xs = np.nonzero(mask[0])
        found = [said]
        if mask.any():
            segment = Segment("a bright spot", mask, codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE, codes.LESION)
            box = (float(xs.min()), float(ys.min()), float(np.ptp(xs) + 1), float(np.ptp(ys) + 1))
            found += [
                Finding(codes.LESION, present=True, segment=segment),
                Finding(codes.LESION, present=True, box=box, label="box", sop_uids=uids),
            ]
        return (Findings(series, tuple(found)),)


def truth(row: Row, labels: Path) -> Truth | None:
    if row["label"] == "unknown":
        return None
    masks = np.asarray(Image.open(labels / row["mask"]))[None] > 0 if row["mask"] else None
    return Truth([float(row["label"] == "spot")], masks)


def boxes(row: Row, _: Path, shape: tuple[int, int]) -> list[tuple[str, tuple[float, float, float, float]]]:
    assert shape in ((40, 40), (1, 1))  # the latter of what was not read
    return [("box", tuple(json.loads(row["box"])))] if row["box"] else []


PARTS = {"all": Judged(truth, classes=SPOT, labels=("bright spot",), boxes=boxes)}


@pytest.fixture
def spots(tmp_path: Path) -> Path:
    """Twenty pictures of ten patients: a square of 12 pixels in every other; one of them dark, one not labelled."""
    rows = []
    for number in range(20):
        has = number % 2 == 0
        pixels = np.full((40, 40), 0 if number == 3 else 100, np.int16)
        drawn = np.zeros((40, 40), np.uint8)
        if has:
            pixels[10:22, 8:20] = 1000
            drawn[10:22, 8:20] = 1
            Image.fromarray(drawn).save(tmp_path / f"{number}.png")
        study, sop = f"1.2.9.{number}", f"1.2.9.{number}.1.1"
        ds = slice_of(1, pixels, StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1", SOPInstanceUID=sop)
        saved(ds, tmp_path / study / "1.dcm")
        rows.append(
            {
                "study_uid": study, "sop_uid": sop, "file": f"{study}/1.dcm", "patient_id": f"P{number // 2}",
                "split": "dev", "label": "unknown" if number == 19 else "spot" if has else "none",
                "mask": f"{number}.png" if has else "", "box": "[8, 10, 12, 12]" if has else "",
                "view": "PA" if number < 14 else "AP", "path": f"picture <{number}>",
            }
        )  # fmt: skip
    with (tmp_path / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path


def test_a_pipeline_is_judged_on_what_it_says_of_every_picture(spots: Path, tmp_path: Path) -> None:
    asked = Asked(prevalence=0.1, by=("view",))
    report = evaluate(Spots(), PARTS, spots, tmp_path / "out", labels=spots, asked=asked)
    assert report["unread"] == ["the picture is dark"]
    assert (report["n_pictures"], report["n_patients"], report["n_unread"]) == (19, 10, 1)
    assert report["unread"] == ["the picture is dark"]
    (spot,) = report["classes"]
    assert (spot["n"], spot["positives"], spot["unread"]) == (19, 10, 1)
    assert spot["auroc"]["value"] == 1.0
    assert spot["sensitivity"]["value"] == 1.0
    assert spot["specificity"]["value"] == pytest.approx(8 / 9)  # what was not read is called
    assert spot["ppv"]["value"] == pytest.approx(0.1 / (0.1 + 0.9 / 9))
    low, high = spot["specificity"]["interval"]
    assert low < 8 / 9 < high
    assert [(each["value"], each["n"]) for each in spot["subgroups"]] == [("AP", 5), ("PA", 14)]
    (outline,) = report["outlines"]
    assert (outline["n"], outline["dice"]["value"], outline["surface_dice"]["value"]) == (10, 1.0, 1.0)
    assert (outline["agreement"]["unit"], outline["agreement"]["mean"]) == ("mm2", 0.0)
    (box,) = report["boxes"]
    assert (box["f1"]["value"], box["boxes"]) == (1.0, 10)
    assert json.loads((tmp_path / "out/report.json").read_text())["classes"][0]["auroc"]["value"] == 1.0


def test_the_page_needs_no_other_file_and_has_the_headings_of_claim(spots: Path, tmp_path: Path) -> None:
    evaluate(Spots(), PARTS, spots, tmp_path / "out", labels=spots, asked=Asked(prevalence=0.1))
    page = (tmp_path / "out/report.html").read_text()
    headings = re.findall("<h2>(.*?)</h2>", page)
    for wanted in ("Study design", "Data", "Reference standard", "Data partitions", "Model", "Evaluation", "Results"):
        assert wanted in headings
    assert all(each.startswith("data:") for each in re.findall(r'(?:src|xlink:href|href)="([^#"]+)"', page))
    for drawn in ("ROC", "Calibration", "Bland", "Dice, all pictures"):
        assert drawn in page
    assert "prefers-color-scheme: dark" in page
    assert "currentColor" in page
    assert "picture &lt;" in page
    assert "<script" not in page


def test_the_truth_decides_and_not_the_pipeline(spots: Path, tmp_path: Path) -> None:
    def contrary(row: Row, labels: Path) -> Truth | None:
        known = truth(row, labels)
        if known is None:
            return None
        moved = np.roll(known.masks, 6, axis=2) if known.masks is not None else None
        return Truth([1 - known.labels[0]], moved)

    parts = {"all": Judged(contrary, SPOT, ("bright spot",))}
    report = evaluate(Spots(), parts, spots, tmp_path / "out", labels=spots, asked=Asked())
    assert report["classes"][0]["auroc"]["value"] == 0.0
    assert report["outlines"][0]["dice"]["value"] == pytest.approx(0.5)
    assert report["outlines"][0]["hausdorff95_median"] == pytest.approx(6.0)


def test_a_volume_is_judged_as_a_whole(spots: Path, tmp_path: Path) -> None:
    parts = {"all": Judged(truth, labels=("bright spot",), whole=True)}
    report = evaluate(Spots(), parts, spots, tmp_path / "out", labels=spots, asked=Asked())
    assert report["outlines"][0]["n"] == 19
    assert report["outlines"][0]["dice_worst"] == 0.0  # the dark one
    assert report["outlines"][0]["dice"]["value"] == pytest.approx(18 / 19)


def test_pictures_of_one_patient_are_drawn_together() -> None:
    values = np.repeat([0.0, 1.0] * 10, 50)
    torn = estimate(resampling.mean_of(values), [str(place) for place in range(1000)])
    together = estimate(resampling.mean_of(values), [str(place // 50) for place in range(1000)])
    assert torn.value == together.value == 0.5
    assert torn.interval
    assert together.interval
    assert np.ptp(torn.interval) == pytest.approx(2 * 1.96 * 0.5 / 1000**0.5, rel=0.1)
    assert np.ptp(together.interval) == pytest.approx(2 * 1.96 * 0.5 / 20**0.5, rel=0.1)


def test_of_two_patients_there_is_no_interval_and_of_one_kind_no_area() -> None:
    assert estimate(resampling.mean_of(np.ones(4)), ["a", "a", "b", "b"]).interval is None
    area = resampling.auroc_of(np.array([0.1, 0.2]), np.array([True, True]))
    assert estimate(area, ["a", "b"]).value is None


def test_equal_scores_count_half() -> None:
    scores, there = np.array([0.5, 0.5, 0.9, 0.1]), np.array([True, False, True, False])
    assert resampling.auroc_of(scores, there)(np.ones(4)) == pytest.approx(3.5 / 4)
    assert resampling.auroc_of(scores, there)(np.array([2.0, 0, 0, 1])) == 1.0


def test_a_box_is_hit_once_and_by_the_surest() -> None:
    one = (0.0, 0.0, 10.0, 10.0)
    assert shared(one, (0.0, 5.0, 10.0, 10.0)) == pytest.approx(50 / 150)
    found = [
        Finding(codes.LESION, present=True, label="cell", box=one, certainty=0.6),
        Finding(codes.LESION, present=True, label="cell", box=(0.0, 1.0, 10.0, 10.0), certainty=0.9),
        Finding(codes.LESION, present=True, label="other", box=(50.0, 0.0, 10.0, 10.0), certainty=0.9),
    ]
    counts = counted([("cell", one), ("cell", (90.0, 0.0, 5.0, 5.0))], found)
    assert (counts["cell"].hits, counts["cell"].wrong, counts["cell"].missed) == (1, 1, 1)
    assert (counts["other"].hits, counts["other"].wrong, counts["other"].missed) == (0, 1, 0)


def test_limits_of_agreement_are_those_of_bland_and_altman() -> None:
    held = agreement([11.0, 9.0, 12.0], [10.0, 10.0, 10.0], unit="mm2")
    assert held["mean"] == pytest.approx(2 / 3)
    assert held["limits"][1] - held["limits"][0] == pytest.approx(2 * 1.96 * np.std([1, -1, 2], ddof=1))


def test_what_cannot_be_judged_is_said(spots: Path, tmp_path: Path) -> None:
    with pytest.raises(NoLabels, match="no row of the split test"):
        evaluate(Spots(), PARTS, spots, tmp_path, labels=spots, asked=Asked("test"))
    with pytest.raises(recipes.UnknownPipeline, match="cannot be judged"):
        judged("mr_spine", None, ())
    with pytest.raises(recipes.UnknownPipeline, match="JUDGED"):
        judged("mr_brain", None, ())


@pytest.mark.parametrize(
    ("pipeline", "part", "name"),
    [
        ("op_retina", "vessels", "fundus_vessels"),
        ("gm_cells", "nuclei", "nuclei_dsb2018"),
        ("gm_cells", "smears", "blood_cells_bccd"),
        ("dx_chest", "outline", "cxr_lung_masks"),
        ("dx_chest", "turn", "cxr_orientation"),
        ("dx_chest", "findings", "cxr_nih"),
    ],
)
@needs_shared("data")
def test_what_is_known_of_the_pictures_of_a_set_is_found(pipeline: str, part: str, name: str) -> None:
    folder = SHARED / "data" / name
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = judged(pipeline, part, list(rows[0]))
    assert list(judged(pipeline, None, list(rows[0]))) == [part]
    of = found[part]
    known = [(row, truth) for row in rows[:200] if (truth := of.truth(row, folder)) is not None][:20]
    assert len(known) == 20
    assert all(len(truth.labels) == len(of.classes) for _, truth in known)
    assert all(len(truth.masks) == len(of.labels) for _, truth in known if truth.masks is not None)
    if of.boxes:
        assert all(of.boxes(row, folder, (100, 100)) for row, _ in known)
    else:
        assert {bool(value) for _, truth in known for value in truth.labels or np.ravel(truth.masks)} == {False, True}
