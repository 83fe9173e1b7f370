"""The pipeline ``mr_brain_type``: which series it reads, and what it says of slices of each kind of tumour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch

from pipelines.base import Findings, UnsuitableStudy, WithheldStudy
from pipelines.classifier import Judged
from pipelines.mr_brain_type import ANY, CARD, RULE, STACK, BrainTumourType, agreed, readable
from pipelines.reading import read
from pipelines.series import Series
from pipelines.study import Study, read_files, read_folder
from tests import wrapped as wrapping
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


def judged(*chances: tuple[float, float, float, float]) -> list[Judged]:
    return [Judged(f"1.2.{place}", each, 0.5) for place, each in enumerate(chances)]


def test_slices_count_by_how_much_of_the_outline_is_on_them() -> None:
    slices = judged((0.9, 0.05, 0.05, 0.0), (0.0, 1.0, 0.0, 0.0))
    assert agreed(slices, np.array([9.0, 1.0]), RULE) == pytest.approx([0.81, 0.145, 0.045])
    with pytest.raises(WithheldStudy, match=r"do not agree .* glioma 45%, meningioma 52%, .* glioma 1, meningioma 1"):
        agreed(slices, np.array([1.0, 1.0]), RULE)


def test_that_none_of_the_three_may_be_there_does_not_weigh_against_a_kind_until_it_is_likely() -> None:
    assert agreed(judged((0.5, 0.1, 0.0, 0.4)), np.array([1.0]), RULE)[0] == pytest.approx(0.5 / 0.6)
    with pytest.raises(WithheldStudy, match="none of the three tumors seems"):
        agreed(judged((0.4, 0.0, 0.0, 0.6)), np.array([1.0]), RULE)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> wrapping.Wrapped:
    """A study of a glioma: three sequences of 20 slices."""
    return wrapping.wrapped("brain_mri_lgg", tmp_path_factory.mktemp("whole") / "in", limit=20)


@pytest.fixture(scope="module")
def answer(pipeline: BrainTumourType, whole: wrapping.Wrapped) -> Findings:
    (found,) = pipeline(whole.studies[0])
    return found


@needs_set("brain_mri_lgg")
def test_a_stack_has_one_answer_from_the_slices_that_show_the_lesion(answer: Findings, whole: wrapping.Wrapped) -> None:
    assert [(each.label, each.present) for each in answer.findings] == [
        ("glioma", True), ("meningioma", False), ("pituitary", False)
    ]  # fmt: skip
    (sop_uids,) = {each.sop_uids for each in answer.findings}
    assert all(int(whole.rows[uid]["tumour_pixels"]) > 0 for uid in sop_uids)
    assert all(whole.rows[uid]["sequence"] == "T1 POST" for uid in sop_uids)
    assert sum(each.certainty or 0 for each in answer.findings) == pytest.approx(1)
    assert f"from {len(sop_uids)} of its 20 slices" in answer.notes[0]
    assert {series.description for series in answer.read} == {"T1 PRE", "FLAIR", "T1 POST"}


@needs_set("brain_mri_lgg")
def test_each_slice_of_that_stack_by_itself_contradicts_the_others(
    pipeline: BrainTumourType, whole: wrapping.Wrapped
) -> None:
    """What the one answer is for: if the networks ever learn stacks, it may go."""
    (found,) = pipeline.each_slice(whole.studies[0])
    assert len({each.label for each in found.findings if each.present} & set(KINDS)) > 1


@needs_set("brain_mri_lgg")
def test_the_report_of_a_stack_names_the_series_the_lesion_was_found_on(
    pipeline: BrainTumourType, whole: wrapping.Wrapped, tmp_path: Path
) -> None:
    study = whole.studies[0]
    (run,) = read(study, pipeline, name="type", out=tmp_path, job="job")
    assert (run.status, run.reason) == ("read", None)
    (report,) = [ds for ds in map(pydicom.dcmread, run.objects) if ds.Modality == "SR"]
    (evidence,) = report.CurrentRequestedProcedureEvidenceSequence
    named = {str(each.SeriesInstanceUID) for each in evidence.ReferencedSeriesSequence}
    assert named == {series.uid for series in study.series}
    groups = [uid for finding in run.findings for uid in finding.sop_uids]
    assert set(groups) == set(run.findings[0].sop_uids)


@needs_set("brain_mri_lgg")
def test_a_stack_is_explained_on_the_slices_that_were_judged(
    pipeline: BrainTumourType, whole: wrapping.Wrapped, answer: Findings
) -> None:
    explained = pipeline.explain(whole.studies[0])
    assert {uid for uid, _, _ in explained} == set(answer.findings[0].sop_uids)


@needs_set("brain_mri_lgg")
@pytest.mark.parametrize(
    ("left", "reason"),
    [({"T1 POST"}, "not known: no FLAIR"), ({"FLAIR"}, None)],
    ids=["without FLAIR", "without T1 after contrast"],
)
def test_a_stack_is_not_judged_where_nobody_knows_which_slices_show_the_lesion(
    pipeline: BrainTumourType, whole: wrapping.Wrapped, left: set[str], reason: str | None
) -> None:
    study = whole.studies[0]
    part = Study(study.uid, tuple(series for series in study.series if series.description in left))
    with pytest.raises(WithheldStudy if reason else UnsuitableStudy, match=reason):
        pipeline(part)


@needs_set("brain_mri_lgg")
def test_a_stack_in_another_frame_of_reference_is_withheld(
    pipeline: BrainTumourType, whole: wrapping.Wrapped, tmp_path: Path
) -> None:
    files = []
    for series in whole.studies[0].series:
        for place, frame in enumerate(series.frames):
            ds = pydicom.dcmread(frame.instance.filename)
            if series.description == "T1 POST":
                ds.FrameOfReferenceUID = "1.2.3.4.5"
            files.append(tmp_path / f"{series.description} {place}.dcm")
            ds.save_as(files[-1])
    (study,), _ = read_files(files)
    with pytest.raises(WithheldStudy, match="does not share FLAIR's frame of reference"):
        pipeline(study)


@needs_set("brain_mri_lgg")
def test_a_few_slices_are_judged_one_by_one_and_it_is_said(pipeline: BrainTumourType, whole: wrapping.Wrapped) -> None:
    study = whole.studies[0]
    (series,) = readable(study)
    few = Series(series.uid, series.modality, series.instances[: STACK - 1])
    (found,) = pipeline(Study(study.uid, (few,)))
    assert len({each.sop_uids for each in found.findings}) == STACK - 1
    assert "by itself" in found.notes[-1]


def test_other_weights_of_the_outline_make_it_another_device(pipeline: BrainTumourType) -> None:
    digest = pipeline.algorithm.weights_digest
    assert digest not in (pipeline._classifier.algorithm.weights_digest, pipeline._finder.algorithm.weights_digest)
