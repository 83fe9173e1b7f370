"""The pipeline ``gm_cells``: nuclei and blood cells, their boxes, and what is not read."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydicom import dcmread

from pipelines import nuclei, smears
from pipelines.base import UnsuitableStudy, WithheldStudy
from pipelines.evidence.check_report import measurement_groups
from pipelines.evidence.masks import seg_masks
from pipelines.gm_cells import CARD, NUCLEI, SMEAR, Cells, said_kind
from pipelines.models.store import DamagedWeights
from pipelines.pictures import by_size
from pipelines.reading import read
from pipelines.run import Run
from pipelines.study import Study, read_folder
from pipelines.training import smears as smear_task
from pipelines.training.corruptions import corruptions, greys_of
from pipelines.training.labelled import LabelledPicture, labelled_pictures
from pipelines.training.loop import Options
from pipelines.training.matching import counts, matched
from pipelines.training.nuclei import boxes_of, contact, depth
from pipelines.training.smears import SmearTask, target
from pipelines.training.warp import Warp
from tests.findings import FORMS
from tests.peers import ROOT, needs_shared
from tests.photographs import discs, photograph, study_of
from tests.wrapped import needs_weights

SETS = ROOT.parent / "shared" / "data"
PLACES = [(40, 40, 9), (40, 110, 8), (120, 60, 10), (130, 140, 7), (200, 200, 12), (200, 60, 8), (70, 200, 9)]
RULE = nuclei.Rule(threshold=0.5, seed=0.5, smallest=3, share=0.0, least=0.0)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pipeline() -> Cells:
    return Cells()


def run(pipeline: Cells, study: Study, out: Path, preset: str = "ohif") -> Run:
    started = datetime(2026, 1, 2, 3, 4, 5)
    (one,) = read(study, pipeline, name="gm_cells", out=out, job="job", forms=FORMS[preset], started=started)
    return one


@needs_weights(CARD)
def test_discs_that_shine_are_found_as_nuclei_each_with_its_box(pipeline, tmp_path):
    study = study_of(tmp_path / "in", photograph(discs(PLACES), "GM"))
    found = run(pipeline, study, tmp_path / "out")
    assert found.status == "read"
    boxes = [each.box for each in found.findings if each.box]
    truth = [(column - r, row - r, 2 * r, 2 * r) for row, column, r in PLACES]
    assert counts(boxes, truth).f1 > 0.9
    assert all(each.label == "nucleus" and each.code.meaning == "Nucleus" for each in found.findings)


@needs_weights(CARD)
def test_the_first_finding_counts_the_nuclei_and_has_their_outline(pipeline, tmp_path):
    study = study_of(tmp_path / "in", photograph(discs(PLACES), "GM"))
    found = run(pipeline, study, tmp_path / "out")
    whole, *each = found.findings
    assert whole.box is None
    assert whole.segment.label == "nucleus"
    assert whole.measurements[0].value == len(each)
    seg = next(path for path in found.objects if path.name == "seg.dcm")
    assert (seg_masks(seg, study.series[0])["nucleus"] == whole.segment.mask).all()


@needs_weights(CARD)
def test_a_picture_without_nuclei_says_so(pipeline, tmp_path):
    blank = np.random.default_rng(0).integers(8, 12, (128, 128, 3)).astype(np.uint8)
    blank[..., 1:] = blank[..., :1]
    blank[60:68, 60:61] = 60  # a scratch, so that the picture has something bright
    found = run(pipeline, study_of(tmp_path / "in", photograph(blank, "GM", SeriesDescription="NUCLEI")), tmp_path)
    if found.status == "read":
        whole = found.findings[0]
        assert whole.present == bool(len(found.findings) - 1)
        assert whole.measurements[0].value == len(found.findings) - 1
    else:
        assert found.status == "withheld"


@needs_weights(CARD)
def test_every_nucleus_has_a_group_of_its_own_in_the_report(pipeline, tmp_path):
    study = study_of(tmp_path / "in", photograph(discs(PLACES), "GM"))
    found = run(pipeline, study, tmp_path / "out", preset="air")
    report = dcmread(next(path for path in found.objects if path.name == "sr.dcm"))
    assert len(measurement_groups(report)) == len(found.findings)


@needs_weights(CARD)
def test_what_the_headers_say_decides(pipeline, tmp_path):
    study = study_of(tmp_path / "in", photograph(discs(PLACES), "GM", BodyPartExamined="BLOOD"))
    assert said_kind(study.series[0]) == SMEAR
    with pytest.raises(WithheldStudy, match="a picture is dark"):  # as no smear is: so it was taken for one
        pipeline(study)


@needs_weights(CARD)
@needs_shared("data", "blood_cells_bccd")
def test_a_contradiction_between_headers_and_look_is_noted(pipeline, tmp_path):
    study = study_of(tmp_path / "in", photograph(real_smear(), "GM", SeriesDescription="NUCLEI"))
    found = run(pipeline, study, tmp_path / "out")
    assert any("but it looks like a blood smear" in note for note in found.notes)
    assert found.findings[0].label == "nucleus"


@pytest.mark.parametrize(
    ("elements", "kind"),
    [
        ({"SeriesDescription": "Nuclei, DAPI"}, NUCLEI),
        ({"StudyDescription": "peripheral blood smear"}, SMEAR),
        ({"SeriesDescription": "IMAGE 1"}, None),
    ],
)
def test_descriptions_tell_the_kind(elements, kind, tmp_path):
    study = study_of(tmp_path, photograph(discs(PLACES), "GM", **elements))
    assert said_kind(study.series[0]) == kind


@needs_weights(CARD)
@pytest.mark.parametrize(
    ("elements", "why"),
    [
        ({"Modality": "XC"}, "the modality is XC"),
        ({"BodyPartExamined": "CHEST"}, "the body part is CHEST"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "OVERVIEW", "NONE"]}, "overviews of slides"),
        ({"ImageType": ["DERIVED", "SECONDARY"]}, "not as acquired"),
    ],
)
def test_headers_that_do_not_fit_are_unsuitable(elements, why, pipeline, tmp_path):
    study = study_of(tmp_path, photograph(discs(PLACES), "GM", **elements))
    with pytest.raises(UnsuitableStudy, match=why):
        pipeline(study)


@needs_weights(CARD)
def test_a_series_of_too_many_pictures_is_withheld(pipeline, tmp_path):
    many = [photograph(discs(PLACES[:1], (64, 64)), "GM", n) for n in range(1, 43)]
    with pytest.raises(WithheldStudy, match="42 pictures"):
        pipeline(study_of(tmp_path, *many))


@needs_weights(CARD)
def test_a_picture_of_something_else_is_withheld(pipeline, tmp_path):
    y, x = np.mgrid[:256, :256]
    skin = np.stack([200 - 0.1 * x, 150 - 0.1 * y, 120 + 0 * x], -1) - 80 * (np.hypot(y - 128, x - 128) < 60)[..., None]
    with pytest.raises(WithheldStudy, match="looks like neither"):
        pipeline(study_of(tmp_path, photograph(skin.astype(np.uint8), "GM")))


@needs_weights(CARD)
def test_a_grey_smear_is_withheld(pipeline, tmp_path):
    grey = discs(PLACES)[..., 0]
    with pytest.raises(WithheldStudy, match="not in colour"):
        pipeline(study_of(tmp_path, photograph(grey, "GM", BodyPartExamined="BLOOD")))


@needs_weights(CARD)
def test_pictures_of_two_sizes_are_read_apart(pipeline, tmp_path):
    study = study_of(
        tmp_path / "in",
        photograph(discs(PLACES), "GM", 1),
        photograph(discs(PLACES[:3], (160, 256)), "GM", 2),
    )
    assert [len(part.instances) for part in by_size(study.series[0])] == [1, 1]
    runs = read(study, pipeline, name="gm_cells", out=tmp_path / "out", job="job")
    assert [one.status for one in runs] == ["read", "read"]


@needs_weights(CARD)
def test_the_same_picture_is_always_read_the_same(pipeline, tmp_path):
    study = study_of(tmp_path / "in", photograph(discs(PLACES), "GM"))
    first, second = (run(pipeline, study, tmp_path / name) for name in "ab")
    assert [path.read_bytes() for path in first.objects] == [path.read_bytes() for path in second.objects]


@needs_weights(CARD)
def test_weights_that_are_not_those_of_the_card_are_refused(tmp_path):
    card = tmp_path / CARD.name
    card.write_bytes(CARD.read_bytes())
    card.with_suffix(".safetensors").write_bytes(CARD.with_suffix(".safetensors").read_bytes()[:-1] + b"x")
    with pytest.raises(DamagedWeights, match="damaged"):
        Cells(card)


# numbers and boxes, without a network


def numbered_discs() -> np.ndarray:
    """Two nuclei that touch, and one apart."""
    y, x = np.ogrid[:64, :64]
    numbers = np.zeros((64, 64), np.int32)
    for number, (row, column) in enumerate([(20, 20), (20, 33), (48, 48)], start=1):
        numbers[(np.hypot(y - row, x - column) < 8) & (numbers == 0)] = number
    return numbers


def test_nuclei_that_touch_stay_apart_and_keep_their_boxes():
    numbers = numbered_discs()
    likely, core = (numbers > 0).astype(np.float32), (depth(numbers) > 0.45).astype(np.float32)
    _, found = nuclei.numbered(likely, core, RULE)
    assert len(found) == 3
    assert matched([each.box for each in found], boxes_of(numbers), least=0.9).all()


def test_what_has_no_core_is_one_nucleus():
    likely = np.zeros((32, 32), np.float32)
    likely[4:8, 4:8] = 1
    (only,) = nuclei.numbered(likely, np.zeros_like(likely), RULE)[1]
    assert only.box == (4, 4, 4, 4)
    assert only.area == 16


def test_the_rims_between_nuclei_that_touch_are_where_they_are():
    between = contact(numbered_discs())
    assert between[20, 26:28].any()
    assert not between[48, 48]
    assert not between[:8].any()


def test_a_large_picture_is_reduced_and_its_boxes_come_back_in_its_own_pixels():
    view = nuclei.shown(np.zeros((600, 1024, 3), np.uint8))
    assert view.size == (150, 256)
    assert view.image.shape == (3, 160, 256)
    assert nuclei.on_source((10, 20, 5, 6), view) == (40.0, 80.0, 20.0, 24.0)
    assert nuclei.mask_on_source(np.ones((150, 256), bool), view).shape == (600, 1024)


def test_the_maps_of_a_target_are_read_back_as_its_boxes():
    view = smears.shown(np.zeros((240, 320, 3), np.uint8))
    boxes = np.array([[10, 10, 60, 64], [100, 80, 220, 190], [225, 30, 245, 52]], np.float32)
    middles, edges = target(boxes, np.array([0, 1, 2]))
    rule = smears.Rule(dict.fromkeys(smears.CLASSES, 0.9), apart=0.5)
    found = smears.cells(torch.cat((middles, edges[:4])), view, rule)
    assert {each.kind for each in found} == set(smears.CLASSES)
    truth = [(x, y, far - x, low - y) for x, y, far, low in (boxes / view.scale).tolist()]
    assert matched([each.box for each in found], truth, least=0.99).all()


def test_of_two_boxes_over_one_cell_the_surer_stays():
    view = smears.shown(np.zeros((240, 320, 3), np.uint8))
    maps = torch.zeros(7, 60, 80)
    maps[0, 20, 20], maps[0, 20, 22], maps[3:] = 0.9, 0.8, 6.0
    rule = smears.Rule(dict.fromkeys(smears.CLASSES, 0.5), apart=0.5)
    (only,) = smears.cells(maps, view, rule)
    assert only.score == pytest.approx(0.9)


def test_mirror_images_are_merged_where_they_belong():
    outputs = torch.randn(1, 1, 7, 60, 80).clamp(-2, 2)
    mirror = outputs.flip(-1)[:, :, [0, 1, 2, 5, 4, 3, 6]]
    both = torch.cat((outputs, mirror), 1)
    assert torch.allclose(smears.merged(both)[:3], outputs[0, 0, :3].sigmoid(), atol=1e-6)
    assert torch.allclose(smears.merged(both)[3:], outputs[0, 0, 3:].exp(), atol=1e-5)
    logits = torch.randn(1, 1, 2, 32, 48)
    flips = torch.cat((logits, logits.flip(-1), logits.flip(-2), logits.flip(-1, -2)), 1)
    assert torch.allclose(nuclei.merged(flips), logits[0, 0].sigmoid(), atol=1e-6)


def test_a_box_hits_one_box_at_most():
    twice = [(0.0, 0.0, 10.0, 10.0), (1.0, 0.0, 10.0, 10.0)]
    assert matched(twice, [(0.0, 0.0, 10.0, 10.0)]).tolist() == [True, False]
    assert counts([], []).f1 == 1.0


def test_a_warp_moves_picture_and_truth_alike():
    torch.manual_seed(0)
    picture = torch.rand(1, 64, 64)
    image, truth = Warp((32, 32), turn=30, quarters=True).draw(picture, picture)
    assert torch.equal(image, truth)
    assert image.shape == (1, 32, 32)
    plain, _ = Warp((64, 64), zoom=(1, 1), mirror=False).draw(picture, picture, (32.0, 32.0))
    assert torch.allclose(plain, picture, atol=1e-5)


@needs_weights(CARD)
@needs_shared("data", "blood_cells_bccd")
def test_a_real_smear_is_read_with_its_white_cell(pipeline, tmp_path):
    found = run(pipeline, study_of(tmp_path / "in", photograph(real_smear(), "GM")), tmp_path / "out")
    assert found.status == "read"
    assert "by its look it is taken for a blood smear" in " ".join(found.notes)
    boxes = {kind: [f.box for f in found.findings if f.label == kind and f.box] for kind in smears.CLASSES}
    assert len(boxes["white blood cell"]) == 1
    assert len(boxes["red blood cell"]) > 5
    for kind in smears.CLASSES:
        summary = next(f for f in found.findings if f.label == kind and not f.box)
        assert summary.measurements[0].value == len(boxes[kind])
        assert summary.present == bool(boxes[kind])


@needs_weights(CARD)
@needs_shared("data", "blood_cells_bccd")
@pytest.mark.parametrize(
    ("name", "degree", "why"),
    [
        ("compression", 10, "blocks of compression"),
        ("photon noise", 60, "is noisy"),
        ("exposure", 0.6, "is dark"),
        ("exposure", 1.5, "is bright|cut off at white"),
        ("colour cast", 0.25, "too much red"),
    ],
)
def test_a_real_smear_that_was_spoilt_is_withheld_and_says_why(name, degree, why, pipeline, tmp_path):
    held = real_smear().astype(np.float32)
    (corruption,) = (each for each in corruptions("GM") if each.name == name)
    spoilt = corruption.spoil(held, degree, greys_of([held], "GM"), np.random.default_rng(0))
    pixels = spoilt.round().clip(0, 255).astype(np.uint8)
    with pytest.raises(WithheldStudy, match=why):
        pipeline(study_of(tmp_path, photograph(pixels, "GM", BodyPartExamined="BLOOD")))


def real_smear() -> np.ndarray:
    return np.asarray(Image.open(SETS / "blood_cells_bccd" / "dev/images/BloodImage_00000.jpg").convert("RGB"))


def smear(tmp_path: Path) -> LabelledPicture:
    """A smear of one dark disc, with its box."""
    pixels = np.full((240, 320, 3), 220, np.uint8)
    y, x = np.ogrid[:240, :320]
    pixels[np.hypot(y - 120, x - 160) < 40] = (150, 60, 150)
    study_of(tmp_path / "study", photograph(pixels, "GM", BodyPartExamined="BLOOD"))
    boxes = '"[{""label"": ""WBC"", ""xywh"": [0.375, 0.3333, 0.25, 0.3333]}]"'
    head = "study_uid,sop_uid,file,patient_id,split,path,boxes_json\n"
    (tmp_path / "index.csv").write_text(f"{head}1.2.3,1.2.3.4.1,study/0.dcm,P1,train,a.jpg,{boxes}\n")
    (only,) = labelled_pictures(tmp_path, ("train",))
    return only


def test_a_detector_learns_the_one_cell_it_is_shown(tmp_path):
    picture = smear_task.prepared(smear(tmp_path))
    task = SmearTask([picture], Options(batch=2, fold=None))
    torch.manual_seed(0)
    net = task.network().train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    losses = []
    for step in range(12):
        images, truth = task.draw(step)
        loss = task.loss(net(images), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-3:]) < 0.7 * losses[0]


def test_boxes_follow_the_picture_when_it_is_changed(tmp_path):
    picture = smear_task.prepared(smear(tmp_path))
    for seed in range(5):
        torch.manual_seed(seed)
        image, boxes, kinds = smear_task._changed(picture, np.random.default_rng(seed))
        ((left, top, right, bottom),) = boxes.round().astype(int)
        green = image[1]
        inside = green[(top + bottom) // 2, (left + right) // 2]
        assert kinds.tolist() == [1]
        assert inside < 0.6 * green.max()


def test_training_pictures_come_by_the_way_of_dicom(tmp_path):
    held = smear(tmp_path)
    ((label, box),) = held.boxes()
    assert label == "WBC"
    assert box == pytest.approx((120, 80, 80, 80), abs=0.1)
    (study,), _ = read_folder(tmp_path / "study")
    assert (held.picture.pixels == study.series[0].pixels(0)).all()
