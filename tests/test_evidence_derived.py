"""Derived series: other pixels in the source's own IOD, and everything else said truly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from pipelines.base import DerivedSeries, Findings
from pipelines.evidence import InvalidEvidence, codes
from pipelines.evidence.check import check
from pipelines.study import Series, Study, read_folder
from pipelines.synthetic import brain_mr, ct_slices
from tests.findings import image, saved, slices, study_of, verdict, written
from tests.peers import needs


def smoothed(series: Series, **more: Any) -> DerivedSeries:
    volume = series.volume()
    pixels = (volume + np.roll(volume, 1, axis=2)) / 2
    made = DerivedSeries(series, pixels, "T1 smoothed", codes.SMOOTHING, "Mean of two neighbours in a row")
    return replace(made, **more)


def images_of(study: Study, out: Path, *made: DerivedSeries) -> list[Dataset]:
    series = made[0].series
    files = written(Findings(series, (), read=(series,), derived=made), study, out)
    assert "sr.dcm" in files
    return [each for name, each in files.items() if name.startswith("derived")]


@pytest.fixture
def brain(tmp_path: Path) -> Study:
    brain_mr(tmp_path / "in", seed=4, lesion=None, slices=4, matrix=64)
    return read_folder(tmp_path / "in")[0][0]


def test_each_image_is_there_again_in_its_place_with_the_new_pixels(brain: Study, tmp_path: Path) -> None:
    series = brain.series[1]
    made = smoothed(series)
    images = images_of(brain, tmp_path / "out", made)
    assert len(images) == len(series.instances)
    (back,) = read_folder(tmp_path / "out")[0]
    derived = next(each for each in back.series if each.modality == "MR")
    assert np.abs(derived.volume() - made.pixels).max() <= 0.5
    for ours, theirs in zip(derived.instances, series.instances, strict=True):
        assert ours.ImagePositionPatient == theirs.ImagePositionPatient
        assert ours.FrameOfReferenceUID == theirs.FrameOfReferenceUID
        assert ours.SourceImageSequence[0].ReferencedSOPInstanceUID == theirs.SOPInstanceUID


def test_it_says_that_it_is_derived_by_whom_and_that_it_is_synthetic_as_its_source(
    brain: Study, tmp_path: Path
) -> None:
    series = brain.series[0]
    for made in images_of(brain, tmp_path / "out", smoothed(series)):
        assert made.SOPClassUID == series.header.SOPClassUID
        assert list(made.ImageType)[:2] == ["DERIVED", "SECONDARY"]
        assert made.SeriesInstanceUID != series.uid
        assert made.StudyInstanceUID == brain.uid
        assert made.DerivationCodeSequence[0].CodeValue == "113087"
        assert made.DerivationDescription == "Mean of two neighbours in a row"
        assert made.Manufacturer == "wetread"
        assert made.SyntheticData == "YES"
        assert not check(made, source=series.instances)


def test_the_source_stays_as_it_was(brain: Study, tmp_path: Path) -> None:
    series = brain.series[0]
    before = [(each.SOPInstanceUID, list(each.ImageType), each.SeriesDescription) for each in series.instances]
    images_of(brain, tmp_path / "out", smoothed(series))
    assert [(each.SOPInstanceUID, list(each.ImageType), each.SeriesDescription) for each in series.instances] == before


def test_two_series_of_one_run_are_two_series(brain: Study, tmp_path: Path) -> None:
    made = smoothed(brain.series[0])
    images = images_of(
        brain, tmp_path / "out", made, replace(made, description="residual", derivation=codes.SUBTRACTION)
    )
    assert len({each.SeriesInstanceUID for each in images}) == 2
    assert len({each.SeriesNumber for each in images}) == 2
    assert len({each.SOPInstanceUID for each in images}) == len(images)


def test_hounsfield_units_survive_and_what_does_not_fit_is_cut_off(tmp_path: Path) -> None:
    ct_slices(tmp_path / "in", count=3, size=48, seed=2)
    study = read_folder(tmp_path / "in")[0][0]
    series = study.series[0]
    pixels = np.full((3, 48, 48), 37.0, np.float32)
    pixels[0, 0, 0] = 1e9
    images = images_of(study, tmp_path / "out", smoothed(series, pixels=pixels))
    derived = next(each for each in read_folder(tmp_path / "out")[0][0].series if each.modality == "CT")
    assert np.abs(derived.volume()[:, 1:] - 37.0).max() <= 0.5 * float(images[0].RescaleSlope)
    assert derived.volume()[0, 0, 0] > 2000


@needs("dciodvfy")
@pytest.mark.parametrize("modality", ["MR", "CT", "US"])
def test_dciodvfy_finds_nothing_that_the_source_does_not_have(modality: str, tmp_path: Path) -> None:
    if modality == "MR":
        brain_mr(tmp_path / "in", seed=4, lesion=None, slices=3, matrix=64)
    elif modality == "CT":
        ct_slices(tmp_path / "in", count=3, size=48, seed=2)
    else:
        saved(
            [image(1, modality="US", BitsAllocated=8, BitsStored=8, HighBit=7, PixelData=bytes(480))], tmp_path / "in"
        )
    study = read_folder(tmp_path / "in")[0][0]
    series = study.series[0]
    images_of(study, tmp_path / "out", smoothed(series))
    known = set(verdict(Path(series.header.filename)))
    for file in sorted((tmp_path / "out").glob("derived*.dcm")):
        assert set(verdict(file)) <= known


def test_private_elements_overlays_and_references_stay_behind(tmp_path: Path) -> None:
    images = slices()
    for each in images:
        each.private_block(0x0029, "MAKER", create=True).add_new(1, "LO", "secret")
        each.add_new(0x60000010, "US", 20)
        localizer = Dataset()
        localizer.ReferencedSOPClassUID, localizer.ReferencedSOPInstanceUID = each.SOPClassUID, "1.2.3.99"
        each.ReferencedImageSequence = [localizer]
    study = study_of(images, tmp_path / "in")
    for made in images_of(study, tmp_path / "out", smoothed(study.series[0])):
        assert not [each for each in made if each.tag.is_private or each.tag.group == 0x6000]
        assert "ReferencedImageSequence" not in made


def test_what_cannot_be_derived_from_is_refused(tmp_path: Path) -> None:
    study = study_of(slices(3, modality="CR"), tmp_path / "in")
    with pytest.raises(InvalidEvidence, match="MR, CT and US images"):
        images_of(study, tmp_path / "out", smoothed(study.series[0]))


def test_pixels_of_another_size_are_no_derived_series(brain: Study) -> None:
    with pytest.raises(ValueError, match="frames cannot have pixels"):
        smoothed(brain.series[0], pixels=np.zeros((1, 4, 4), np.float32))


@pytest.mark.parametrize(
    ("keyword", "value", "words"),
    [
        ("ImageType", ["ORIGINAL", "PRIMARY"], "Image Type does not begin with DERIVED"),
        ("SourceImageSequence", [], "names no source image"),
        ("PixelData", b"\0\0", "bytes of pixels"),
        ("DerivationCodeSequence", [], "DerivationCodeSequence is missing or empty"),
    ],
)
def test_the_check_names_what_is_wrong(brain: Study, tmp_path: Path, keyword: str, value: Any, words: str) -> None:
    images_of(brain, tmp_path / "out", smoothed(brain.series[0]))
    image = dcmread(next((tmp_path / "out").glob("derived*.dcm")))
    setattr(image, keyword, value)
    assert any(words in fault for fault in check(image, source=brain.series[0].instances))
