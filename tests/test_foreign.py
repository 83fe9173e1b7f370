"""Weights from elsewhere: read without running what they hold, named as ours, and refused where they hardly fit."""

from __future__ import annotations

import hashlib
import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines.models import store
from pipelines.models.foreign import Origin, RefusedWeights, as_ours, checkpoint
from pipelines.models.mobile import MobileClassifier
from pipelines.models.squeeze import SqueezeClassifier
from pipelines.models.unet import ResidualUNet
from pipelines.training import loop
from pipelines.training.pack import facts_of
from tests.peers import SHARED, needs_shared
from tests.test_pictures import OPTIONS, classify, discs

WEIGHTS = SHARED / "data" / "weights"
BLOCKS = (1, 2, 3, 4, 3, 3, 1)  # of MobileNetV2's stages (Sandler et al. 2018, table 2)


def net() -> SqueezeClassifier:
    torch.manual_seed(0)
    return SqueezeClassifier(3, 1)


@pytest.mark.parametrize("prefix", ["", "module.", "model.encoder.", "0."])
@pytest.mark.parametrize("nested", ["", "state_dict"])
def test_a_checkpoint_of_torch_gives_its_encoder_whatever_its_training_called_it(
    tmp_path: Path, prefix: str, nested: str
) -> None:
    theirs = SqueezeClassifier(3, 1000)
    held = {f"{prefix}{name}": value for name, value in theirs.state_dict().items()}
    torch.save({nested: held, "epoch": 3} if nested else held, tmp_path / "theirs.pth")
    ours = net()
    given = store.initialise(ours, tmp_path / "theirs.pth")
    assert len(given) == 50  # the head is of another size
    assert torch.equal(ours.features["9"].squeeze.weight, theirs.features["9"].squeeze.weight)


def test_a_bare_encoder_is_known_by_its_shapes_and_places(tmp_path: Path) -> None:
    theirs = SqueezeClassifier(3, 1000)
    save_file(theirs.features.state_dict(), tmp_path / "encoder.safetensors")
    assert len(store.initialise(net(), tmp_path / "encoder.safetensors")) == 50


def test_the_file_is_the_one_that_was_meant_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "theirs.safetensors"
    save_file(SqueezeClassifier(3, 7).state_dict(), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert store.initialise(net(), f"{file}@{digest}")
    with pytest.raises(RefusedWeights, match="another file: its SHA-256 is " + digest):
        store.initialise(net(), f"{file}@{'0' * 64}")
    with pytest.raises(RefusedWeights, match="64 hexadecimal digits"):
        store.initialise(net(), f"{file}@latest")
    with pytest.raises(RefusedWeights, match="no such file"):
        store.initialise(net(), str(tmp_path / "nothing.pth"))


class Trap:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("sprung"),)


def test_a_pickle_that_would_run_something_is_refused_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": net().state_dict(), "extra": Trap()}, "trap.pth")
    Path("plain.pkl").write_bytes(pickle.dumps(Trap(), protocol=2))
    for name in ("trap.pth", "plain.pkl"):
        with pytest.raises(RefusedWeights, match=name):
            store.initialise(net(), name)
    assert not Path("sprung").exists()


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 torn"])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_what_is_no_checkpoint_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RefusedWeights, match=re.escape(name)):
        store.initialise(net(), tmp_path / name)


def test_what_hardly_fits_is_refused_with_the_list_and_nothing_is_changed(tmp_path: Path) -> None:
    theirs = SqueezeClassifier(3, 1).state_dict()
    for name in [each for each in theirs if each.startswith(("features.12", "features.11"))]:
        theirs[name] = torch.zeros(2, 2)
    save_file(theirs, tmp_path / "half.safetensors")
    ours = net()
    before = ours.features["3"].squeeze.weight.clone()
    with pytest.raises(RefusedWeights) as refusal:
        store.initialise(ours, tmp_path / "half.safetensors")
    assert "38 of the encoder's 50 tensors, at least 90% are needed" in str(refusal.value)
    assert "features.12.squeeze.weight (64, 512, 1, 1): the file has (2, 2)" in str(refusal.value)
    assert torch.equal(before, ours.features["3"].squeeze.weight)


def test_a_network_without_an_encoder_starts_from_one_of_its_own_kind(tmp_path: Path) -> None:
    theirs = ResidualUNet(1, widths=(8, 16, 24, 32), outputs=2)
    store.save(theirs, tmp_path / "w.safetensors", {})
    ours = ResidualUNet(1, widths=(8, 16, 24, 32), outputs=1)
    given = store.initialise(ours, tmp_path / "w.safetensors")
    assert "stem.1.0.weight" in given
    assert "decoder.heads.0.0.weight" not in given
    with pytest.raises(RefusedWeights, match="does not fit"):
        store.initialise(ResidualUNet(1, widths=(8, 16, 24, 64)), tmp_path / "w.safetensors")


@needs_shared("data", "weights")
@pytest.mark.parametrize(
    ("name", "why"),
    [("torchio_unet_whole_images_epoch_5.pth", "Python objects"), ("lwnet_wnet_drive.pth", "does not fit: it gives 0")],
)
def test_checkpoints_of_others_that_are_unsafe_or_of_another_network_are_refused(name: str, why: str) -> None:
    with pytest.raises(RefusedWeights, match=why):
        store.initialise(net(), WEIGHTS / name)


@needs_shared("data", "weights")
def test_squeezenet_gets_the_first_convolution_that_suits_how_we_scale_pictures() -> None:
    ours = net()
    assert len(store.initialise(ours, WEIGHTS / "squeezenet1_1_imagenet.safetensors")) == 50
    rgb = load_file(WEIGHTS / "squeezenet1_1_conv1_rgb.safetensors")["features.0.weight"]
    assert torch.equal(ours.features["0"].weight, rgb.float())


def timm_names() -> list[str]:
    """Convolutions of timm's ``mobilenetv2_100``, in the order of the network."""
    names = ["conv_stem"]
    for stage, count in enumerate(BLOCKS):
        for block in range(count):
            layers = ("conv_dw", "conv_pw") if stage == 0 else ("conv_pw", "conv_dw", "conv_pwl")
            names += [f"blocks.{stage}.{block}.{layer}" for layer in layers]
    return [*names, "conv_head"]


@needs_shared("data", "weights")
def test_mobilenet_is_read_folded_or_in_the_names_of_timm_as_torchvision_has_it() -> None:
    folded = checkpoint(Origin(WEIGHTS / "mobilenet_v2_imagenet_backbone.safetensors"))
    convolutions = [name for name in folded if name.endswith(".weight") and name.startswith("features.")]
    norms = ("weight", "bias", "running_mean", "running_var")
    own = {name: folded[name] for name in convolutions}
    for name in convolutions:
        head, _, place = name.removesuffix(".weight").rpartition(".")
        own |= {f"{head}.{int(place) + 1}.{norm}": torch.zeros(len(folded[name])) for norm in norms}
    assert own.keys() <= as_ours(folded, own).keys()

    # timm's, as its network would save them: the k-th convolution and the norm after it
    order = sorted(convolutions, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])
    theirs = {}
    for name, conv in zip(timm_names(), order, strict=True):
        theirs[f"{name}.weight"] = folded[conv]
        head, _, layer = name.rpartition(".")
        places = {"conv_stem": 1, "conv_head": 2}
        if layer not in places:
            kinds = ("conv_dw", "conv_pw") if head.startswith("blocks.0.") else ("conv_pw", "conv_dw", "conv_pwl")
            places = {kind: place for place, kind in enumerate(kinds, start=1)}
        norm = f"{head}.bn{places[layer]}" if head else f"bn{places[layer]}"
        theirs |= {f"{norm}.{each}": torch.zeros(len(folded[conv])) for each in norms}
    read = as_ours(theirs, own)
    assert own.keys() == read.keys()
    assert all(torch.equal(read[name], folded[name]) for name in convolutions)


def test_what_a_training_started_from_stands_in_the_header_of_its_weights(tmp_path: Path) -> None:
    origin = tmp_path / "theirs.safetensors"
    save_file(SqueezeClassifier(1, 3).state_dict(), origin)
    digest = hashlib.sha256(origin.read_bytes()).hexdigest()
    options = replace(OPTIONS, epochs=1, checks=1)
    result = loop.fit(classify(discs(8), options), tmp_path, options, init=f"{origin}@{digest}")
    assert facts_of(result.weights)["init_sha256"] == digest


@needs_shared("data", "weights")
def test_our_mobile_net_takes_all_that_imagenet_gave_it() -> None:
    ours = MobileClassifier(1, 2)
    taken = store.initialise(ours, WEIGHTS / "mobilenet_v2_imagenet_backbone.safetensors")
    assert taken == {name for name in ours.state_dict() if name.startswith("features.")}


def normed(ours: MobileClassifier, eps: float) -> dict[str, torch.Tensor]:
    """Its convolutions as torchvision has them before they are folded: without biases, a batch norm behind each."""
    theirs = {}
    for name, weight in ours.features.state_dict(prefix="features.").items():
        if name.endswith(".weight"):
            head, _, place = name.removesuffix(".weight").rpartition(".")
            norm = f"{head}.{int(place) + 1}"
            count = len(weight)
            gain, mean, variance = torch.rand(count) + 0.5, torch.randn(count), torch.rand(count) + 0.1
            scale = gain / (variance + eps).sqrt()
            bias = ours.get_parameter(name.removesuffix("weight") + "bias").detach()
            theirs |= {
                name: weight / scale.view(-1, 1, 1, 1),
                f"{norm}.weight": gain,
                f"{norm}.bias": bias + mean * scale,
                f"{norm}.running_mean": mean,
                f"{norm}.running_var": variance,
                f"{norm}.num_batches_tracked": torch.tensor(7),
            }
    return theirs


def lite_name(name: str) -> str:
    """torchvision's name of an inverted residual's tensor → that of the package ``efficientnet_lite_pytorch``."""
    _, block, *within, kind = name.split(".")
    place = ".".join(within)
    ends = {("0", "0"): "_conv_stem", ("0", "1"): "_bn0", ("17", "0"): "_conv_head", ("17", "1"): "_bn1"}
    if (block, place) in ends:
        return f"{ends[block, place]}.{kind}"
    plain = {"conv.0.0": "_depthwise_conv", "conv.0.1": "_bn1", "conv.1": "_project_conv", "conv.2": "_bn2"}
    wide = {
        "conv.0.0": "_expand_conv", "conv.0.1": "_bn0", "conv.1.0": "_depthwise_conv", "conv.1.1": "_bn1",
        "conv.2": "_project_conv", "conv.3": "_bn2",
    }  # fmt: skip
    return f"_blocks.{int(block) - 1}.{(plain if block == '1' else wide)[place]}.{kind}"


@pytest.mark.parametrize("lite", [None, 0])
def test_batch_norms_of_others_are_folded_and_the_answers_stay(tmp_path: Path, lite: int | None) -> None:
    torch.manual_seed(3)
    theirs = MobileClassifier(3, 1, lite=lite)
    given = normed(theirs, 1e-5 if lite is None else 1e-3)
    torch.save(given if lite is None else {lite_name(name): each for name, each in given.items()}, tmp_path / "w.pth")
    ours = MobileClassifier(3, 1, lite=lite).eval()
    taken = store.initialise(ours, tmp_path / "w.pth")
    assert taken == {name for name in ours.state_dict() if name.startswith("features.")}
    picture = torch.rand(1, 3, 64, 64)
    assert torch.allclose(ours.embed(picture), theirs.eval().embed(picture), rtol=1e-3, atol=1e-5)
