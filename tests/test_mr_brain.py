"""The pipeline ``mr_brain`` on synthetic studies and on studies bent out of shape."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from pipelines import fusion, mr_sequences
from pipelines.base import UnsuitableStudy, WithheldStudy
from pipelines.evidence import codes
from pipelines.imaging import stack
from pipelines.models.ensemble import Card
from pipelines.models.store import DamagedWeights
from pipelines.mr_brain import CARD, BrainTumour, prepare
from pipelines.reading import read
from pipelines.series import Series
from pipelines.study import Study, read_folder
from pipelines.synthetic import Lesion, Truth, brain_mr
from pipelines.training.metrics import dice

Change = Callable[[Dataset], None]
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


def bend(folder: Path, change: Change) -> None:
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
    assert finding.side == codes.LEFT  # its centre is 34 mm left of the head's middle
    assert dice(finding.segment.mask, truth.mask) > 0.75
    assert finding.measurements[0].value == pytest.approx(truth.volume_cm3, rel=0.3)
    assert finding.certainty is not None
    assert finding.certainty > 0.5
    assert len(answer.read) == 3
    assert answer.notes == ()
    touched = np.flatnonzero(finding.segment.mask.any(axis=(1, 2)))
    assert finding.sop_uids == tuple(answer.series.instances[place].SOPInstanceUID for place in touched)


def test_half_precision_outlines_what_single_precision_does(pipeline: BrainTumour, truth: Truth) -> None:
    networks, images = pipeline.networks, prepare(only_study(truth.files[0].parents[1])).images
    given = stack(images, torch.arange(8, 14)).float()  # the levels of the lesion
    with torch.inference_mode():
        half, single = (networks._members(given, half=each).numpy() > pipeline.card.threshold for each in (True, False))
    assert dice(half, single) > 0.995


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


def again(file: Path, change: Change = lambda _: None) -> None:
    """The slice once more, under another SOP Instance UID."""
    dataset = pydicom.dcmread(file)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    change(dataset)
    dataset.save_as(file.with_name(f"again-{file.name}"))


def darken(dataset: Dataset) -> None:
    dataset.PixelData = (dataset.pixel_array // 2).tobytes()


def slices_of(folder: Path, series: str) -> list[Path]:
    return sorted((folder / series).glob("*.dcm"), key=lambda file: int(pydicom.dcmread(file).InstanceNumber))


@pytest.mark.parametrize("doubled", ["1", "2"])
def test_a_slice_that_was_sent_twice_is_read_once_and_that_is_said(truth: Truth, folder: Path, doubled: str) -> None:
    whole = prepare(only_study(folder))
    again(slices_of(folder, doubled)[4])
    prepared = prepare(only_study(folder))
    assert torch.equal(prepared.images, whole.images)
    assert len(prepared.flair.instances) == 20
    assert any("1 slice is there twice, with the same pixels, and read once" in note for note in prepared.notes)


def test_the_evidence_of_a_study_with_a_doubled_slice_lies_on_the_slices_that_were_read(
    pipeline: BrainTumour, folder: Path, tmp_path: Path
) -> None:
    again(slices_of(folder, "2")[9])
    (run,) = read(only_study(folder), pipeline, name="mr_brain", out=tmp_path / "out", job="doubled")
    assert (run.status, run.reason) == ("read", None)
    assert {path.name for path in run.objects} == {"seg.dcm", "sr.dcm"}


def test_an_axial_flair_with_a_doubled_slice_goes_before_a_coronal_one(folder: Path) -> None:
    shutil.copytree(folder / "2", folder / "9")
    uid = generate_uid()

    def coronal(dataset: Dataset) -> None:
        x, y, z = (float(v) for v in dataset.ImagePositionPatient)
        dataset.SeriesInstanceUID, dataset.SeriesNumber = uid, 0
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [x, z, -y], [1, 0, 0, 0, 0, -1]

    bend(folder / "9", coronal)
    again(slices_of(folder, "2")[4])
    prepared = prepare(only_study(folder))
    assert prepared.flair.uid != uid
    assert any("there twice" in note for note in prepared.notes)


def test_a_card_that_names_a_network_which_the_weights_do_not_have_is_said(tmp_path: Path) -> None:
    shutil.copy(CARD.with_suffix(".safetensors"), tmp_path / "a.safetensors")
    held = json.loads(CARD.read_text())
    (tmp_path / "a.json").write_text(json.dumps(held | {"networks": [*held["networks"], "squeeze"]}))
    with pytest.raises(DamagedWeights, match="no network 2 of the kind 'squeeze'"):
        BrainTumour(tmp_path / "a.json")


def test_two_pictures_at_one_place_of_flair_are_withheld_and_named(folder: Path) -> None:
    again(slices_of(folder, "2")[4], darken)
    with pytest.raises(
        WithheldStudy, match="the FLAIR series cannot be read as one volume: two slices at one position"
    ):
        prepare(only_study(folder))


def test_two_pictures_at_one_place_of_t1_are_said_and_it_is_not_used(folder: Path) -> None:
    again(slices_of(folder, "1")[4], darken)
    prepared = prepare(only_study(folder))
    assert not prepared.images[:, 0].any()
    assert [note for note in prepared.notes if "before contrast cannot be read as one volume (two slices at" in note]


def test_a_flair_slice_without_a_position_is_said(folder: Path) -> None:
    dataset = pydicom.dcmread(slices_of(folder, "2")[4])
    del dataset.ImagePositionPatient
    dataset.save_as(slices_of(folder, "2")[4])
    with pytest.raises(WithheldStudy, match="one volume: 1 of 20 slices do not say where they lie"):
        prepare(only_study(folder))


def truncated(dataset: Dataset) -> None:
    dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) // 2]


def flat(dataset: Dataset) -> None:
    dataset.PixelData = bytes(len(dataset.PixelData))


@pytest.mark.parametrize("damage", [truncated, flat])
def test_a_t1_that_cannot_be_read_is_not_used_and_that_is_said(folder: Path, damage: Change) -> None:
    bend(folder / "3", damage)
    prepared = prepare(only_study(folder))
    assert len(prepared.read) == 2
    assert not prepared.images[:, 2].any()
    assert [note for note in prepared.notes if note.startswith("T1 after contrast cannot be read (")]


def test_a_flair_that_cannot_be_decoded_is_named(folder: Path) -> None:
    bend(folder / "2", truncated)
    with pytest.raises(WithheldStudy, match="the FLAIR series cannot be read: instance 1"):
        prepare(only_study(folder))


def test_a_t1_of_a_part_of_the_head_is_used_there_and_its_share_is_said(truth: Truth, folder: Path) -> None:
    whole = prepare(only_study(folder))
    for file in slices_of(folder, "3")[:6]:
        file.unlink()
    prepared = prepare(only_study(folder))
    assert len(prepared.read) == 3
    assert not prepared.images[:6, 2].any()
    assert float((prepared.images[8:, 2] - whole.images[8:, 2]).abs().mean()) < 0.15  # as if the rest were not there
    assert [note for note in prepared.notes if re.search(r"after contrast covers only [67]\d% of the head", note)]


def test_a_t1_of_less_than_half_the_head_is_not_used_and_that_is_said(folder: Path) -> None:
    for file in slices_of(folder, "3")[:12]:
        file.unlink()
    prepared = prepare(only_study(folder))
    assert len(prepared.read) == 2
    assert not prepared.images[:, 2].any()
    assert [note for note in prepared.notes if re.search(r"covers only \d+% of the head and was not used", note)]


def test_one_missing_slice_is_read_and_said_and_keeps_the_measure(
    pipeline: BrainTumour, truth: Truth, folder: Path
) -> None:
    slices_of(folder, "2")[9].unlink()
    (answer,) = pipeline(only_study(folder))
    usual = flair_of(truth).spacing
    assert usual is not None
    assert answer.series.spacing == pytest.approx(usual)
    assert any("slice missing between 9 and 11" in note for note in answer.notes)
    assert answer.findings[0].segment is not None
    expected = answer.findings[0].segment.mask.sum() * np.prod(usual) / 1000
    assert answer.findings[0].measurements[0].value == pytest.approx(expected)


def flair_of(truth: Truth) -> Series:
    study = only_study(truth.files[0].parents[1])
    return mr_sequences.candidates(study, mr_sequences.FLAIR)[0]


@pytest.mark.parametrize("gone", [(4, 5, 6, 7, 8, 9, 10), (1, 3, 5, 7, 9, 11, 13)])
def test_a_flair_with_many_gaps_is_withheld_but_can_be_trained_on(
    pipeline: BrainTumour, folder: Path, gone: tuple[int, ...]
) -> None:
    files = slices_of(folder, "2")
    for place in gone:
        files[place].unlink()
    study = only_study(folder)
    with pytest.raises(WithheldStudy, match="has gaps: 7 of 20 slices are missing"):
        pipeline(study)
    assert len(prepare(study).images) == 13


def test_the_next_flair_is_read_where_the_first_cannot_be_and_that_is_said(folder: Path) -> None:
    """The first candidate has the most slices, and is of a spine."""
    shutil.copytree(folder / "2", folder / "9")
    uid = generate_uid()

    def spine(dataset: Dataset) -> None:
        dataset.SeriesInstanceUID, dataset.SeriesNumber = uid, 0
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.BodyPartExamined = "SPINE"

    bend(folder / "9", spine)
    study = only_study(folder)
    assert mr_sequences.candidates(study, "FLAIR")[0].uid == uid
    prepared = prepare(study)
    assert prepared.flair.uid != uid
    assert [note for note in prepared.notes if "another FLAIR series was passed over: the FLAIR series shows" in note]
    shutil.rmtree(folder / "2")
    with pytest.raises(UnsuitableStudy, match="SPINE"):
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


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("threshold", "0.4"),
        ("threshold", 1.5),
        ("threshold", True),
        ("smallest_cm3", -1),
        ("smallest_share", 2),
        ("certainty", [0.1]),
        ("certainty", [0.1, float("nan")]),
        ("present_from", None),
        ("networks", ["no such net"]),
        ("networks", []),
        ("version", 1),
        ("sha256", "abc"),
    ],
)
def test_an_impossible_value_on_the_card_is_named_with_its_file(tmp_path: Path, key: str, value: object) -> None:
    (tmp_path / "card.json").write_text(json.dumps(json.loads(CARD.read_text()) | {key: value}))
    with pytest.raises(DamagedWeights, match=rf"card\.json: '{key}' is "):
        Card.read(tmp_path / "card.json")


def test_another_threshold_on_the_card_is_another_device_and_another_layout_is_not(
    pipeline: BrainTumour, tmp_path: Path
) -> None:
    held = json.loads(CARD.read_text())
    shutil.copy(CARD.with_suffix(".safetensors"), tmp_path / "a.safetensors")
    (tmp_path / "a.json").write_text(json.dumps(held | {"threshold": 0.41}))
    (tmp_path / "b.json").write_text(json.dumps(held))
    edited = BrainTumour(tmp_path / "a.json").algorithm
    assert edited.device_uid != pipeline.algorithm.device_uid
    assert edited.weights_digest != pipeline.algorithm.weights_digest
    assert Card.read(tmp_path / "b.json").digest == pipeline.algorithm.weights_digest


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
        ("T1 PRE", {"SeriesDescription": "T1 precontrast"}),
        ("T1 PRE", {"SeriesDescription": "T1 w/o Gd"}),
        ("T1 PRE", {"SeriesDescription": "T1 non-enhanced"}),
        ("T1 PRE", {"SeriesDescription": "T1 POSTERIOR FOSSA"}),
        ("T1 PRE", {"SeriesDescription": "AX T1", "ContrastBolusAgent": "NONE"}),
        ("T1 PRE", {"SeriesDescription": "AX T1", "ContrastBolusAgent": "n/a"}),
        ("T1 PRE", {"SeriesDescription": "AX T1", "ContrastBolusAgent": "No"}),
        ("T1 POST", {"SeriesDescription": "AX T1 pre", "ContrastBolusAgent": "GADAVIST"}),
        ("T1 POST", {"SeriesDescription": "AX T1", "ContrastBolusAgent": "NONE GIVEN BY HAND, 7 ml DOTAREM"}),
        ("T1 POST", {"SeriesDescription": "T1 w/o fs +Gd"}),
        ("T1 POST", {"SeriesDescription": "t1_post"}),
        ("T1 POST", {"SeriesDescription": "T1 postcontrast"}),
        ("T1 POST", {"SeriesDescription": "T1+C"}),
        ("T1 POST", {"SeriesDescription": "T1 KM"}),
        ("T1 POST", {"SeriesDescription": "AX T1 C+"}),
        ("T1 POST", {"SeriesDescription": "PRE-OP T1 GAD"}),
        ("T1 PRE", {"RepetitionTime": 2300, "EchoTime": 3, "InversionTime": 900, "SeriesDescription": "T1 MPR"}),
        ("T1 PRE", {"SeriesDescription": "MPRAGE MPR SAG"}),
        (None, {"SeriesDescription": "T1 MPR", "ImageType": ["DERIVED", "SECONDARY", "MPR"]}),
        (None, {"RepetitionTime": 550, "EchoTime": 10, "SeriesDescription": "COR MPR"}),
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
