"""The attack stays within its bound, does harm, and takes each kind of task in units of the picture."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipelines import fundus, nuclei, smears
from pipelines.gm_cells import CARD, Cells
from pipelines.models.kinds import KINDS
from pipelines.training import nuclei as learnt_nuclei
from pipelines.training import smears as learnt_smears
from pipelines.training import vessels as learnt_vessels
from pipelines.training.attack import GREY, PERCENT, Attacked, attacked
from pipelines.training.augment import Augment
from pipelines.training.examples import Examples
from pipelines.training.hippocampus import HippocampusTask
from pipelines.training.loop import Options
from pipelines.training.picture_tasks import Classify, Outline
from pipelines.training.targets import index_of, of_classes, of_nuclei, of_outlines, of_smears, of_vessels
from pipelines.training.targets_volumes import of_volumes
from pipelines.training.volumes import Volume
from tests.photographs import eye
from tests.wrapped import needs_weights

OPTIONS = Options(fold=None)
SHOWN = (PERCENT, 100.0)


def made(kind: str, **args: object) -> nn.Module:
    """A network that has learnt nothing, yet answers one picture otherwise than another."""
    torch.manual_seed(0)
    net = KINDS[kind](**args).eval()
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight)
    return net


def examples(count: int, labels: torch.Tensor, masks: torch.Tensor) -> Examples:
    pictures = torch.randint(0, 256, (count, 1, 32, 32), dtype=torch.uint8)
    rows = tuple({"patient_id": str(each), "sop_uid": str(each)} for each in range(count))
    return Examples(pictures, labels, masks, rows)


def within(part: Attacked, bound: float) -> bool:
    """That each target is changed by up to the bound and no more, and loses by it."""
    for target in part.targets:
        away = bound * torch.as_tensor(target.unit)
        after = attacked(target.images, target.loss, bound=away, inside=target.inside)
        if not ((after - target.images).abs() <= away * 1.001 + 1e-6).all():
            return False
        with torch.no_grad():
            if not target.loss(after) > target.loss(target.images):
                return False
    return True


def test_an_attack_stays_within_its_bound_and_does_more_harm_than_none() -> None:
    torch.manual_seed(0)
    images = torch.rand(4, 1, 32, 32)
    away = attacked(images, lambda each: each.square().sum(), bound=0.02)
    assert (away - images).abs().max() <= 0.02 + 1e-6
    assert 0 <= away.min() <= away.max() <= 1
    assert away.square().sum() > images.square().sum()
    uneven = torch.tensor([0.0, 0.1, 0.0, 0.2]).view(4, 1, 1, 1)
    away = attacked(images, lambda each: each.square().sum(), bound=uneven)
    assert (away - images).abs().amax((1, 2, 3)) == pytest.approx([0, 0.1, 0, 0.2], abs=1e-6)


def test_classes_are_attacked_and_those_that_would_not_be_read_are_counted() -> None:
    net = made("squeeze_classifier", channels=1, outputs=1)
    held = examples(16, torch.zeros(16, 1), torch.zeros(16, 0, 32, 32, dtype=torch.bool))
    with torch.inference_mode():
        said = net(held.images.float() / 255)[:, 0]
    labels = (said > said.median()).float()[:, None]
    labels[0] = float("nan")  # nobody knows
    held = Examples(held.images, labels, held.masks, held.rows)
    task = Classify(held, OPTIONS, Augment(), "squeeze_classifier", {"channels": 1, "outputs": 1}, ("x",))
    known = {"mean": torch.zeros(512), "axes": torch.eye(512)[:, :4]}
    part = of_classes(task, [net], SHOWN, known, 1e9)
    assert within(part, 2.0)
    before, refused = part.score(0.0)
    assert (before.value, before.n, refused) == (1.0, 15, 0.0)
    after, _ = part.score(2.0)
    assert after.value is not None
    assert after.value < 0.9
    wary = of_classes(task, [net], SHOWN, known, -1.0)
    assert wary.score(2.0)[1] == 1.0
    assert of_classes(task, [net], SHOWN, {}, None).score(0.0)[1] is None


def test_outlines_are_attacked() -> None:
    net = made("residual", channels=1, widths=[8, 16], outputs=1)
    held = examples(3, torch.zeros(3, 0), torch.zeros(3, 1, 32, 32, dtype=torch.bool))
    with torch.no_grad():
        masks = net(held.images.float() / 255)[0] > 0
    masks[2] = False  # nothing to outline
    task = Outline(
        Examples(held.images, held.labels, masks, held.rows),
        OPTIONS, Augment(), "residual", {"channels": 1, "widths": [8, 16], "outputs": 1}, ("x",),
    )  # fmt: skip
    part = of_outlines(task, [net], SHOWN)
    assert within(part, 2.0)
    before, _ = part.score(0.0)
    assert (before.value, before.n) == (1.0, 2)
    assert part.score(5.0)[0].value < 1.0


def test_nuclei_are_attacked() -> None:
    numbers = np.zeros((30, 40), np.int32)
    numbers[4:12, 5:14], numbers[15:25, 20:33] = 1, 2
    truth = torch.from_numpy(
        np.stack([numbers > 0, learnt_nuclei.depth(numbers) > 0.45, numbers < 0]).astype(np.float32)
    )
    image = torch.rand(3, 30, 40)
    picture = learnt_nuclei.NucleiPicture("stained", 0, image, truth, tuple(learnt_nuclei.boxes_of(numbers)))
    task = learnt_nuclei.NucleiTask([picture], OPTIONS)
    part = of_nuclei(
        task, [made("residual", channels=3, widths=[8, 16, 24], outputs=2)], nuclei.Rule(0.5, 0.5, 3, 0, 0)
    )
    assert part.unit == PERCENT
    assert within(part, 2.0)
    assert part.score(0.0)[0].n == 1


@needs_weights(CARD)
def test_smears_are_attacked_in_grey_levels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*smears.CANVAS, 3)).astype(np.uint8)
    boxes, kinds = np.array([[40, 40, 90, 90]], np.float32), np.array([0])
    truth = ((smears.CLASSES[0], (40.0, 40.0, 50.0, 50.0)),)
    task = learnt_smears.SmearTask([learnt_smears.Smear(0, smears.shown(pixels), boxes, kinds, truth)], OPTIONS)
    networks = Cells().networks
    part = of_smears(task, networks.members("smears"), smears.Rule(**networks.card.points["smears"]["rule"]))
    assert (part.unit, part.targets[0].unit) == (GREY, 1 / 255)
    assert within(part, 1.0)
    assert part.score(0.0)[0].n == 1


def test_vessels_are_attacked_inside_of_the_field_alone_and_less_where_contrast_is_evened_down() -> None:
    view = fundus.shown(eye(vessels=True))
    mask = np.zeros(view.field.shape, bool)
    mask[100:110] = True
    picture = learnt_vessels.Fundus("x", 0, view, view.there(mask)[None], mask)
    task = learnt_vessels.VesselTask([picture], OPTIONS)
    part = of_vessels(task, [made("residual", channels=3, widths=[4, 8], outputs=1)], 0.5)
    assert part.unit == GREY
    assert within(part, 1.0)
    outside = view.unit.amax(0) == 0
    assert outside.any()
    assert (view.image[:, outside] == 0).all()
    assert 0 < view.unit.max() <= 0.5  # two grey levels of deviation are always added


def test_volumes_are_attacked_and_an_unsure_outline_is_not_read() -> None:
    image = torch.randn(16, 24, 16)
    labels = torch.zeros(16, 24, 16, dtype=torch.uint8)
    labels[4:8, 4:12, 4:12], labels[8:12, 12:20, 4:12] = 1, 2
    task = HippocampusTask([Volume("x", image, labels)], OPTIONS)
    part = of_volumes(task, [made("residual3d", labels=3)], {"threshold": 0.5, "sure_from": 1.1})
    low, high = np.percentile(image.numpy(), (0.5, 99.5))
    assert part.targets[0].unit == pytest.approx((high - low) / 100)
    assert within(part, 2.0)
    found, refused = part.score(0.0)
    assert (found.n, refused) == (1, 1.0)


def test_no_more_is_prepared_than_is_attacked(tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    index_of([{"file": "a/b.dcm", "label": "x"}], tmp_path, tmp_path / "few")
    with (tmp_path / "few" / "index.csv").open() as file:
        assert list(csv.DictReader(file)) == [{"file": str(tmp_path / "a/b.dcm"), "label": "x"}]
