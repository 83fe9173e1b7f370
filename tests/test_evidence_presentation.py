"""Presentation states: outlines over the source's own images, in its own window, with who says it beside them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pipelines.base import Finding, Findings
from pipelines.evidence import NotEvaluated, codes, presentation, shown
from pipelines.evidence.check import check
from pipelines.evidence.regions import MOST_POINTS
from pipelines.forms import Form, Kind
from pipelines.study import Study
from tests.findings import GEOMETRIES, blob, image, lesion, nothing, outlined, slices, study_of, verdict, written
from tests.peers import needs
from tests.test_evidence_outlines import inside

STATE = [Form(Kind.PRESENTATION_STATE)]


def states(outcome: Any, study: Study, out: Path) -> list[Dataset]:
    return list(written(outcome, study, out, forms=STATE).values())


def shown_on(made: Dataset, uid: str, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels inside the outlines that lie on one image."""
    found = np.zeros(shape, np.bool_)
    for item in made.GraphicAnnotationSequence:
        if item.ReferencedImageSequence[0].ReferencedSOPInstanceUID == uid:
            for graphic in item.get("GraphicObjectSequence", ()):
                found |= inside(np.array(graphic.GraphicData).reshape(-1, 2), shape)
    return found


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_outlines_lie_on_their_images_where_the_mask_says(tmp_path: Path, geometry: str) -> None:
    study = study_of(slices(geometry=GEOMETRIES[geometry]), tmp_path / "in")
    series = study.series[0]
    (made,) = states(outlined(series), study, tmp_path / "out")
    for instance, mask in zip(series.instances, blob(series), strict=True):
        assert np.array_equal(shown_on(made, instance.SOPInstanceUID, mask.shape), mask)
    named = made.ReferencedSeriesSequence[0].ReferencedImageSequence
    assert len(named) == 4  # images with something on them


def test_each_image_says_who_says_it_and_that_nobody_has_verified_it(tmp_path: Path) -> None:
    study = study_of(slices(), tmp_path / "in")
    (made,) = states(outlined(study.series[0]), study, tmp_path / "out")
    for item in made.GraphicAnnotationSequence:
        lines = item.TextObjectSequence[0].UnformattedTextValue.split("\r\n")
        assert lines == [
            "AI RESULT, NOT VERIFIED",
            "mr_brain 1.0.0 (wetread)",
            "FLAIR abnormality (97% certain): Volume 41.2 ml",
        ]


def test_a_class_without_an_outline_is_written_on_the_image_that_shows_it(tmp_path: Path) -> None:
    study = study_of(slices(), tmp_path / "in")
    found = Finding(codes.HEMORRHAGE, True, 0.8, label="hemorrhage", sop_uids=("1.2.3.4.3",))
    whole = Finding(codes.HEMORRHAGE, True, 0.8, label="hemorrhage")
    (made,) = states(Findings(study.series[0], (whole, found)), study, tmp_path / "out")
    (item,) = made.GraphicAnnotationSequence
    assert item.ReferencedImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.3"
    assert "hemorrhage (80% certain)" in item.TextObjectSequence[0].UnformattedTextValue


def test_images_of_several_slopes_have_a_state_each_with_its_own_windows(tmp_path: Path) -> None:
    images = slices(6, modality="CT", WindowCenter="40", WindowWidth="80", RescaleSlope="1", RescaleIntercept="-1024")
    images[2].RescaleSlope = "2"
    images[3].WindowCenter = "50"
    study = study_of(images, tmp_path / "in")
    first, second = states(outlined(study.series[0]), study, tmp_path / "out")
    assert (first.RescaleSlope, second.RescaleSlope) == (1, 2)
    assert sorted(float(each.WindowCenter) for each in first.SoftcopyVOILUTSequence) == [40, 50]
    assert len(second.SoftcopyVOILUTSequence[0].ReferencedImageSequence) == 1


def test_colour_images_have_a_colour_state(tmp_path: Path) -> None:
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "BitsAllocated": 8, "BitsStored": 8}
    pixels = bytes(20 * 24 * 3)
    study = study_of([image(1, modality="XC", HighBit=7, PlanarConfiguration=0, PixelData=pixels, **colour)], tmp_path)
    (made,) = states(outlined(study.series[0]), study, tmp_path / "out")
    assert made.SOPClassUID == "1.2.840.10008.5.1.4.1.1.11.2"
    assert np.array_equal(shown_on(made, "1.2.3.4.1", (20, 24)), blob(study.series[0])[0])
    assert "SoftcopyVOILUTSequence" not in made
    assert made.ICCProfile[36:40] == b"acsp"


@pytest.mark.parametrize("what", ["nothing", "withheld"])
def test_where_nothing_was_found_there_is_none(tmp_path: Path, what: str) -> None:
    study = study_of(slices(), tmp_path / "in")
    outcome = nothing(study.series[0]) if what == "nothing" else NotEvaluated("withheld", "so it is")
    assert states(outcome, study, tmp_path / "out") == []


def test_an_outline_of_very_many_points_is_several_that_follow_one_another() -> None:
    polygon = np.arange(2 * 20001, dtype=float).reshape(-1, 2)
    pieces = list(presentation._pieces(polygon))
    assert max(map(len, pieces)) <= MOST_POINTS
    assert np.array_equal(np.concatenate([pieces[0], *(each[1:] for each in pieces[1:])]), polygon)


@needs("dcmp2pgm")
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_dcmtk_shows_the_image_through_it_as_we_do(tmp_path: Path, photometric: str) -> None:
    ramp = (np.arange(480, dtype="<u2") * 8).tobytes()
    about = {"WindowCenter": "1000", "WindowWidth": "1500", "RescaleSlope": "1", "RescaleIntercept": "-500"}
    images = slices(3, modality="CT", PixelData=ramp, PhotometricInterpretation=photometric, **about)
    study = study_of(images, tmp_path / "in")
    series = study.series[0]
    states(outlined(series), study, tmp_path / "out")
    state, source = tmp_path / "out" / "presentation.dcm", series.instances[1].filename
    subprocess.run(["dcmp2pgm", "-p", str(state), source, str(tmp_path / "a.pgm")], check=True, capture_output=True)
    raw = (tmp_path / "a.pgm").read_bytes()
    rendered = np.frombuffer(raw[-480:], np.uint8).reshape(20, 24)
    ours = shown.pictures(series, [1])[0][..., 0]
    assert np.abs(rendered.astype(int) - ours).max() <= 1


@needs("dciodvfy")
@pytest.mark.parametrize("modality", ["MR", "CR", "XC"])
def test_dciodvfy_finds_no_error(tmp_path: Path, modality: str) -> None:
    images = slices() if modality == "MR" else [image(1, modality=modality)]
    study = study_of(images, tmp_path / "in")
    states(outlined(study.series[0]), study, tmp_path / "out")
    assert verdict(tmp_path / "out" / "presentation.dcm") == []


def test_the_check_names_what_is_wrong(tmp_path: Path) -> None:
    study = study_of(slices(), tmp_path / "in")
    series = study.series[0]
    (made,) = states(outlined(series, lesion(blob(series))), study, tmp_path / "out")
    assert check(made, source=series.instances) == ()
    item = made.GraphicAnnotationSequence[0]
    item.TextObjectSequence[0].UnformattedTextValue = "mr_brain"
    item.GraphicObjectSequence[0].NumberOfGraphicPoints += 1
    item.ReferencedImageSequence[0].ReferencedSOPInstanceUID = series.instances[0].SOPInstanceUID
    said = " ".join(check(made, source=series.instances))
    for words in ("does not say", "another number of points", "does not name"):
        assert words in said
