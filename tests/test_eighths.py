"""Weights in eight bits: how far off they are, and that a damaged file says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from pipelines.models.eighths import SCALE, restored, rounded
from pipelines.models.kinds import KINDS
from pipelines.models.shipped import ModelCard, finest
from pipelines.models.store import DamagedWeights, tensors_of


def test_each_channel_is_off_by_at_most_half_a_step_of_its_own() -> None:
    weight = torch.randn(8, 16, 3, 3) * torch.logspace(-6, 3, 8)[:, None, None, None]
    weight[3] = 0
    back = restored(rounded({"w": weight}))["w"]
    step = weight.abs().amax((1, 2, 3), keepdim=True) / 127
    assert ((back - weight).abs() <= step * 0.501).all()
    assert (back[3] == 0).all()


def test_whatever_is_small_or_no_weight_stays_as_it_is() -> None:
    tensors = {
        "bias": torch.randn(4096),
        "small": torch.randn(4, 4),
        "count": torch.tensor(7),
        "w.scale": torch.ones(3),
    }
    back = restored(rounded(tensors))
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], value) for name, value in tensors.items())


@pytest.mark.parametrize("name", ["xc_skin", "mr_heart"])
def test_a_shipped_network_answers_much_the_same_from_half_the_space(name: str, tmp_path: Path) -> None:
    (card,) = (Path(__file__).parent.parent / "pipelines/weights").glob(f"{name}-*.json")
    member = ModelCard.read(card).members[0]
    held = tensors_of(card.with_suffix(".safetensors")).items()
    own = {key.removeprefix("0."): value for key, value in held if key.startswith("0.")}
    net = KINDS[member.kind](**member.args).eval()
    images = F.interpolate(torch.rand(4, member.args["channels"], 9, 9), size=128, mode="bicubic")
    answers = []
    for place, tensors in enumerate((own, rounded(own))):
        save_file({key: value.contiguous() for key, value in tensors.items()}, file := tmp_path / f"{place}")
        net.load_state_dict(tensors_of(file))
        with torch.inference_mode():
            answers.append(finest(net(images)).sigmoid())
    assert (answers[0] - answers[1]).abs().mean() < 0.02
    assert (tmp_path / "1").stat().st_size < 0.3 * (tmp_path / "0").stat().st_size


def test_eight_bits_without_their_scale_are_damaged(tmp_path: Path) -> None:
    tensors = rounded({"w": torch.randn(64, 64)})
    del tensors["w" + SCALE]
    save_file(tensors, tmp_path / "torn.safetensors")
    with pytest.raises(DamagedWeights, match=r"w\.scale"):
        tensors_of(tmp_path / "torn.safetensors")
