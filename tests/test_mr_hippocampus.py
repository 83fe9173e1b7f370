"""The pipeline ``mr_hippocampus``: what it reads, what it refuses and why, and what it says of real volumes."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from node.cli import wetread
from node.routing import Route, route
from node.settings import Settings
from pipelines.base import UnsuitableStudy, WithheldStudy
from pipelines.evidence.masks import seg_masks
from pipelines.fusion import turn_of
from pipelines.models.shipped import Networks
from pipelines.models.store import DamagedWeights
from pipelines.models.unet3d import ResidualUNet3D, padded, twice, unpadded
from pipelines.mr_hippocampus import CARD, LABELS, ROLE, Hippocampus, outline, prepare
from pipelines.study import Study, read_folder
from pipelines.training import hippocampus as learnt
from pipelines.training.evaluate import Asked, evaluate
from pipelines.training.loop import Options, fit
from pipelines.training.metrics import dice
from pipelines.training.prepare import NoLabels
from pipelines.training.recipes import recipe
from pipelines.training.truths import judged
from pipelines.training.volumes import Volume, labelled, reference
from tests.findings import image, study_of, verdict
from tests.peers import SHARED, needs_shared

Change = Callable[[Dataset], None]
SET = SHARED / "data" / "hippocampus_mri"


def volume(
    frames: int = 36, rows: int = 52, columns: int = 36, *, mm: float = 1.0, **elements: object
) -> list[Dataset]:
    """A small MR volume of a blurred noise, as large as a cropped hippocampus."""
    rng = np.random.default_rng(3)
    made = []
    for number in range(frames):
        ds = image(number + 1, shape=(rows, columns), BodyPartExamined="BRAIN", SeriesDescription="T1 HIPPOCAMPUS")
        ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = "1.2.3.9", ""
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, number * mm], [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness = [mm, mm], mm
        ds.PixelData = rng.integers(0, 4000, (rows, columns), dtype="<u2").tobytes()
        for keyword, value in elements.items():
            setattr(ds, keyword, value)
        made.append(ds)
    return made


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pipeline() -> Hippocampus:
    return Hippocampus()


@pytest.fixture(scope="module")
def dicom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two volumes of dev as DICOM, with their index."""
    out = tmp_path_factory.mktemp("dicom")
    tool = str(SHARED / "tools" / "to_dicom.py")
    subprocess.run([sys.executable, tool, str(SET), str(out), "--split", "dev", "--limit", "2"], check=True)
    return out


@pytest.fixture
def folder(dicom: Path, tmp_path: Path) -> Path:
    """A copy of the first study that a test may bend."""
    first = next(path for path in sorted(dicom.iterdir()) if path.is_dir())
    return Path(shutil.copytree(first, tmp_path / "study"))


def only_study(folder: Path) -> Study:
    (study,), refused = read_folder(folder)
    assert not refused
    return study


def truth_of(dicom: Path, study: Study) -> np.ndarray:
    with (dicom / "index.csv").open(newline="") as file:
        return next(reference(SET / row["mask"]) for row in csv.DictReader(file) if row["study_uid"] == study.uid)


def bend(folder: Path, change: Change) -> None:
    for file in folder.rglob("*.dcm"):
        dataset = pydicom.dcmread(file)
        change(dataset)
        dataset.save_as(file)


needs_set = needs_shared("data", "hippocampus_mri")


@needs_set
def test_both_parts_are_outlined_and_measured(pipeline: Hippocampus, dicom: Path, folder: Path) -> None:
    study = only_study(folder)
    (answer,) = pipeline(study)
    truth = truth_of(dicom, study)
    assert [each.label for each in answer.findings] == ["anterior", "posterior"]
    for value, finding in enumerate(answer.findings, start=1):
        assert finding.present
        assert finding.segment is not None
        assert finding.segment.label == LABELS[value - 1]
        assert dice(finding.segment.mask, truth == value) > 0.8
        assert finding.measurements[0].value == pytest.approx(finding.segment.mask.sum() / 1000)
        assert finding.measurements[0].unit.value == "cm3"
        touched = np.flatnonzero(finding.segment.mask.any(axis=(1, 2)))
        assert finding.sop_uids == tuple(answer.series.instances[place].SOPInstanceUID for place in touched)


@needs_set
def test_the_command_writes_a_segmentation_with_both_labels(dicom: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = ["read", str(folder), "--out", str(out), "--pipeline", "mr_hippocampus", "--json"]
    result = CliRunner().invoke(wetread, given)
    assert result.exit_code == 0
    (run,) = json.loads(result.stdout)["studies"][0]["runs"]
    assert (run["status"], run["reason"]) == ("read", None)
    assert [each["segment"] for each in run["findings"]] == ["anterior", "posterior"]
    study = only_study(folder)
    file = next(Path(each) for each in run["objects"] if Path(each).name == "seg.dcm")
    masks, truth = seg_masks(file, study.series[0]), truth_of(dicom, study)
    assert dice(masks["anterior"], truth == 1) > 0.8
    assert dice(masks["posterior"], truth == 2) > 0.8
    assert not [each for path in run["objects"] for each in verdict(Path(path))]


@needs_set
def test_evaluate_judges_both_parts_as_a_whole(pipeline: Hippocampus, dicom: Path, tmp_path: Path) -> None:
    with (dicom / "index.csv").open(newline="") as file:
        columns = next(csv.reader(file))
    parts = judged("mr_hippocampus", None, columns)
    evaluate(pipeline, parts, dicom, tmp_path, labels=SET, asked=Asked("dev"))
    held = json.loads((tmp_path / "report.json").read_text())
    assert len(held["pictures"]) == 2
    for each in held["pictures"]:
        study = only_study(dicom / each_study(dicom, each["patient"]))
        (answer,) = pipeline(study)
        for value, finding in enumerate(answer.findings, start=1):
            assert finding.segment is not None
            overlap = dice(finding.segment.mask, truth_of(dicom, study) == value)
            assert each[f"{finding.label} (outline)"]["dice"] == pytest.approx(overlap, abs=1e-3)


def each_study(dicom: Path, patient: str) -> str:
    with (dicom / "index.csv").open(newline="") as file:
        return next(row["study_uid"] for row in csv.DictReader(file) if row["patient_id"] == patient)


@needs_set
def test_a_volume_stored_in_sagittal_slices_has_the_same_outline(
    pipeline: Hippocampus, folder: Path, tmp_path: Path
) -> None:
    study = only_study(folder)
    (straight,) = pipeline(study)
    voxels = study.series[0].volume().astype("<u2")  # (to the head, to the back, to the left)
    other = []
    for place in range(voxels.shape[2]):
        ds = pydicom.dcmread(next(folder.rglob("*.dcm")))
        ds.SOPInstanceUID, ds.InstanceNumber = generate_uid(), place + 1
        plane = np.ascontiguousarray(voxels[::-1, :, place])  # rows from the head down, columns to the back
        ds.Rows, ds.Columns = plane.shape
        ds.PixelData = plane.tobytes()
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [place, 0, voxels.shape[0] - 1], [0, 1, 0, 0, 0, -1]
        other.append(ds)
    (turned,) = pipeline(study_of(other, tmp_path / "sagittal"))
    for one, two in zip(straight.findings, turned.findings, strict=True):
        assert one.segment is not None
        assert two.segment is not None
        turn = turn_of(turned.series)
        assert np.array_equal(turn.there(two.segment.mask), one.segment.mask)


@needs_set
def test_a_volume_said_to_lie_upside_down_is_not_read(pipeline: Hippocampus, folder: Path) -> None:
    def upside_down(dataset: Dataset) -> None:
        x, y, z = (float(v) for v in dataset.ImagePositionPatient)
        dataset.ImagePositionPatient = [x, y, -z]

    bend(folder, upside_down)
    with pytest.raises(WithheldStudy):
        pipeline(only_study(folder))


@needs_set
def test_a_study_takes_under_two_seconds_of_one_core(pipeline: Hippocampus, folder: Path) -> None:
    pipeline(only_study(folder))
    begun = time.process_time()
    pipeline(only_study(folder))
    assert time.process_time() - begun < 2.0


@pytest.mark.parametrize(
    ("words", "images"),
    [
        ("is CT, not a picture of MR", volume(Modality="CT")),
        ("shows the body part KNEE", volume(BodyPartExamined="KNEE")),
        ("is derived or a localizer", volume(ImageType=["DERIVED", "SECONDARY", "MPR"])),
        ("is derived or a localizer", volume(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])),
        ("36 × 256 × 256 mm, not a region cropped", volume(rows=256, columns=256)),
        ("is no volume", volume(frames=1)),
    ],
)
def test_what_is_not_a_cropped_hippocampus_is_unsuitable(words: str, images: list[Dataset], tmp_path: Path) -> None:
    with pytest.raises(UnsuitableStudy, match=words):
        prepare(study_of(images, tmp_path))


def with_a_gap() -> list[Dataset]:
    return [each for number, each in enumerate(volume()) if number not in (10, 11, 17)]


@pytest.mark.parametrize(
    ("words", "images"),
    [
        ("has voxels of 0.5 × 0.5 × 0.5 mm", volume(72, 104, 72, mm=0.5)),
        ("shows 15 × 52 × 36 mm: too little", volume(frames=15)),
        ("not one even volume", with_a_gap()),
        ("every pixel", volume(PixelData=bytes(52 * 36 * 2))),
    ],
)
def test_a_volume_that_was_not_validated_is_withheld(words: str, images: list[Dataset], tmp_path: Path) -> None:
    with pytest.raises(WithheldStudy, match=words):
        prepare(study_of(images, tmp_path))


@pytest.mark.parametrize(("rows", "wanted"), [(52, True), (256, False)])
def test_the_shipped_rule_wants_small_volumes_alone(rows: int, wanted: bool) -> None:
    line = Settings().pipelines["mr_hippocampus"]
    (match,) = route(volume(1, rows=rows), {"mr_hippocampus": Route("mr_hippocampus", line.use, line.when)})
    assert match.matched is wanted


def test_noise_is_withheld(pipeline: Hippocampus, tmp_path: Path) -> None:
    with pytest.raises(WithheldStudy):
        pipeline(study_of(volume(), tmp_path))


def test_the_series_that_names_the_hippocampus_goes_before_others(tmp_path: Path) -> None:
    whole = volume(rows=256, columns=256, SeriesInstanceUID="1.2.3.7", SeriesDescription="T1 MPRAGE")
    for number, each in enumerate(whole):
        each.SOPInstanceUID = f"1.2.3.7.{number + 1}"
    study = study_of([*whole, *volume(SeriesNumber=9)], tmp_path)
    assert prepare(study).series.description == "T1 HIPPOCAMPUS"


def test_the_outline_is_one_region_and_each_voxel_of_one_part() -> None:
    probability = np.zeros((3, 12, 12, 12), np.float32)
    probability[1, 2:6, 2:8, 2:8] = 0.8
    probability[2, 6:9, 2:8, 2:8] = 0.7
    probability[2, 11, 11, 11] = 0.9  # a speck
    probability[0] = 1 - probability[1:].sum(0)
    found = outline(probability, {"threshold": 0.5})
    assert [int(each.sum()) for each in found.parts] == [4 * 36, 3 * 36]
    assert not (found.parts[0] & found.parts[1]).any()
    assert found.sureness == pytest.approx(2 * 0.7 * 108 / (0.7 * 108 + 0.9 + 108), abs=1e-4)


@pytest.mark.parametrize("shape", [(35, 50, 36), (40, 56, 40), (33, 41, 31)])
def test_padding_is_undone(shape: tuple[int, int, int]) -> None:
    x = torch.randn(shape)
    wide = padded(x)
    assert all(size % 8 == 0 for size in wide.shape[2:])
    assert torch.equal(unpadded(wide, shape)[0, 0], x)


@pytest.mark.parametrize("lies", [torch.contiguous_format, torch.channels_last_3d])
def test_the_finer_grid_is_the_one_that_torch_interpolates(lies: torch.memory_format) -> None:
    coarse = torch.rand(2, 5, 4, 6, 3).to(memory_format=lies)
    expected = F.interpolate(coarse, scale_factor=2.0, mode="trilinear", align_corners=False)
    assert torch.allclose(twice(coarse), expected, atol=1e-6)


def test_the_network_answers_on_the_grid_of_the_voxels() -> None:
    net = ResidualUNet3D(3, (8, 16, 32), (4, 4))
    fine, *coarser = net(torch.randn(2, 1, 16, 24, 16))
    assert fine.shape == (2, 3, 16, 24, 16)
    assert [each.shape[2:] for each in coarser] == [(8, 12, 8), (4, 6, 4)]
    assert len(net.eval()(torch.randn(1, 1, 16, 24, 16))) == 1


def phantom(patient: str, seed: int) -> Volume:
    """A dark bar in a bright box, its front half one part and its back half the other."""
    labels = torch.zeros((34, 50, 34), dtype=torch.uint8)
    labels[10:18, 8:25, 12:20], labels[14:22, 25:42, 12:20] = 1, 2
    noise = torch.randn(labels.shape, generator=torch.Generator().manual_seed(seed)) * 0.2
    return Volume(patient, noise + 1.0 - 2.0 * (labels > 0), labels)


def test_a_patch_keeps_picture_and_labels_together() -> None:
    torch.manual_seed(5)
    for seed in range(6):
        x, truth = learnt.patch(phantom("a", seed))
        assert x.shape == (1, *learnt.PATCH)
        assert torch.equal(truth.sum(0), torch.ones(learnt.PATCH))
        inside = truth[0] == 0
        assert float(x[0][inside].mean()) < float(x[0][~inside].mean())


def test_a_draw_follows_from_the_step_alone() -> None:
    task = learnt.HippocampusTask([phantom(f"p{n}", n) for n in range(4)], Options("residual3d", batch=2, fold=None))
    one, other, next_one = task.draw(3), task.draw(3), task.draw(4)
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    assert not torch.equal(one[0], next_one[0])


def test_a_task_is_learnt_by_the_loop_and_its_loss_falls(tmp_path: Path) -> None:
    options = Options("residual3d", batch=1, checks=2, epochs=1, fold=None, average=0.5)
    result = fit(learnt.HippocampusTask([phantom("a", 0), phantom("b", 1)], options), tmp_path, options)
    first, last = json.loads((tmp_path / "curve.json").read_text())
    assert last["loss"] < first["loss"]
    assert result.weights.exists()


def test_the_recipe_is_found_by_the_name_of_the_pipeline() -> None:
    assert recipe("mr_hippocampus").options.network == "residual3d"
    assert recipe("mr_hippocampus", ROLE) is recipe("mr_hippocampus")


def test_labels_are_turned_as_the_volume_is(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    held = np.zeros((5, 6, 7), np.uint8)
    held[4, 5, 6] = 1  # right, front, head
    held[0, 5, 6] = 2  # left
    nibabel.save(nibabel.Nifti1Image(held, np.eye(4)), tmp_path / "a.nii.gz")
    turned = reference(tmp_path / "a.nii.gz")
    assert turned.shape == (7, 6, 5)
    assert (turned[6, 0, 0], turned[6, 0, 4]) == (1, 2)
    nibabel.save(nibabel.Nifti1Image(held[::-1], np.diag([-1.0, 1, 1, 1])), tmp_path / "b.nii.gz")
    assert np.array_equal(reference(tmp_path / "b.nii.gz"), turned)
    with pytest.raises(NoLabels, match="cannot be read"):
        reference(tmp_path / "c.nii.gz")


def test_a_folder_without_an_index_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoLabels, match=r"index\.csv"):
        next(labelled(tmp_path, tmp_path, wanted=("train",)))


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    card = Path(shutil.copy(CARD, tmp_path))
    weights = Path(shutil.copy(CARD.with_suffix(".safetensors"), tmp_path))
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DamagedWeights, match=rf"{weights.name}.*damaged"):
        Hippocampus(card)


def test_the_weights_are_what_the_card_in_words_names(pipeline: Hippocampus) -> None:
    words = CARD.with_suffix(".md").read_text()
    assert pipeline.card.sha256 in words
    assert isinstance(pipeline._networks, Networks)
    assert CARD.with_suffix(".safetensors").stat().st_size < 20 * 1024 * 1024
