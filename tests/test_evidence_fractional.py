"""FRACTIONAL Segmentations: the networks' probabilities come back, and above their threshold they are the outline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.base import Segment
from pipelines.evidence import InvalidEvidence, codes
from pipelines.evidence.check import check
from pipelines.evidence.masks import seg_masks
from pipelines.forms import Wanted
from pipelines.probability import STEPS, Probability, held, in_steps, last_below
from tests.findings import (
    GEOMETRIES,
    blob,
    blurred,
    image,
    lesion,
    outlined,
    slices,
    study_of,
    verdict,
    written,
)
from tests.peers import needs
from tests.roundtrip import fractions_by_highdicom
from tests.slices import enhanced
from tests.validators import dumped

FORMS = Wanted(segmentation="FRACTIONAL").forms
REFERRING = Wanted("references", "FRACTIONAL").forms


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.45, 0.475, 0.5, 0.999])
def test_rounding_crosses_no_threshold(threshold: float) -> None:
    chances = np.linspace(0, 1, 100_000, dtype=np.float32).reshape(10, 100, 100)
    mask = chances > threshold
    steps = held(in_steps(chances), mask, threshold)
    assert np.array_equal(steps > threshold * STEPS, mask)
    assert np.abs(steps - chances * STEPS).max() <= 1


def test_what_a_clean_up_changed_stands_next_to_the_threshold() -> None:
    chances = np.array([[[0.9, 0.9, 0.1, 0.1]]], np.float32)
    mask = np.array([[[True, False, True, False]]])
    below = last_below(0.45)
    assert held(in_steps(chances), mask, 0.45).tolist() == [[[230, below, below + 1, 26]]]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_probabilities_come_back_step_by_step(tmp_path: Path, geometry: str) -> None:
    study = study_of(slices(geometry=GEOMETRIES[geometry]), tmp_path / "in")
    series = study.series[0]
    masks = {"a": blob(series), "b": blob(series, seed=3)}
    likely = {"a": blurred(masks["a"]), "b": blurred(masks["b"], threshold=0.6)}
    made = written(
        outlined(series, *(lesion(masks[each], each, likely[each]) for each in masks)), study, tmp_path, forms=FORMS
    )
    assert (made["seg.dcm"].SegmentationFractionalType, made["seg.dcm"].MaximumFractionalValue) == (
        "PROBABILITY",
        STEPS,
    )
    read = fractions_by_highdicom(tmp_path / "seg.dcm", series)
    for place, each in enumerate(masks):
        assert np.array_equal(np.rint(read[place] * STEPS), likely[each].steps)
        assert np.array_equal(seg_masks(tmp_path / "seg.dcm", series)[each], masks[each])
    assert made["seg.dcm"].SegmentsOverlap == "YES"
    assert check(made["sr.dcm"], source=series.instances, beside=tuple(made.values())) == ()


@pytest.mark.parametrize("kind", ["DX", "XC", "enhanced"])
def test_so_do_those_of_pictures_and_of_multi_frame_images(tmp_path: Path, kind: str) -> None:
    study = study_of([enhanced([30.0, 10.0, 20.0]) if kind == "enhanced" else image(1, modality=kind)], tmp_path / "in")
    series = study.series[0]
    shape = (len(series.frames), series.header.Rows, series.header.Columns)
    masks = [np.zeros(shape, bool) for _ in range(2)]
    masks[0][0, 1, 2] = masks[1][-1, 3, 4] = True
    segments = [lesion(mask, name, blurred(mask)) for name, mask in zip("ab", masks, strict=True)]
    for regions, forms in (("regions", FORMS), ("references", REFERRING)):
        made = written(outlined(series, *segments), study, tmp_path / regions, forms=forms)["seg.dcm"]
        if kind == "enhanced":
            read = np.rint(fractions_by_highdicom(tmp_path / regions / "seg.dcm", series) * STEPS)
        else:  # highdicom wants a Pixel Spacing to read one
            read = made.pixel_array[:, None]
        for place, each in enumerate(segments):
            assert np.array_equal(read[place], each.probability.steps)
            assert np.array_equal(seg_masks(tmp_path / regions / "seg.dcm", series)[each.label], each.mask)


def test_what_has_no_probability_is_all_or_nothing_in_an_object_of_its_own_and_says_so(tmp_path: Path) -> None:
    study = study_of(slices(), tmp_path / "in")
    series = study.series[0]
    segments = lesion(blob(series), "a"), lesion(blob(series), "b", blurred(blob(series)))
    made = written(outlined(series, *segments), study, tmp_path, forms=FORMS)
    known, unknown = made["seg.dcm"], made["seg-2.dcm"]
    said = [each.SegmentSequence[0].SegmentDescription for each in (known, unknown)]
    assert said == [
        "probability by the networks; outlined is what is above 0.45",
        "all or nothing: of these pixels no probability is known",
    ]
    assert [each.SegmentationFractionalType for each in (known, unknown)] == ["PROBABILITY", "OCCUPANCY"]
    assert known.SeriesDescription.startswith("AI: probabilities (mr_brain")
    assert set(np.unique(unknown.pixel_array)) == {0, STEPS}
    assert np.array_equal(seg_masks(tmp_path / "seg-2.dcm", series)["a"], blob(series))


def test_a_frame_without_a_step_of_it_is_left_out(tmp_path: Path) -> None:
    study = study_of(slices(), tmp_path / "in")
    series = study.series[0]
    mask, chances = blob(series), np.full(blob(series).shape, 0.4 / STEPS, np.float32)
    chances[0] = 0.6 / STEPS  # on a frame without any of the mask
    segment = lesion(mask, "a", Probability(held(in_steps(chances), mask, 0.5), 0.5))
    made = written(outlined(series, segment), study, tmp_path, forms=FORMS)["seg.dcm"]
    assert made.NumberOfFrames == mask.any(axis=(1, 2)).sum() + 1


def test_segments_of_one_label_on_several_pictures_are_one(tmp_path: Path) -> None:
    study = study_of(slices(2), tmp_path / "in")
    series = study.series[0]
    masks = [blob(series) & (np.arange(2) == place)[:, None, None] for place in range(2)]
    likely = [blurred(mask) for mask in masks]
    written(
        outlined(series, *(lesion(mask, "a", each) for mask, each in zip(masks, likely, strict=True))),
        study,
        tmp_path,
        forms=FORMS,
    )
    read = fractions_by_highdicom(tmp_path / "seg.dcm", series)[0]
    assert np.array_equal(np.rint(read * STEPS), np.maximum(likely[0].steps, likely[1].steps))
    assert np.array_equal(seg_masks(tmp_path / "seg.dcm", series)["a"], masks[0] | masks[1])


@pytest.mark.parametrize("encoding", ["BINARY", "LABELMAP", "ALIGNED"])
def test_other_encodings_are_as_without_probabilities(tmp_path: Path, encoding: str) -> None:
    study = study_of(slices(shape=(21, 25)), tmp_path / "in")
    series = study.series[0]
    for name, likely in (("with", blurred(blob(series))), ("without", None)):
        written(
            outlined(series, lesion(blob(series), "a", likely)),
            study,
            tmp_path / name,
            forms=Wanted(segmentation=encoding).forms,
        )
    assert (tmp_path / "with" / "seg.dcm").read_bytes() == (tmp_path / "without" / "seg.dcm").read_bytes()


def test_a_probability_that_contradicts_its_mask_is_refused(tmp_path: Path) -> None:
    study = study_of(slices(), tmp_path / "in")
    series = study.series[0]
    likely = blurred(blob(series))
    likely.steps[2, 0, 0] = STEPS
    with pytest.raises(InvalidEvidence, match="the probability of 'a' is not above its threshold where its mask is"):
        written(outlined(series, lesion(blob(series), "a", likely)), study, tmp_path / "out", forms=FORMS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("steps", "threshold", "why"),
    [
        (np.zeros((6, 20, 24), np.float32), 0.5, "uint8"),
        (np.zeros((20, 24), np.uint8), 0.5, "frames, rows, columns"),
        (np.zeros((6, 20, 24), np.uint8), 1.0, "the threshold"),
        (np.zeros((5, 20, 24), np.uint8), 0.5, "beside a mask"),
    ],
)
def test_a_probability_is_right_or_is_not_made(steps: NDArray[Any], threshold: float, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Segment("a", np.zeros((6, 20, 24), bool), codes.TISSUE, codes.TISSUE, Probability(steps, threshold))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda ds: setattr(ds, "SegmentationFractionalType", ""), "the Segmentation Fractional Type is ''"),
        (lambda ds: setattr(ds, "MaximumFractionalValue", 100), "the Maximum Fractional Value is not 255"),
        (lambda ds: setattr(ds, "SegmentationFractionalType", "OCCUPANCY"), "its fractions are no probabilities"),
        (
            lambda ds: delattr(
                ds.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0], "AlgorithmParameters"
            ),
            "does not say above which probability it is outlined",
        ),
    ],
)
def test_wrong_fractions_are_found(tmp_path: Path, change: Any, sentence: str) -> None:
    study = study_of(slices(), tmp_path / "in")
    series = study.series[0]
    made = written(outlined(series, lesion(blob(series), "a", blurred(blob(series)))), study, tmp_path, forms=FORMS)
    assert check(made["seg.dcm"]) == ()
    change(made["seg.dcm"])
    assert any(sentence in said for said in check(made["seg.dcm"]))


@needs("dciodvfy", "dsrdump")
@pytest.mark.parametrize("modality", ["CT", "DX"])
def test_dciodvfy_and_dsrdump_find_no_error(tmp_path: Path, modality: str) -> None:
    study = study_of(slices(modality="CT") if modality == "CT" else [image(1, modality="DX")], tmp_path / "in")
    series = study.series[0]
    found = outlined(series, lesion(blob(series), "a", blurred(blob(series))), lesion(blob(series, seed=3), "b"))
    made = written(found, study, tmp_path, forms=FORMS | REFERRING)
    assert len(made) == 4
    assert [line for name in made for line in verdict(tmp_path / name)] == []
    assert [line for name in made if name.startswith("sr") for line in dumped(tmp_path / name)] == []
