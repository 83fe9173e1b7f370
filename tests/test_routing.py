"""Which pipelines want a study, and why not."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from node.errors import BadSettings
from node.routing import Match, Route, route


def header(**attributes: Any) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def says(when: str, *headers: Dataset) -> Match:
    rule = Route(name="p", use="a:b", when=tomllib.loads(f"when = {when}")["when"])
    (match,) = route(headers, {"p": rule})
    return match


BRAIN = header(
    Modality="MR",
    BodyPartExamined="BRAIN",
    StudyDescription="MRI Brain w/o [fast]",
    SliceThickness="3.0",
    ImageType=["ORIGINAL", "PRIMARY", "M"],
    Rows=256,
    PatientAge="045Y",
)


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ('{ Modality = "MR" }', True),
        ('{ Modality = "CT" }', False),
        ('{ Modality = "M" }', False),  # equal is the whole
        ('{ Modality = "mr" }', True),  # whatever the case
        ('{ Modality = ["CT", "MR"] }', True),
        ('{ StudyDescription = "*brain*" }', True),
        ('{ StudyDescription = "brain*" }', False),
        ('{ StudyDescription = "MRI ?rain*" }', True),
        ('{ StudyDescription = "*[fast]" }', True),  # brackets are brackets
        ('{ StudyDescription = "*.*" }', False),  # and a dot is a dot
        ('{ StudyDescription = ["*knee*", "*brain*"] }', True),
        ("{ SliceThickness = { min = 0, max = 6 } }", True),
        ("{ SliceThickness = { min = 3, max = 3 } }", True),  # ends included
        ("{ SliceThickness = { max = 2.99 } }", False),
        ("{ SliceThickness = { min = 3.01 } }", False),
        ("{ SliceThickness = 3 }", True),
        ("{ Rows = [128, 256] }", True),
        ("{ PatientAge = { min = 18 } }", True),
        ("{ PatientAge = { max = 18 } }", False),
        ('{ ImageType = "PRIMARY" }', True),  # any of several values
        ('{ ImageType = "SECONDARY" }', False),
        ('{ Modality = "MR", BodyPartExamined = "BRAIN", Rows = { min = 64 } }', True),
        ('{ Modality = "MR", BodyPartExamined = "KNEE" }', False),  # every condition
        ('{ SeriesDescription = "*" }', False),  # absent
        ("{}", True),
    ],
)
def test_a_rule_matches_what_it_says(when: str, expected: bool) -> None:
    assert says(when, BRAIN).matched is expected


def test_one_series_has_to_meet_every_condition() -> None:
    knee = header(Modality="MR", BodyPartExamined="KNEE")
    report = header(Modality="SR", BodyPartExamined="BRAIN")
    when = '{ Modality = "MR", BodyPartExamined = "BRAIN" }'
    assert not says(when, knee, report).matched
    assert says(when, knee, report, BRAIN) == Match(
        "p", matched=True, why="Modality is MR and BodyPartExamined is BRAIN, in 1 of 3 series"
    )


def test_a_failure_says_which_keyword_failed_with_which_value() -> None:
    match = says('{ Modality = "MR", BodyPartExamined = ["HEAD", "NECK"] }', header(Modality="CT"), BRAIN)
    assert match.why == (
        "BodyPartExamined is BRAIN, so it is not so that it is one of HEAD, NECK (the nearest of 2 series)"
    )


def test_every_condition_that_failed_is_named() -> None:
    why = says('{ Modality = "CT", SliceThickness = { min = 5 }, Laterality = "L" }', BRAIN).why
    assert "Modality is MR" in why
    assert "SliceThickness is 3.0, so it is not so that it is at least 5" in why
    assert "Laterality is absent" in why


@pytest.mark.parametrize("empty", [None, "", "  ", []])
def test_an_attribute_without_a_value_is_absent(empty: object) -> None:
    assert "absent" in says('{ BodyPartExamined = "*" }', header(BodyPartExamined=empty)).why


def test_a_study_without_a_series_or_without_any_attribute_matches_nothing() -> None:
    assert says('{ Modality = "MR" }').why == "the study has no series"
    assert not says('{ Modality = "MR" }', Dataset()).matched


def test_a_value_that_is_no_number_is_no_number() -> None:
    odd = Dataset()
    odd.add(DataElement(0x00180050, "LO", "3 mm"))  # Slice Thickness under a wrong VR
    assert not says("{ SliceThickness = { min = 0 } }", odd).matched


class Hostile(Dataset):
    def get(self, *arguments: Any) -> Any:
        raise NotImplementedError("unknown VR")


def test_a_value_that_cannot_be_read_stops_nothing() -> None:
    match = says('{ Modality = "MR" }', Hostile(), BRAIN)
    assert match.matched
    assert says('{ Modality = "MR" }', Hostile()).why == "Modality cannot be read"


def test_an_enhanced_instance_is_asked_for_what_its_frames_share() -> None:
    measures = header(SliceThickness="1.5")
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([measures])
    enhanced = header(Modality="MR", SharedFunctionalGroupsSequence=Sequence([shared]))
    assert says("{ SliceThickness = { max = 2 } }", enhanced).matched


def test_who_the_patient_is_stands_in_no_sentence() -> None:
    patient = header(PatientName="Doe^Jane", PatientID="4711", AccessionNumber="A99", PatientSex="F")
    for keyword in ("PatientName", "PatientID", "AccessionNumber"):
        why = says(f'{{ {keyword} = "RESEARCH*" }}', patient).why
        assert why.startswith(f"{keyword} is another")
        assert not {"Doe", "4711", "A99"} & set(why.replace("^", " ").split())
    assert "PatientSex is F" in says('{ PatientSex = "M" }', patient).why


@pytest.mark.filterwarnings("ignore:The value length")
def test_a_long_text_is_cut_short_in_a_sentence() -> None:
    assert len(says('{ StudyDescription = "x" }', header(StudyDescription="long\n" * 500)).why) < 200


@settings(deadline=None)
@given(text=st.text("ab[ ", max_size=12), pattern=st.text("ab*?[", min_size=1, max_size=8))
def test_a_pattern_means_what_fnmatch_means(text: str, pattern: str) -> None:
    text = " ".join(text.split())
    expected = fnmatchcase(text, pattern.replace("[", "[[]"))
    assert says(f'{{ StudyDescription = "{pattern}" }}', header(StudyDescription=text)).matched is (
        expected and bool(text)
    )


@pytest.mark.timeout(10)
def test_a_pattern_of_many_stars_takes_no_time() -> None:
    rule = '{ StudyDescription = "' + "*a" * 12 + '*b" }'
    assert not says(rule, header(StudyDescription="a" * 64)).matched
    assert says('{ StudyDescription = "****brain****" }', BRAIN).matched


@pytest.mark.parametrize(
    ("when", "sentence"),
    [
        ('{ Modallity = "MR" }', "pipelines.p.when.Modallity: 'Modallity' is no DICOM keyword; did you mean Modality?"),
        ('{ modality = "MR" }', "did you mean Modality?"),
        ('{ "Body Part Examined" = "MR" }', "did you mean BodyPartExamined?"),
        ('{ zzzqqq = "MR" }', "allowed: the keywords of PS3.6"),
        ("{ SliceThickness = { min = 6, max = 3 } }", "min 6 is above max 3, so nothing matches"),
        ("{ SliceThickness = { minimum = 6 } }", "has 'minimum'; allowed: min, max, or both"),
        ("{ SliceThickness = {} }", "the range is empty"),
        ('{ SliceThickness = { min = "6" } }', "when.SliceThickness.min is '6'; allowed: a number"),
        ("{ SliceThickness = { min = nan } }", "is nan; allowed: a number"),
        ('{ SliceThickness = "3" }', "is '3', but SliceThickness is a number (DS); allowed: 3, [1, 2]"),
        ("{ Rows = true }", "is True, but Rows is a number (US)"),
        ("{ Modality = 3 }", "is 3, but Modality is a text (CS)"),
        ('{ Modality = "" }', "is '', but Modality is a text (CS)"),
        ('{ Modality = ["MR", 3] }', "is 3, but Modality is a text (CS)"),
        ("{ Modality = [] }", "an empty list, which nothing matches"),
        ("{ StudyDescription = { min = 0 } }", "is a range, but StudyDescription is a text (LO)"),
        ("{ PixelMeasuresSequence = 3 }", "is of VR SQ, which a rule cannot judge"),
        ('{ PixelData = "x" }', "which a rule cannot judge"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_by_name(when: str, sentence: str) -> None:
    with pytest.raises(BadSettings) as fault:
        says(when)
    assert str(fault.value).startswith("pipelines.p.when.")
    assert sentence in str(fault.value)
