"""Where a pipeline looks: maps that are highest where the reason lies, and how often they hit what is drawn."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from pipelines.base import Algorithm, Finding, Findings
from pipelines.evidence import codes
from pipelines.models.saliency import grad_cam
from pipelines.models.squeeze import SqueezeClassifier
from pipelines.pictures import pictures
from pipelines.study import Study, read_folder
from pipelines.training.explain import drawing, explain, marked, pointing, points_at
from pipelines.training.truths import Judged
from tests.slices import saved, slice_of
from tests.test_cli import run
from tests.test_evaluate import boxes, truth


class Brightness:
    """As sure of ``bright`` as the brightest part of the picture is bright, and never of ``dark``."""

    algorithm = Algorithm("brightness", "1.0.0", codes.ARTIFICIAL_INTELLIGENCE, "0" * 64)

    def __init__(self, chance: Callable[[NDArray[np.float32]], float] = lambda each: float(each.max()) / 1000) -> None:
        self.chance = chance

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        (series,) = study.series
        found = []
        for picture in pictures(series):
            chance = min(1.0, self.chance(picture.pixels.astype(np.float32)))
            for name, each in (("bright", chance), ("dark", 0.1)):
                uids = (picture.sop_uid,)
                found.append(Finding(codes.LESION, each > 0.5, certainty=each, sop_uids=uids, label=name))
        return (Findings(series, tuple(found)),)


class WithMaps(Brightness):
    """Points at the upper left corner, whatever it sees."""

    def explain(self, study: Study) -> list[tuple[str, NDArray[np.float32], str]]:
        where = np.zeros((40, 60), np.float32)
        where[0, 0] = 1
        return [(picture.sop_uid, where, "bright") for series in study.series for picture in pictures(series)]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A grey picture with a bright square at rows 24 to 31 and columns 44 to 51."""
    pixels = np.full((40, 60), 300, np.int16)
    pixels[24:32, 44:52] = 900
    saved(slice_of(1, pixels), tmp_path / "in" / "1.dcm")
    (found,), _ = read_folder(tmp_path / "in")
    return found


def test_hiding_the_reason_takes_the_certainty_away(study: Study) -> None:
    (each,) = explain(Brightness(), study)
    assert (each.name, each.present) == ("bright", True)
    assert each.certainty == pytest.approx(0.9)
    assert each.drop == pytest.approx(0.6)  # the median of the picture is what hides it
    assert each.own is None
    assert each.hidden is not None
    row, column = np.unravel_index(int(each.hidden.argmax()), each.hidden.shape)
    assert (24 <= row < 32, 44 <= column < 52) == (True, True)


def test_where_nothing_matters_there_is_no_map(study: Study) -> None:
    (each,) = explain(Brightness(lambda _: 0.8), study)
    assert (each.hidden, each.drop) == (None, 0.0)


def test_colour_pictures_are_hidden_in_all_their_colours(tmp_path: Path) -> None:
    pixels = np.full((40, 60, 3), 20, np.uint8)
    pixels[24:32, 44:52] = 250
    look = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    ds = slice_of(1, pixels[..., 0], PixelData=pixels.tobytes(), **look)
    saved(ds, tmp_path / "1.dcm")
    (found,), _ = read_folder(tmp_path)
    (each,) = explain(Brightness(lambda pixels: float(pixels.max()) / 255), found)
    assert each.hidden is not None
    assert each.drop == pytest.approx(230 / 255, abs=1e-3)


def test_a_class_that_is_asked_for_is_explained_even_where_it_is_not_there(study: Study) -> None:
    assert [each.name for each in explain(Brightness(), study, grid=0, wanted="dark")] == ["dark"]
    assert list(explain(Brightness(), study, grid=0, wanted="green")) == []


def test_a_pipelines_own_map_is_drawn_beside_the_one_by_occlusion(study: Study, tmp_path: Path) -> None:
    (each,) = explain(WithMaps(), study, grid=4)
    assert each.own is not None
    drawing(each, np.asarray(each.pixels) > 800, tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as picture:
        assert np.asarray(picture).std() > 10


def test_a_hit_is_the_highest_point_inside_what_is_drawn() -> None:
    where = np.zeros((4, 4), np.float32)
    where[1, 2] = 1
    mask = np.zeros((4, 4), bool)
    mask[1, 2] = True
    assert points_at(where, mask)
    assert not points_at(where, ~mask)
    rows = [{"patient_id": str(place), "sop_uid": "1"} for place in range(4)]
    result = pointing([True, True, True, False], [0.1, 0.2, 0.1, 0.2], rows)
    assert result.rate.value == 0.75
    assert result.by_chance == pytest.approx(0.15)


def test_what_people_have_drawn_is_masks_and_boxes_together(tmp_path: Path) -> None:
    drawn = np.zeros((20, 20), np.uint8)
    drawn[2:4, 2:4] = 1
    Image.fromarray(drawn).save(tmp_path / "mask.png")
    row = {"label": "spot", "mask": "mask.png", "box": "[10, 30, 5, 4]", "sop_uid": "1"}
    mask = marked(row, {"all": Judged(truth, ("spot",), boxes=boxes)}, tmp_path, (40, 40))
    assert mask is not None
    assert (mask[:10].sum(), mask[30:34, 10:15].all()) == (16, True)  # the mask was on a coarser grid
    assert marked(row | {"mask": "", "box": ""}, {"all": Judged(truth, boxes=boxes)}, tmp_path, (40, 40)) is None


def test_grad_cam_of_averaged_maps_is_the_class_activation_map() -> None:
    torch.manual_seed(0)
    net = SqueezeClassifier(1, 2).eval()
    net.head.weight.data[1, :300] = net.head.weight[1, :300].abs()  # some speak for the class, some against it
    image = torch.rand(1, 1, 96, 64)
    with torch.inference_mode():
        weighed = F.relu(torch.einsum("f,fhw->hw", net.head.weight[1], net.maps(image)[0]))
        cam = F.interpolate(weighed[None, None], size=(96, 64), mode="bilinear", align_corners=False)[0, 0]
    found = grad_cam(net, image, 1)
    assert found.shape == (96, 64)
    assert torch.allclose(found, cam / cam.max(), atol=1e-4)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_folder_is_explained_by_the_command(study: Study, tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('[pipelines.bright]\nuse = "tests.test_explain:WithMaps"\n')
    answer = run("explain", "bright", tmp_path / "in", "--out", tmp_path / "maps", "--grid", "4", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("0001-bright.png: bright 0.90")
    assert (tmp_path / "maps/0001-bright.png").stat().st_size > 5_000
    with (tmp_path / "in/index.csv").open("w", newline="") as file:
        csv.writer(file).writerow(["study_uid", "sop_uid"])
    wrong = run("explain", "bright", tmp_path / "in", "--out", tmp_path, "--labels", tmp_path, cwd=tmp_path)
    assert wrong.returncode == 1
    assert "has no column file" in wrong.stderr
