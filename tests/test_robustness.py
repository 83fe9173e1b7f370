"""Pictures are spoilt by known degrees, truth moves with them, and the attack stays within its bound."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.base import Algorithm, Finding, Findings, Segment
from pipelines.evidence import codes
from pipelines.models.squeeze import SqueezeClassifier
from pipelines.study import Study
from pipelines.training.attack import Attacked, attacked
from pipelines.training.augment import Augment
from pipelines.training.corruptions import corruptions
from pipelines.training.examples import Examples, Row, Truth
from pipelines.training.loop import Options
from pipelines.training.picture_tasks import Classify
from pipelines.training.robustness import natural
from pipelines.training.truths import Judged
from tests.slices import saved, slice_of

SIDE = 48
CASES = [(modality, each) for modality in ("CT", "MR", "US", "XC") for each in corruptions(modality)]
_ROW, _COLUMN = np.mgrid[:SIDE, :SIDE]
SQUARE = (_ROW > 6) & (_ROW < 18) & (_COLUMN > 26) & (_COLUMN < 40)


def picture(modality: str) -> np.ndarray:
    rng = np.random.default_rng(3)
    grey = (20 + 40 * SQUARE + rng.normal(0, 2, SQUARE.shape)).astype(np.float32)
    return np.repeat(grey[..., None], 3, 2) if modality == "XC" else grey


@pytest.mark.parametrize(("modality", "corruption"), CASES, ids=[f"{m} {c.name}" for m, c in CASES])
def test_a_picture_is_spoilt_more_by_the_heavier_degree_and_keeps_its_form(modality: str, corruption: object) -> None:
    before = picture(modality)
    light, heavy = (
        corruption.spoil(before, degree, modality, np.random.default_rng(0)) for degree in corruption.degrees[:2]
    )
    assert light.shape == before.shape
    assert light.dtype == np.float32
    away = [float(np.abs(each - before).mean()) for each in (light, heavy)]
    assert away[0] > 0
    assert corruption.name == "gamma" or away[0] < away[1]


def test_a_mask_turns_with_its_picture() -> None:
    (turn,) = (each for each in corruptions("CT") if each.moves)
    turned = turn.spoil(picture("CT"), 15, "CT", np.random.default_rng(0)) > 40
    mask = turn.moves(SQUARE, 15)
    assert 2 * (turned & mask).sum() / (turned.sum() + mask.sum()) > 0.9
    assert 2 * (turned & SQUARE).sum() / (turned.sum() + SQUARE.sum()) < 0.9


class Threshold:
    """Outlines what is brighter than 40 HU."""

    algorithm = Algorithm("threshold", "1.0.0", codes.ARTIFICIAL_INTELLIGENCE, "0" * 64)

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        (series,) = study.series
        mask = series.volume() > 40
        segment = Segment("square", mask, codes.ANATOMICAL_STRUCTURE, codes.LESION) if mask.any() else None
        return (Findings(series, (Finding(codes.LESION, present=bool(mask.any()), segment=segment),)),)


def test_a_pipeline_is_judged_on_spoilt_dicom(tmp_path: Path) -> None:
    rows: list[Row] = []
    for number in range(3):
        study = f"1.2.{number}"
        ds = slice_of(1, picture("CT").round().astype(np.int16), StudyInstanceUID=study, SOPInstanceUID=f"{study}.1")
        saved(ds, tmp_path / f"{number}.dcm")
        rows.append({"study_uid": study, "sop_uid": f"{study}.1", "file": f"{number}.dcm", "patient_id": str(number)})
    parts = {"outline": Judged(lambda *_: Truth(masks=SQUARE[None]), labels=("square",))}
    lines = list(natural(Threshold(), parts, rows, tmp_path, tmp_path))
    found = {(line["name"], line["degree"]): line["value"] for line in lines}
    assert found["as it is", None] > 0.99
    assert found["rotation", 15] > 0.9
    assert found["calibration", -10] > 0.95
    assert found["coarse pixels", 4] < found["as it is", None]
    assert found["noise", 15] < 0.9
    assert {line["unread"] for line in lines} == {0.0}
    with (tmp_path / "x.csv").open("w") as file:
        csv.DictWriter(file, lines[0]).writeheader()  # every line has the same keys
    assert all(line.keys() == lines[0].keys() for line in lines)


def test_an_attack_stays_within_its_bound_and_does_more_harm_than_none() -> None:
    torch.manual_seed(0)
    images = torch.rand(4, 1, 32, 32)
    away = attacked(images, lambda each: each.square().sum(), bound=0.02)
    assert (away - images).abs().max() <= 0.02 + 1e-6
    assert 0 <= away.min() <= away.max() <= 1
    assert away.square().sum() > images.square().sum()
    net = SqueezeClassifier(1, 1).eval()
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
    count = 16
    pictures = torch.randint(0, 256, (count, 1, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        said = net(pictures.float() / 255)[:, 0]
    labels = (said > said.median()).float()[:, None]
    rows = tuple({"patient_id": str(each), "sop_uid": str(each)} for each in range(count))
    examples = Examples(pictures, labels, torch.zeros(count, 0, 32, 32, dtype=torch.bool), rows)
    task = Classify(
        examples, Options(fold=None), Augment(), "squeeze_classifier", {"channels": 1, "outputs": 1}, ("x",)
    )
    scores = [Attacked(task, [net], examples).score(bound) for bound in (0.0, 0.02)]
    assert scores[0] == 1.0
    assert scores[1] is not None
    assert scores[1] < 0.9
