"""Measurement reports: every run says what it found, or that it did not, and who says so."""

from __future__ import annotations

import shutil
import subprocess
from itertools import pairwise

import highdicom as hd
import numpy as np
import pytest
from pydicom.dataset import Dataset

from pipelines.base import Finding, Findings, Measurement
from pipelines.evidence import InvalidEvidence, NotEvaluated, Predecessor, codes
from pipelines.forms import USUAL
from tests.findings import (
    ALGORITHM,
    GEOMETRIES,
    STARTED,
    blob,
    image,
    lesion,
    nothing,
    outlined,
    slices,
    study_of,
    verdict,
    written,
)

PRESETS = ("ohif", "air")


@pytest.fixture
def study(tmp_path):
    return study_of(slices(), tmp_path / "in")


def children(item, name):
    return [each for each in item.ContentSequence if each.ConceptNameCodeSequence[0].CodeValue == name.value]


def groups(report):
    return [g for box in children(report, codes.IMAGING_MEASUREMENTS) for g in children(box, codes.MEASUREMENT_GROUP)]


def evaluations(report):
    (box,) = children(report, codes.QUALITATIVE_EVALUATIONS)
    return {
        each.ConceptNameCodeSequence[0].CodeMeaning: each.ConceptCodeSequence[0].CodeMeaning
        for each in box.ContentSequence
        if each.ValueType == "CODE"
    }


def comments(report):
    (box,) = children(report, codes.QUALITATIVE_EVALUATIONS)
    return [each.TextValue for each in children(box, codes.COMMENT)]


def numbers(group):
    found = {}
    for item in group.ContentSequence:
        if item.ValueType == "NUM":
            (measured,) = item.MeasuredValueSequence
            unit = measured.MeasurementUnitsCodeSequence[0].CodeValue
            found[item.ConceptNameCodeSequence[0].CodeMeaning] = (float(measured.NumericValue), unit)
    return found


def outcomes(series):
    return {
        "found": outlined(series, notes=("there is no T1 after contrast",)),
        "nothing": nothing(series),
        "unsuitable": NotEvaluated("unsuitable", "the study has no FLAIR"),
        "withheld": NotEvaluated("withheld", "the slices are 12 mm thick"),
        "failed": NotEvaluated("failed", "the weights are damaged"),
    }


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("outcome", ["found", "nothing", "unsuitable", "withheld", "failed"])
def test_dciodvfy_finds_no_error(tmp_path, study, outcome, preset):
    written(outcomes(study.series[0])[outcome], study, tmp_path, preset=preset)
    assert verdict(tmp_path / "sr.dcm") == []


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.parametrize("modality", ["CR", "DX", "US", "XC"])
@pytest.mark.parametrize("preset", PRESETS)
def test_dciodvfy_finds_no_error_for_one_picture(tmp_path, modality, preset):
    study = study_of([image(1, modality=modality)], tmp_path / "in")
    written(outlined(study.series[0]), study, tmp_path, preset=preset)
    assert verdict(tmp_path / "sr.dcm") == []


@pytest.mark.skipif(not shutil.which("dsrdump"), reason="dsrdump (dcmtk) is not installed")
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("outcome", ["found", "nothing", "failed"])
def test_dsrdump_reads_it(tmp_path, study, outcome, preset):
    written(outcomes(study.series[0])[outcome], study, tmp_path, preset=preset)
    told = subprocess.run(["dsrdump", str(tmp_path / "sr.dcm")], capture_output=True, encoding="latin-1", check=False)
    assert told.returncode == 0, told.stderr
    assert "Imaging Measurement Report" in told.stdout
    assert "E:" not in told.stderr


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_highdicom_reads_the_numbers_back(tmp_path, geometry, preset):
    study = study_of(slices(geometry=GEOMETRIES[geometry]), tmp_path / "in")
    written(outlined(study.series[0]), study, tmp_path, preset=preset)
    (group,) = hd.sr.srread(tmp_path / "sr.dcm").content.get_volumetric_roi_measurement_groups()
    volume = group.get_measurements(name=codes.VOLUME)[0]
    assert (volume.value, volume.unit.value) == (41.2, "cm3")
    assert group.tracking_identifier == "FLAIR abnormality"


def test_the_report_and_the_segment_are_tracked_alike(tmp_path, study):
    for preset in PRESETS:
        made = written(outlined(study.series[0]), study, tmp_path / preset, preset=preset)
        (segment,) = made["seg.dcm"].SegmentSequence
        (group,) = groups(made["sr.dcm"])
        assert segment.TrackingUID == children(group, codes.TRACKING_UNIQUE_IDENTIFIER)[0].UID
        assert children(group, codes.TRACKING_IDENTIFIER)[0].TextValue == segment.TrackingID == "FLAIR abnormality"


def test_certainty_is_in_percent_and_volume_in_cm3(tmp_path, study):
    (group,) = groups(written(outlined(study.series[0]), study, tmp_path)["sr.dcm"])
    assert numbers(group) == {"Certainty of Finding": (97.0, "%"), "Volume": (41.2, "cm3")}


def test_nobody_has_verified_it(tmp_path, study):
    for name, outcome in outcomes(study.series[0]).items():
        report = written(outcome, study, tmp_path / name)["sr.dcm"]
        assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
        assert "not verified" in report.SeriesDescription


def test_air_refers_to_the_segment_and_its_series(tmp_path, study):
    made = written(outlined(study.series[0]), study, tmp_path, preset="air")
    (group,) = groups(made["sr.dcm"])
    (segment,) = children(group, codes.REFERENCED_SEGMENT)
    assert segment.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == made["seg.dcm"].SOPInstanceUID
    assert segment.ReferencedSOPSequence[0].ReferencedSegmentNumber == 1
    assert study.series[0].uid == children(group, codes.SOURCE_SERIES_FOR_SEGMENTATION)[0].UID
    assert group.ContentTemplateSequence[0].TemplateIdentifier == "1411"


def test_air_refers_to_the_frame_of_a_picture(tmp_path):
    study = study_of([image(1, modality="DX")], tmp_path / "in")
    made = written(outlined(study.series[0]), study, tmp_path, preset="air")
    (group,) = groups(made["sr.dcm"])
    (reference,) = children(group, codes.REFERENCED_SEGMENTATION_FRAME)
    assert reference.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == made["seg.dcm"].SOPInstanceUID
    assert group.ContentTemplateSequence[0].TemplateIdentifier == "1410"


def test_ohif_gets_the_outlines_on_the_images_the_largest_first(tmp_path, study):
    series = study.series[0]
    made = written(outlined(series), study, tmp_path, preset="ohif")
    (group,) = groups(made["sr.dcm"])
    regions = children(group, codes.IMAGE_REGION)
    outlines = [(each, np.array(each.GraphicData).reshape(-1, 2)) for each in regions]
    areas = [_area(polygon) for _, polygon in outlines]
    assert areas == sorted(areas, reverse=True)
    drawn = np.zeros(blob(series).shape, np.bool_)
    index = {frame.instance.SOPInstanceUID: place for place, frame in enumerate(series.frames)}
    for item, polygon in outlines:
        reference = item.ContentSequence[0].ReferencedSOPSequence[0]
        drawn[index[reference.ReferencedSOPInstanceUID]] |= _inside(polygon, drawn.shape[1:])
    assert np.array_equal(drawn, blob(series))


def _area(polygon):
    x, y = polygon.T
    return abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2


def _inside(polygon, shape):
    """The pixels whose centres a polygon of pixel edges encloses: count the edges to the left."""
    crossings = np.zeros((shape[0], shape[1] + 1), int)
    for (x0, y0), (x1, y1) in pairwise(polygon):
        if x0 == x1:
            crossings[int(min(y0, y1)) : int(max(y0, y1)), int(x0)] += 1
    return np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1


def reaches_scoord(group):
    """What OHIF 3.13.2 looks for: an SCOORD in the group, or below one of its numbers."""
    return any(
        item.ValueType == "SCOORD"
        or (item.ValueType == "NUM" and any(each.ValueType == "SCOORD" for each in item.get("ContentSequence", [])))
        for item in group.ContentSequence
    )


def test_no_group_for_ohif_is_without_coordinates(tmp_path, study):
    series = study.series[0]
    found = (
        *outlined(series).findings,
        Finding(codes.MASS, False, 0.2, label="mass"),
        Finding(codes.NEOPLASM, True, None, label="neoplasm"),
        Finding(codes.LUNG, True, 0.8, sop_uids=("1.2.3.4.2",)),
        Finding(codes.LESION, True, 0.9, sop_uids=("1.2.3.4.3",), box=(2, 3, 4, 5)),
    )
    report = written(Findings(series, found, read=(series,)), study, tmp_path, preset="ohif")["sr.dcm"]
    assert len(groups(report)) == 5
    assert all(map(reaches_scoord, groups(report)))
    assert evaluations(report) == {"Summary of Analyses": "Succeeded"}


def test_what_has_no_number_says_on_how_many_images_it_was_looked_for(tmp_path, study):
    """A number with a place on an image: else OHIF has nothing to show."""
    found = Finding(codes.NEOPLASM, False, None, label="tumor")
    report = written(Findings(study.series[0], (found,)), study, tmp_path)["sr.dcm"]
    (group,) = groups(report)
    assert reaches_scoord(group)
    assert numbers(group) == {"Number of Frames": (6.0, "1")}
    assert [each.TextValue for each in children(group, codes.COMMENT)] == [
        "tumor: absent (AI, not verified: mr_brain 1.0.0)"
    ]
    assert children(group, codes.FINDING) == []
    (read,) = hd.sr.srread(tmp_path / "sr.dcm").content.get_image_measurement_groups()
    assert read.tracking_identifier == "tumor"


@pytest.mark.parametrize("preset", PRESETS)
def test_nothing_found_is_said(tmp_path, study, preset):
    report = written(nothing(study.series[0]), study, tmp_path, preset=preset)["sr.dcm"]
    (group,) = groups(report)
    (answer,) = children(group, codes.LESION)
    assert answer.ConceptCodeSequence[0].CodeMeaning == "Absent"
    assert children(group, codes.FINDING) == []  # nobody may take it for a finding that is there
    assert numbers(group) == {"Certainty of Finding": (3.0, "%")}
    assert evaluations(report)["Summary of Analyses"] == "Succeeded"
    assert "nothing found" in report.SeriesDescription


@pytest.mark.parametrize(
    ("status", "code", "words", "flag"),
    [
        ("unsuitable", "Not Attempted", "not evaluated", "COMPLETE"),
        ("withheld", "Not Attempted", "withheld", "COMPLETE"),
        ("failed", "Failed", "failed", "PARTIAL"),
    ],
)
def test_what_was_not_evaluated_says_why(tmp_path, study, status, code, words, flag):
    report = written(NotEvaluated(status, "the study has no FLAIR"), study, tmp_path)["sr.dcm"]
    assert evaluations(report) == {"Summary of Analyses": code}
    assert comments(report) == [f"{words}: the study has no FLAIR"]
    (group,) = groups(report)
    assert reaches_scoord(group)
    assert numbers(group) == {"Number of Frames": (6.0, "1")}
    said = f"{words} (AI, not verified: mr_brain 1.0.0): the study has no FLAIR"
    assert [each.TextValue for each in children(group, codes.COMMENT)] == [said]
    assert report.CompletionFlag == flag
    assert words in report.SeriesDescription
    referring = written(NotEvaluated(status, "the study has no FLAIR"), study, tmp_path / "air", preset="air")["sr.dcm"]
    assert groups(referring) == []
    assert comments(referring) == comments(report)


def test_a_long_reason_is_cut_where_a_screen_ends_and_whole_in_the_evaluations(tmp_path, study):
    reason = ("the study has no FLAIR, " * 12).strip()
    report = written(NotEvaluated("withheld", reason), study, tmp_path)["sr.dcm"]
    (group,) = groups(report)
    (said,) = children(group, codes.COMMENT)
    assert len(said.TextValue) == 100
    assert said.TextValue.endswith("...")
    assert comments(report) == [f"withheld: {reason}"]


def test_the_notes_stand_in_the_report(tmp_path, study):
    note = "there is no T1 after contrast"
    assert comments(written(outlined(study.series[0], notes=(note,)), study, tmp_path)["sr.dcm"]) == [note]


def test_every_image_that_was_read_is_named(tmp_path):
    second = slices(SeriesInstanceUID="1.2.3.5", SeriesNumber=2)
    for number, ds in enumerate(second):
        ds.SOPInstanceUID = f"1.2.3.5.{number}"
    study = study_of([*slices(), *second], tmp_path / "in")
    flair, t1 = study.series
    outcome = Findings(flair, outlined(flair).findings, read=(t1, flair))
    made = written(outcome, study, tmp_path)
    (evidence,) = made["sr.dcm"].CurrentRequestedProcedureEvidenceSequence
    named = {i.ReferencedSOPInstanceUID for s in evidence.ReferencedSeriesSequence for i in s.ReferencedSOPSequence}
    read = {instance.SOPInstanceUID for series in (flair, t1) for instance in series.instances}
    assert named == read | {made["seg.dcm"].SOPInstanceUID}
    (library,) = children(made["sr.dcm"], codes.IMAGE_LIBRARY)
    entries = [i for g in library.ContentSequence for i in g.ContentSequence if i.ValueType == "IMAGE"]
    assert {entry.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for entry in entries} == read


def test_a_revision_names_the_report_that_it_follows(tmp_path, study):
    before = dict.fromkeys(USUAL, Predecessor("1.2.3.77", "1.2.3.7"))
    report = written(nothing(study.series[0]), study, tmp_path, job="job 2", predecessors=before)["sr.dcm"]
    (item,) = report.PredecessorDocumentsSequence
    (series,) = item.ReferencedSeriesSequence
    (document,) = series.ReferencedSOPSequence
    assert (item.StudyInstanceUID, series.SeriesInstanceUID) == ("1.2.3", "1.2.3.7")
    assert (document.ReferencedSOPInstanceUID, document.ReferencedSOPClassUID) == ("1.2.3.77", report.SOPClassUID)


def test_a_box_is_a_region_on_its_image(tmp_path, study):
    found = Finding(codes.LESION, True, 0.9, sop_uids=("1.2.3.4.3",), box=(2, 3, 4, 5))
    outcome = Findings(study.series[0], (found,), read=study.series)
    for preset in PRESETS:
        (group,) = groups(written(outcome, study, tmp_path / preset, preset=preset)["sr.dcm"])
        (region,) = children(group, codes.IMAGE_REGION)
        assert list(region.GraphicData) == [2, 3, 6, 3, 6, 8, 2, 8, 2, 3]
        assert region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.3"
        assert numbers(group) == {"Certainty of Finding": (90.0, "%")}


def test_a_box_without_its_image_is_refused(tmp_path, study):
    outcome = Findings(study.series[0], (Finding(codes.LESION, True, 0.9, box=(2, 3, 4, 5)),))
    with pytest.raises(InvalidEvidence, match="must name the one image"):
        written(outcome, study, tmp_path)


def test_findings_of_one_name_are_numbered(tmp_path, study):
    uids = ("1.2.3.4.1", "1.2.3.4.2")
    found = tuple(Finding(codes.LESION, True, 0.9, sop_uids=(uid,), box=(1, 1, 2, 2)) for uid in uids)
    report = written(Findings(study.series[0], found), study, tmp_path)["sr.dcm"]
    named = [children(group, codes.TRACKING_IDENTIFIER)[0].TextValue for group in groups(report)]
    assert named == ["Lesion 1", "Lesion 2"]


def test_the_observer_is_the_device_that_the_equipment_names(tmp_path, study):
    report = written(nothing(study.series[0]), study, tmp_path)["sr.dcm"]
    camera, machine = report.ContributingEquipmentSequence
    assert camera.Manufacturer == "Maker"
    assert machine.DeviceUID == ALGORITHM.device_uid
    assert ALGORITHM.device_uid == children(report, codes.DEVICE_OBSERVER_UID)[0].UID
    (group,) = groups(report)
    assert children(group, codes.ALGORITHM_NAME)[0].TextValue == machine.ManufacturerModelName == "mr_brain"
    assert children(group, codes.ALGORITHM_VERSION)[0].TextValue == machine.SoftwareVersions == "1.0.0"


def test_the_procedure_is_the_study_s_own(tmp_path):
    coded = Dataset()
    coded.CodeValue, coded.CodingSchemeDesignator, coded.CodeMeaning = "MRKOPF", "99KIS", "MR Kopf"
    study = study_of(slices(ProcedureCodeSequence=[coded]), tmp_path / "in")
    report = written(nothing(study.series[0]), study, tmp_path)["sr.dcm"]
    (procedure,) = children(report, codes.PROCEDURE_REPORTED)
    assert procedure.ConceptCodeSequence[0].CodeValue == "MRKOPF"


def test_the_time_is_when_the_analysis_began(tmp_path, study):
    for made in written(outlined(study.series[0]), study, tmp_path).values():
        assert (made.ContentDate, made.ContentTime[:6]) == (f"{STARTED:%Y%m%d}", f"{STARTED:%H%M%S}")
        assert made.InstanceCreationDate == f"{STARTED:%Y%m%d}"


def test_an_outline_that_is_not_of_the_study_is_refused(tmp_path, study):
    others = slices(SeriesInstanceUID="1.2.3.6")
    stranger = study_of(others, tmp_path / "other").series[0]
    with pytest.raises(InvalidEvidence, match="not of the study"):
        written(outlined(stranger, lesion(blob(stranger))), study, tmp_path)


def test_a_measurement_of_a_present_class_is_kept(tmp_path, study):
    length = Measurement(codes.LENGTH, 12.5, codes.MILLIMETER)
    outcome = Findings(study.series[0], (Finding(codes.MASS, True, 0.7, measurements=(length,)),))
    for preset in PRESETS:
        (group,) = groups(written(outcome, study, tmp_path / preset, preset=preset)["sr.dcm"])
        assert numbers(group)["Length"] == (12.5, "mm")


@pytest.mark.parametrize("modality", ["MR", "XC"])
def test_an_outline_longer_than_an_element_holds_is_several(tmp_path, modality):
    """Graphic Data of more than 64 KiB has no VR of its own in Explicit VR, and no reader expects another."""
    side = 160
    pixels = np.zeros((side, side), "<u2").tobytes()
    if modality == "MR":
        images = slices(3, Rows=side, Columns=side, PixelData=pixels)
    else:
        images = [image(1, modality="XC", shape=(side, side))]
    study = study_of(images, tmp_path / "in")
    mask = np.zeros((len(images), side, side), np.bool_)
    mask[0, ::3], mask[0, 1::3, ::2], mask[0, :, 0] = True, True, True  # a comb of combs: 17,000 corners, no hole
    report = written(outlined(study.series[0], lesion(mask)), study, tmp_path)["sr.dcm"]
    drawn = np.zeros((side, side), np.bool_)
    for group in groups(report):
        for region in children(group, codes.IMAGE_REGION):
            assert region["GraphicData"].VR == "FL"
            assert region["GraphicData"].VM == len(region.GraphicData) <= 16000
            part = _inside(np.array(region.GraphicData).reshape(-1, 2), drawn.shape)
            assert not (drawn & part).any()
            drawn |= part
    assert np.array_equal(drawn, mask[0])
    if shutil.which("dciodvfy"):
        assert verdict(tmp_path / "sr.dcm") == []


@pytest.mark.parametrize(("said", "side"), [("L", "Left"), ("R", "Right"), ("", None), ("B", None)])
def test_a_breast_is_the_one_that_the_images_name(tmp_path, said, side):
    study = study_of([image(1, modality="US", ImageLaterality=said)], tmp_path / "in")
    found = Finding(codes.MASS, True, 0.7, sop_uids=("1.2.3.4.1",), site=codes.BREAST, box=(1, 1, 2, 2))
    (group,) = groups(written(Findings(study.series[0], (found,)), study, tmp_path)["sr.dcm"])
    (site,) = children(group, codes.FINDING_SITE)
    told = [each.ConceptCodeSequence[0].CodeMeaning for each in site.get("ContentSequence", [])]
    assert told == ([side] if side else [])
