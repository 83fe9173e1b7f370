"""Weights out of studies without labels: they are learnt, they resume, they fit, and they keep to their fold."""

from __future__ import annotations

import copy
import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom import dcmread
from safetensors import safe_open
from torch import nn

from pipelines.models import store
from pipelines.models.kinds import KINDS
from pipelines.models.norms import Normed, normed, plain
from pipelines.synthetic import brain_mr
from pipelines.training import pretrain as pretraining
from pipelines.training.augment import Augment
from pipelines.training.cases import fold_of
from pipelines.training.examples import Examples, joined
from pipelines.training.loop import Options, OtherRun, Progress
from pipelines.training.picture_tasks import Classify, NoSuchNetwork, Outline
from pipelines.training.prepare import NoLabels
from pipelines.training.pretrain import NothingToPrepare, pretrain
from pipelines.training.recipes import Recipe, Sources, recipe
from pipelines.training.unlabelled import Recognise, Restore, contrast, hide, stronger
from tests.test_cli import run

ARGS = {"channels": 1, "outputs": 2}
OUTLINER = {"channels": 1, "outputs": 1, "inner": [8, 8, 8, 8], "deepest": 16}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pictures(count: int = 24) -> Examples:
    """Stripes, each patient's of another width and brightness; two pictures a patient."""
    columns = torch.arange(32)
    images = torch.stack([(((columns // (1 + n // 2 % 6)) % 2) * (100 + 5 * n)).expand(32, 32) for n in range(count)])
    rows = tuple({"patient_id": f"P{n // 2}", "sop_uid": f"1.2.{n}"} for n in range(count))
    return Examples(
        images[:, None].to(torch.uint8), torch.zeros(count, 0), torch.zeros(count, 0, 32, 32, dtype=torch.bool), rows
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes whose pictures are small and at hand: one says what is there, one outlines."""

    def classify(_: Sources, options: Options) -> Classify:
        return Classify(pictures(), options, Augment(mirror=True), "squeeze_classifier", ARGS, ("a", "b"))

    def outline(_: Sources, options: Options) -> Outline:
        return Outline(pictures(), options, Augment(), "squeeze_outliner", OUTLINER, ("a",))

    made = {None: Recipe(Options(network="squeeze_classifier"), classify), "outline": Recipe(Options(), outline)}
    monkeypatch.setattr(pretraining, "recipe", lambda _, part: made[part])


def facts_of(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as held:
        return dict(held.metadata())


@pytest.mark.parametrize("kind", ["mobile_classifier", "squeeze_classifier"])
def test_norms_come_and_go_without_a_change_of_the_answers(kind: str) -> None:
    torch.manual_seed(0)
    net = KINDS[kind](**ARGS, dropout=0.0).eval()
    x = torch.rand(6, 1, 64, 64)
    wanted, shapes = net(x), {name: each.shape for name, each in net.state_dict().items()}
    kept = normed(copy.deepcopy(net), kept=True).train()
    assert torch.allclose(kept(x), wanted, atol=1e-5)
    assert torch.allclose(kept.eval()(x), wanted, atol=1e-5)
    assert {name: each.shape for name, each in plain(kept).state_dict().items()} == shapes
    assert torch.allclose(kept(x), wanted, atol=1e-5)
    scratch = normed(copy.deepcopy(net)).train()
    for _ in range(3):
        scratch(torch.rand(6, 1, 64, 64))  # its statistics go where the pictures lead
    learnt = scratch.eval()(x)
    assert not torch.allclose(learnt, wanted, atol=1e-3)
    assert torch.allclose(plain(scratch)(x), learnt, rtol=1e-3, atol=1e-4)
    assert not any(isinstance(each, Normed | nn.BatchNorm2d) for each in scratch.modules())


def test_a_picture_is_told_from_strangers_and_not_from_its_own_patient() -> None:
    one, other = torch.eye(4)[[0, 1]], torch.eye(4)[[0, 1]]
    found = contrast(torch.cat((one, other)), torch.tensor([0, 1, 0, 1]))
    lost = contrast(torch.cat((one, other.flip(0))), torch.tensor([0, 1, 0, 1]))
    assert found < 0.05 < 2 < lost
    alike = torch.eye(4)[[0, 0, 1]].repeat(2, 1)  # the first two are one patient
    groups = torch.tensor([0, 0, 1, 0, 0, 1])
    assert contrast(alike, groups) < 0.05
    assert contrast(alike, torch.arange(3).repeat(2)) > 0.3


def test_what_is_hidden_is_hidden_and_the_rest_is_not() -> None:
    images = torch.rand(4, 1, 64, 48)
    covered, hidden = hide(images, seed=1)
    where = hidden.bool().expand_as(images)
    assert 0.2 < where.float().mean() < 0.8
    assert torch.equal(covered[~where], images[~where])
    assert all(len(covered[n][where[n]].unique()) == 1 for n in range(4))
    assert torch.equal(hide(images, seed=1)[1], hidden)


def test_stronger_changes_break_no_laterality() -> None:
    for mirror in (False, True):
        made = stronger(Augment(mirror=mirror, turn=7))
        assert (made.mirror, made.flip, made.turn) == (mirror, False, 7)


def test_features_are_learnt_without_labels_and_a_training_starts_from_them(tmp_path: Path, small: None) -> None:
    seen: list[Progress] = []
    made = pretrain("xc_skin", [tmp_path], tmp_path / "out", epochs=40, fold=0, progress=seen.append)
    judged = sum(fold_of(f"P{n}") == 0 for n in range(12)) * 2
    assert (made.pictures, made.steps) == (24 - judged, 40)
    assert seen[-1].share == 1.0
    losses = [each.loss for each in seen]
    assert np.mean(losses[-3:]) < 0.95 * losses[0]
    assert (tmp_path / "out" / "curve.png").stat().st_size > 1e3
    facts = facts_of(made.weights)
    assert facts["pretrained"] == "xc_skin"
    assert (facts["fold"], facts["task"], facts["pictures"]) == ("0", "recognise", str(24 - judged))
    tensors = store.tensors_of(made.weights)
    assert all(name.startswith("features.") for name in tensors)
    net = KINDS["squeeze_classifier"](**ARGS)
    before = net.head.weight.clone()
    given = store.initialise(net, made.weights)
    assert given == set(tensors) == {name for name in net.state_dict() if name.startswith("features.")}
    assert torch.equal(net.head.weight, before)
    assert all(each.isfinite().all() for each in tensors.values())


def test_a_network_that_outlines_restores_and_gives_its_decoder_too(tmp_path: Path, small: None) -> None:
    made = pretrain("us_breast", [tmp_path], tmp_path / "out", part="outline", epochs=4, fold=0)
    assert facts_of(made.weights)["task"] == "restore"
    net = KINDS["squeeze_outliner"](**OUTLINER)
    given = store.initialise(net, made.weights)
    assert {name for name in net.state_dict() if name not in given} == {
        name for name in net.state_dict() if ".heads." in name
    }
    again = pretrain("us_breast", [tmp_path], tmp_path / "more", part="outline", epochs=1, init=str(made.weights))
    assert facts_of(again.weights)["init_sha256"]


def test_a_run_that_was_stopped_goes_on_and_gives_the_same_weights(tmp_path: Path, small: None) -> None:
    whole = pretrain("xc_skin", [tmp_path], tmp_path / "whole", epochs=4, fold=0)

    def stop(now: Progress) -> None:
        if now.share >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain("xc_skin", [tmp_path], tmp_path / "part", epochs=4, fold=0, progress=stop)
    part = pretrain("xc_skin", [tmp_path], tmp_path / "part", epochs=4, fold=0, resume=True)
    resumed, wanted = store.tensors_of(part.weights), store.tensors_of(whole.weights)
    assert resumed.keys() == wanted.keys()
    assert all(torch.equal(resumed[name], wanted[name]) for name in wanted)
    with pytest.raises(OtherRun):
        pretrain("xc_skin", [tmp_path], tmp_path / "part", epochs=10, fold=1, resume=True)


def test_what_has_no_features_is_refused(tmp_path: Path, small: None) -> None:
    with pytest.raises(NothingToPrepare, match="residual has no features"):
        pretrain("xc_skin", [tmp_path], tmp_path / "out", network="residual", epochs=1)
    with pytest.raises(NoSuchNetwork, match="there is no network 'resnet'; there are"):
        pretrain("xc_skin", [tmp_path], tmp_path / "out", network="resnet", epochs=1)
    with pytest.raises(NoSuchNetwork, match="squeeze_detector cannot stand here"):
        pretrain("xc_skin", [tmp_path], tmp_path / "out", network="squeeze_detector", epochs=1)


def test_pictures_of_several_folders_are_put_together() -> None:
    both = joined([pictures(4), pictures(6)])
    assert len(both) == 10
    assert both.patients == (*pictures(4).patients, *pictures(6).patients)


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic patients, without an index, and a file that is no DICOM among them."""
    folder = tmp_path_factory.mktemp("slices")
    for number in range(3):
        brain_mr(folder / f"p{number}", seed=number, lesion=None, slices=10, patient=f"SYN-{number:04d}")
    (folder / "notes.txt").write_text("no DICOM")
    return folder


def test_a_folder_needs_neither_index_nor_labels(slices: Path, tmp_path: Path) -> None:
    said: list[str] = []
    sources = Sources(slices, slices, tmp_path, ("train",), said.append, labelled=False)
    found = recipe("mr_brain_type").task(sources, Options(fold=None)).examples  # type: ignore[attr-defined]
    assert len(found) == len(list(slices.rglob("*.dcm")))
    assert set(found.patients) == {f"SYN-{number:04d}" for number in range(3)}
    assert any("notes.txt is left out" in each for each in said)


def test_of_an_index_only_the_rows_of_the_split_are_seen(slices: Path, tmp_path: Path) -> None:
    files = sorted(slices.rglob("*.dcm"))[:6]
    (tmp_path / "set").mkdir()
    with (tmp_path / "set" / "index.csv").open("w", newline="") as index:
        writer = csv.writer(index)
        writer.writerow(("sop_uid", "file", "patient_id", "split"))
        for place, file in enumerate(files):
            (tmp_path / "set" / file.name).write_bytes(file.read_bytes())
            uid = dcmread(file, stop_before_pixels=True).SOPInstanceUID
            writer.writerow((uid, file.name, f"P{place}", "dev" if place == 0 else "train"))
    sources = Sources(tmp_path / "set", tmp_path, tmp_path / "cache", ("train",), lambda _: None, labelled=False)
    found = recipe("xc_skin").task(sources, Options(fold=None)).examples  # type: ignore[attr-defined]
    assert found.patients == ("P1", "P2", "P3", "P4", "P5")


def test_the_command_makes_weights_that_the_next_command_takes(slices: Path, tmp_path: Path) -> None:
    given = (
        "--network",
        "squeeze_classifier",
        "--side",
        "32",
        "--epochs",
        "1",
        "--fold",
        "none",
        "--out",
        tmp_path / "run",
    )
    answer = run("pretrain", "mr_brain_type", "--data", slices, *given, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    made = tmp_path / "run" / "pretrained.safetensors"
    assert str(made) in answer.stdout.replace("\n", "")
    assert facts_of(made)["fold"] == "none"
    assert store.initialise(KINDS["squeeze_classifier"](channels=1, outputs=4), made)


def test_a_folder_without_pictures_is_named(slices: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    with pytest.raises(NoLabels, match="holds no DICOM pictures"):
        pretrain("xc_skin", [tmp_path / "bare"], tmp_path / "out", epochs=1)
    answer = run("pretrain", "xc_skin", "--data", tmp_path / "bare", "--out", tmp_path / "out", cwd=tmp_path)
    assert answer.returncode == 1
    assert "holds no DICOM pictures" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_where_nobody_is_kept_apart_nothing_is_judged() -> None:
    of = Classify(pictures(), Options(fold=0), Augment(), "squeeze_classifier", ARGS, ("a", "b"))
    for task in (Recognise(of, Options(fold=None)), Restore(of, Options(fold=None))):
        assert task.judge(nn.Identity()) is None
