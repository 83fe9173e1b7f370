"""What evidence takes over from the source: all of it that is right, nothing that is not, and nothing of its own."""

from __future__ import annotations

import shutil

import pytest
from pydicom import dcmread

from pipelines.evidence import InvalidEvidence, NotEvaluated
from tests.findings import nothing, outlined, slices, study_of, verdict, written

TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
# header faults of reliability.md 4.4: what may not be copied as it is
WRONG = {
    "PatientSex": ["Male", "M\\F"],
    "StudyDate": ["2020-01-01", "20201301"],
    "PatientBirthDate": ["19000000"],
    "StudyTime": ["10:10:10", "251010"],
    "PatientID": ["X" * 100, "A\\B"],
    "AccessionNumber": ["X" * 17],
    "PatientName": ["A^B^C^D^E^F^G"],
}


def both(study, out, **more):
    return written(outlined(study.series[0]), study, out, **more)


def before(result):
    return result.OriginalAttributesSequence[0].ModifiedAttributesSequence[0]


def test_patient_study_and_accession_are_copied_as_they_are(tmp_path):
    study = study_of(slices(), tmp_path / "in")
    for made in both(study, tmp_path).values():
        for keyword in (*TYPE_2, "StudyInstanceUID", "StudyDescription"):
            assert made.get(keyword) == study.header.get(keyword), keyword
        assert made.SeriesInstanceUID != study.series[0].uid
        assert "OriginalAttributesSequence" not in made


@pytest.mark.parametrize("keyword", TYPE_2)
def test_what_is_missing_becomes_empty_and_is_said(tmp_path, keyword):
    study = study_of(slices(**{keyword: None}), tmp_path / "in")
    for made in both(study, tmp_path).values():
        assert made[keyword].is_empty
        assert before(made)[keyword].is_empty


@pytest.mark.parametrize(("keyword", "value"), [(k, v) for k, values in WRONG.items() for v in values])
def test_a_value_that_breaks_the_rules_is_emptied_and_kept(tmp_path, keyword, value):
    study = study_of(slices(**{keyword: value}), tmp_path / "in")
    for made in both(study, tmp_path).values():
        assert made[keyword].is_empty
        assert before(made)[keyword].is_empty
        (kept,) = made.OriginalAttributesSequence[0].NonconformingModifiedAttributesSequence
        assert kept.SelectorAttribute == made[keyword].tag
        assert kept.NonconformingDataElementValue.rstrip(b" \0").decode() == value


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (dicom3tools) is not installed")
def test_dciodvfy_finds_no_error_where_values_were_emptied(tmp_path):
    wrong = {"PatientSex": "Male", "StudyDate": "2020-01-01", "StudyID": None, "AccessionNumber": None}
    both(study_of(slices(**wrong), tmp_path / "in"), tmp_path)
    assert verdict(tmp_path / "seg.dcm") == []
    assert verdict(tmp_path / "sr.dcm") == []


def test_a_value_of_no_importance_that_breaks_the_rules_is_left_out_and_kept(tmp_path):
    study = study_of(slices(PatientAge="old"), tmp_path / "in")
    for made in both(study, tmp_path).values():
        assert "PatientAge" not in made
        assert "PatientAge" in before(made)


def test_synthetic_stays_synthetic(tmp_path):
    marked = study_of(slices(SyntheticData="YES"), tmp_path / "in")
    plain = study_of(slices(), tmp_path / "in2")
    assert all(made.SyntheticData == "YES" for made in both(marked, tmp_path / "a").values())
    assert all("SyntheticData" not in made for made in both(plain, tmp_path / "b").values())


def test_an_unknown_character_set_is_left_to_a_person(tmp_path):
    study = study_of(slices(SpecificCharacterSet="ISO_IR 999"), tmp_path / "in")
    with pytest.raises(InvalidEvidence, match="ISO_IR 999"):
        both(study, tmp_path)


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Müller^Ärnst"),
        ("ISO_IR 192", "Müller^Ärnst"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        ("ISO_IR 144", "Люкceмбypг^Анна"),
    ],
)
@pytest.mark.parametrize("note", ["plain", "später – 後で"])
def test_names_stay_what_they_are_in_every_character_set(tmp_path, charset, name, note):
    study = study_of(slices(SpecificCharacterSet=charset, PatientName=name), tmp_path / "in")
    written(outlined(study.series[0], notes=(note,)), study, tmp_path)
    for file in ("seg.dcm", "sr.dcm"):
        assert str(dcmread(tmp_path / file).PatientName) == name
    comment = dcmread(tmp_path / "sr.dcm").ContentSequence[-1].ContentSequence[-1]
    assert comment.TextValue == note


def test_a_study_of_two_patients_gets_no_evidence(tmp_path):
    mixed = slices()
    mixed[2].PatientID = "P2"
    study = study_of(mixed, tmp_path / "in")
    for outcome in (nothing(study.series[0]), NotEvaluated("unsuitable", "no FLAIR")):
        with pytest.raises(InvalidEvidence, match="differ in Patient ID"):
            written(outcome, study, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_study_without_pictures_is_not_evaluated_either(tmp_path):
    source = study_of(slices(), tmp_path / "in")
    written(nothing(source.series[0]), source, tmp_path / "reports")
    report = dcmread(tmp_path / "reports" / "sr.dcm")
    study = study_of([report], tmp_path / "only a report")
    made = written(NotEvaluated("unsuitable", "no pictures"), study, tmp_path / "out", job="job 9")
    assert made["sr.dcm"].PatientID == "P1"
