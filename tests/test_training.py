"""Training on phantoms: what must hold whatever the data, and the measures against masks made by hand."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pipelines.imaging import CHANNELS, keep_components
from pipelines.models import store
from pipelines.models.unet import NETWORKS, ResidualUNet, SqueezeUNet
from pipelines.mr_brain import CARD
from pipelines.training import cases, loop, metrics, operate, pack, ship
from pipelines.training.batches import Sampler
from pipelines.training.brain import BrainTask
from pipelines.training.evaluate_brain import Row, evaluate, summary
from pipelines.training.pictures import learning_curve
from pipelines.training.prepare import NoLabels, labelled_studies, prepare_all
from pipelines.training.recipes import UnknownPipeline
from pipelines.training.recipes.mr_brain import of_splits
from pipelines.training.report_brain import markdown
from pipelines.training.train import train

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


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
    whole = loop.fit(BrainTask(patients, OPTIONS), tmp_path / "whole", OPTIONS)

    def kill(progress: loop.Progress) -> None:
        if progress.share >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.fit(BrainTask(patients, OPTIONS), tmp_path / "killed", OPTIONS, progress=kill)
    resumed = loop.fit(BrainTask(patients, OPTIONS), tmp_path / "killed", OPTIONS, resume=True)
    assert resumed.steps == whole.steps
    one, other = load_file(whole.weights), load_file(resumed.weights)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_stops_early_when_the_fold_gets_no_better(tmp_path: Path, narrow: None) -> None:
    patients = [case(f"P{n}") for n in range(4)]
    fold = cases.fold_of("P0")
    for each in cases.split(patients, fold)[1]:
        each.mask[:] = False  # its Dice is 0 or 1 and at next to no rate stays what it is
    options = loop.Options(network="narrow", batch=2, epochs=4, checks=8, patience=1, rate=1e-12, fold=fold)
    result = loop.fit(BrainTask(patients, options), tmp_path, options)
    assert result.best is not None
    curve = json.loads((tmp_path / "curve.json").read_text())
    assert len(curve) == 2


def test_a_run_with_nothing_to_judge_by_writes_no_number_that_json_does_not_know(tmp_path: Path, narrow: None) -> None:
    result = loop.fit(BrainTask([case("A")], OPTIONS), tmp_path, OPTIONS)
    curve = json.loads((tmp_path / "curve.json").read_text(), parse_constant=pytest.fail)
    assert [point["score"] for point in curve] == [None] * 4
    assert result.best is None
    learning_curve(tmp_path / "curve.json", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5_000


def test_what_is_kept_is_the_mean_of_the_best_check_and_the_last(tmp_path: Path, narrow: None) -> None:
    patients = [case(f"P{n}") for n in range(4)]
    fold = cases.fold_of("P0")
    for each in cases.split(patients, fold)[1]:
        each.mask[:] = False  # the first check, with nothing learnt, stays the best
    options = loop.Options(network="narrow", batch=2, epochs=4, checks=3, patience=99, seed=5, fold=fold)
    result = loop.fit(BrainTask(patients, options), tmp_path, options)
    kept, best = store.tensors_of(result.weights), store.tensors_of(tmp_path / "best.safetensors")
    last = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["averaged"]
    moved = [name for name in last if last[name].is_floating_point() and not torch.allclose(best[name], last[name])]
    assert moved
    for name in moved:
        assert torch.allclose(kept[name], (best[name] + last[name]) / 2, rtol=1e-3, atol=1e-4)


def test_the_shipped_members_are_the_mean_of_their_two_sources(tmp_path: Path) -> None:
    runs = [ROOT / "runs" / name for name in ("fa", "fb")]
    if not all((run / "checkpoint.pt").exists() and (run / "best.safetensors").exists() for run in runs):
        pytest.skip("the runs that made the shipped weights are not here")
    shipped = load_file(CARD.with_suffix(".safetensors"))
    for place, run in enumerate(runs):
        net = NETWORKS["residual"](len(CHANNELS))
        net.load_state_dict(torch.load(run / "checkpoint.pt", weights_only=True)["averaged"])
        store.save(loop.mean_of(run / "best.safetensors", net), tmp_path / "m.safetensors", {})
        made = load_file(tmp_path / "m.safetensors")
        assert len(made) * 2 == len(shipped)
        assert all(torch.equal(value, shipped[f"{place}.{name}"]) for name, value in made.items())


@pytest.mark.parametrize(("name", "value"), [("network", "residual"), ("fold", 3), ("seed", 8), ("batch", 4)])
def test_a_run_does_not_go_on_from_a_checkpoint_of_another(
    tmp_path: Path, narrow: None, name: str, value: str | int
) -> None:
    loop.fit(BrainTask([case("A")], replace(OPTIONS, epochs=1)), tmp_path, replace(OPTIONS, epochs=1))
    before = (tmp_path / "options.json").read_bytes()
    with pytest.raises(loop.OtherRun, match=name):
        loop.fit(
            BrainTask([case("A")], replace(OPTIONS, **{name: value})),
            tmp_path,
            replace(OPTIONS, **{name: value}),
            resume=True,
        )
    assert (tmp_path / "options.json").read_bytes() == before


def test_a_run_that_begins_anew_leaves_no_older_checkpoint_to_go_on_from(tmp_path: Path, narrow: None) -> None:
    def kill(_: loop.Progress) -> None:
        raise KeyboardInterrupt

    loop.fit(BrainTask([case("A")], replace(OPTIONS, epochs=1)), tmp_path, replace(OPTIONS, epochs=1))
    other = replace(OPTIONS, epochs=8, checks=1, seed=9)  # 26 steps: it says how it stands at 25, before its check
    with pytest.raises(KeyboardInterrupt):
        loop.fit(BrainTask([case("A")], other), tmp_path, other, progress=kill)
    loop.fit(BrainTask([case("A")], other), tmp_path, other, resume=True)
    assert pack.facts_of(tmp_path / "weights.safetensors")["seed"] == "9"


def test_members_say_which_fold_they_left_out_and_ship_holds_them_to_it(tmp_path: Path, narrow: None) -> None:
    member = loop.fit(
        BrainTask([case("A")], replace(OPTIONS, epochs=1, fold=2)), tmp_path, replace(OPTIONS, epochs=1, fold=2)
    ).weights
    assert pack.facts_of(member) == {"network": "narrow", "fold": "2", "seed": "7"}
    assert ship.members_of([f"2={member}"]) == {2: member}
    with pytest.raises(ship.SeenPatients, match="left out the fold 2, not 1"):
        ship.members_of([f"1={member}"])
    with pytest.raises(ship.SeenPatients, match="two members"):
        ship.members_of([f"2={member}", f"2={member}"])
    store.save(NETWORKS["narrow"](8), tmp_path / "unknown.safetensors", {"network": "narrow"})
    with pytest.raises(ship.SeenPatients, match="unknown"):
        ship.members_of([f"2={tmp_path / 'unknown.safetensors'}"])


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


def test_an_index_without_its_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_text("study_uid,file,patient_id\n1.2,a.dcm,P1\n")
    with pytest.raises(NoLabels, match="no column sop_uid, mask, institution, split"):
        list(labelled_studies(tmp_path, tmp_path))


def labelled_phantom(folder: Path, *, slices: int = 20) -> None:
    """One synthetic study with its index and its masks, as ``train`` and ``evaluate`` take them."""
    import pydicom

    from pipelines.synthetic import brain_mr

    truth = brain_mr(folder / "study", seed=21, lesion="random", slices=slices, matrix=128)
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
    assert report["weights_sha256"] == json.loads(CARD.read_text())["sha256"]
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


def test_a_study_that_is_not_read_counts_in_the_dice_and_not_in_the_volumes(tmp_path: Path) -> None:
    from pipelines.mr_brain import BrainTumour

    labelled_phantom(tmp_path, slices=8)
    pipeline = BrainTumour()
    report = evaluate(pipeline, tmp_path, "dev", tmp_path / "out", labels=tmp_path)
    assert (report["n_unread"], report["dice"]["mean"]) == (1, 0.0)
    assert report["volume_cm3"]["n"] == 0
    assert report["seconds_median"] is None
    page = (tmp_path / "out/report.md").read_text()
    assert "Studies that were not read: 1" in page

    read = Row("A", "XX", "all sequences", 3, 0.5, 0.5, 9.0, 12.0, 10.0, 0.9, 4.0)
    unread = Row("B", "XX", "all sequences", 3, 0.0, 0.0, np.inf, 0.0, 0.0, 0.0, 0.0, status="withheld: too few slices")
    both = summary([read, unread], pipeline, "dev")
    assert both["n_unread"] == 1
    assert both["dice"]["mean"] == 0.25
    assert both["volume_cm3"]["mean_difference"] == pytest.approx(2.0)
    assert both["seconds_median"] == 4.0


def test_of_fewer_than_three_patients_there_is_no_interval() -> None:
    from pipelines.mr_brain import BrainTumour

    rows = [Row(f"P{n}", "XX", "all sequences", 3, 0.5, 0.5, 9.0, 12.0, 10.0, 0.9, 4.0) for n in range(3)]
    pipeline = BrainTumour()
    assert summary(rows, pipeline, "dev")["dice"]["interval"] is not None
    few = summary(rows[:2], pipeline, "dev")
    assert few["dice"]["interval"] is None
    assert "| volume Dice | 2 | 0.500 | – | 0.500 | 0.500 |" in markdown(few)


@pytest.mark.parametrize("fault", ["too few slices", "a mask is missing", "a mask of another size"])
def test_a_patient_that_does_not_serve_is_left_out_of_training_and_said(tmp_path: Path, fault: str) -> None:
    labelled_phantom(tmp_path, slices=8 if fault == "too few slices" else 20)
    mask = next(tmp_path.glob("mask*.png"))
    if fault == "a mask is missing":
        mask.unlink()
    elif fault == "a mask of another size":
        Image.fromarray(np.ones((5, 5), np.uint8)).save(mask)
    notes: list[str] = []
    prepare_all(tmp_path, tmp_path, tmp_path / "cases", wanted=("dev",), phantoms=0, said=notes.append)
    assert len(notes) == 1
    assert notes[0].startswith("SYN-0001 is left out: ")
    assert cases.load(tmp_path / "cases") == ()


def test_only_patients_of_the_split_train_are_trained_on(tmp_path: Path) -> None:
    for patient in ("P1", "P2"):
        case(patient).save(tmp_path / "cases")
    for patient, split in (("P1", "train"), ("P2", "dev")):
        with (tmp_path / "index.csv").open("a") as file:
            if patient == "P1":
                file.write("study_uid,sop_uid,file,mask,patient_id,institution,split\n")
            file.write(f"1.{patient[1]},1.2,a/b/c.dcm,,{patient},XX,{split}\n")
    assert [each.patient for each in of_splits(tmp_path / "cases", tmp_path, ("train",))] == ["P1"]


def test_the_model_card_says_what_the_files_beside_it_say() -> None:
    held, text = json.loads(CARD.read_text()), CARD.with_suffix(".md").read_text()
    report = json.loads((ROOT / "benchmarks/mr_brain_dev.json").read_text())
    assert held["sha256"] == report["weights_sha256"]
    assert held["sha256"] in text
    assert f"Probability above {held['threshold']:g}," in text
    assert f"from a certainty of {held['present_from']:g};" in text
    dropped = f"components below {held['smallest_cm3']:g} cm³ or below {held['smallest_share']:.0%} of the largest"
    assert dropped in text
    for name, key in (("Volume Dice", "dice"), ("Surface Dice at 2 mm (nominal)", "surface_dice_2mm")):
        low, high = report[key]["interval"]
        assert f"* {name}: {report[key]['mean']:.3f} ({low:.3f} to {high:.3f})" in text
    for each in report["by_institution"]:
        span = "–" if each["interval"] is None else "{:.3f} to {:.3f}".format(*each["interval"])
        assert f"| {each['institution']} | {each['n']} | {each['mean']:.3f} | {span} | {each['worst']:.3f} |" in text
