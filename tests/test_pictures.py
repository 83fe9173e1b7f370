"""Pictures on the canvas and back; networks by their card; the two tasks on pictures learn what they are shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipelines.models.certainty import familiar, probabilities, strangeness
from pipelines.models.mobile import Conv
from pipelines.models.precision import half_pays
from pipelines.models.shipped import ModelCard, Networks
from pipelines.models.store import DamagedWeights, tensors_of
from pipelines.pictures import Look
from pipelines.training import calibrate, loop, ship_pictures
from pipelines.training.augment import Augment, augmented
from pipelines.training.cases import fold_of
from pipelines.training.examples import Examples
from pipelines.training.loop import Options
from pipelines.training.metrics import auroc, dice
from pipelines.training.pack import facts_of
from pipelines.training.picture_tasks import Classify, Outline, balanced
from pipelines.training.teaching import UnfitTeacher, taught

STILL = Augment(turn=0, size=0, shift=0, gamma=0, gain=0, noise=0, blur=0)
OPTIONS = Options(batch=8, rate=2e-3, average=0.9, checks=2, epochs=8, fold=0)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def discs(count: int = 40, size: int = 64) -> Examples:
    """Grey noise; every other picture has a bright disc, which is outlined."""
    rng = np.random.default_rng(0)
    images = rng.integers(60, 100, (count, 1, size, size)).astype(np.uint8)
    masks = np.zeros((count, 1, size, size), bool)
    row, column = np.mgrid[:size, :size]
    for place in range(0, count, 2):
        top, left = rng.integers(20, size - 20, 2)
        masks[place, 0] = np.hypot(row - top, column - left) < 12
    images[masks] += 120
    labels = masks.any(axis=(1, 2, 3)).astype(np.float32)[:, None]
    rows = tuple({"patient_id": f"P{place}", "sop_uid": f"1.{place}"} for place in range(count))
    return Examples(torch.from_numpy(images), torch.from_numpy(labels), torch.from_numpy(masks), rows)


def classify(examples: Examples, options: Options = OPTIONS) -> Classify:
    return Classify(examples, options, STILL, "squeeze_classifier", {"channels": 1, "outputs": 1}, ("disc",))


def outline(examples: Examples, options: Options = OPTIONS) -> Outline:
    args = {"channels": 1, "widths": [8, 16, 24, 32], "outputs": 1}
    return Outline(examples, options, STILL, "residual", args, ("disc",))


@pytest.mark.parametrize("shape", [(100, 200), (200, 100), (64, 64), (37, 111)])
@pytest.mark.parametrize("stretch", [False, True])
def test_what_is_drawn_on_the_canvas_comes_back_to_its_place(shape: tuple[int, int], stretch: bool) -> None:
    look = Look((64, 96), stretch=stretch)
    mask = np.zeros(shape, bool)
    mask[shape[0] // 4 : shape[0] // 2, shape[1] // 3 : 2 * shape[1] // 3] = True
    seen = look.at(mask.astype(np.float32))
    back = seen.back(look.mask_at(mask)[None].float())[0] > 0.5
    assert back.shape == shape
    assert 2 * (back & mask).sum() / (back.sum() + mask.sum()) > 0.9


def test_a_picture_keeps_its_proportions_unless_it_is_stretched() -> None:
    assert Look((64, 64)).at(np.ones((50, 100), np.float32)).place == (16, 0, 32, 64)
    assert Look((64, 64), stretch=True).at(np.ones((50, 100), np.float32)).place == (0, 0, 64, 64)


def test_a_window_says_what_is_black_and_what_is_white() -> None:
    picture = np.array([[-100.0, 0.0], [40.0, 200.0]], np.float32)
    image = Look((2, 2), window=(0, 80)).at(picture).image[0]
    assert image.tolist() == [[0.0, 0.0], [0.5, 1.0]]


def test_grey_is_shown_to_a_colour_network_and_colour_to_a_grey_one() -> None:
    assert Look((8, 8), colour=True).at(np.eye(8, dtype=np.float32)).image.shape == (3, 8, 8)
    assert Look((8, 8)).at(np.zeros((8, 8, 3), np.uint8)).image.shape == (1, 8, 8)


def test_masks_move_with_their_pictures() -> None:
    images = torch.zeros(6, 1, 64, 64)
    images[:, :, 20:44, 28:40] = 1
    torch.manual_seed(1)
    still = replace(STILL, turn=40, size=0.2, shift=0.1, mirror=True, flip=True, bend=0.02)
    moved, masks = augmented(images, images.clone(), still)
    assert not torch.equal(masks, images)
    assert ((moved > 0.5) == masks.bool()).float().mean() > 0.99


def test_a_side_stays_a_side_unless_mirroring_is_asked_for() -> None:
    images = torch.zeros(16, 1, 32, 32)
    images[..., :12] = 1
    moved, _ = augmented(images, torch.zeros(16, 0, 32, 32), Augment(mirror=False))
    assert (moved[..., :16].mean((1, 2, 3)) > moved[..., 16:].mean((1, 2, 3))).all()


def test_rare_kinds_are_drawn_more_often() -> None:
    often = balanced(torch.tensor([[1.0], [0.0], [0.0], [0.0]]), 1.0)
    assert often.tolist() == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3])


def test_a_classifier_learns_to_tell_discs_from_none(tmp_path: Path) -> None:
    options = replace(OPTIONS, rate=5e-4, epochs=20)
    result = loop.fit(classify(discs(), options), tmp_path, options)
    assert result.best is not None
    assert result.best > 0.9


def test_from_scratch_the_features_learn_with_norms_and_ship_without(tmp_path: Path) -> None:
    task = replace(classify(discs(12), replace(OPTIONS, epochs=2)), kind="mobile_classifier")
    whole = loop.fit(task, tmp_path / "whole", task.options)
    loop.fit(task, tmp_path / "killed", replace(task.options, epochs=1))
    file = tmp_path / "killed" / "checkpoint.pt"
    assert any(name.endswith("norm.running_var") for name in torch.load(file, weights_only=True)["net"])
    resumed = loop.fit(task, tmp_path / "killed", task.options, resume=True)
    assert resumed.steps == whole.steps
    task.network().load_state_dict(load_file(resumed.weights))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_classifier_learns_on_a_gpu_too(tmp_path: Path) -> None:
    options = replace(OPTIONS, device="cuda")
    result = loop.fit(classify(discs(), options), tmp_path, options)
    assert result.best is not None
    assert result.best > 0.95


def test_a_mobile_net_halves_as_its_weights_were_trained_to() -> None:
    halving = Conv(1, 1, kernel=3, stride=2)
    torch.nn.init.ones_(halving[0].weight)
    torch.nn.init.zeros_(halving[0].bias)
    corner = torch.zeros(1, 1, 4, 4)
    corner[..., 0, 0] = corner[..., 3, 3] = 1.0
    assert halving(corner)[0, 0].tolist() == [[1, 0], [0, 1]]  # nothing is added above and on the left


def test_wider_kernels_of_a_lite_net_halve_as_their_weights_were_trained_to() -> None:
    halving = Conv(1, 1, kernel=5, stride=2)
    torch.nn.init.ones_(halving[0].weight)
    torch.nn.init.zeros_(halving[0].bias)
    corner = torch.zeros(1, 1, 8, 8)
    corner[..., 0, 0] = 1.0
    assert halving(corner)[0, 0].tolist() == [[1, 0, 0, 0], *[[0, 0, 0, 0]] * 3]  # a row is added above, two below


def test_an_outliner_learns_to_outline_discs(tmp_path: Path) -> None:
    options = replace(OPTIONS, rate=5e-3, epochs=24)
    result = loop.fit(outline(discs(), options), tmp_path, options)
    assert result.best is not None
    assert result.best > 0.8


class TwoClues:
    """One pixel tells the answer by a hair's breadth and always; the other by far and mostly."""

    measure, facts, batches = "none", {}, 8

    def network(self) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 1))

    def draw(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng(step)
        truth = rng.integers(0, 2, 64)
        faint, plain = 0.02 * (2 * truth - 1), 0.15 * (2 * truth - 1) + rng.normal(0, 0.1, 64)
        images = np.stack([faint, plain], axis=1).astype(np.float32).reshape(64, 1, 1, 2)
        return torch.from_numpy(images), torch.from_numpy(truth.astype(np.float32))[:, None]

    def loss(self, outputs: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.binary_cross_entropy_with_logits(outputs.float(), truth)

    def judge(self, _: torch.nn.Module) -> None:
        return None


def test_hardened_networks_do_not_rely_on_what_an_attack_can_turn(tmp_path: Path) -> None:
    relied = {}
    for hardened in (0.0, 0.03):
        options = replace(OPTIONS, rate=0.1, weight_decay=0.0, epochs=50, hardened=hardened)
        weights = loop.fit(TwoClues(), tmp_path / str(hardened), options).weights
        assert facts_of(weights).get("hardened", "0.0") == str(hardened)
        faint, plain = tensors_of(weights)["1.weight"][0].tolist()
        assert plain > 1
        relied[hardened] = faint / plain
    assert relied[0.0] > 1
    assert abs(relied[0.03]) < 0.3


def test_a_teacher_outlines_pictures_that_nobody_did(tmp_path: Path) -> None:
    outlined, labelled = discs().at(range(30)), discs(80, 64).at(range(40, 80))
    options = replace(OPTIONS, epochs=60, rate=8e-3)  # until it is sure
    task = outline(outlined, options)
    teacher = loop.fit(task, tmp_path, options).weights
    bare = replace(labelled, masks=torch.zeros_like(labelled.masks))
    made = taught(task, bare, teacher)
    fold = {row["patient_id"] for row in bare.rows if fold_of(row["patient_id"]) == OPTIONS.fold}
    learnt = made.task.examples.at(range(30, len(made.task.examples)))
    assert fold
    assert not fold & set(learnt.patients)  # what judges is not learnt from
    assert made.asked / 2 < made.kept <= made.asked
    truth = {row["patient_id"]: mask for row, mask in zip(labelled.rows, labelled.masks, strict=True)}
    scores = [dice(m.numpy(), truth[p].numpy()) for p, m in zip(learnt.patients, learnt.masks, strict=True) if m.any()]
    assert np.mean(scores) > 0.8
    other = replace(task, options=replace(OPTIONS, fold=1))
    with pytest.raises(UnfitTeacher, match="did not leave out the fold 1"):
        taught(other, bare, teacher)


def test_a_run_from_other_weights_goes_on_without_them(tmp_path: Path) -> None:
    options = replace(OPTIONS, epochs=2)
    init = loop.fit(classify(discs(), options), tmp_path / "init", replace(options, epochs=1)).weights
    task, out = classify(discs(), options), tmp_path / "run"

    def stop(now: loop.Progress) -> None:
        if now.score is not None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.fit(task, out, options, init=init, progress=stop)
    resumed = loop.fit(task, out, options, resume=True).weights
    whole = loop.fit(task, tmp_path / "whole", options, init=init).weights
    assert load_file(resumed).keys() == load_file(whole).keys()
    assert all(torch.equal(value, load_file(whole)[name]) for name, value in load_file(resumed).items())
    assert facts_of(resumed) == facts_of(whole)
    assert len(facts_of(whole)["init_sha256"]) == 64


def test_labels_that_nobody_gave_have_no_say() -> None:
    task = classify(discs())
    logits = torch.tensor([[3.0], [-50.0]])
    assert task.loss(logits, torch.tensor([[1.0], [float("nan")]])) == task.loss(logits[:1], torch.tensor([[1.0]]))


def test_auroc_is_the_share_of_pairs_in_the_right_order() -> None:
    scores, truth = np.array([0.1, 0.4, 0.4, 0.9, 7.0]), np.array([0.0, 0.0, 1.0, 1.0, np.nan])
    assert auroc(scores, truth) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert auroc(scores[:2], truth[:2]) is None


def test_calibrated_probabilities_say_how_often_it_is_so() -> None:
    torch.manual_seed(0)
    chance = torch.rand(4000, 1)
    labels = (torch.rand(4000, 1) < chance).float()
    overconfident = torch.logit(chance, eps=1e-6) * 3 + 1
    points = calibrate.calibrated(overconfident, labels, exclusive=False)
    assert (probabilities(overconfident, points) - chance).abs().mean() < 0.03


def test_a_cutoff_reaches_the_sensitivity_that_was_asked_for() -> None:
    scores = np.linspace(0, 1, 101)
    truth = (scores > 0.3).astype(float)
    assert calibrate.cutoff(scores, truth) == pytest.approx(0.305)
    assert (scores[truth > 0] >= calibrate.cutoff(scores, truth, sensitivity=0.9)).mean() >= 0.9


def test_what_lies_far_from_the_training_is_strange() -> None:
    torch.manual_seed(0)
    features, images = torch.randn(500, 64) @ torch.randn(64, 64), torch.rand(500, 1, 32, 32)
    known = familiar(features[:400], images[:400], (features[400:], images[400:]))
    assert float(strangeness(features[400:], images[400:], known).mean()) < 1
    assert float(strangeness(features[:1] + 40, images[:1], known)) > 3


class _Shipped:
    """A classifier and an outliner of discs in one file."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tasks = {"class": classify(discs()), "outline": outline(discs())}
        monkeypatch.setattr(ship_pictures, "_task", lambda _pipeline, part, _fold, _splits: tasks[part.role])
        parts = []
        for role, task in tasks.items():
            weights = loop.fit(task, folder / role, replace(OPTIONS, epochs=2)).weights
            parts.append(ship_pictures.Part(role, folder, folder, {0: weights}))
        self.card = folder / "discs-1.0.0.json"
        quality = {"discs class": {"quality": {"light": [0.2, 0.6]}}}
        self.said = ship_pictures.ship("discs", parts, self.card, version="1.0.0", quality=quality)
        self.folder = folder


def test_what_ships_says_what_its_members_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = _Shipped(tmp_path, monkeypatch)
    card = ModelCard.read(shipped.card)
    networks = Networks(card, shipped.card.with_suffix(".safetensors"), device="cpu")
    images = discs().images[:6].float() / 255
    net = classify(discs()).network().eval()
    net.load_state_dict({k: v.float() for k, v in load_file(tmp_path / "class" / "weights.safetensors").items()})
    with torch.inference_mode():
        near = 0.01 if half_pays() else 1e-4  # bfloat16 has eight bits
        assert torch.allclose(networks.logits("class", images)[0], net(images), atol=near)
    assert networks.logits("outline", images, batch=4).shape == (1, 6, 1, 64, 64)
    assert card.points["class"]["classes"] == ["disc"]
    assert card.points["class"]["quality"] == {"light": [0.2, 0.6]}
    assert set(card.points["outline"]["thresholds"]) == {"disc"}
    assert set(networks.beside("class")) == {"mean", "axes", "texture_mean", "texture_axes", "usual"}
    assert shipped.said["class"]["n"] == len(classify(discs()).judged)


def test_a_card_that_lies_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = _Shipped(tmp_path, monkeypatch)
    weights = shipped.card.with_suffix(".safetensors")
    held = json.loads(shipped.card.read_text())
    card = ModelCard.read(shipped.card)
    other = tmp_path / "other.json"
    for change, said in (
        ({"networks": [{"role": "class", "kind": "gpt", "args": {}}]}, "names the network 'gpt'"),
        ({"sha256": "0"}, "not a SHA-256"),
        ({"points": None}, "in another form"),
    ):
        other.write_text(json.dumps(held | change))
        with pytest.raises(DamagedWeights, match=said):
            ModelCard.read(other)
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    with pytest.raises(DamagedWeights, match="damaged"):
        Networks(card, weights)
