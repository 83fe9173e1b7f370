"""The pipeline ``op_retina``: vessels, their density, and what is not read."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from pipelines import fundus
from pipelines.base import UnsuitableStudy, WithheldStudy
from pipelines.evidence.masks import seg_masks
from pipelines.op_retina import CARD, Retina
from pipelines.reading import read
from pipelines.run import Run
from pipelines.study import Study
from pipelines.training.corruptions import corruptions, greys_of
from pipelines.training.metrics import dice
from tests.peers import ROOT, needs_shared
from tests.photographs import eye, photograph, study_of
from tests.wrapped import needs_weights

SET = ROOT.parent / "shared" / "data" / "fundus_vessels"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pipeline() -> Retina:
    return Retina()


def run(pipeline: Retina, study: Study, out: Path) -> Run:
    started = datetime(2026, 1, 2, 3, 4, 5)
    (one,) = read(study, pipeline, name="op_retina", out=out, job="job", started=started)
    return one


@needs_weights(CARD)
def test_lines_on_a_retina_are_outlined_and_a_bare_one_has_fewer(pipeline, tmp_path):
    lined, bare = (
        run(
            pipeline,
            # a little blurred, as optics do: else the bare one is nothing but noise from pixel to pixel, and withheld
            study_of(tmp_path / name, photograph(gaussian_filter(eye(vessels=name == "lined"), (0.7, 0.7, 0)), "OP")),
            tmp_path / f"out {name}",
        )
        for name in ("lined", "bare")
    )
    assert lined.status == bare.status == "read"
    densities = [each.findings[0].measurements[0].value for each in (lined, bare)]
    assert densities[0] > 1
    assert densities[1] < densities[0] / 3


@needs_weights(CARD)
def test_density_is_the_share_of_the_field_of_view(pipeline, tmp_path):
    study = study_of(tmp_path / "in", photograph(eye(), "OP"))
    found = run(pipeline, study, tmp_path / "out")
    (finding,) = found.findings
    seg = next(path for path in found.objects if path.name == "seg.dcm")
    mask = seg_masks(seg, study.series[0])["vessel"][0]
    field = fundus.field_of_view(study.series[0].pixels(0))
    (density,) = finding.measurements
    assert density.unit.value == "%"
    assert density.value == pytest.approx(100 * mask.sum() / field.sum(), abs=0.01)
    assert not mask[~field].any()


@needs_weights(CARD)
def test_two_eyes_in_a_series_are_two_findings_each_with_its_picture(pipeline, tmp_path):
    study = study_of(tmp_path / "in", *(photograph(eye(), "OP", n) for n in (1, 2)))
    found = run(pipeline, study, tmp_path / "out")
    assert [each.sop_uids for each in found.findings] == [("1.2.3.4.1",), ("1.2.3.4.2",)]
    assert sorted(path.name for path in found.objects) == ["seg-2.dcm", "seg.dcm", "sr.dcm"]


def test_the_network_sees_a_fundus_of_one_size_whatever_the_photograph_has() -> None:
    small, large = (fundus.shown(eye(size)) for size in (600, 900))
    assert np.abs(np.subtract(small.image.shape[-2:], large.image.shape[-2:])).max() <= 32  # padded to whole steps
    assert small.back(small.image[:, 0]).shape[-2:] == (600, 600)
    assert large.back(large.image[:, 0]).shape[-2:] == (900, 900)


@needs_weights(CARD)
@pytest.mark.parametrize(
    ("elements", "why"),
    [
        ({"Modality": "GM"}, "the modality is GM"),
        ({"BodyPartExamined": "CHEST"}, "the body part is CHEST"),
        ({"ImageType": ["DERIVED", "SECONDARY"]}, "not as acquired"),
    ],
)
def test_headers_that_do_not_fit_are_unsuitable(elements, why, pipeline, tmp_path):
    with pytest.raises(UnsuitableStudy, match=why):
        pipeline(study_of(tmp_path, photograph(eye(400), "OP", **elements)))


@needs_weights(CARD)
def test_what_is_no_fundus_is_withheld_and_says_why(pipeline, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (400, 400, 3)).astype(np.uint8)
    for name, pixels, why in (
        ("noise", noise, "not round"),
        ("dark", np.zeros((400, 400, 3), np.uint8), "dark all over|not round"),
        ("blue", eye(400)[..., ::-1], "not reddish"),
        ("small", eye(200), "at least 300"),
        ("grey", eye(400)[..., 0], "is grey"),
    ):
        with pytest.raises(WithheldStudy, match=why):
            pipeline(study_of(tmp_path / name, photograph(np.ascontiguousarray(pixels), "OP")))


def test_the_field_of_view_is_found_whatever_lies_beside_it():
    pixels = eye(500)
    wide = np.zeros((500, 800, 3), np.uint8)
    wide[:, 150:650] = pixels
    y, x = np.ogrid[:500, :500]
    truth = np.hypot(y - 250, x - 250) < 0.47 * 500
    assert dice(fundus.field_of_view(wide)[:, 150:650], truth) > 0.98


def test_a_mask_goes_there_and_back():
    view = fundus.shown(eye(900))
    y, x = np.ogrid[:900, :900]
    mask = (np.hypot(y - 450, x - 450) < 200) & (np.abs(y - x) % 60 < 12)
    assert max(view.size) == fundus.FIELD
    assert dice(view.back(view.there(mask)) > 0.5, mask) > 0.95


def test_a_photograph_that_is_lit_from_one_side_is_lit_evenly():
    dark_left = (eye(560, vessels=False) * np.linspace(0.5, 1.0, 560)[None, :, None]).astype(np.uint8)
    image = fundus.shown(dark_left).image[1]
    left, right = (part[part != 0].mean() for part in (image[:, 60:200], image[:, 300:440]))
    assert abs(float(left - right)) < 0.1


def test_mirror_images_are_merged_where_they_belong():
    logits = torch.randn(1, 1, 1, 32, 48)
    both = torch.cat((logits, logits.flip(-1)), 1)
    assert torch.allclose(fundus.merged(both), logits[0, 0, 0].sigmoid(), atol=1e-6)


@needs_weights(CARD)
def test_the_card_names_its_networks_and_threshold(pipeline):
    assert {each.role for each in pipeline.card.members} == {"vessels"}
    assert 0.2 < pipeline.card.points["vessels"]["threshold"] < 0.8
    assert CARD.with_suffix(".safetensors").stat().st_size < 5_000_000


@needs_weights(CARD)
@needs_shared("data", "fundus_vessels")
def test_a_real_retina_is_outlined_about_as_a_person_does(pipeline, tmp_path):
    name, pixels = real()
    truth = np.asarray(Image.open(SET / "dev" / "masks" / f"{name.stem}.png")) > 0
    found = run(pipeline, study_of(tmp_path / "in", photograph(pixels, "OP")), tmp_path / "out")
    assert dice(found.findings[0].segment.mask[0], truth) > 0.7


@needs_weights(CARD)
@needs_shared("data", "fundus_vessels")
@pytest.mark.parametrize(
    ("name", "degree", "why"), [("photon noise", 60, "is noisy"), ("compression", 10, "blocks of compression")]
)
def test_a_real_retina_that_was_spoilt_is_withheld_and_says_why(name, degree, why, pipeline, tmp_path):
    held = real()[1].astype(np.float32)
    (corruption,) = (each for each in corruptions("OP") if each.name == name)
    spoilt = corruption.spoil(held, degree, greys_of([held], "OP"), np.random.default_rng(0))
    with pytest.raises(WithheldStudy, match=why):
        pipeline(study_of(tmp_path, photograph(spoilt.round().clip(0, 255).astype(np.uint8), "OP")))


def real() -> tuple[Path, np.ndarray]:
    name = sorted((SET / "dev" / "images").glob("drive_*"))[0]
    return name, np.asarray(Image.open(name).convert("RGB"))
