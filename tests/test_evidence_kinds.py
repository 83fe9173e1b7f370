"""All kinds of objects of one run: the same job makes the same bytes, and a PACS takes them and gives them back."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UltrasoundMultiFrameImageStorage

from node import delivery
from node.destinations import Destination, outgoing
from pipelines.base import Findings, SaliencyMap
from pipelines.evidence import NotEvaluated, codes
from pipelines.evidence.objects import BUILDERS
from pipelines.evidence.told import NOT_EVALUATED
from pipelines.forms import PRESETS, Form, Wanted
from pipelines.study import Study
from tests.findings import image, lesion, nothing, outlined, slices, study_of, verdict, written
from tests.peers import needs, orthanc
from tests.slices import enhanced

EVERYTHING = [*Wanted().forms, *map(Form, BUILDERS)]


def findings(study: Study) -> Findings:
    series = study.series[0]
    values = np.linspace(0, 1, 960, dtype=np.float32).reshape(2, 20, 24)
    found = SaliencyMap("FLAIR abnormality", codes.CLASS_ACTIVATION, (2, 3), values)
    return replace(outlined(series), maps=(found,))


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return study_of(slices(), tmp_path / "in")


def test_the_same_job_makes_the_same_bytes(tmp_path: Path, study: Study) -> None:
    digests = []
    for out in (tmp_path / "a", tmp_path / "b"):
        written(findings(study), study, out, forms=EVERYTHING)
        digests.append({each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in out.iterdir()})
    assert digests[0] == digests[1]
    kinds = {"capture", "document", "map-capture", "map", "presentation", "seg", "sr", "structures"}
    assert kinds <= {name.removesuffix(".dcm").rstrip("-0123456789") for name in digests[0]}


def test_each_kind_is_a_series_of_its_own(tmp_path: Path, study: Study) -> None:
    made = written(findings(study), study, tmp_path / "out", forms=EVERYTHING)
    assert len({each.SOPInstanceUID for each in made.values()}) == len(made)
    by_series = {each.SeriesInstanceUID: each.SeriesNumber for each in made.values()}
    assert len(set(by_series.values())) == len(by_series) == 9
    assert all("not verified" in each.SeriesDescription for each in made.values())


@needs("dciodvfy")
def test_values_that_were_emptied_are_kept_in_every_kind(tmp_path: Path) -> None:
    images = slices(PatientBirthDate="19000000", StudyID=None)
    study = study_of(images, tmp_path / "in")
    made = written(findings(study), study, tmp_path / "out", forms=EVERYTHING)
    for name, each in made.items():
        assert each.PatientBirthDate == ""
        kept = [
            k
            for item in each.OriginalAttributesSequence
            for k in item.get("NonconformingModifiedAttributesSequence", [])
        ]
        assert [item.NonconformingDataElementValue for item in kept] == [b"19000000"]
        assert "StudyID" in each
        assert verdict(tmp_path / "out" / name) == [], name


@pytest.mark.parametrize("preset", PRESETS)
def test_whatever_a_destination_takes_it_gets_an_answer(tmp_path: Path, study: Study, preset: str) -> None:
    forms = PRESETS[preset].forms
    assert written(findings(study), study, tmp_path / "found", forms=forms)
    assert written(nothing(study.series[0]), study, tmp_path / "nothing", forms=forms)
    for status in NOT_EVALUATED:
        assert written(NotEvaluated(status, "so it is"), study, tmp_path / status, forms=forms), status


def equal(ours: Dataset, theirs: Dataset) -> bool:
    """Element by element; how a sequence's length is written is no part of it."""
    return ours.to_json_dict() == theirs.to_json_dict()


@needs("Orthanc")
@pytest.mark.parametrize("protocol", ["dimse", "dicomweb"])
def test_orthanc_takes_every_kind_and_gives_it_back_equal(tmp_path: Path, study: Study, protocol: str) -> None:
    written(findings(study), study, tmp_path / "out", forms=EVERYTHING)
    objects = [outgoing(path) for path in sorted((tmp_path / "out").iterdir())]
    with orthanc(tmp_path / "orthanc") as pacs:
        where = {"url": pacs.dicom_web} if protocol == "dicomweb" else {"host": "127.0.0.1", "port": pacs.dicom_port}
        to = Destination("PACS", protocol, ae_title="ORTHANC", calling_ae_title="WETREAD", **where)
        assert {answer.verdict for answer in delivery.send(to, objects)} == {"delivered"}
        assert delivery.verify(to, objects) == {one.sop_uid for one in objects}
        for one in objects:
            assert equal(dcmread(one.path), dcmread(BytesIO(pacs.file(one.sop_uid)))), one.path.name


@needs("dciodvfy")
@pytest.mark.parametrize("what", ["cine", "enhanced"])
def test_of_multi_frame_images_each_kind_speaks_of_frames(tmp_path: Path, what: str) -> None:
    if what == "cine":  # of ultrasound: the frames lie nowhere
        pixels = np.arange(3 * 480, dtype="<u2").tobytes()
        us = UltrasoundMultiFrameImageStorage
        several = image(1, modality="US", SOPClassUID=us, NumberOfFrames=3, PixelData=pixels, FrameTime="40")
        several.FrameIncrementPointer = 0x00181063
    else:
        several = enhanced([10.0, 0.0, 5.0])  # frames are stored in another order than they lie in
    several.file_meta = None
    study = study_of([several], tmp_path / "in")
    series = study.series[0]
    grid = (3, int(series.header.Rows), int(series.header.Columns))
    mask = np.zeros(grid, np.bool_)
    mask[1:, 2:5, 1:3] = True
    values = np.ones((2, *grid[1:]), np.float32)
    maps = (SaliencyMap("FLAIR abnormality", codes.SALIENCY, (1, 2), values),)
    made = written(replace(outlined(series, lesion(mask)), maps=maps), study, tmp_path / "out", forms=EVERYTHING)
    numbers = [series.frames[1].number, series.frames[2].number]
    captures = [made["capture.dcm"], made["capture-2.dcm"]]
    assert [each.SourceImageSequence[0].ReferencedFrameNumber for each in captures] == numbers
    annotated = made["presentation.dcm"].GraphicAnnotationSequence
    assert [each.ReferencedImageSequence[0].ReferencedFrameNumber for each in annotated] == numbers
    assert ("structures.dcm" in made) == (what == "enhanced")
    if what == "enhanced":
        contours = made["structures.dcm"].ROIContourSequence[0].ContourSequence
        assert [each.ContourImageSequence[0].ReferencedFrameNumber for each in contours] == numbers
    for name in made:
        assert verdict(tmp_path / "out" / name) == [], name
