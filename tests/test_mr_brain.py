"""The pipeline ``mr_brain`` on synthetic studies and on studies bent out of shape."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from pipelines import fusion, mr_sequences
from pipelines.base import UnsuitableStudy, WithheldStudy
from pipelines.models.store import DamagedWeights
from pipelines.mr_brain import CARD, BrainTumour, prepare
from pipelines.series import Series
from pipelines.study import Study, read_folder
from pipelines.synthetic import Lesion, Truth, brain_mr
from pipelines.training.metrics import dice

LESION = Lesion((34.0, -12.0, 26.0), (21.0, 25.0, 19.0))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pipeline() -> BrainTumour:
    return BrainTumour()


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return brain_mr(tmp_path_factory.mktemp("brain"), seed=5, lesion=LESION, slices=20, matrix=192)


@pytest.fixture
def folder(truth: Truth, tmp_path: Path) -> Path:
    """A copy of the study that a test may bend: a folder per series."""
    return Path(shutil.copytree(truth.files[0].parents[1], tmp_path / "study"))


def only_study(folder: Path) -> Study:
    (study,), refused = read_folder(folder)
    assert not refused
    return study


def bend(folder: Path, change) -> None:
    for file in folder.rglob("*.dcm"):
        dataset = pydicom.dcmread(file)
        change(dataset)
        dataset.save_as(file)


def test_a_lesion_is_found_outlined_and_measured(pipeline: BrainTumour, truth: Truth) -> None:
    (answer,) = pipeline(only_study(truth.files[0].parents[1]))
    (finding,) = answer.findings
    assert finding.present
    assert finding.segment is not None
    assert finding.segment.label == "FLAIR abnormality"
    assert "FLAIR" in answer.series.description
    assert dice(finding.segment.mask, truth.mask) > 0.75
    assert finding.measurements[0].value == pytest.approx(truth.volume_cm3, rel=0.3)
    assert finding.certainty is not None
    assert finding.certainty > 0.5
    assert len(answer.read) == 3
    assert answer.notes == ()
    touched = np.flatnonzero(finding.segment.mask.any(axis=(1, 2)))
    assert finding.sop_uids == tuple(answer.series.instances[place].SOPInstanceUID for place in touched)


def test_a_brain_without_a_lesion_has_a_finding_that_is_not_present(pipeline: BrainTumour, tmp_path: Path) -> None:
    brain_mr(tmp_path, seed=6, lesion=None, slices=20, matrix=128)
    (answer,) = pipeline(only_study(tmp_path))
    (finding,) = answer.findings
    assert not finding.present
    assert finding.segment is None
    assert finding.measurements == ()
    assert finding.certainty is not None
    assert finding.certainty <= 0.5


def test_t1_that_is_missing_is_said_and_the_lesion_still_found(
    pipeline: BrainTumour, truth: Truth, folder: Path
) -> None:
    shutil.rmtree(folder / "1")
    shutil.rmtree(folder / "3")
    (answer,) = pipeline(only_study(folder))
    assert [note for note in answer.notes if "before contrast is missing" in note]
    assert [note for note in answer.notes if "after contrast is missing" in note]
    assert answer.findings[0].segment is not None
    assert dice(answer.findings[0].segment.mask, truth.mask) > 0.7


def test_a_study_without_flair_is_unsuitable_and_what_it_holds_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "2")
    with pytest.raises(UnsuitableStudy, match=r"no FLAIR series .*T1 PRE.*T1 POST"):
        prepare(only_study(folder))


def test_rows_stored_from_back_to_front_are_outlined_at_the_same_place(
    pipeline: BrainTumour, truth: Truth, folder: Path
) -> None:
    """The files say it in Image Orientation: the network sees the same head, the mask lies on the same pixels."""

    def upside_down(dataset: Dataset) -> None:
        rows = dataset.pixel_array[::-1]
        dataset.PixelData = np.ascontiguousarray(rows).tobytes()
        x, y, z = (float(v) for v in dataset.ImagePositionPatient)
        dataset.ImagePositionPatient = [x, y + (dataset.Rows - 1) * float(dataset.PixelSpacing[0]), z]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, -1, 0]

    upright = prepare(only_study(truth.files[0].parents[1]))
    bend(folder, upside_down)
    study = only_study(folder)
    turned = prepare(study)
    assert torch.allclose(upright.images, turned.images, atol=1e-4)
    (answer,) = pipeline(study)
    assert answer.findings[0].segment is not None
    first = answer.series.instances[0]
    is_footmost_first = float(first.ImagePositionPatient[2]) < float(
        answer.series.instances[-1].ImagePositionPatient[2]
    )
    mask = answer.findings[0].segment.mask[:: 1 if is_footmost_first else -1, ::-1]
    assert dice(mask, truth.mask) > 0.75


@pytest.mark.parametrize(
    ("orientation", "order"),
    [
        ([1, 0, 0, 0, 1, 0], (0, 1, 2)),  # axial
        ([0, 1, 0, 0, 0, -1], (1, 2, 0)),  # sagittal
        ([1, 0, 0, 0, 0, -1], (1, 0, 2)),  # coronal
        ([-1, 0, 0, 0, 0.94, -0.342], (0, 1, 2)),  # axial, tilted, columns to the right
    ],
)
def test_any_acquisition_is_turned_to_axial_and_back(orientation: list[float], order: tuple[int, int, int]) -> None:
    turn = fusion.turn_of(series(ImageOrientationPatient=orientation))
    assert turn.order == order
    volume = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(turn.back(turn.there(volume)), volume)


def test_in_turned_axes_the_head_is_last_the_back_is_last_and_the_left_is_last() -> None:
    """Sagittal, rows towards the feet: the first row is the head, the first column the face."""
    turn = fusion.turn_of(series(ImageOrientationPatient=[0, 1, 0, 0, 0, -1]))
    volume = np.zeros((3, 4, 5), np.float32)
    volume[:, 0, :] += 1  # head
    volume[:, :, -1] += 2  # back
    turned = turn.there(volume)
    assert turned.shape == (4, 5, 3)
    assert (turned[-1, :-1] == 1).all()
    assert (turned[:-1, -1] == 2).all()


def test_t1_of_another_frame_of_reference_is_not_fused_and_that_is_said(folder: Path) -> None:
    elsewhere = generate_uid()

    def move(dataset: Dataset) -> None:
        dataset.FrameOfReferenceUID = elsewhere

    bend(folder / "3", move)
    prepared = prepare(only_study(folder))
    assert len(prepared.read) == 2
    assert not prepared.images[:, 2].any()
    assert prepared.images[:, 0].any()
    assert [note for note in prepared.notes if "after contrast does not share" in note]


def test_t1_on_a_shifted_grid_is_brought_onto_that_of_flair(truth: Truth, folder: Path) -> None:
    """Its first column is taken away and its position moved by one pixel: the same tissue at the same place."""

    def crop(dataset: Dataset) -> None:
        pixels = dataset.pixel_array[:, 1:]
        dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
        dataset.Columns = pixels.shape[1]
        x, y, z = (float(v) for v in dataset.ImagePositionPatient)
        dataset.ImagePositionPatient = [x + float(dataset.PixelSpacing[1]), y, z]

    whole = prepare(only_study(truth.files[0].parents[1]))
    bend(folder / "1", crop)
    fused = prepare(only_study(folder))
    assert len(fused.read) == 3
    assert float((whole.images - fused.images).abs().mean()) < 0.02


def test_a_few_slices_are_withheld(folder: Path) -> None:
    for series in folder.iterdir():
        for file in sorted(series.glob("*.dcm"))[6:]:
            file.unlink()
    with pytest.raises(WithheldStudy, match="6 axial slices"):
        prepare(only_study(folder))


def test_an_empty_image_is_withheld(folder: Path) -> None:
    def blank(dataset: Dataset) -> None:
        dataset.PixelData = bytes(len(dataset.PixelData))

    bend(folder, blank)
    with pytest.raises(WithheldStudy, match="empty"):
        prepare(only_study(folder))


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    card = Path(shutil.copy(CARD, tmp_path))
    weights = Path(shutil.copy(CARD.with_suffix(".safetensors"), tmp_path))
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DamagedWeights, match=rf"{weights.name}.*damaged"):
        BrainTumour(card)
    weights.unlink()
    with pytest.raises(DamagedWeights, match=weights.name):
        BrainTumour(card)


def test_a_card_that_is_no_card_is_named(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text("{}")
    with pytest.raises(DamagedWeights, match=r"card\.json"):
        BrainTumour(tmp_path / "card.json")


def series(**values: object) -> Series:
    """Three headers in a row with the acquisition that is asked for."""
    headers = []
    for number in range(3):
        header = Dataset()
        header.SOPInstanceUID, header.SOPClassUID = generate_uid(), "1.2.840.10008.5.1.4.1.1.4"
        header.Modality, header.Rows, header.Columns, header.SamplesPerPixel = "MR", 64, 64, 1
        header.InstanceNumber, header.PixelSpacing = number + 1, [1, 1]
        header.ImagePositionPatient, header.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
        header.PixelData = b"\0" * 8192
        header.BitsAllocated = 16
        header.ImageType = ["ORIGINAL", "PRIMARY"]
        for keyword, value in values.items():
            setattr(header, keyword, value)
        along_row, along_column = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
        header.ImagePositionPatient = [f"{v:.6g}" for v in 5 * number * np.cross(along_row, along_column)]
        headers.append(header)
    return Series("1.2.3", str(headers[0].Modality), tuple(headers))


@pytest.mark.parametrize(
    ("expected", "values"),
    [
        ("FLAIR", {"RepetitionTime": 9000, "EchoTime": 120, "InversionTime": 2500, "SeriesDescription": "AX 3"}),
        ("FLAIR", {"RepetitionTime": 5000, "EchoTime": 330, "InversionTime": 1650, "SeriesDescription": "SPACE"}),
        ("FLAIR", {"RepetitionTime": 9000, "EchoTime": 120, "SeriesDescription": "ax t2 flair"}),
        ("FLAIR", {"SeriesDescription": "T2 FLAIR"}),
        ("T1 PRE", {"RepetitionTime": 550, "EchoTime": 10, "SeriesDescription": "FLAIR planned from this"}),
        ("T1 PRE", {"RepetitionTime": 550, "EchoTime": 10, "SeriesDescription": "AX SE"}),
        ("T1 PRE", {"RepetitionTime": 2300, "EchoTime": 3, "InversionTime": 900, "SeriesDescription": "MPRAGE"}),
        ("T1 POST", {"RepetitionTime": 550, "EchoTime": 10, "ContrastBolusAgent": "GADAVIST"}),
        ("T1 POST", {"SeriesDescription": "AX T1 POST GAD"}),
        ("T1 PRE", {"SeriesDescription": "AX T1 without contrast"}),
        (None, {"RepetitionTime": 4500, "EchoTime": 95, "SeriesDescription": "AX T2"}),
        (None, {"RepetitionTime": 25, "EchoTime": 3, "SeriesDescription": "TOF MRA"}),
        (None, {"RepetitionTime": 8000, "EchoTime": 80, "SeriesDescription": "DWI b1000"}),
        (None, {"RepetitionTime": 550, "EchoTime": 10, "ImageType": ["DERIVED", "SECONDARY"]}),
        (
            None,
            {"RepetitionTime": 9000, "EchoTime": 120, "InversionTime": 2500, "ImageType": ["ORIGINAL", "LOCALIZER"]},
        ),
        (None, {"Modality": "CT", "SeriesDescription": "FLAIR"}),
    ],
)
def test_a_series_is_known_by_how_it_was_acquired(expected: str | None, values: dict[str, object]) -> None:
    assert mr_sequences.role(series(**values)) == expected
