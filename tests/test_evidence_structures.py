"""Structure sets: contours in the patient that have inside the voxels of the mask, and no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pipelines.base import Finding, Findings
from pipelines.evidence import NotEvaluated, codes
from pipelines.evidence.check import check
from pipelines.evidence.source import take_over
from pipelines.evidence.stamp import Stamp
from pipelines.evidence.structures import structure_sets
from pipelines.evidence.told import Told
from pipelines.forms import Form, Kind
from pipelines.study import Series, Study
from tests.findings import (
    ALGORITHM,
    GEOMETRIES,
    STARTED,
    blob,
    image,
    lesion,
    nothing,
    outlined,
    slices,
    study_of,
    verdict,
    written,
)
from tests.peers import needs, where

STRUCTURES = [Form(Kind.RT_STRUCTURE_SET)]


def structures(findings: Findings | NotEvaluated, study: Study, out: Path) -> Dataset:
    return written(findings, study, out, forms=STRUCTURES)["structures.dcm"]


def with_hole(series: Series) -> NDArray[np.bool_]:
    mask = blob(series)
    mask[1, 4:8, 18:23] = True
    mask[1, 5:7, 19:22] = False
    mask[1, 5, 20] = True  # an island in the hole
    return mask


def voxels(made: Dataset, series: Series, roi: int = 0) -> NDArray[np.bool_]:
    """Which voxels' centres lie inside, by the rule of even and odd; by nothing but positions, as a planning system."""
    found = np.zeros((len(series.frames), int(series.header.Rows), int(series.header.Columns)), int)
    affine = series.affine
    assert affine is not None
    row, column = np.indices(found.shape[1:])
    for contour in made.ROIContourSequence[roi].ContourSequence:
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        index = np.linalg.solve(affine, np.c_[points, np.ones(len(points))].T)[:3].T
        assert np.abs(index[:, 0] - index[0, 0]).max() < 1e-3  # in one slice
        # edges across rows: (edges, 1, 1)
        edges = np.stack([index[:, 1:], np.roll(index, -1, axis=0)[:, 1:]], axis=-1)
        (y0, y1), (x0, x1) = edges[np.abs(np.diff(edges[:, 0])).ravel() > 0.5].transpose(1, 2, 0)[..., None, None]
        between = (np.minimum(y0, y1) < row) & (row <= np.maximum(y0, y1))
        crossed = between & (column < x0 + (row - y0) / (y1 - y0) * (x1 - x0))
        found[round(index[0, 0])] += crossed.sum(axis=0) % 2
    return found == 1


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_contours_have_inside_the_voxels_of_the_mask(tmp_path: Path, geometry: str) -> None:
    study = study_of(slices(geometry=GEOMETRIES[geometry]), tmp_path / "in")
    series = study.series[0]
    mask = with_hole(series)
    made = structures(outlined(series, lesion(mask)), study, tmp_path / "out")
    assert np.array_equal(voxels(made, series), mask)


def test_over_200_geometries_every_voxel_comes_back() -> None:
    """Oblique, tilted, reversed, with unequal spacings: what varies is turned at random, the mask, too."""
    random = np.random.default_rng(7)
    for number in range(200):
        turned = np.linalg.qr(random.normal(size=(3, 3)))[0]
        step = turned[2] * random.uniform(0.5, 6) * random.choice([-1, 1]) + turned[1] * random.uniform(-0.5, 0.5)
        spacing = [f"{each:.4f}" for each in random.uniform(0.3, 3, 2)]
        small = {"Rows": 6, "Columns": 7, "PixelData": bytes(84)}
        images = slices(2, geometry=(turned[0], turned[1], step), PixelSpacing=spacing, **small)
        series = Series("1.2.3.4", "MR", tuple(images))
        stamp = Stamp(take_over(series.header), ALGORITHM, "job", STARTED)
        mask = random.random((2, 6, 7)) < random.uniform(0.02, 0.98)
        (made,) = structure_sets(Told(outlined(series, lesion(mask)), (series,), stamp))
        assert np.array_equal(voxels(made, series), mask), number


def test_it_says_what_each_region_is_that_a_machine_drew_it_and_that_nobody_approved(tmp_path: Path) -> None:
    study = study_of(slices(), tmp_path / "in")
    series = study.series[0]
    made = structures(outlined(series, lesion(blob(series), "one"), lesion(blob(series, 1), "two")), study, tmp_path)
    assert [each.ROIName for each in made.StructureSetROISequence] == ["one", "two"]
    assert {each.ROIGenerationAlgorithm for each in made.StructureSetROISequence} == {"AUTOMATIC"}
    assert "mr_brain 1.0.0 (wetread), not verified" in made.StructureSetROISequence[0].ROIGenerationDescription
    assert made.ApprovalStatus == "UNAPPROVED"
    (code,) = made.RTROIObservationsSequence[1].RTROIIdentificationCodeSequence
    assert (code.CodeValue, code.CodingSchemeDesignator) == (codes.LESION.value, "SCT")
    colours = [tuple(each.ROIDisplayColor) for each in made.ROIContourSequence]
    assert colours == [(0xD5, 0x5E, 0x00), (0x56, 0xB4, 0xE9)]  # as in the Segmentation


def test_each_contour_names_the_image_that_it_lies_on(tmp_path: Path) -> None:
    study = study_of(slices(), tmp_path / "in")
    series = study.series[0]
    made = structures(outlined(series), study, tmp_path / "out")
    positions = {each.SOPInstanceUID: float(each.ImagePositionPatient[2]) for each in series.instances}
    for contour in made.ROIContourSequence[0].ContourSequence:
        uid = contour.ContourImageSequence[0].ReferencedSOPInstanceUID
        assert {float(z) for z in contour.ContourData[2::3]} == {positions[uid]}


def test_a_contour_of_very_many_points_is_whole(tmp_path: Path) -> None:
    """Explicit VR has no room for it."""
    images = slices(1, Rows=44, Columns=44, PixelData=bytes(3872))
    study = study_of(images, tmp_path / "in")
    series = study.series[0]
    mask = np.ones((1, 44, 44), np.bool_)
    mask[0, 1:-1:2, 1:-1:2] = False  # 441 holes
    made = structures(outlined(series, lesion(mask)), study, tmp_path / "out")
    (contour,) = made.ROIContourSequence[0].ContourSequence
    assert len(contour.ContourData) * 8 > 65536
    assert np.array_equal(voxels(made, series), mask)


@pytest.mark.parametrize(
    ("what", "name", "says"),
    [
        ("nothing", "nothing found", "no FLAIR abnormality (3% certain)"),
        ("a class alone", "nothing outlined", "Mass (97% certain)"),
        ("withheld", "withheld", "withheld: the slices are 12 mm thick"),
        ("failed", "failed", "failed: the weights are damaged"),
    ],
)
def test_where_there_is_no_outline_a_region_without_contours_says_why(
    tmp_path: Path, what: str, name: str, says: str
) -> None:
    study = study_of(slices(), tmp_path / "in")
    outcomes = {
        "nothing": nothing(study.series[0]),
        "a class alone": Findings(study.series[0], (Finding(codes.MASS, True, 0.97),)),
        "withheld": NotEvaluated("withheld", "the slices are 12 mm thick"),
        "failed": NotEvaluated("failed", "the weights are damaged"),
    }
    made = structures(outcomes[what], study, tmp_path / "out")
    assert [each.ROIName for each in made.StructureSetROISequence] == [name]
    assert "ContourSequence" not in made.ROIContourSequence[0]
    assert made.StructureSetDescription.startswith("AI RESULT, NOT VERIFIED")
    assert says in made.StructureSetDescription
    if where("dciodvfy"):
        assert verdict(tmp_path / "out" / "structures.dcm") == []


@pytest.mark.parametrize("what", ["projection", "cine", "several directions"])
def test_what_does_not_lie_at_one_place_each_has_no_structure_set(tmp_path: Path, what: str) -> None:
    if what == "projection":
        images = [image(1, modality="CR")]
    else:
        images = slices(4)
        if what == "cine":
            images[1].ImagePositionPatient = images[0].ImagePositionPatient
        else:
            images[0].ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    study = study_of(images, tmp_path / "in")
    assert written(outlined(study.series[0]), study, tmp_path / "out", forms=STRUCTURES) == {}


@needs("dciodvfy")
@pytest.mark.parametrize("geometry", ["axial", "oblique"])
def test_dciodvfy_finds_no_error(tmp_path: Path, geometry: str) -> None:
    study = study_of(slices(geometry=GEOMETRIES[geometry]), tmp_path / "in")
    structures(outlined(study.series[0]), study, tmp_path / "out")
    assert verdict(tmp_path / "out" / "structures.dcm") == []


def test_the_check_names_what_is_wrong(tmp_path: Path) -> None:
    study = study_of(slices(), tmp_path / "in")
    series = study.series[0]
    made = structures(outlined(series), study, tmp_path / "out")
    assert check(made, source=series.instances) == ()
    contour = made.ROIContourSequence[0].ContourSequence[0]
    contour.ContourData[2] = float(contour.ContourData[2]) + 1
    made.ApprovalStatus = "APPROVED"
    made.RTROIObservationsSequence[0].ReferencedROINumber = 7
    contour.ContourImageSequence[0].ReferencedSOPInstanceUID = "1.2.3.99"
    said = " ".join(check(made, source=series.instances))
    for words in ("one plane", "not UNAPPROVED", "RTROIObservationsSequence", "does not name", "1.2.3.99"):
        assert words in said
