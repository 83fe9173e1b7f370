"""Parametric Maps: the values on the images' own pixels, and in the patient where the images lie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from pipelines.base import Findings, SaliencyMap
from pipelines.evidence import codes
from pipelines.evidence.check import check
from pipelines.forms import Form, Kind
from pipelines.study import Series, Study
from tests.findings import GEOMETRIES, image, nothing, slices, study_of, verdict, written
from tests.peers import needs

MAP = [Form(Kind.PARAMETRIC_MAP)]
PLACES = (1, 2, 4)


def mapped(series: Series, places: tuple[int, ...] = PLACES) -> Findings:
    values = np.random.default_rng(3).random((len(places), 20, 24), dtype=np.float32)
    found = SaliencyMap("hemorrhage", codes.GRADIENT_WEIGHTED_CLASS_ACTIVATION, places, values)
    return replace(nothing(series), maps=(found,))


def objects(findings: Findings, study: Study, out: Path) -> list[Dataset]:
    return list(written(findings, study, out, forms=MAP).values())


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_highdicom_reads_the_values_back_where_the_images_lie(tmp_path: Path, geometry: str) -> None:
    study = study_of(slices(geometry=GEOMETRIES[geometry]), tmp_path / "in")
    series = study.series[0]
    findings = mapped(series)
    objects(findings, study, tmp_path / "out")
    read = hd.pm.ParametricMap.from_dataset(dcmread(tmp_path / "out" / "map.dcm"))
    assert np.array_equal(read.get_frames(), findings.maps[0].values)
    for place, group in zip(PLACES, read.PerFrameFunctionalGroupsSequence, strict=True):
        source = series.frames[place].instance
        assert np.allclose(group.PlanePositionSequence[0].ImagePositionPatient, source.ImagePositionPatient)
        assert np.allclose(group.PlaneOrientationSequence[0].ImageOrientationPatient, source.ImageOrientationPatient)
        named = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert named.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert read.FrameOfReferenceUID == series.frame_of_reference


def test_it_says_by_which_method_it_explains_and_what(tmp_path: Path) -> None:
    study = study_of(slices(), tmp_path / "in")
    (made,) = objects(mapped(study.series[0]), study, tmp_path / "out")
    (mapping,) = made.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    (method,) = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence
    assert (method.CodeValue, method.CodingSchemeDesignator) == ("130403", "DCM")
    assert mapping.LUTExplanation == "hemorrhage: Gradient-weighted class activation"
    assert made.ContentDescription.endswith("not verified")


def test_of_pictures_that_lie_nowhere_there_are_coloured_pictures_instead(tmp_path: Path) -> None:
    """The standard's Parametric Map must lie in the patient (PS3.3 Table A.75-1), and nothing is invented."""
    study = study_of([image(1, modality="XC")], tmp_path / "in")
    (made,) = objects(mapped(study.series[0], (0,)), study, tmp_path / "out")
    assert made.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert made.PhotometricInterpretation == "RGB"


@needs("dciodvfy")
@pytest.mark.parametrize("geometry", ["axial", "oblique"])
def test_dciodvfy_finds_no_error(tmp_path: Path, geometry: str) -> None:
    study = study_of(slices(geometry=GEOMETRIES[geometry]), tmp_path / "in")
    objects(mapped(study.series[0]), study, tmp_path / "out")
    assert verdict(tmp_path / "out" / "map.dcm") == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda made: setattr(made, "FloatPixelData", made.FloatPixelData[:-4]), "bytes of values"),
        (lambda made: setattr(made, "FloatPixelData", b"\0\0\0\x41" * (3 * 480)), "not between 0 and 1"),
        (lambda made: made.PerFrameFunctionalGroupsSequence.pop(), "functional groups"),
        (lambda made: setattr(made.PerFrameFunctionalGroupsSequence[0], "DerivationImageSequence", []), "source image"),
    ],
)
def test_the_check_names_what_is_wrong(tmp_path: Path, change: Any, words: str) -> None:
    study = study_of(slices(), tmp_path / "in")
    (made,) = objects(mapped(study.series[0]), study, tmp_path / "out")
    assert check(made, source=study.series[0].instances) == ()
    change(made)
    assert any(words in fault for fault in check(made, source=study.series[0].instances))
