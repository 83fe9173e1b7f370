"""The pipeline ``ct_head``: which series it reads, and what it says of slices with and without blood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom import dcmread

from pipelines.base import UnsuitableStudy
from pipelines.ct_head import HeadHaemorrhage, readable
from pipelines.forms import Wanted
from pipelines.reading import job_key, read
from pipelines.study import Study, read_files, read_folder
from tests.labelled import needs_set, wrapped
from tests.slices import saved, slice_of


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pipeline() -> HeadHaemorrhage:
    return HeadHaemorrhage()


def study_of(folder: Path, **elements: Any) -> Study:
    head = {"BodyPartExamined": "HEAD", "SeriesDescription": "HEAD W/O CONTRAST"} | elements
    (study,), _ = read_files([saved(slice_of(1, np.zeros((64, 64), np.int16), **head), folder / "1.dcm")])
    return study


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"BodyPartExamined": "CHEST"}, "the body part is CHEST"),
        ({"Modality": "MR"}, "the modality is MR"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "not as acquired"),
        ({"ContrastBolusAgent": "IOMERON"}, "a contrast agent was given"),
        ({"SeriesDescription": "HEAD BONE 0.6"}, "'BONE'"),
        ({"SeriesDescription": "CTA COW"}, "'CTA'"),
        ({"SeriesDescription": "HEAD WITH CONTRAST"}, "'CONTRAST'"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "not axial"),
        ({"BodyPartExamined": "", "SeriesDescription": "THORAX"}, "neither body part nor description"),
    ],
    ids=str,
)
def test_what_is_no_plain_ct_of_the_head_is_unsuitable(tmp_path: Path, elements: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsuitableStudy, match=reason):
        readable(study_of(tmp_path, **elements))


@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"SeriesDescription": "SCHAEDEL NATIV"},
        {"SeriesDescription": "Head no contrast", "ContrastBolusAgent": "NONE"},
        {"SeriesDescription": "CRANIAL WITHOUT CONTRAST", "BodyPartExamined": ""},
    ],
    ids=str,
)
def test_a_plain_ct_of_the_head_is_read(tmp_path: Path, elements: dict[str, Any]) -> None:
    assert len(readable(study_of(tmp_path, **elements))) == 1


@needs_set("head_ct_haemorrhage")
def test_blood_is_rated_higher_than_none(pipeline: HeadHaemorrhage, tmp_path: Path) -> None:
    """On slices that the networks were trained on: that the way through DICOM is the way of the training."""
    labels = wrapped("head_ct_haemorrhage", tmp_path, {"haemorrhage": 4, "normal": 4})
    rated: dict[str, list[float]] = {"haemorrhage": [], "normal": []}
    for study in read_folder(tmp_path)[0]:
        (answer,) = pipeline(study)
        (finding,) = answer.findings
        assert finding.label == "hemorrhage"
        assert finding.certainty is not None
        rated[labels[finding.sop_uids[0]]].append(finding.certainty)
    assert np.mean(rated["haemorrhage"]) > np.mean(rated["normal"]) + 0.5


@needs_set("head_ct_haemorrhage")
def test_a_stack_is_as_sure_as_its_key_image(pipeline: HeadHaemorrhage, tmp_path: Path) -> None:
    labels = wrapped("head_ct_haemorrhage", tmp_path, {"haemorrhage": 1, "normal": 2}, one_study=True)
    (study,), _ = read_folder(tmp_path)
    runs = read(study, pipeline, name="ct_head", out=tmp_path / "out", job=job_key(study, pipeline))
    assert [run.status for run in runs] == ["read"]
    whole, *each = runs[0].findings
    assert whole.sop_uids == ()
    assert len(each) == 3
    key = max(each, key=lambda finding: finding.certainty or 0)
    assert whole.certainty == key.certainty
    assert whole.present == any(finding.present for finding in each)
    assert labels[key.sop_uids[0]] == "haemorrhage"


@needs_set("head_ct_haemorrhage")
def test_the_map_has_the_size_of_the_slice(pipeline: HeadHaemorrhage, tmp_path: Path) -> None:
    wrapped("head_ct_haemorrhage", tmp_path, {"haemorrhage": 1})
    (study,), _ = read_folder(tmp_path)
    ((uid, where, name),) = pipeline.explain(study)
    header = study.series[0].header
    assert (uid, name) == (str(header.SOPInstanceUID), "hemorrhage")
    assert where.shape == (header.Rows, header.Columns)
    assert where.max() == pytest.approx(1)


@needs_set("head_ct_haemorrhage")
def test_maps_are_evidence_only_where_they_are_asked_for(pipeline: HeadHaemorrhage, tmp_path: Path) -> None:
    wrapped("head_ct_haemorrhage", tmp_path, {"haemorrhage": 1})
    (study,), _ = read_folder(tmp_path)
    for asked in (Wanted(parametric_map=True, map_capture=True), Wanted()):
        job = job_key(study, pipeline)
        (run,) = read(study, pipeline, name="ct_head", out=tmp_path / "out", job=job, forms=asked.forms)
        made = {dcmread(path).SOPClassUID.name for path in run.objects}
        assert ("maps" in run.stages) == asked.parametric_map
        assert ("Secondary Capture Image Storage" in made) == asked.map_capture
