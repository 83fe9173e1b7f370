"""A pipeline from settings alone: a graph that torch exported is run as data, and what is more than data is refused."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.exported import Exported
from pipelines.models.foreign import RefusedWeights
from pipelines.models.graph import Graph
from pipelines.models.squeeze import SqueezeClassifier
from pipelines.models.store import DamagedWeights
from pipelines.models.unet import ResidualUNet
from tests.slices import saved, slice_of
from tests.test_cli import run

CARD = {
    "name": "ours",
    "version": "1.0.0",
    "reads": {"what": "a CT of the head", "modalities": ["CT"]},
    "look": {"canvas": [64, 64], "window": [0, 1000]},
    "classes": [
        {"label": "hemorrhage", "code": ["50960005", "SCT", "Hemorrhage"], "cutoff": 0.5},
        {"label": "cyst", "code": ["367643001", "SCT", "Cyst"], "cutoff": 0.5},
    ],
    "exclusive": True,
}


def export(net: nn.Module, file: Path, *, sizes: Any = None) -> Path:
    picture = torch.rand(2 if sizes else 1, 1, 64, 64)
    torch.export.save(torch.export.export(net.eval(), (picture,), dynamic_shapes=sizes), file)
    return file


@pytest.fixture(scope="module")
def net() -> SqueezeClassifier:
    torch.manual_seed(0)
    return SqueezeClassifier(1, 2).eval()


@pytest.fixture(scope="module")
def graph(net: SqueezeClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(net, tmp_path_factory.mktemp("graph") / "ours.pt2")


def changed(graph: Path, target: Path, part: str, change: Callable[[dict[str, Any]], None]) -> Path:
    """The same file with one of its JSON parts changed."""
    with zipfile.ZipFile(graph) as old, zipfile.ZipFile(target, "w") as new:
        for each in old.infolist():
            content = old.read(each)
            if each.filename.endswith(part):
                held = json.loads(content)
                change(held)
                content = json.dumps(held).encode()
            new.writestr(each.filename, content)
    return target


def test_a_graph_gives_what_its_network_gives(net: SqueezeClassifier, graph: Path) -> None:
    picture = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(Graph(graph)(picture), net(picture), atol=1e-5)


def test_a_network_that_outlines_is_run_too(tmp_path: Path) -> None:
    class Finest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = ResidualUNet(1, widths=(8, 16, 24, 32))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)[0]

    outlines = Finest().eval()
    picture = torch.rand(1, 1, 64, 64)
    file = export(outlines, tmp_path / "outline.pt2")
    with torch.inference_mode():
        assert torch.allclose(Graph(file)(picture), outlines(picture), atol=1e-4)


@pytest.mark.parametrize(
    "target", ["torch.load", "torch.ops.aten.from_file.default", "torch.hub.load", "_operator.call"]
)
def test_a_graph_that_asks_for_more_than_numbers_is_refused(graph: Path, tmp_path: Path, target: str) -> None:
    def ask(held: dict[str, Any]) -> None:
        held["graph_module"]["graph"]["nodes"][3]["target"] = target

    with pytest.raises(RefusedWeights, match=f"the operation {target} is not run here"):
        Graph(changed(graph, tmp_path / "bad.pt2", "models/model.json", ask))


def test_pickled_weights_are_refused(graph: Path, tmp_path: Path) -> None:
    def pickled(held: dict[str, Any]) -> None:
        held["config"]["features.0.weight"]["use_pickle"] = True

    with pytest.raises(RefusedWeights, match=r"features\.0\.weight is pickled"):
        Graph(changed(graph, tmp_path / "bad.pt2", "weights_config.json", pickled))


def test_a_graph_of_sizes_that_vary_is_refused_with_what_to_do(tmp_path: Path) -> None:
    class Flat(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.view(x.shape[0] * 64, 64)

    file = export(Flat(), tmp_path / "vary.pt2", sizes=({0: torch.export.Dim("batch", min=1, max=8)},))
    with pytest.raises(RefusedWeights, match="is not run here"):
        Graph(file)


@pytest.mark.parametrize("content", [b"", b"not a graph", b"PK\x03\x04 torn"])
def test_what_is_no_graph_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pt2").write_bytes(content)
    with pytest.raises(RefusedWeights, match=r"w\.pt2"):
        Graph(tmp_path / "w.pt2")


@pytest.fixture
def card(graph: Path, tmp_path: Path) -> Path:
    (tmp_path / "ours.pt2").write_bytes(graph.read_bytes())
    file = tmp_path / "ours.json"
    file.write_text(json.dumps(CARD | {"sha256": hashlib.sha256(graph.read_bytes()).hexdigest()}))
    return file


def test_settings_alone_make_a_pipeline_of_a_graph(net: SqueezeClassifier, card: Path, tmp_path: Path) -> None:
    pixels = (np.arange(64 * 64).reshape(64, 64) % 1000).astype(np.int16)
    saved(slice_of(1, pixels), tmp_path / "in" / "1.dcm")
    (tmp_path / "settings.toml").write_text(
        f'[pipelines.ours]\nuse = "pipelines.exported:Exported"\ncard = "{card.name}"\nwhen = {{ Modality = "CT" }}\n'
    )
    answer = run("read", tmp_path / "in", "--out", tmp_path / "out", "--json", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    (read,) = json.loads(answer.stdout)["studies"][0]["runs"]
    assert (read["pipeline"], read["version"], read["status"]) == ("ours", "1.0.0", "read")
    with torch.inference_mode():
        image = torch.from_numpy(pixels.astype(np.float32) / 1000)[None, None]
        chances = net(image).softmax(1)[0].tolist()
    assert [each["certainty"] for each in read["findings"]] == pytest.approx(chances, abs=1e-3)
    assert [each["present"] for each in read["findings"]] == [chance >= 0.5 for chance in chances]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"sha256": "0" * 64}, "the SHA-256 of"),
        ({"classes": [{"label": "x", "code": ["1", "SCT"], "cutoff": 0.5}]}, "not enough values"),
        ({"classes": [{"label": "x", "code": ["52988006", "SCT", "Cyst"], "cutoff": 0.5}]}, "means 'Lesion'"),
        ({"look": {"canvas": [64]}}, "not enough values"),
        ({"look": {"canvas": [64, 64], "mean": [0.1, 0.2], "deviation": [1, 1]}}, "1 numbers each"),
        ({"reads": {}}, "lacks 'what'"),
    ],
)
def test_a_card_that_does_not_serve_says_why(card: Path, wrong: dict[str, Any], why: str) -> None:
    card.write_text(json.dumps(json.loads(card.read_text()) | wrong))
    with pytest.raises(DamagedWeights) as error:
        Exported(card)
    assert why in str(error.value)


def test_without_a_card_it_says_where_to_write_it() -> None:
    with pytest.raises(DamagedWeights, match="card = "):
        Exported()
