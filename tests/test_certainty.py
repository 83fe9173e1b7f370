"""What is unlike the training is not read: a classifier, trained for a few steps and shipped, is shown nonsense."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter

from pipelines.base import Finding, WithheldStudy
from pipelines.classifier import Classifier
from pipelines.evidence import codes
from pipelines.models.certainty import familiar, strangeness, undecided
from pipelines.models.squeeze import SqueezeClassifier
from pipelines.pictures import Look
from pipelines.study import read_files
from pipelines.training import calibrate, loop, ship_pictures
from pipelines.training.augment import Augment
from pipelines.training.examples import Examples
from pipelines.training.loop import Options
from pipelines.training.picture_tasks import Classify
from tests.slices import saved, slice_of

SIZE = 64
LOOK = Look((SIZE, SIZE), window=(0, 255))
OPTIONS = Options(batch=8, rate=5e-4, average=0.9, checks=1, epochs=1, fold=0)
_ROW, _COLUMN = np.mgrid[:SIZE, :SIZE]
NONSENSE = {
    "black": np.zeros((SIZE, SIZE)),
    "grey": np.full((SIZE, SIZE), 120.0),
    "white": np.full((SIZE, SIZE), 255.0),
    "noise": np.random.default_rng(5).uniform(0, 255, (SIZE, SIZE)),
    "fine stripes": 255.0 * (_COLUMN // 4 % 2),
    "broad stripes": 255.0 * (_ROW // 16 % 2),
    "a chequerboard": 255.0 * ((_ROW // 8 + _COLUMN // 8) % 2),
    "a ramp": 255.0 * _COLUMN / SIZE,
}


def clouds(count: int, seed: int) -> NDArray[np.uint8]:
    """(count, rows, columns): smooth and a little noisy, as tissue is; every other one has a disc."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=(count, SIZE, SIZE)), (0, 5, 5))
    pictures = 110 + 500 * smooth + rng.normal(0, 4, smooth.shape)
    for picture in pictures[::2]:
        top, left = rng.integers(16, SIZE - 16, 2)
        picture[np.hypot(_ROW - top, _COLUMN - left) < 8] += 60
    return pictures.clip(0, 255).astype(np.uint8)


def _alive(folder: Path) -> Path:
    """Weights to start from: by default they are so small that no picture gets through."""
    torch.manual_seed(0)
    net = SqueezeClassifier(1, 1)
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
    save_file(net.state_dict(), folder / "init.safetensors")
    return folder / "init.safetensors"


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, before = tmp_path_factory.mktemp("shipped"), torch.get_num_threads()
    torch.set_num_threads(1)
    count = 120
    labels = torch.tensor([[float(place % 2 == 0)] for place in range(count)])
    rows = tuple({"patient_id": f"P{place}", "sop_uid": f"1.{place}"} for place in range(count))
    masks = torch.zeros(count, 0, SIZE, SIZE, dtype=torch.bool)
    learnt = Examples(torch.from_numpy(clouds(count, 0))[:, None], labels, masks, rows)
    task = Classify(learnt, OPTIONS, Augment(), "squeeze_classifier", {"channels": 1, "outputs": 1}, ("disc",))
    weights = loop.fit(task, folder / "run", OPTIONS, init=_alive(folder)).weights
    card = folder / "clouds-1.0.0.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ship_pictures, "_task", lambda *_: task)
        ship_pictures.ship("clouds", [ship_pictures.Part("class", folder, folder, {0: weights})], card, version="1.0.0")
    torch.set_num_threads(before)
    return card


def read(card: Path, pixels: NDArray[np.float64] | NDArray[np.uint8], folder: Path) -> tuple[Finding, ...]:
    (study,), _ = read_files([saved(slice_of(1, pixels.astype(np.int16)), folder / "1.dcm")])
    (answer,) = Classifier(card, LOOK, device="cpu").read(
        study.series, lambda judged: [Finding(codes.LESION, present=False) for _ in judged]
    )
    return answer.findings


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_withheld(name: str, shipped: Path, tmp_path: Path) -> None:
    with pytest.raises(WithheldStudy, match="unlike the pictures of the training"):
        read(shipped, NONSENSE[name], tmp_path)


def test_new_pictures_of_the_kind_are_read(shipped: Path, tmp_path: Path) -> None:
    withheld = 0
    for place, picture in enumerate(clouds(20, seed=9)):
        try:
            assert len(read(shipped, picture, tmp_path / str(place))) == 1
        except WithheldStudy:
            withheld += 1
    assert withheld <= 1


def test_what_lies_off_the_axes_of_the_training_is_strange() -> None:
    torch.manual_seed(0)
    features = torch.zeros(400, 64)
    features[:, :16] = torch.randn(400, 16)
    features[:, 16:] = 0.01 * torch.randn(400, 48)
    images = torch.rand(400, 1, 32, 32)
    known = familiar(features[:300], images[:300], (features[300:], images[300:]), axes=16)
    assert strangeness(features[300:], images[300:], known).median() < 1
    off = features[300:].clone()
    off[:, 16:] += 0.1
    along_alone = {"mean": known["mean"], "axes": known["axes"]}
    assert strangeness(off, images[300:], along_alone).mean() == pytest.approx(1, abs=0.1)  # as cards had it once
    assert strangeness(off, images[300:], known).min() > 3


def test_a_card_without_what_is_usual_goes_by_the_axes_alone() -> None:
    features = torch.randn(200, 16)
    known = familiar(features, torch.rand(200, 1, 32, 32), (features, torch.rand(200, 1, 32, 32)))
    before = {name: known[name] for name in ("mean", "axes")}
    blank, noise = torch.zeros(1, 1, 32, 32), torch.rand(1, 1, 32, 32)
    assert strangeness(features[:1], blank, before) == strangeness(features[:1], noise, before)
    assert strangeness(features[:1], blank, known) > strangeness(features[:1], noise, known) + 3


def test_new_pictures_are_not_strange_to_a_network_that_answers_all_alike() -> None:
    features, images = torch.full((60, 8), 0.13), torch.rand(60, 1, 32, 32)
    known = familiar(features[:40], images[:40], (features[40:], images[40:]))
    shipped = {name: value.half().float() for name, value in known.items()}
    assert strangeness(features, images, shipped).max() < 2


def test_a_set_holds_the_truth_as_often_as_it_says_for_each_class() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random((4000, 1)) < 0.15).astype(float)  # rare, and told badly
    chances = 1 / (1 + np.exp(-(rng.normal(size=truth.shape) + 1.2 * truth - 2)))
    said = calibrate.covered(chances, truth, [str(each) for each in range(len(truth))])
    assert said["there"][0] == pytest.approx(0.9, abs=0.03)
    assert said["absent"][0] == pytest.approx(0.9, abs=0.03)
    assert said["undecided"][0] > 0.3
    told = calibrate.covered(np.where(truth > 0, 0.9, 0.1) + 0.01 * chances, truth, [str(i) for i in range(4000)])
    assert told["undecided"][0] < 0.15


def test_of_too_few_pictures_anything_may_be() -> None:
    bounds = calibrate.conformal(np.array([[0.9], [0.8], [0.1]]), np.array([[1.0], [1.0], [0.0]]))
    assert (bounds["there"], bounds["absent"]) == ([0.0], [0.0])
    points = {"classes": ["disc"], "sets": bounds}
    assert undecided([0.99], points) == ("disc",)
    assert undecided([0.99], {"classes": ["disc"]}) == ()


def test_what_is_undecided_is_said(shipped: Path, tmp_path: Path) -> None:
    held = json.loads(shipped.read_text())
    assert set(held["points"]["class"]["sets"]) == {"miss", "there", "absent"}
    for (there, absent), said in (((0.0, 0.0), True), ((0.0, 1.0), False)):
        held["points"]["class"]["sets"] |= {"there": [there], "absent": [absent]}
        shipped.with_name("other.json").write_text(json.dumps(held))
        shutil.copy(shipped.with_suffix(".safetensors"), shipped.with_name("other.safetensors"))
        (study,), _ = read_files([saved(slice_of(1, clouds(1, 9)[0].astype(np.int16)), tmp_path / "1.dcm")])
        (answer,) = Classifier(shipped.with_name("other.json"), LOOK, device="cpu").read(study.series, lambda _: [])
        notes = ("disc may be there or not on 1 of 1 images, to be right on 90% of either",)
        assert answer.notes == (notes if said else ())
