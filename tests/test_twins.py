"""Twins: the same network from other weights and from scratch, on nested shares of the patients."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.models import store
from pipelines.models.kinds import KINDS
from pipelines.training import twins
from pipelines.training.augment import Augment
from pipelines.training.cases import fold_of
from pipelines.training.examples import Examples
from pipelines.training.frozen import drawn, fitted
from pipelines.training.loop import Options
from pipelines.training.picture_tasks import Classify, Outline
from pipelines.training.recipes import Recipe, Sources
from pipelines.training.twins import SCRATCH, BadPlan, Plan, Start, compare, within

ARGS = {"channels": 1, "outputs": 1}
PLAN = Plan(shares=(0.5, 1.0), seeds=(0, 1), steps=4, fold=0)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pictures(count: int = 60) -> Examples:
    """Bright ones and dark ones, of two a patient."""
    labels = torch.arange(count).remainder(2).float()[:, None]
    images = (labels[:, :, None, None] * 100 + 60 + torch.zeros(count, 1, 32, 32)).to(torch.uint8)
    rows = tuple({"patient_id": f"P{place // 2}", "sop_uid": f"1.2.{place}"} for place in range(count))
    return Examples(images, labels, torch.zeros(count, 0, 32, 32, dtype=torch.bool), rows)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe whose pictures are small."""

    def task(_: Sources, options: Options) -> Classify:
        return Classify(pictures(), options, Augment(), "squeeze_classifier", ARGS, ("bright",))

    monkeypatch.setattr(twins, "recipe", lambda *_: Recipe(Options(batch=8), task))


@pytest.fixture
def init(tmp_path: Path) -> str:
    file = tmp_path / "init.safetensors"
    store.save(KINDS["squeeze_classifier"](**ARGS), file, {})
    return str(file)


@pytest.fixture
def ours(tmp_path: Path) -> str:
    """Weights that say which fold they have not seen."""
    file = tmp_path / "ours.safetensors"
    store.save(KINDS["squeeze_classifier"](**ARGS), file, {"fold": "0"})
    return f"made here={file}"


def test_twins_are_trained_and_compared_and_what_is_done_is_not_done_again(
    tmp_path: Path, small: None, init: str, ours: str
) -> None:
    def run() -> dict[str, Any]:
        return compare("xc_skin", tmp_path, tmp_path / "out", labels=tmp_path, inits=[init, ours], plan=PLAN)

    report = run()
    assert report == json.loads((tmp_path / "out" / "twins.json").read_text())
    assert (tmp_path / "out" / "twins.png").stat().st_size > 1000
    runs = report["runs"]
    assert [(one["share"], one["seed"], one["start"]) for one in runs] == [
        (share, seed, start) for share in (0.5, 1.0) for seed in (0, 1) for start in (SCRATCH, "init", "made here")
    ]
    assert (
        runs[0]["patients"] < runs[-1]["patients"] == 30 - len({fold for fold in range(30) if fold_of(f"P{fold}") == 0})
    )
    pairs = [("init", SCRATCH), ("made here", SCRATCH), ("made here", "init")]
    assert [(row["start"], row["beside"]) for row in report["differences"]] == 2 * pairs
    for row in report["differences"]:
        of = {(one["seed"], one["start"]): one["score"] for one in runs if one["share"] == row["share"]}
        each = [of[seed, row["start"]] - of[seed, row["beside"]] for seed in (0, 1)]
        assert row["difference"] == pytest.approx(sum(each) / 2, abs=1e-4)
        assert row["low"] <= row["difference"] <= row["high"]
    assert run() == report  # seconds and all: it was not trained again


def test_pictures_may_be_smaller_and_are_so_for_all(tmp_path: Path, small: None, init: str) -> None:
    plan = replace(PLAN, shares=(1.0,), side=16)
    assert compare("xc_skin", tmp_path, tmp_path / "out", labels=tmp_path, inits=[init], plan=plan)["rows"] == 16
    assert pictures().at_most(16).images.shape == (60, 1, 16, 16)
    assert pictures().at_most(64) is not None
    assert torch.equal(pictures().at_most(64).images, pictures().images)


def test_the_last_layer_may_learn_alone_and_each_seed_draws_its_patients(
    tmp_path: Path, small: None, init: str
) -> None:
    plan = replace(PLAN, frozen=True, seeds=(0, 1, 2))
    report = compare("xc_skin", tmp_path, tmp_path / "out", labels=tmp_path, inits=[init], plan=plan)
    assert len(report["runs"]) == 2 * 3 * 2
    scores = [one["score"] for one in report["runs"] if one["start"] == SCRATCH]
    assert min(scores) > 0.9  # bright or dark is told by any features
    assert report == json.loads((tmp_path / "out" / "twins.json").read_text())
    places = [drawn(pictures(), 0.5, seed) for seed in (0, 1)]
    assert places[0] != places[1]
    assert all(len(each) == 30 for each in places)
    assert drawn(pictures(), 0.5, 0) == places[0]


def test_a_layer_is_fitted_to_what_is_known_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 4, generator=generator) * 5 + 30
    labels = (features[:, :2] > 30).float()
    labels[::2, 1] = float("nan")
    layer = fitted(features, labels, exclusive=False)
    right = (layer(features) > 0) == (features[:, :2] > 30)
    assert right.float().mean() > 0.9


def test_an_outlining_network_has_no_last_layer_to_learn_alone(
    tmp_path: Path, init: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = {"channels": 1, "outputs": 1, "inner": [8, 8, 8, 8], "deepest": 16}
    monkeypatch.setattr(
        twins,
        "recipe",
        lambda *_: Recipe(
            Options(batch=8),
            lambda _, options: Outline(pictures(), options, Augment(), "squeeze_outliner", args, ("a",)),
        ),
    )
    with pytest.raises(BadPlan, match="no last layer"):
        compare(
            "us_breast", tmp_path, tmp_path / "out", labels=tmp_path, inits=[init], plan=replace(PLAN, frozen=True)
        )  # fmt: skip


def test_a_start_has_a_name(init: str, tmp_path: Path) -> None:
    assert Start.parse(init).name == "init"
    assert Start.parse(f"ImageNet={init}").name == "ImageNet"
    digest = Start.parse(init).digest
    assert Start.parse(f"a name={init}@{digest}") == Start("a name", f"{init}@{digest}", digest)
    odd = tmp_path / "a=b.safetensors"
    odd.write_bytes(Path(init).read_bytes())
    assert Start.parse(str(odd)).name == "a=b"


def test_weights_that_have_seen_the_fold_do_not_compete(tmp_path: Path, small: None, ours: str) -> None:
    with pytest.raises(BadPlan, match="did not leave out the fold 1"):
        compare(
            "xc_skin", tmp_path, tmp_path / "out", labels=tmp_path, inits=[ours], plan=replace(PLAN, fold=1)
        )  # fmt: skip


def test_two_starts_of_one_name_are_refused(tmp_path: Path, small: None, init: str) -> None:
    with pytest.raises(BadPlan, match="one name"):
        compare("xc_skin", tmp_path, tmp_path / "out", labels=tmp_path, inits=[init, init], plan=PLAN)


def test_a_smaller_share_is_within_a_larger_and_the_fold_that_judges_stays_whole() -> None:
    shares = [set(within(pictures(200), share, 0).patients) for share in (0.1, 0.3, 1.0)]
    assert shares[0] < shares[1] < shares[2] == set(pictures(200).patients)
    judged = {patient for patient in shares[2] if fold_of(patient) == 0}
    assert judged
    assert all(judged <= share for share in shares)


@pytest.mark.parametrize(
    ("plan", "said"),
    [(replace(PLAN, seeds=(0,)), "two seeds"), (replace(PLAN, shares=(0.001,)), "too few to learn from")],
    ids=["one seed", "hardly a patient"],
)
def test_a_comparison_that_would_say_nothing_is_refused(
    tmp_path: Path, small: None, init: str, plan: Plan, said: str
) -> None:
    with pytest.raises(BadPlan, match=said):
        compare("xc_skin", tmp_path, tmp_path / "out", labels=tmp_path, inits=[init], plan=plan)


def test_weights_that_are_not_there_are_named(tmp_path: Path, small: None) -> None:
    with pytest.raises(ValueError, match="there is no such file to start from"):
        compare("xc_skin", tmp_path, tmp_path / "out", labels=tmp_path, inits=["nowhere"], plan=PLAN)
