"""The pipeline ``dx_chest`` on real chest X-rays, whichever way up, and on what it must not read."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from pipelines.base import Finding, Findings, UnsuitableStudy, WithheldStudy
from pipelines.dx_chest import FINDINGS, OUTLINES, SAID, Chest, cardiothoracic_ratio
from pipelines.models.layout import LayoutClassifier
from pipelines.models.squeeze import SqueezeLocator
from pipelines.reading import read
from pipelines.study import Study, read_folder
from pipelines.training.examples import Examples
from pipelines.training.metrics import dice
from pipelines.training.recipes.dx_chest import drawn, told_of, turned
from tests.findings import FORMS
from tests.peers import SHARED, needs_shared

SET = SHARED / "data" / "cxr_lung_masks" / "train"
PICTURES = ("lung_000", "lung_002")
pytestmark = needs_shared("data", "cxr_lung_masks")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pipeline() -> Chest:
    return Chest()


def grey(name: str = PICTURES[0]) -> NDArray[np.uint8]:
    return np.asarray(Image.open(SET / "images" / f"{name}.jpg").convert("L"))


def written(folder: Path, *pictures: NDArray[np.uint8], **header: Any) -> Study:
    """The pictures as one CR series of one patient, on disk."""
    study, series = generate_uid(), generate_uid()
    for place, pixels in enumerate(pictures, start=1):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = ComputedRadiographyImageStorage
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
        ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Test^Chest", "T1", "", "O"
        ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20260101", "120000", "1", ""
        ds.ReferringPhysicianName, ds.Manufacturer = "", "Wrapped picture"
        ds.Modality, ds.BodyPartExamined, ds.ViewPosition = "CR", "CHEST", "PA"
        ds.ImageType, ds.PatientOrientation = ["ORIGINAL", "PRIMARY"], ["L", "F"]
        ds.SeriesNumber, ds.InstanceNumber, ds.PixelSpacing = 1, place, [1.2, 1.2]
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.Rows, ds.Columns = pixels.shape
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
        ds.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
        for keyword, value in header.items():
            setattr(ds, keyword, value)
        folder.mkdir(parents=True, exist_ok=True)
        ds.save_as(folder / f"{place}.dcm", enforce_file_format=True)
    (made,), refused = read_folder(folder)
    assert not refused
    return made


def found(run: Findings, label: str) -> Finding:
    (finding,) = [each for each in run.findings if each.label == label]
    return finding


def mask(run: Findings, label: str) -> NDArray[np.bool_]:
    segment = found(run, label).segment
    assert segment is not None
    return segment.mask[0]


@pytest.fixture(scope="module")
def upright(pipeline: Chest, tmp_path_factory: pytest.TempPathFactory) -> Findings:
    (run,) = pipeline(written(tmp_path_factory.mktemp("upright"), grey()))
    return run


def test_every_class_is_said_of_the_picture_with_a_certainty(upright: Findings) -> None:
    for label in ("rotated", *SAID):
        finding = found(upright, label)
        assert finding.certainty is not None
        assert finding.sop_uids == (str(upright.series.header.SOPInstanceUID),)
    assert "opacity" in found(upright, "opacity").code.meaning.casefold()
    assert "rotated" in found(upright, "rotated").code.meaning.casefold()
    assert not found(upright, "rotated").present


def test_the_outlines_are_those_that_a_radiologist_drew(upright: Findings) -> None:
    lungs = np.asarray(Image.open(SET / "masks" / f"{PICTURES[0]}_lungs.png"))
    assert dice(mask(upright, "right lung"), lungs == 1) > 0.9
    assert dice(mask(upright, "left lung"), lungs == 2) > 0.9


def test_the_heart_is_measured_against_the_chest(upright: Findings) -> None:
    (ratio,) = found(upright, "heart").measurements
    assert "cardiothoracic ratio" in ratio.name.meaning.casefold()
    assert 0.25 < ratio.value < 0.8
    assert ratio.unit.value == "{ratio}"  # OHIF writes the code, and 0.45 1 is no number


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_turned_picture_is_called_so_and_its_outlines_turn_with_it(
    pipeline: Chest, upright: Findings, tmp_path: Path, quarters: int
) -> None:
    (run,) = pipeline(written(tmp_path, np.ascontiguousarray(np.rot90(grey(), quarters))))
    assert found(run, "rotated").present
    assert any("turned" in note for note in run.notes)
    for label in OUTLINES:
        assert dice(mask(run, label), np.rot90(mask(upright, label), quarters)) > 0.98
    assert found(run, "opacity").certainty == pytest.approx(found(upright, "opacity").certainty, abs=0.02)


def test_an_inverted_picture_is_read_as_it_is_meant(pipeline: Chest, upright: Findings, tmp_path: Path) -> None:
    (run,) = pipeline(written(tmp_path, 255 - grey(), PhotometricInterpretation="MONOCHROME1"))
    assert found(run, "opacity").certainty == pytest.approx(found(upright, "opacity").certainty, abs=0.02)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"ViewPosition": "LL"}, "View Position"),
        ({"BodyPartExamined": "HAND"}, "HAND"),
        ({"Modality": "MG"}, "MG"),
        ({"BodyPartExamined": "", "SeriesDescription": "KNEE"}, "neither"),
    ],
)
def test_what_is_no_frontal_chest_is_unsuitable(
    pipeline: Chest, tmp_path: Path, header: dict[str, str], reason: str
) -> None:
    with pytest.raises(UnsuitableStudy, match=reason):
        pipeline(written(tmp_path, grey(), **header))


def test_what_only_claims_to_be_a_chest_is_withheld(pipeline: Chest, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (320, 320)).astype(np.uint8)
    with pytest.raises(WithheldStudy, match="looks like"):
        pipeline(written(tmp_path, noise))


def test_pictures_of_one_size_are_one_run_and_each_has_its_own_findings(pipeline: Chest, tmp_path: Path) -> None:
    (run,) = pipeline(written(tmp_path, grey(), np.ascontiguousarray(np.rot90(grey(), 2))))
    rotated = [each for each in run.findings if each.label == "rotated"]
    assert [each.present for each in rotated] == [False, True]
    hearts = [each.segment for each in run.findings if each.label == "heart" and each.segment]
    assert [each.mask.any(axis=(1, 2)).tolist() for each in hearts] == [[True, False], [False, True]]


def test_pictures_of_two_sizes_are_two_runs(pipeline: Chest, tmp_path: Path) -> None:
    runs = pipeline(written(tmp_path, grey(), grey(PICTURES[1])))
    assert sorted(mask(run, "heart").shape for run in runs) == sorted([grey().shape, grey(PICTURES[1]).shape])


@pytest.mark.parametrize("preset", ["ohif", "air"])
def test_the_evidence_is_valid_and_each_picture_has_its_own_segmentation(
    pipeline: Chest, tmp_path: Path, preset: str
) -> None:
    study = written(tmp_path / "in", grey(), grey())
    (run,) = read(study, pipeline, name="dx_chest", out=tmp_path / "out", job="job", forms=FORMS[preset])
    assert run.status == "read", run.reason
    segmentations = [ds for ds in map(pydicom.dcmread, run.objects) if ds.Modality == "SEG"]
    assert [[each.SegmentLabel for each in ds.SegmentSequence] for ds in segmentations] == [list(OUTLINES)] * 2
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed")
    for file in run.objects:
        said = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, check=False)
        assert "Error" not in said.stderr + said.stdout


def test_the_map_lies_on_the_picture(pipeline: Chest, tmp_path: Path) -> None:
    pixels = np.ascontiguousarray(np.rot90(grey(PICTURES[1])))
    ((_, where, name),) = pipeline.explain(written(tmp_path, pixels))
    assert name == FINDINGS[0] == "opacity"
    assert where.shape == pixels.shape
    assert where.min() >= 0
    assert where.max() <= 1


def test_the_ratio_is_of_the_widest_extents_and_needs_all_outlines() -> None:
    masks = np.zeros((3, 40, 100), bool)
    masks[0, 5:30, 10:40], masks[1, 5:30, 60:90], masks[2, 20:30, 35:75] = True, True, True
    assert cardiothoracic_ratio(masks) == 0.5
    masks[1] = False
    assert cardiothoracic_ratio(masks) is None


def test_a_place_in_the_picture_is_a_place_in_the_map() -> None:
    net = SqueezeLocator(1, 3).eval()
    logits, where = net(torch.rand(2, 1, 96, 64))
    assert logits.shape == (2, 3)
    assert where.shape == (2, 1, 6, 4)


def test_the_layout_knows_top_from_bottom() -> None:
    net = LayoutClassifier(1, 2).eval()
    spot = torch.zeros(1, 1, 64, 64)
    spot[..., 4:12, 28:36] = 1
    changed = (net.embed(spot) - net.embed(torch.zeros_like(spot))).abs().view(48, 4, 4).amax(0)
    assert changed[0].max() > 0
    assert changed[2:].max() == 0


def test_each_picture_is_learnt_in_four_turns_with_the_turn_as_its_label() -> None:
    image = torch.arange(4, dtype=torch.uint8).view(1, 1, 2, 2)
    held = turned(Examples(image, torch.ones(1, 4), torch.zeros(1, 0, 2, 2, dtype=torch.bool), ({"patient_id": "a"},)))
    assert held.labels.argmax(1).tolist() == [0, 1, 2, 3]
    for turn in range(4):
        assert np.array_equal(np.rot90(held.images[turn, 0].numpy(), -turn), image[0, 0].numpy())


def test_a_picture_with_a_forgotten_lung_is_not_learnt_from(tmp_path: Path) -> None:
    lungs = np.zeros((8, 8), np.uint8)
    lungs[:, 1], lungs[:, 6] = 1, 2
    row = {"mask": "lungs.png", "mask_heart": "heart.png"}
    Image.fromarray(np.ones_like(lungs)).save(tmp_path / "heart.png")
    Image.fromarray(lungs).save(tmp_path / "lungs.png")
    assert drawn(row, tmp_path) is not None
    Image.fromarray(np.where(lungs == 2, 0, lungs)).save(tmp_path / "lungs.png")
    assert drawn(row, tmp_path) is None


@pytest.mark.parametrize(
    ("label", "least", "most"), [("No Finding", 0, 0.1), ("Edema|Mass", 0.5, 0.8), ("Hernia", 0.1, 0.4)]
)
def test_what_a_report_says_is_a_hint_of_an_opacity(label: str, least: float, most: float) -> None:
    assert least < told_of({"label": label}) < most
