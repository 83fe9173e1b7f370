"""Training on phantoms: what must hold whatever the data, and the measures against masks made by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pipelines.imaging import keep_components
from pipelines.models import store
from pipelines.models.unet import NETWORKS, ResidualUNet, SqueezeUNet
from pipelines.training import cases, loop, metrics, operate, pack
from pipelines.training.batches import Sampler
from pipelines.training.evaluate import evaluate
from pipelines.training.prepare import NoLabels, labelled_studies
from pipelines.training.train import UnknownPipeline, train

SHARED = Path(__file__).resolve().parents[2] / "shared"


def case(patient: str, *, seed: int = 0) -> cases.Case:
    """Six slices of noise, a bright square on four of them."""
    rng = np.random.default_rng((seed, *patient.encode()))
    images = rng.normal(0, 1, (6, 3, 64, 64)).astype(np.float16)
    mask = np.zeros((6, 64, 64), bool)
    mask[1:5, 20:40, 20:40] = True
    images[:, 1][mask] += 3
    return cases.Case(patient, "XX", torch.from_numpy(images), torch.from_numpy(mask))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_every_patient_is_in_one_fold_and_never_on_both_sides() -> None:
    patients = [case(f"P{number}") for number in range(12)]
    judged = []
    for fold in range(cases.FOLDS):
        training, held = cases.split(patients, fold)
        assert not {each.patient for each in training} & {each.patient for each in held}
        assert len(training) + len(held) == 12
        judged += [each.patient for each in held]
    assert sorted(judged) == sorted(each.patient for each in patients)
    assert cases.split(patients, None) == (tuple(patients), ())


def test_a_fold_does_not_change_when_patients_are_added() -> None:
    few, many = [case(f"P{n}") for n in range(4)], [case(f"P{n}") for n in range(9)]
    kept = {each.patient for each in cases.split(many, 2)[1]}
    assert {each.patient for each in cases.split(few, 2)[1]} <= kept


def test_phantoms_never_judge(tmp_path: Path) -> None:
    phantom = cases.Case("SYN-1", "synthetic", *_tensors(case("SYN-1")), is_synthetic=True)
    for fold in range(cases.FOLDS):
        assert phantom in cases.split([phantom], fold)[0]


def _tensors(each: cases.Case) -> tuple[torch.Tensor, torch.Tensor]:
    return each.images, each.mask


def test_a_case_comes_back_from_its_cache(tmp_path: Path) -> None:
    before = case("P1")
    before.save(tmp_path)
    (after,) = cases.load(tmp_path)
    assert after.patient == "P1"
    assert torch.equal(after.images, before.images)
    assert torch.equal(after.mask, before.mask)


def test_the_same_step_draws_the_same_batch_and_the_next_another() -> None:
    sampler = Sampler([case("A"), case("B")], 8, seed=3)
    (one, mask), (again, mask_again), (other, _) = sampler.draw(5), sampler.draw(5), sampler.draw(6)
    assert torch.equal(one, again)
    assert torch.equal(mask, mask_again)
    assert not torch.equal(one, other)
    assert 3 <= int(mask.flatten(1).any(1).sum()) <= 5  # five of eight have a lesion; some are moved out of sight


def test_a_missing_sequence_stays_missing_through_augmentation() -> None:
    without = case("A")
    without.images[:, 0] = 0
    images, _ = Sampler([without], 8, seed=0).draw(0)
    assert not images[:, 0].any()


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The residual network with few channels, so that a step takes milliseconds."""
    monkeypatch.setitem(NETWORKS, "narrow", lambda channels: ResidualUNet(channels, (8, 16, 16, 16, 16)))


OPTIONS = loop.Options(network="narrow", batch=2, epochs=2, checks=4, seed=7, fold=None)


def test_a_run_that_is_killed_and_resumed_gives_the_weights_of_one_that_is_not(tmp_path: Path, narrow: None) -> None:
    patients = [case("A")]
    whole = loop.fit(patients, tmp_path / "whole", OPTIONS)

    def kill(progress: loop.Progress) -> None:
        if progress.dice is not None and progress.share >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.fit(patients, tmp_path / "killed", OPTIONS, progress=kill)
    resumed = loop.fit(patients, tmp_path / "killed", OPTIONS, resume=True)
    assert resumed.steps == whole.steps
    one, other = load_file(whole.weights), load_file(resumed.weights)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_stops_early_when_the_fold_gets_no_better(tmp_path: Path, narrow: None) -> None:
    patients = [case(f"P{n}") for n in range(4)]
    fold = cases.fold_of("P0")
    for each in cases.split(patients, fold)[1]:
        each.mask[:] = False  # its Dice is 0 or 1 and at next to no rate stays what it is
    options = loop.Options(network="narrow", batch=2, epochs=4, checks=8, patience=1, rate=1e-12, fold=fold)
    result = loop.fit(patients, tmp_path, options)
    assert result.best_dice is not None
    curve = json.loads((tmp_path / "curve.json").read_text())
    assert len(curve) == 2


def test_an_encoder_of_three_channels_is_spread_over_ours() -> None:
    file = SHARED / "data/weights/squeezenet1_1_imagenet.safetensors"
    if not file.exists():
        pytest.skip(f"{file.name} is not here")
    net = SqueezeUNet(8)
    given = store.initialise(net, file)
    assert len(given) == 2 + 8 * 6
    assert "features.0.weight" in given
    first = net.features["0"].weight
    assert torch.allclose(first[:, 5], first[:, 1] * 0.1)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_network_gives_one_logit_per_pixel(name: str) -> None:
    net = NETWORKS[name](8).eval()
    with torch.inference_mode():
        (logits,) = net(torch.randn(1, 8, 192, 160))
    assert logits.shape == (1, 1, 192, 160)


def test_weights_that_are_no_safetensors_are_named(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"not weights")
    with pytest.raises(store.DamagedWeights, match=r"w\.safetensors"):
        store.tensors_of(tmp_path / "w.safetensors")


def test_dice_of_masks_made_by_hand() -> None:
    one, other = np.zeros((1, 4, 4), bool), np.zeros((1, 4, 4), bool)
    assert metrics.dice(one, other) == 1.0
    one[0, 0, :4] = True
    assert metrics.dice(one, other) == 0.0
    other[0, 0, 2:] = True
    assert metrics.dice(one, other) == pytest.approx(2 * 2 / (4 + 2))


def test_surfaces_three_millimetres_apart_are_so() -> None:
    one, other = np.zeros((3, 30, 30), bool), np.zeros((3, 30, 30), bool)
    one[1, 10:20, 10:20] = other[1, 10:20, 13:23] = True
    assert metrics.hausdorff95(one, other, (5.0, 1.0, 1.0)) == pytest.approx(3.0)
    assert metrics.surface_dice(one, one, (5.0, 1.0, 1.0), tolerance=0.5) == 1.0
    assert metrics.surface_dice(one, other, (5.0, 1.0, 1.0), tolerance=3.0) == 1.0
    assert metrics.surface_dice(one, other, (5.0, 1.0, 1.0), tolerance=1.0) < 0.9
    assert metrics.hausdorff95(one, np.zeros_like(one), (5.0, 1.0, 1.0)) == float("inf")


def test_an_interval_holds_the_mean_and_narrows_with_more_patients() -> None:
    rng = np.random.default_rng(0)
    few, many = rng.normal(0.8, 0.1, 10), rng.normal(0.8, 0.1, 1000)
    low, high = metrics.interval(list(few))
    assert low < few.mean() < high
    assert np.diff(metrics.interval(list(many)))[0] < 0.3 * (high - low)


def test_the_operating_point_drops_what_is_no_lesion() -> None:
    truth = np.zeros((4, 40, 40), bool)
    truth[1:3, 5:25, 5:25] = True
    probability = np.where(truth, 0.9, 0.1).astype(np.float32)
    probability[0, 30:34, 30:34] = 0.8  # 16 voxels of nothing
    judged = [operate.Judged("A", probability, truth, 0.005, 3.0, (-4.0, -3.0))]
    point, dice = operate.choose(judged)
    assert dice == 1.0
    assert point.smallest_cm3 > 16 * 0.005 or point.smallest_share > 16 / 800
    offset, slope = point.certainty
    assert offset + slope * 3.0 > 0 > offset + slope * -3.0
    assert 1 / (1 + np.exp(-(offset - 3.0 * slope))) < point.present_from < 1 / (1 + np.exp(-(offset + 3.0 * slope)))


def test_shipped_weights_are_at_most_twenty_megabytes(tmp_path: Path) -> None:
    member = tmp_path / "m.safetensors"
    store.save(NETWORKS["residual"](8), member, {"network": "residual"})
    point = operate.OperatingPoint(0.5, 0.0, 0.0, (0.0, 1.0), 0.5)
    weights = pack.pack([member, member], tmp_path / "two.json", point, name="two", version="1")
    assert weights.stat().st_size <= pack.LARGEST
    with pytest.raises(ValueError, match="most that is shipped"):
        pack.pack([member] * 3, tmp_path / "three.json", point, name="three", version="1")


def test_a_pipeline_without_a_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownPipeline, match="nonesuch"):
        train("nonesuch", tmp_path, tmp_path, labels=tmp_path)


def test_a_folder_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoLabels, match=r"index\.csv"):
        list(labelled_studies(tmp_path, tmp_path))


def labelled_phantom(folder: Path) -> None:
    """One synthetic study with its index and its masks, as ``train`` and ``evaluate`` take them."""
    import pydicom

    from pipelines.synthetic import brain_mr

    truth = brain_mr(folder / "study", seed=21, lesion="random", slices=20, matrix=128)
    rows = []
    for file in truth.files:
        header = pydicom.dcmread(file, stop_before_pixels=True)
        place = int(header.InstanceNumber) - 1
        mask = f"mask{place}.png" if truth.mask[place].any() and "FLAIR" in header.SeriesDescription else ""
        if mask:
            Image.fromarray(truth.mask[place].astype(np.uint8)).save(folder / mask)
        rows.append(
            {
                "study_uid": header.StudyInstanceUID,
                "sop_uid": header.SOPInstanceUID,
                "file": str(file.relative_to(folder)),
                "mask": mask,
                "patient_id": header.PatientID,
                "institution": "synthetic",
                "split": "dev",
            }
        )
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_an_evaluation_reports_every_patient_and_every_missing_sequence(tmp_path: Path) -> None:
    from pipelines.mr_brain import BrainTumour

    labelled_phantom(tmp_path)
    report = evaluate(BrainTumour(), tmp_path, "dev", tmp_path / "out", labels=tmp_path)
    assert report["dice"]["n"] == 1
    assert report["dice"]["mean"] > 0.7
    assert [each["n"] for each in report["by_sequences"]] == [1, 1, 1, 1]
    assert json.loads((tmp_path / "out/report.json").read_text()) == report
    page = (tmp_path / "out/report.md").read_text()
    assert "FLAIR only" in page
    assert "SYN-0001" in page
    assert (tmp_path / "out/gallery.png").stat().st_size > 10_000


def test_the_dice_that_is_searched_is_that_of_the_mask_that_is_kept() -> None:
    rng = np.random.default_rng(1)
    truth = np.zeros((4, 30, 30), bool)
    truth[1:3, 5:20, 5:20] = True
    mask = rng.random(truth.shape) < np.where(truth, 0.7, 0.04)
    components = operate._components(mask, truth)
    for smallest, share in ((0, 0.0), (3, 0.0), (0, 0.02), (10_000, 0.0)):
        kept = keep_components(mask, smallest=smallest, share=share)
        assert components.dice(smallest, share) == pytest.approx(metrics.dice(kept, truth))
