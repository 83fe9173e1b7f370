"""The pipeline ``mr_brain_type``: which series it reads, and what it says of slices of each kind of tumour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.base import UnsuitableStudy
from pipelines.mr_brain_type import ANY, CARD, BrainTumourType, readable
from pipelines.study import Study, read_files, read_folder
from tests.labelled import needs_set, wrapped
from tests.slices import MR, saved, slice_of

KINDS = ("glioma", "meningioma", "pituitary")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pipeline() -> BrainTumourType:
    if not CARD.exists():
        pytest.skip("mr_brain_type has no weights yet")
    return BrainTumourType()


def study_of(folder: Path, **elements: Any) -> Study:
    told = {"SOPClassUID": MR, "Modality": "MR", "BodyPartExamined": "BRAIN", "SeriesDescription": "T1 POST"} | elements
    (study,), _ = read_files([saved(slice_of(1, np.zeros((64, 64), np.int16), **told), folder / "1.dcm")])
    return study


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"SeriesDescription": "FLAIR"}, "after contrast among MR 'FLAIR'"),
        ({"SeriesDescription": "T1 PRE"}, "after contrast among MR 'T1 PRE'"),
        ({"RepetitionTime": 4000, "EchoTime": 100}, "after contrast among"),
        ({"BodyPartExamined": "KNEE"}, "the body part is KNEE"),
        ({"BodyPartExamined": ""}, "neither body part nor description"),
        ({"Modality": "CT"}, "the modality is CT"),
        ({"ImageType": ["DERIVED", "SECONDARY"]}, "not as acquired"),
    ],
    ids=str,
)
def test_what_is_no_t1_of_the_brain_after_contrast_is_unsuitable(
    tmp_path: Path, elements: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UnsuitableStudy, match=reason):
        readable(study_of(tmp_path, **elements))


@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"RepetitionTime": 600, "EchoTime": 15},
        {"SeriesDescription": "T1 SE", "ContrastBolusAgent": "GADOVIST"},
        {"SeriesDescription": "T1 MPRAGE +C", "BodyPartExamined": "", "StudyDescription": "MRI brain"},
    ],
    ids=str,
)
def test_a_t1_of_the_brain_after_contrast_is_read(tmp_path: Path, elements: dict[str, Any]) -> None:
    assert len(readable(study_of(tmp_path, **elements))) == 1


@needs_set("brain_mri_tumour")
def test_each_kind_of_tumour_is_rated_highest_where_it_is(pipeline: BrainTumourType, tmp_path: Path) -> None:
    """On slices that the networks were trained on: that the way through DICOM is the way of the training."""
    labels = wrapped("brain_mri_tumour", tmp_path, dict.fromkeys((*KINDS, "no_tumour"), 3))
    rated: dict[tuple[str, str], list[float]] = {}
    for study in read_folder(tmp_path)[0]:
        (answer,) = pipeline(study)
        assert [finding.label for finding in answer.findings] == [*KINDS, ANY]
        for finding in answer.findings:
            assert finding.certainty is not None
            rated.setdefault((labels[finding.sop_uids[0]], str(finding.label)), []).append(finding.certainty)
        assert sum(finding.certainty or 0 for finding in answer.findings[:3]) == pytest.approx(
            answer.findings[3].certainty, abs=1e-3
        )
    for kind in KINDS:
        mean = {label: np.mean(rated[label, kind]) for label in (*KINDS, "no_tumour")}
        assert max(mean, key=lambda label: mean[label]) == kind
    assert np.mean(rated["no_tumour", ANY]) < 0.5 < np.mean(rated["glioma", ANY])


@needs_set("brain_mri_tumour")
def test_each_class_has_a_map_of_the_size_of_the_slice(pipeline: BrainTumourType, tmp_path: Path) -> None:
    wrapped("brain_mri_tumour", tmp_path, {"meningioma": 1})
    (study,), _ = read_folder(tmp_path)
    explained = pipeline.explain(study)
    assert [name for _, _, name in explained] == [*KINDS, "no tumor"]
    header = study.series[0].header
    assert all(where.shape == (header.Rows, header.Columns) for _, where, _ in explained)
