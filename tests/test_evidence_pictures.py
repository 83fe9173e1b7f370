"""Pictures with findings burnt in: the outline lies where the mask says, and a machine says it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy import ndimage

from pipelines.base import Finding, Findings, Measurement, SaliencyMap
from pipelines.evidence import NotEvaluated, codes, heat, shown, wording
from pipelines.evidence.check import check
from pipelines.evidence.marks import COLOURS, marks, telling
from pipelines.forms import Form, Kind
from pipelines.study import Series, Study
from tests.findings import GEOMETRIES, blob, image, lesion, nothing, outlined, slices, study_of, written

SUMMARY = [Form(Kind.SECONDARY_CAPTURE)]
FIRST = np.array([int(COLOURS[0][i : i + 2], 16) for i in (1, 3, 5)])


def captures(outcome: Any, study: Study, out: Path) -> list[Dataset]:
    return list(written(outcome, study, out, forms=SUMMARY).values())


def enclosed(made: Dataset, shape: tuple[int, int], high: int) -> NDArray[np.bool_]:
    """Which pixels of the source have their centre on or in a burnt-in outline; the picture is ``high`` pixels high."""
    drawn = ndimage.binary_fill_holes((made.pixel_array[:high] == FIRST).all(axis=-1))
    row, column = (
        (np.indices(shape) + 0.5) * np.array([high, made.Columns]).reshape(2, 1, 1) / np.reshape(shape, (2, 1, 1))
    )
    return np.asarray(drawn[row.astype(int), column.astype(int)])


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_outline_is_burnt_in_where_the_mask_says(tmp_path: Path, geometry: str) -> None:
    study = study_of(slices(geometry=GEOMETRIES[geometry]), tmp_path / "in")
    series = study.series[0]
    made = captures(outlined(series), study, tmp_path / "out")
    uids = [each.SOPInstanceUID for each in series.instances]
    assert len(made) == 4  # the first and the last slice have nothing
    for each in made:
        mask = blob(series)[uids.index(each.SourceImageSequence[0].ReferencedSOPInstanceUID)]
        high = round(20 * 0.8 / 0.7 * 512 / 24)  # pixels are square there
        assert np.array_equal(enclosed(each, mask.shape, high), mask)


def test_sides_of_the_patient_stand_where_the_image_has_them() -> None:
    letters = {
        name: shown.orientation(Series("1.2.3.4", "MR", tuple(slices(geometry=each))).frames[0])
        for name, each in GEOMETRIES.items()
    }
    assert letters["axial"] == ("L", "P")
    assert letters["sagittal"] == ("P", "F")
    assert letters["oblique"] == ("L", "F")
    assert [shown.opposite(each) for each in ("L", "F", "AR")] == ["R", "H", "PL"]
    projection = image(1, modality="DX", PatientOrientation=["R", "F"])
    assert shown.orientation(Series("1.2.3.4", "DX", (projection,)).frames[0]) == ("R", "F")


def test_a_picture_is_shown_in_its_window_and_never_inverted(tmp_path: Path) -> None:
    values = np.tile(np.arange(24, dtype="<u2") * 10, (20, 1)).tobytes()
    for photometric, left, right in (("MONOCHROME2", 0, 255), ("MONOCHROME1", 255, 0)):
        about = {"WindowCenter": "100", "WindowWidth": "100", "PhotometricInterpretation": photometric}
        study = study_of([image(1, PixelData=values, **about)], tmp_path / photometric)
        (picture,) = shown.pictures(study.series[0], [0])
        assert picture[0, 5].tolist() == [left] * 3  # 50 is black
        assert picture[0, 15].tolist() == [right] * 3  # 150 is white
        assert abs(int(picture[0, 10, 0]) - 128) <= 1


def test_frames_of_several_sizes_and_in_colour_are_shown_each_as_it_is(tmp_path: Path) -> None:
    red = np.zeros((6, 8, 3), np.uint8)
    red[..., 0] = 200
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "BitsAllocated": 8, "BitsStored": 8}
    images = [
        image(1, modality="XC"),
        image(2, modality="XC", shape=(10, 12), PixelData=bytes(240)),
        image(3, modality="XC", shape=(6, 8), HighBit=7, PlanarConfiguration=0, PixelData=red.tobytes(), **colour),
    ]
    study = study_of(images, tmp_path)
    found = shown.pictures(study.series[0], [2, 0, 1])
    assert [each.shape[:2] for each in found] == [(6, 8), (20, 24), (10, 12)]
    assert np.array_equal(found[0], red)


def test_it_says_that_it_is_not_verified_and_names_no_patient(tmp_path: Path) -> None:
    study = study_of(slices(), tmp_path / "in")
    for made in captures(outlined(study.series[0]), study, tmp_path / "out"):
        assert made.SeriesDescription == "AI: summary (mr_brain, not verified)"
        assert "not verified" in made.DerivationDescription
        assert made.BurnedInAnnotation == "NO"
        assert made.PatientID == "P1"
        words = (made.pixel_array[-300:] > 200).any(axis=-1)
        assert words.any()  # below the picture
        assert check(made, source=study.series[0].instances) == ()


@pytest.mark.parametrize(("said", "answer"), [(None, "YES"), ("NO", "NO"), ("YES", "YES")])
def test_what_may_have_a_name_in_its_pixels_is_not_said_to_have_none(
    tmp_path: Path, said: str | None, answer: str
) -> None:
    study = study_of([image(1, modality="US", **({"BurnedInAnnotation": said} if said else {}))], tmp_path / "in")
    (made,) = captures(outlined(study.series[0]), study, tmp_path / "out")
    assert made.BurnedInAnnotation == answer


@pytest.mark.parametrize("status", ["withheld", "failed", "unsuitable", "nothing"])
def test_silence_is_not_an_answer(tmp_path: Path, status: str) -> None:
    study = study_of(slices(), tmp_path / "in")
    outcome = nothing(study.series[0]) if status == "nothing" else NotEvaluated(status, "so it is")
    (made,) = captures(outcome, study, tmp_path / "out")
    assert ("SourceImageSequence" in made) == (status == "nothing")
    assert made.Rows > 512 or status != "nothing"


def test_the_images_that_tell_most_are_shown_and_of_each_finding_one_first() -> None:
    series = Series("1.2.3.4", "MR", tuple(slices(6)))
    large, small = np.zeros((2, 6, 20, 24), np.bool_)
    large[1:5, 2:10, 2:10] = True
    large[3, 2:14, 2:14] = True
    small[5, 0, 0] = True
    findings = outlined(series, lesion(large, "large"), lesion(small, "small"))
    assert telling(findings, marks(findings), most=2) == (3, 5)
    assert telling(findings, marks(findings), most=9) == (1, 2, 3, 4, 5)
    judged = Finding(codes.HEMORRHAGE, True, 0.9, sop_uids=("1.2.3.4.2",))
    assert telling(Findings(series, (judged,)), (), most=9) == (1,)
    assert telling(Findings(series, ()), (), most=9) == (3,)


def test_people_are_told_what_how_sure_and_how_large() -> None:
    series = Series("1.2.3.4", "MR", tuple(slices(6)))
    volume = Measurement(codes.VOLUME, 41.23, codes.CUBIC_CENTIMETER)
    uids = [str(each.SOPInstanceUID) for each in series.instances]
    there = Finding(codes.LESION, True, 0.97, label="tumour", measurements=(volume,))
    absent = Finding(codes.HEMORRHAGE, False, 0.031, label="hemorrhage")
    cells = [
        Finding(codes.LESION, True, 0.5 + i / 10, label="cell", box=(0, 0, 2, 2), sop_uids=(uids[0],)) for i in range(5)
    ]
    of_images = [
        Finding(codes.HEMORRHAGE, False, i / 100, label="blood", sop_uids=(uid,)) for i, uid in enumerate(uids)
    ]
    lines = wording.told(Findings(series, (absent, there, *cells, *of_images)))
    assert [line.words for line in lines] == [
        "tumour (97% certain): Volume 41.2 ml",
        "cell: 5 (50% to 90% certain)",
        "no hemorrhage (3% certain)",
        "no blood on 6 images (at most 5% certain)",
    ]  # fmt: skip
    assert wording.told(Findings(series, (absent,)))[0].words == "Nothing found"


def test_a_map_lies_over_the_picture_where_it_is_high(tmp_path: Path) -> None:
    values = np.zeros((1, 20, 24), np.float32)
    values[0, 4:10, 15:20] = 1
    study = study_of(slices(modality="CT"), tmp_path / "in")
    series = study.series[0]
    found = Finding(codes.HEMORRHAGE, True, 0.8, label="hemorrhage", sop_uids=("1.2.3.4.3",))
    findings = Findings(series, (found,), maps=(SaliencyMap("hemorrhage", codes.CLASS_ACTIVATION, (2,), values),))
    (made,) = written(findings, study, tmp_path / "out", forms=[Form(Kind.MAP_CAPTURE)]).values()
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.3"
    warm = made.pixel_array[:400].astype(int)
    warm = warm[..., 0] - warm[..., 2] > 30  # more red than blue
    row, column = np.argwhere(warm[:350, :460]).mean(axis=0)
    assert abs(row / (512 / 24 * 0.8 / 0.7) - 7) < 0.5
    assert abs(column / (512 / 24) - 17.5) < 0.5
    assert check(made, source=series.instances) == ()


def test_the_colours_of_a_map_grow_brighter_all_the_way() -> None:
    grey = heat.coloured(np.linspace(0, 1, 256)) @ [0.299, 0.587, 0.114]
    assert (np.diff(grey) > 0).all()


@pytest.mark.parametrize(
    ("keyword", "value", "words"),
    [
        ("ImageType", ["ORIGINAL", "PRIMARY"], "Image Type"),
        ("PhotometricInterpretation", "MONOCHROME2", "not in colour"),
        ("PixelData", b"\0\0", "bytes of pixels"),
        ("ConversionType", "", "ConversionType is missing or empty"),
        ("PatientID", "P2", "PatientID is not that of the source"),
    ],
)
def test_the_check_names_what_is_wrong(tmp_path: Path, keyword: str, value: Any, words: str) -> None:
    study = study_of(slices(), tmp_path / "in")
    made = captures(outlined(study.series[0]), study, tmp_path / "out")[0]
    setattr(made, keyword, value)
    assert any(words in fault for fault in check(made, source=study.series[0].instances))


def test_a_map_off_its_images_or_off_its_range_is_refused(tmp_path: Path) -> None:
    study = study_of(slices(), tmp_path / "in")
    series = study.series[0]
    with pytest.raises(ValueError, match="between 0 and 1"):
        SaliencyMap("x", codes.CLASS_ACTIVATION, (0,), np.full((1, 20, 24), 1.5, np.float32))
    off = SaliencyMap("x", codes.CLASS_ACTIVATION, (0,), np.zeros((1, 20, 23), np.float32))
    with pytest.raises(Exception, match="off the grid"):
        written(replace(nothing(series), maps=(off,)), study, tmp_path / "out", forms=[Form(Kind.PARAMETRIC_MAP)])
