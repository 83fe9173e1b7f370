"""A site's own version of a classifier: made of its pictures alone, never in use by itself, and an ordinary model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from pydicom import dcmread
from torch import nn

from node.cli import wetread
from pipelines import registry
from pipelines.ct_head import HeadHaemorrhage
from pipelines.models.installed import Installed
from pipelines.study import read_folder
from pipelines.training.adapt import TRUST, Statistics, Unadaptable, aligned, carded_of, features_of
from tests.peers import ROOT, SHARED, needs_shared

needs_set = needs_shared("data", "head_ct_haemorrhage")


def test_a_shift_of_the_features_is_taken_away_as_far_as_the_pictures_can_be_trusted() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(16, 2)
    features = torch.randn(4000, 16, generator=generator)
    shifted = 1.5 * features + 3.0
    weight, bias = aligned(layer.weight, layer.bias, Statistics.of(features), Statistics.of(shifted))
    wanted = layer(features)
    before = (layer(shifted) - wanted).abs().mean()
    after = (shifted @ weight.T + bias - wanted).abs().mean()
    assert after < 0.1 * before
    few, many = (_moved(layer, features, shifted[:count]) for count in (int(TRUST), 4000))
    assert few == pytest.approx(many * 0.5 * (4000 + TRUST) / 4000, rel=0.15)


def _moved(layer: nn.Linear, reference: torch.Tensor, site: torch.Tensor) -> float:
    """How far the answer for the site's mean is moved towards that for the reference's, of the whole way."""
    before, now = Statistics.of(reference), Statistics(site.mean(0), reference.std(0), len(site))
    weight, bias = aligned(layer.weight, layer.bias, before, now)
    moved = site.mean(0) @ weight.T + bias - layer(site.mean(0))
    return float((moved / (layer(reference.mean(0)) - layer(site.mean(0)))).detach().mean())


def test_nothing_shifted_is_nothing_changed() -> None:
    layer = nn.Linear(8, 1)
    same = Statistics.of(torch.randn(500, 8))
    weight, bias = aligned(layer.weight, layer.bias, same, same)
    assert torch.allclose(weight, layer.weight, atol=1e-5)
    assert torch.allclose(bias, layer.bias, atol=1e-4)


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Slices of heads as the model was validated on, and the same from a site whose scanner is brighter."""
    place = tmp_path_factory.mktemp("sites")
    tool, source = SHARED / "tools" / "to_dicom.py", SHARED / "data" / "head_ct_haemorrhage"
    given = [sys.executable, str(tool), str(source), str(place / "reference"), "--split", "dev", "--limit", "20"]
    subprocess.run(given, check=True)
    shutil.copytree(place / "reference", place / "site")
    for file in (place / "site").rglob("*.dcm"):
        ds = dcmread(file)
        ds.RescaleIntercept = float(ds.RescaleIntercept) + 6
        ds.save_as(file)
    return place / "reference", place / "site"


def run(*given: object, settings: Path) -> str:
    answer = CliRunner().invoke(wetread, ["--settings", str(settings), *map(str, given)])
    assert answer.exit_code == 0, answer.stderr
    return answer.stdout


@needs_set
def test_a_package_is_made_imported_promoted_and_rolled_back(sites: tuple[Path, Path], tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(
        f'[node]\ndata = "{tmp_path / "data"}"\n[pipelines.ct_head]\nuse = "pipelines.ct_head:HeadHaemorrhage"\n'
    )
    reader = HeadHaemorrhage()
    carded = carded_of(reader)
    readable = [features_of(reader, read_folder(each)[0]) for each in sites]
    reference, site = sites
    run("adapt", "ct_head", "--data", site, "--reference", reference, "--site", "stmary", "--out", tmp_path / "out",
        settings=settings)  # fmt: skip
    (card,) = (tmp_path / "out").glob("*.json")
    made, base = Installed.read(card), carded.card
    assert made.version == f"{base.version}+stmary"
    assert made.fault() is None
    assert made.held["adapted"]["from_sha256"] == base.sha256
    assert made.held["points"] == json.loads(carded.card_file.read_text())["points"]
    page = card.with_suffix(".md").read_text()
    assert "Nobody has measured what it is worth" in page
    assert base.sha256 in page

    adapted = HeadHaemorrhage(card)
    assert adapted.algorithm.device_uid != reader.algorithm.device_uid
    means = [_answers(reader, readable[0]), _answers(reader, readable[1]), _answers(adapted, readable[1])]
    assert abs(means[2] - means[0]) < abs(means[1] - means[0])

    run("models", "import", card, settings=settings)
    assert "in use" in run("models", "promote", "ct_head", made.version, settings=settings)
    assert "is in use again" in run("models", "rollback", "ct_head", settings=settings)
    again = CliRunner().invoke(
        wetread,
        ["--settings", str(settings), "adapt", "ct_head", "--data", str(site), "--reference", str(reference),
         "--site", "stmary", "--out", str(tmp_path / "out")],
    )  # fmt: skip
    assert again.exit_code == 1
    assert "is there already" in str(again.exception)


def _answers(pipeline: HeadHaemorrhage, features: list[torch.Tensor]) -> float:
    """Mean logit of the members for these features."""
    nets = carded_of(pipeline).networks.members("class")  # in single precision
    with torch.inference_mode():
        return float(np.mean([float(net.head(each).mean()) for net, each in zip(nets, features, strict=True)]))


@needs_set
def test_too_few_pictures_are_said(sites: tuple[Path, Path]) -> None:
    studies, _ = read_folder(sites[0])
    with pytest.raises(Unadaptable, match="pictures were read"):
        features_of(HeadHaemorrhage(), studies[:2])


@pytest.mark.parametrize("use", ["ct_chest:LungTumour", "mr_brain:BrainTumour", "mr_hippocampus:Hippocampus"])
def test_a_pipeline_that_outlines_is_not_adapted_and_the_reason_is_what_was_measured(use: str) -> None:
    with pytest.raises(Unadaptable, match=r"outlines, and says no class: .*benchmarks/adaptation_outlines\.md"):
        features_of(registry.load(f"pipelines.{use}"), [])


def test_what_no_remedy_gave_outlines_is_what_the_figures_say() -> None:
    """The sentence that refuses must go when a figure contradicts it."""
    sites = json.loads((ROOT / "benchmarks" / "adaptation_outlines.json").read_text())["sites"]
    gains = {name: each["gain"]["interval"] for name, each in sites["all"]["dice"].items()}
    remedies = gains.keys() - {"nothing", "the twin, which saw it"}
    assert len(remedies) >= 4
    assert [name for name in remedies if gains[name][0] > 0] == []
