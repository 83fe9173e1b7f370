"""The pipeline ``xc_skin``: which pictures it reads, and what it says of moles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom.uid import VLPhotographicImageStorage

from pipelines.base import UnsuitableStudy
from pipelines.study import Study, read_files, read_folder
from pipelines.xc_skin import DOMAIN, SkinMelanoma
from tests.labelled import needs_set, wrapped
from tests.slices import saved, slice_of


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pipeline() -> SkinMelanoma:
    return SkinMelanoma()


def study_of(folder: Path, **elements: Any) -> Study:
    told = {"SOPClassUID": VLPhotographicImageStorage, "Modality": "XC", "BodyPartExamined": "SKIN"} | elements
    (study,), _ = read_files([saved(slice_of(1, np.zeros((64, 64), np.int16), **told), folder / "1.dcm")])
    return study


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"BodyPartExamined": "EYE"}, "the body part is EYE"),
        ({"BodyPartExamined": "", "SeriesDescription": "WOUND"}, "neither body part nor description"),
        ({"Modality": "OP"}, "the modality is OP"),
        ({"ImageType": ["DERIVED", "PRIMARY"]}, "not as acquired"),
    ],
    ids=str,
)
def test_what_is_no_dermoscopic_picture_is_unsuitable(tmp_path: Path, elements: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsuitableStudy, match=reason):
        DOMAIN.series(study_of(tmp_path, **elements))


def test_a_dermoscopic_picture_without_a_body_part_is_read_by_its_description(tmp_path: Path) -> None:
    assert len(DOMAIN.series(study_of(tmp_path, BodyPartExamined="", SeriesDescription="Dermoscopy 3"))) == 1


@needs_set("skin_isic2017")
def test_melanomas_are_rated_higher_than_moles(pipeline: SkinMelanoma, tmp_path: Path) -> None:
    """On pictures that the networks were trained on: that the way through DICOM is the way of the training."""
    labels = wrapped("skin_isic2017", tmp_path, {"melanoma": 8, "not_melanoma": 8})
    rated: dict[str, list[float]] = {"melanoma": [], "not_melanoma": []}
    for study in read_folder(tmp_path)[0]:
        (answer,) = pipeline(study)
        (finding,) = answer.findings
        assert finding.label == "melanoma"
        assert finding.certainty is not None
        rated[labels[finding.sop_uids[0]]].append(finding.certainty)
    assert np.mean(rated["melanoma"]) > np.mean(rated["not_melanoma"]) + 0.1


@needs_set("skin_isic2017")
def test_the_map_has_the_size_of_the_picture(pipeline: SkinMelanoma, tmp_path: Path) -> None:
    wrapped("skin_isic2017", tmp_path, {"melanoma": 1})
    (study,), _ = read_folder(tmp_path)
    ((_, where, name),) = pipeline.explain(study)
    assert (name, where.shape) == ("melanoma", (study.series[0].header.Rows, study.series[0].header.Columns))
