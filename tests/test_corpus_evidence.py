"""Segmentations and reports that others wrote, read by us: masks to learn from, findings to compare with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread

from pipelines.base import Finding, Findings
from pipelines.evidence import InvalidEvidence, codes
from pipelines.evidence.masks import seg_masks
from pipelines.evidence.reports import reported
from pipelines.study import read_folder
from tests.findings import outlined, slices, study_of, written
from tests.peers import SHARED, needs_shared

CORPUS = SHARED / "data" / "dicom_corpus"
DCMQI, HIGHDICOM = CORPUS / "QIICR__dcmqi" / "data", CORPUS / "ImagingDataCommons__highdicom" / "data" / "test_files"
pytestmark = needs_shared("data", "dicom_corpus")
SEGMENTATIONS = [
    ("segmentations/23x38x3/image", "segmentations/23x38x3/seg/label.seg"),
    ("segmentations/24x38x3/image", "segmentations/24x38x3/seg/label.seg"),
    ("segmentations/ct-3slice", "segmentations/partial_overlaps.dcm"),
]


@pytest.mark.parametrize(("images", "seg"), SEGMENTATIONS)
def test_masks_of_dcmqi_lie_on_the_images_that_they_were_drawn_on(images: str, seg: str) -> None:
    """As highdicom reads them, by the images' UIDs."""
    (study,), _ = read_folder(DCMQI / images)
    (series,) = [each for each in study.series if each.is_image]
    found = seg_masks(DCMQI / seg, series)
    theirs = hd.seg.segread(DCMQI / seg)
    uids = [frame.instance.SOPInstanceUID for frame in series.frames]
    read = theirs.get_pixels_by_source_instance(
        uids, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    assert any(mask.any() for mask in found.values())
    for label, mask in found.items():
        labels = [theirs.get_segment_description(each).segment_label for each in theirs.segment_numbers]
        here = [place for place, each in enumerate(labels) if each == label]
        assert np.array_equal(mask, read[..., here].any(axis=-1)), label


@pytest.mark.parametrize("file", ["sr_document.dcm", "sr_document_with_multiple_groups.dcm"])
def test_reports_say_to_us_what_they_say_to_highdicom(file: str) -> None:
    content = hd.sr.srread(HIGHDICOM / file).content
    theirs = [
        *content.get_planar_roi_measurement_groups(),
        *content.get_volumetric_roi_measurement_groups(),
        *content.get_image_measurement_groups(),
    ]
    ours = {group.uid: group for group in reported(HIGHDICOM / file)}
    assert set(ours) == {group.tracking_uid for group in theirs}
    for group in theirs:
        read = ours[group.tracking_uid]
        assert read.identifier == group.tracking_identifier
        assert (read.finding and read.finding.value) == (group.finding_type and group.finding_type.value)
        values = [(each.name.value, each.value, each.unit.value) for each in group.get_measurements()]
        assert [(each.name.value, each.value, each.unit.value) for each in read.measurements] == values
        answers = [(each.name.value, each.value.value) for each in group.get_qualitative_evaluations()]
        assert [(name.value, answer.value) for name, answer in read.evaluations] == answers


def test_a_report_of_dcmqi_names_its_segment_and_its_numbers() -> None:
    (group,) = reported(DCMQI / "sr-example" / "sr.dcm")
    assert group.identifier == "primary tumor"
    assert (group.finding and group.finding.meaning) == "Neoplasm, Primary"
    assert (group.site and group.site.meaning) == "pharyngeal tonsil (adenoid)"
    assert group.measurements[0].value == 6.01529
    assert group.segments == ((str(dcmread(DCMQI / "sr-example" / "seg.dcm").SOPInstanceUID), 1),)


@pytest.mark.parametrize("preset", ["ohif", "air"])
def test_our_own_reports_come_back(tmp_path: Path, preset: str) -> None:
    study = study_of(slices(), tmp_path / "in")
    finding = outlined(study.series[0]).findings[0]
    findings = Findings(study.series[0], (replace(finding, side=codes.LEFT), Finding(codes.MASS, False, 0.1)))
    made = written(findings, study, tmp_path / "out", preset=preset)
    (group, *_) = reported(tmp_path / "out" / "sr.dcm")
    assert (group.finding, group.site, group.side) == (codes.LESION, codes.BRAIN, codes.LEFT)
    assert group.evaluations == ((codes.LESION, codes.PRESENT),)
    assert (group.certainty, group.measurements) == (0.97, finding.measurements)
    if preset == "air":
        assert group.segments == ((made["seg.dcm"].SOPInstanceUID, 1),)
    else:
        assert {region.kind for region in group.regions} == {"POLYLINE"}
        assert {region.sop_uid for region in group.regions} <= {each.SOPInstanceUID for each in slices()}


def test_what_is_no_measurement_report_is_named() -> None:
    file = CORPUS / "robyoung__dicom-test-files" / "data" / "pydicom" / "reportsi.dcm"
    with pytest.raises(InvalidEvidence, match=r"reportsi\.dcm is no Measurement Report"):
        reported(file)
