"""The check: right objects pass, and each thing that can be wrong is found and said."""

from __future__ import annotations

from copy import deepcopy

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from pipelines.base import Finding, Findings
from pipelines.evidence import InvalidEvidence, NotEvaluated, codes
from pipelines.evidence.check import check
from tests.findings import nothing, outlined, slices, study_of, written


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("check")
    study = study_of(slices(), folder / "in")
    evidence = written(outlined(study.series[0]), study, folder / "out")
    return {**evidence, "source": study.series[0].instances, "folder": folder / "out"}


def wrong(made, name, change, **more):
    """What the check says when something has been changed."""
    spoilt = deepcopy(made[name])
    change(spoilt)
    return check(spoilt, source=made["source"], beside=(made["seg.dcm"], made["sr.dcm"]), **more)


def group_of(report):
    return report.ContentSequence[-2].ContentSequence[0]


def item_of(container, code):
    return next(i for i in container.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == code.value)


def without(container, code):
    container.ContentSequence = [
        each for each in container.ContentSequence if each.ConceptNameCodeSequence[0].CodeValue != code.value
    ]


def test_what_is_right_passes(made):
    for name in ("seg.dcm", "sr.dcm"):
        assert check(made[name], source=made["source"], beside=(made["seg.dcm"], made["sr.dcm"])) == ()
        assert check(made["folder"] / name) == ()


def test_every_outcome_and_preset_passes(tmp_path):
    study = study_of(slices(), tmp_path / "in")
    outcomes = (nothing(study.series[0]), NotEvaluated("unsuitable", "no FLAIR"), NotEvaluated("failed", "it broke"))
    for place, outcome in enumerate(outcomes):
        for preset in ("ohif", "air"):
            out = tmp_path / f"{place}{preset}"
            written(outcome, study, out, preset=preset)
            assert check(out / "sr.dcm", source=study.series[0].instances) == ()


@pytest.mark.parametrize("name", ["seg.dcm", "sr.dcm"])
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda ds: setattr(ds, "PatientID", "P2"), "PatientID is not that of the source"),
        (lambda ds: setattr(ds, "PatientName", "Other"), "PatientName is not that of the source"),
        (lambda ds: setattr(ds, "AccessionNumber", ""), "AccessionNumber is not that of the source"),
        (lambda ds: setattr(ds, "StudyInstanceUID", "1.2.4"), "Study Instance UID is not that of the source"),
        (lambda ds: setattr(ds, "SeriesInstanceUID", "1.2.3.4"), "the series is one of the source's"),
        (lambda ds: setattr(ds, "SeriesInstanceUID", "1.02"), "SeriesInstanceUID is no UID"),
        (lambda ds: delattr(ds, "StudyID"), "StudyID is missing"),
        (lambda ds: setattr(ds, "SyntheticData", "YES"), "Synthetic Data is not that of the source"),
        (lambda ds: setattr(ds, "Manufacturer", ""), "Manufacturer is missing or empty"),
        (lambda ds: setattr(ds, "Modality", "OT"), "Modality is 'OT'"),
        (lambda ds: delattr(ds, "ContributingEquipmentSequence"), "Contributing Equipment has no item (109102"),
        (lambda ds: delattr(ds.ContributingEquipmentSequence[-1], "DeviceUID"), "Contributing Equipment lacks Dev"),
        (
            lambda ds: setattr(ds.ContributingEquipmentSequence[-1], "SoftwareVersions", "9"),
            "SoftwareVersions of Contributing Equipment is not that of the object",
        ),
        (
            lambda ds: setattr(ds.ContributingEquipmentSequence[-1], "DeviceUID", "1.2.9"),
            "the objects of the run name several devices",
        ),
    ],
)
def test_a_wrong_header_is_found(made, name, change, sentence):
    assert any(said.startswith(sentence) for said in wrong(made, name, change))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: delattr(s, "SegmentationAlgorithmIdentificationSequence"), "does not identify its algorithm"),
        (
            lambda s: setattr(s.SegmentationAlgorithmIdentificationSequence[0], "AlgorithmName", "other"),
            "AlgorithmName of the segment",
        ),
        (lambda s: delattr(s, "TrackingUID"), "lacks TrackingUID"),
        (lambda s: setattr(s, "TrackingUID", "x"), "is no UID"),
        (lambda s: setattr(s, "SegmentNumber", 2), "not numbered"),
        (lambda s: setattr(s, "SegmentLabel", ""), "lacks SegmentLabel"),
        (
            lambda s: setattr(s.SegmentedPropertyTypeCodeSequence[0], "CodeValue", "1234"),
            "the code (1234, SCT, Lesion) is not in the table",
        ),
    ],
)
def test_a_wrong_segment_is_found(made, change, sentence):
    assert any(sentence in said for said in wrong(made, "seg.dcm", lambda ds: change(ds.SegmentSequence[0])))


def test_frames_that_are_cut_off_are_found(made):
    def cut(ds):
        ds.PixelData = ds.PixelData[:-2]

    assert "the Pixel Data is not as long as its frames" in wrong(made, "seg.dcm", cut)


def test_a_frame_without_its_source_is_found(made):
    def forget(ds):
        del ds.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence

    assert "a frame does not name its source image" in wrong(made, "seg.dcm", forget)


def test_a_segment_without_frames_is_found(made):
    def drop(ds):
        ds.NumberOfFrames = 0

    assert any("frames" in said for said in wrong(made, "seg.dcm", drop))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda ds: setattr(ds, "VerificationFlag", "VERIFIED"), "Verification Flag is not UNVERIFIED"),
        (lambda ds: setattr(ds.ContentTemplateSequence[0], "TemplateIdentifier", "2000"), "not TID 1500"),
        (lambda ds: setattr(ds.ConceptNameCodeSequence[0], "CodeValue", "126001"), "the title is not"),
        (lambda ds: without(ds, codes.IMAGE_LIBRARY), "the report has no Image Library"),
        (lambda ds: without(ds, codes.PROCEDURE_REPORTED), "the report has no Procedure reported"),
        (lambda ds: without(ds, codes.QUALITATIVE_EVALUATIONS), "does not say whether the analysis succeeded"),
        (lambda ds: delattr(ds, "CurrentRequestedProcedureEvidenceSequence"), "no source images are named"),
        (lambda ds: without(group_of(ds), codes.TRACKING_UNIQUE_IDENTIFIER), "needs one Tracking Identifier"),
        (lambda ds: without(group_of(ds), codes.ALGORITHM_NAME), "Algorithm Name of the measurement group"),
        (lambda ds: setattr(item_of(group_of(ds), codes.ALGORITHM_VERSION), "TextValue", "7"), "Algorithm Version of"),
        (lambda ds: setattr(item_of(ds, codes.DEVICE_OBSERVER_UID), "UID", "1.2"), "Device Observer UID is not"),
        (lambda ds: setattr(group_of(ds), "ContentSequence", []), "Tracking"),
    ],
)
def test_a_wrong_report_is_found(made, change, sentence):
    assert any(sentence in said for said in wrong(made, "sr.dcm", change))


def test_a_procedure_that_names_the_algorithm_is_found(made):
    def rename(ds):
        item_of(ds, codes.PROCEDURE_REPORTED).ConceptCodeSequence[0].CodeMeaning = "mr_brain"

    assert any("names the algorithm" in said for said in wrong(made, "sr.dcm", rename))


def test_a_certainty_that_is_no_percentage_is_found(made):
    def measured(ds):
        return item_of(group_of(ds), codes.CERTAINTY_OF_FINDING).MeasuredValueSequence[0]

    def change_unit(ds):
        measured(ds).MeasurementUnitsCodeSequence[0].CodeValue = "1"

    def change_value(ds):
        measured(ds).NumericValue = "970"

    def change_scheme(ds):
        measured(ds).MeasurementUnitsCodeSequence[0].CodingSchemeDesignator = "SCT"

    assert "Certainty of Finding is not in percent" in wrong(made, "sr.dcm", change_unit)
    assert "Certainty of Finding is not in percent" in wrong(made, "sr.dcm", change_value)
    assert "the unit of Certainty of Finding is not of UCUM" in wrong(made, "sr.dcm", change_scheme)


def test_a_group_with_a_region_and_a_segment_is_found(made):
    def add(ds):
        segment = deepcopy(item_of(group_of(ds), codes.IMAGE_REGION))
        segment.ValueType = "IMAGE"
        segment.ConceptNameCodeSequence[0].CodeValue = codes.REFERENCED_SEGMENT.value
        segment.ConceptNameCodeSequence[0].CodeMeaning = codes.REFERENCED_SEGMENT.meaning
        group_of(ds).ContentSequence.append(segment)

    assert any("both a region and a segment" in said for said in wrong(made, "sr.dcm", add))


def test_a_reference_that_leads_nowhere_is_found(made):
    def change(ds):
        region = item_of(group_of(ds), codes.IMAGE_REGION)
        region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.3.99"

    said = wrong(made, "sr.dcm", change)
    assert "the content refers to 1.2.3.99, which is not among the evidence" in said
    assert "it refers to 1.2.3.99, which is neither of the source nor of the same run" in said


def test_a_source_image_that_is_not_named_is_found(made):
    def forget(ds):
        (library,) = (i for i in ds.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "111028")
        library.ContentSequence[0].ContentSequence.pop()
        ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence.pop()

    assert "1 source images are not named" in wrong(made, "sr.dcm", forget)


def test_a_segment_that_the_report_does_not_track_is_found(made):
    def change(ds):
        item_of(group_of(ds), codes.TRACKING_UNIQUE_IDENTIFIER).UID = "1.2.3.55"

    assert any("is not tracked in the report" in said for said in wrong(made, "sr.dcm", change))


def test_another_sop_class_is_not_ours(made):
    assert check(Dataset()) == ("nothing is no SOP class of ours",)
    picture = Dataset()
    picture.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"  # Computed Radiography
    assert "is no SOP class of ours" in check(picture)[0]


def test_a_picture_of_the_source_is_no_evidence(made):
    assert "Image Type does not begin with DERIVED and SECONDARY" in check(made["source"][0])


def test_a_code_that_is_not_in_the_table_is_never_written(tmp_path):
    study = study_of(slices(), tmp_path / "in")
    stray = Finding(codes.Code("99999", "99TEST", "Something"), True, 0.5)
    with pytest.raises(InvalidEvidence, match=r"the code \(99999, 99TEST, Something\) is not in the table"):
        written(Findings(study.series[0], (stray,)), study, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_is_judged_like_a_dataset(made):
    path = made["folder"] / "sr.dcm"
    assert check(path) == check(dcmread(path)) == ()
