"""Pipelines that name classes: what they make of chances, which pictures they do not judge, and where they look."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipelines.base import Finding, Findings, WithheldStudy
from pipelines.classifier import AS_IT_IS, MIRRORED, Classifier, Judged, stride
from pipelines.domain import class_findings
from pipelines.evidence import codes
from pipelines.models.squeeze import SqueezeClassifier
from pipelines.pictures import Look, pictures
from pipelines.series import Series
from pipelines.study import read_files
from tests.slices import saved, slice_of


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def card(folder: Path, *, strangest: float = 1e9, outputs: int = 2, exclusive: bool = False) -> Path:
    """Two untrained members and what they know of the training: that its features were 0."""
    torch.manual_seed(0)
    tensors = {"class.mean": torch.zeros(512), "class.axes": torch.eye(512)[:, :8].contiguous()}
    for place in range(2):
        net = SqueezeClassifier(1, outputs)
        for layer in net.modules():
            if isinstance(layer, torch.nn.Conv2d):  # by default so small that no picture gets through
                torch.nn.init.kaiming_normal_(layer.weight)
        tensors |= {f"{place}.{name}": value for name, value in net.state_dict().items()}
    file = folder / "noise-1.0.0.json"
    save_file(tensors, file.with_suffix(".safetensors"))
    names = [f"class {place}" for place in range(outputs)]
    points = {
        "scale": [1.0] * outputs,
        "offset": [0.0] * outputs,
        "exclusive": exclusive,
        "classes": names,
        "cutoffs": dict.fromkeys(names, 0.5),
        "strangest": strangest,
    }
    held = {
        "name": "noise",
        "version": "1.0.0",
        "sha256": hashlib.sha256(file.with_suffix(".safetensors").read_bytes()).hexdigest(),
        "networks": [{"role": "class", "kind": "squeeze_classifier", "args": {"channels": 1, "outputs": outputs}}] * 2,
        "points": {"class": points},
    }
    file.write_text(json.dumps(held))
    return file


def series(folder: Path, count: int = 3, *, apart: float = 5.0, shape: tuple[int, int] = (48, 60)) -> Series:
    rng = np.random.default_rng(0)
    files = []
    for number in range(count):
        pixels = rng.integers(0, 200, shape).astype(np.int16)
        place = [0.0, 0.0, number * apart]
        files.append(saved(slice_of(number + 1, pixels, ImagePositionPatient=place), folder / f"{number:03}.dcm"))
    (study,), _ = read_files(files)
    return study.series[0]


def each_class(judged: Sequence[Judged]) -> list[Finding]:
    points = {"classes": ["class 0", "class 1"], "cutoffs": {"class 0": 0.5, "class 1": 0.5}}
    known = {"class 0": codes.LESION, "class 1": codes.MASS}
    return [
        finding for each in judged for finding in class_findings(each.chances, points, known, sop_uids=(each.sop_uid,))
    ]


def test_every_image_has_every_class(tmp_path: Path) -> None:
    (answer,) = Classifier(card(tmp_path), Look((64, 64))).read([series(tmp_path)], each_class)
    said = [(finding.sop_uids, finding.label) for finding in answer.findings]
    assert said == [((f"1.2.3.4.{n}",), f"class {place}") for n in (1, 2, 3) for place in (0, 1)]
    assert all(finding.certainty is not None and 0 <= finding.certainty <= 1 for finding in answer.findings)
    assert answer.notes == ()


def test_classes_that_exclude_each_other_share_one_certainty(tmp_path: Path) -> None:
    classifier = Classifier(card(tmp_path, outputs=3, exclusive=True), Look((64, 64)))
    for each in classifier.judge(pictures(series(tmp_path))):
        assert sum(each.chances) == pytest.approx(1, abs=1e-5)


def test_a_picture_and_its_mirror_image_are_judged_alike_where_sides_mean_nothing(tmp_path: Path) -> None:
    look, images = Look((64, 64)), torch.rand(2, 1, 64, 64)
    both = Classifier(card(tmp_path), look, views=(AS_IT_IS, MIRRORED))
    assert torch.allclose(both.chances(images), both.chances(images.flip(3)), atol=1e-5)
    one = Classifier(card(tmp_path), look)
    assert not torch.allclose(one.chances(images), one.chances(images.flip(3)), atol=1e-5)


def test_pictures_unlike_those_of_the_training_are_withheld(tmp_path: Path) -> None:
    with pytest.raises(WithheldStudy, match="unlike the pictures of the training"):
        Classifier(card(tmp_path, strangest=0.0), Look((64, 64))).read([series(tmp_path)], each_class)


def test_one_strange_picture_does_not_keep_the_others_from_being_read(tmp_path: Path) -> None:
    held = series(tmp_path)
    far = sorted(each.strange for each in Classifier(card(tmp_path), Look((64, 64))).judge(pictures(held)))
    classifier = Classifier(card(tmp_path, strangest=(far[1] + far[2]) / 2), Look((64, 64)))
    (answer,) = classifier.read([held], each_class)
    assert len(answer.findings) == 4
    assert answer.notes == ("1 of 3 images are unlike those of the training: not read",)


def test_a_series_that_cannot_be_read_is_named_beside_one_that_can(tmp_path: Path) -> None:
    torn = slice_of(1, np.zeros((48, 60), np.int16), SeriesInstanceUID="1.2.9", SeriesDescription="TORN")
    torn.PixelData = torn.PixelData[:100]
    (study,), _ = read_files([saved(torn, tmp_path / "torn" / "1.dcm")])
    classifier = Classifier(card(tmp_path), Look((64, 64)))
    (answer,) = classifier.read([study.series[0], series(tmp_path / "whole")], each_class)
    assert len(answer.findings) == 6
    assert answer.notes[0].startswith("series TORN was not read: a picture cannot be read")
    with pytest.raises(WithheldStudy, match="a picture cannot be read"):
        classifier.read([study.series[0]], each_class)


def test_thin_slices_are_read_at_four_millimetres(tmp_path: Path) -> None:
    thin = series(tmp_path, 9, apart=1.0)
    assert stride(thin) == 4
    (answer,) = Classifier(card(tmp_path), Look((64, 64))).read([thin], each_class)
    assert {finding.sop_uids[0] for finding in answer.findings} == {"1.2.3.4.1", "1.2.3.4.5", "1.2.3.4.9"}
    assert answer.notes == ("slices are thin: one of 4 was read",)


def test_a_map_lies_on_the_pixels_of_its_image(tmp_path: Path) -> None:
    classifier = Classifier(card(tmp_path), Look((64, 64)))
    explained = classifier.explain([series(tmp_path)])
    assert [(uid, name) for uid, _, name in explained[:2]] == [("1.2.3.4.1", "class 0"), ("1.2.3.4.1", "class 1")]
    assert len(explained) == 6
    for _, where, _ in explained:
        assert where.shape == (48, 60)
        assert where.dtype == np.float32
        assert 0 <= where.min() <= where.max() <= 1


def test_a_map_is_bright_where_the_class_is(tmp_path: Path) -> None:
    """A network whose one feature is brightness: the map must point to the bright corner of the source."""
    file = card(tmp_path, outputs=1)
    classifier = Classifier(file, Look((64, 64), window=(0, 100)))
    for net in classifier._networks.members("class"):
        net.maps = lambda x: torch.nn.functional.avg_pool2d(x, 16).repeat(1, 512, 1, 1)  # type: ignore[assignment]
        torch.nn.init.ones_(net.head.weight)  # type: ignore[arg-type,union-attr]
    pixels = np.zeros((40, 80), np.int16)
    pixels[:12, 60:] = 100
    (study,), _ = read_files([saved(slice_of(1, pixels), tmp_path / "1.dcm")])
    ((_, where, _),) = classifier.explain(study.series)
    row, column = np.unravel_index(int(where.argmax()), where.shape)
    assert (row < 14, column > 55) == (True, True)
    assert where[30:, :30].max() < 0.2


def test_maps_are_of_the_images_that_show_a_class_most_surely(tmp_path: Path) -> None:
    classifier, held = Classifier(card(tmp_path), Look((64, 64))), series(tmp_path, 10)
    points = {"classes": ["class 0", "class 1"], "cutoffs": {"class 0": 0.5, "class 1": 1.1}}
    known = {"class 0": codes.LESION, "class 1": codes.MASS}
    found = [
        finding
        for number in range(10)
        for finding in class_findings((number / 10, 1.0), points, known, sop_uids=(f"1.2.3.4.{number + 1}",))
    ]
    (made,) = classifier.saliency(Findings(held, tuple(found)))
    assert (made.label, made.method) == ("class 0", codes.CLASS_ACTIVATION)
    assert made.places == (5, 6, 7, 8, 9)
    (picture,) = list(pictures(held))[6:7]
    assert np.array_equal(made.values[1], classifier.maps(picture)[0])


def test_where_nothing_is_present_there_is_no_map(tmp_path: Path) -> None:
    held = series(tmp_path)
    absent = Finding(codes.LESION, False, 0.1, sop_uids=("1.2.3.4.1",), label="class 0")
    assert Classifier(card(tmp_path), Look((64, 64))).saliency(Findings(held, (absent,))) == ()
