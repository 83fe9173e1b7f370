"""A denoised series beside the original: sent where faint things stay visible, withheld where not, never unasked."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom import dcmread
from safetensors.torch import load_file, save_file

from node.cli.options import routes_of
from node.routing import route
from node.settings import Settings
from pipelines.base import UnsuitableStudy, WithheldStudy
from pipelines.enhance import CARD, MAGNIFIED, Enhance
from pipelines.evidence import codes
from pipelines.models.denoiser import LIMIT, Denoiser
from pipelines.models.store import tensors_of
from pipelines.noise import strength
from pipelines.reading import read
from pipelines.study import Study, read_folder
from pipelines.training import loop
from pipelines.training.denoise import Denoise, faint_things
from pipelines.training.examples import Examples
from pipelines.training.loop import Options
from pipelines.training.noise import speckled
from tests.findings import image, saved

SIDE = 256


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def speckle(**elements: Any) -> Any:
    """Even tissue of a breast, with speckle."""
    torch.manual_seed(0)
    even = torch.full((1, 1, SIDE, SIDE), 0.45)
    stored = (255 * speckled(even, torch.tensor([0.4]))[0, 0]).round().byte().numpy()
    about = {"BodyPartExamined": "BREAST", "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    return image(1, modality="US", shape=(SIDE, SIDE), **(about | {"PixelData": stored.tobytes()} | elements))


def study(folder: Path, **elements: Any) -> Study:
    saved([speckle(**elements)], folder)
    return read_folder(folder)[0][0]


def demanding(folder: Path, at_least: float) -> Path:
    """The shipped model by a card that demands something else of the observer."""
    card = folder / CARD.name
    shutil.copy(CARD.with_suffix(".safetensors"), card.with_suffix(".safetensors"))
    held = json.loads(CARD.read_text())
    for points in held["points"].values():
        points["at_least"] = at_least
    card.write_text(json.dumps(held))
    return card


def test_what_is_sent_is_less_noisy_lies_where_it_was_and_comes_with_what_was_taken_away(tmp_path: Path) -> None:
    source = study(tmp_path / "in")
    (run,) = read(source, Enhance(demanding(tmp_path, 0.0)), name="enhance", out=tmp_path / "out", job="j")
    assert run.status == "read", run.reason
    made = [dcmread(path) for path in run.objects]
    clean, taken = (each for each in made if each.Modality == "US")
    before, after = (each.astype(np.float32) for each in (source.series[0].pixels(0), clean.pixel_array))
    levels = [strength(torch.from_numpy(each)[None, None] / 255).item() for each in (before, after)]
    assert levels[1] < 0.97 * levels[0]
    assert np.abs(after - before).max() <= LIMIT * 255 * levels[0] + 1
    assert clean.DerivationCodeSequence[0].CodeValue == codes.SMOOTHING.value
    difference = (taken.pixel_array.astype(np.float32) - 255 / 2) / MAGNIFIED
    assert np.abs(difference - (before - after)).max() <= 1
    (report,) = (each for each in made if each.Modality == "SR")
    assert "derived images" in report.SeriesDescription
    assert [each.SeriesDescription for each in (clean, taken)] == [
        "AI: denoised (not verified)",
        "AI: taken away (not verified)",
    ]
    assert "a model observer sees faint discs so many times as well as before" in run.notes[1]


def test_nothing_is_sent_where_faint_things_would_be_seen_less_well(tmp_path: Path) -> None:
    with pytest.raises(WithheldStudy, match=r"faint discs of \d+ pixels would be seen [\d.]+ times as well"):
        Enhance(demanding(tmp_path, 5.0))(study(tmp_path / "in"))


def test_nothing_is_sent_where_it_cannot_be_told(tmp_path: Path) -> None:
    with pytest.raises(WithheldStudy, match="there is no tissue"):
        Enhance()(study(tmp_path / "black", PixelData=bytes(SIDE * SIDE)))
    row, column = np.mgrid[:SIDE, :SIDE]
    small = np.where((row < 60) & (column < 60), np.frombuffer(speckle().PixelData, "u1").reshape(SIDE, SIDE), 0)
    with pytest.raises(WithheldStudy, match="whether faint things would stay visible cannot be told"):
        Enhance()(study(tmp_path / "small", PixelData=small.astype("u1").tobytes()))


def test_a_series_that_is_nearly_free_of_noise_is_not_sent_again(tmp_path: Path) -> None:
    card = demanding(tmp_path, 0.0)
    tensors = {name: torch.zeros_like(value) for name, value in load_file(card.with_suffix(".safetensors")).items()}
    save_file(tensors, card.with_suffix(".safetensors"))  # a network for which nothing is noise
    held = json.loads(card.read_text())
    held["sha256"] = hashlib.sha256(card.with_suffix(".safetensors").read_bytes()).hexdigest()
    card.write_text(json.dumps(held))
    with pytest.raises(WithheldStudy, match="hardly any noise"):
        Enhance(card)(study(tmp_path / "in"))


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"BodyPartExamined": "LIVER"}, "the body part is LIVER"),
        ({"ImageType": ["DERIVED", "SECONDARY"]}, "not as acquired"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "MONOCHROME2"),
        ({"Rows": 64, "Columns": 1024}, "smaller than 96 pixels"),
    ],
)
def test_what_the_networks_do_not_know_is_unsuitable(elements: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UnsuitableStudy, match=words):
        Enhance()(study(tmp_path, **elements))


def test_the_node_sends_nothing_to_it_unless_somebody_turns_it_on() -> None:
    routes = routes_of(Settings())
    (match,) = route([speckle()], {"enhance": routes["enhance"]})
    assert not match.matched
    assert "automatic = false" in match.why
    line = Settings().pipelines["enhance"].model_copy(update={"automatic": True})
    on = routes_of(Settings(pipelines={"enhance": line}))
    assert [each.matched for each in route([speckle()], on)] == [True]


def test_no_pixel_moves_by_more_than_the_limit_whatever_the_network_has_learnt() -> None:
    torch.manual_seed(0)
    net = Denoiser()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=1.0)
    x = torch.cat((torch.rand(2, 1, 33, 40), torch.full((2, 1, 33, 40), 0.04)), 1)
    assert net(x).shape == (2, 1, 33, 40)
    assert net(x).abs().max() <= LIMIT * 0.04 + 1e-6


def test_a_network_learns_what_is_noise_and_leaves_faint_things(tmp_path: Path) -> None:
    torch.manual_seed(0)
    coarse = torch.rand(40, 1, 6, 6)
    smooth = torch.nn.functional.interpolate(coarse, size=(48, 48), mode="bicubic", align_corners=True)
    pictures = (100 + 80 * smooth).clamp(0, 255).to(torch.uint8)
    rows = tuple({"patient_id": f"P{each}", "sop_uid": str(each)} for each in range(40))
    empty = torch.zeros(40, 0), torch.zeros(40, 0, 48, 48, dtype=torch.bool)
    options = Options(batch=8, rate=4e-3, weight_decay=0, average=0.9, checks=1, epochs=20, fold=0)
    task = Denoise(Examples(pictures, *empty, rows), options, "mr", {}, args={"width": 12, "depth": 4})
    result = loop.fit(task, tmp_path, options)
    assert result.best is not None
    assert result.best > 0.04
    net = task.network()
    net.load_state_dict(tensors_of(result.weights))
    clean, level = task.judged.images.float() / 255, torch.full((len(task.judged), 1, 1, 1), 0.04)
    things = faint_things(clean, level.flatten())
    noise = 0.04 * torch.randn(clean.shape)
    with torch.inference_mode():
        found = [net(torch.cat((each + noise, level.expand_as(clean)), 1)) for each in (clean, clean + things)]
    assert (found[1] - found[0]).square().mean().sqrt() < 0.5 * things.square().mean().sqrt()
