"""Key Object Selections: the images that a positive finding is on, and none where there is none."""

from __future__ import annotations

import shutil
import subprocess

import highdicom as hd
import numpy as np
import pytest

from pipelines.base import Finding, Findings
from pipelines.evidence import NotEvaluated, codes
from pipelines.evidence.check import check
from pipelines.forms import Form, Kind
from tests.findings import blob, image, lesion, nothing, outlined, slices, study_of, verdict, written
from tests.slices import enhanced

ALONE = [Form(Kind.KEY_OBJECTS)]


def selected(made):
    """(SOP Instance UID, frame) of the images."""
    document = hd.ko.KeyObjectSelectionDocument.from_dataset(made)
    references = [item.ReferencedSOPSequence[0] for item in document.ContentSequence if item.ValueType == "IMAGE"]
    return [(each.ReferencedSOPInstanceUID, each.get("ReferencedFrameNumber")) for each in references]


def test_the_image_with_most_of_an_outline_is_selected(tmp_path):
    study = study_of(slices(), tmp_path / "in")
    series = study.series[0]
    made = written(outlined(series), study, tmp_path, forms=ALONE)["key-objects.dcm"]
    assert selected(made) == [(series.frames[2].instance.SOPInstanceUID, None)]  # the blob is largest there
    (said,) = [item.TextValue for item in made.ContentSequence if item.get("TextValue", "").startswith("FLAIR")]
    assert said == "FLAIR abnormality (97%). Found by mr_brain 1.0.0, not verified by a person."


def test_the_images_that_findings_name_are_selected_once_each(tmp_path):
    study = study_of(slices(), tmp_path / "in")
    series = study.series[0]
    uids = [instance.SOPInstanceUID for instance in series.instances]
    found = (
        Finding(codes.HEMORRHAGE, True, 0.8, sop_uids=(uids[1], uids[3])),
        Finding(codes.MASS, True, sop_uids=(uids[3],), box=(2, 3, 4, 5)),
        Finding(codes.LESION, False, 0.1, sop_uids=(uids[4],)),
        Finding(codes.NEOPLASM, True),  # of the whole series: nowhere in particular
    )
    made = written(Findings(series, found, read=(series,)), study, tmp_path, forms=ALONE)["key-objects.dcm"]
    assert sorted(selected(made)) == [(uids[1], None), (uids[3], None)]


def test_a_frame_of_a_multi_frame_image_is_named(tmp_path):
    study = study_of([enhanced([30.0, 10.0, 20.0])], tmp_path / "in")
    series = study.series[0]
    mask = np.zeros((3, 4, 5), np.bool_)
    mask[2, 1, 2] = True
    made = written(outlined(series, lesion(mask)), study, tmp_path, forms=ALONE)["key-objects.dcm"]
    assert selected(made) == [(series.header.SOPInstanceUID, series.frames[2].number)]


@pytest.mark.parametrize("code", [codes.LUNG, codes.NORMAL, codes.IMAGE_ROTATED])
def test_what_is_no_abnormality_is_not_selected(tmp_path, code):
    study = study_of([image(1, modality="DX")], tmp_path / "in")
    found = Findings(study.series[0], (Finding(code, True, 0.9),), read=study.series)
    assert written(found, study, tmp_path, forms=ALONE) == {}


def test_where_nothing_is_found_or_read_nothing_is_selected(tmp_path):
    study = study_of(slices(), tmp_path / "in")
    for place, outcome in enumerate((nothing(study.series[0]), NotEvaluated("failed", "it broke"))):
        assert written(outcome, study, tmp_path / str(place), forms=ALONE) == {}


@pytest.mark.parametrize("modality", ["CT", "DX"])
def test_dciodvfy_and_dsrdump_find_no_error(tmp_path, modality):
    if not (shutil.which("dciodvfy") and shutil.which("dsrdump")):
        pytest.skip("dciodvfy (dicom3tools) or dsrdump (dcmtk) is not installed")
    images = slices(modality="CT") if modality == "CT" else [image(1, modality="DX")]
    study = study_of(images, tmp_path / "in")
    written(outlined(study.series[0], lesion(blob(study.series[0]))), study, tmp_path, forms=ALONE)
    assert verdict(tmp_path / "key-objects.dcm") == []
    told = subprocess.run(["dsrdump", tmp_path / "key-objects.dcm"], capture_output=True, check=False)
    assert told.returncode == 0, told.stderr


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda ds: setattr(ds.ConceptNameCodeSequence[0], "CodeValue", "113001"), "the title is not Of Interest"),
        (lambda ds: setattr(ds.ContentTemplateSequence[0], "TemplateIdentifier", "1500"), "not TID 2010"),
        (lambda ds: ds.ContentSequence.pop(), "not those that are named as evidence"),
        (lambda ds: setattr(ds.ContentSequence[-2], "TextValue", "a lesion"), "no person has verified"),
    ],
)
def test_a_wrong_selection_is_found(tmp_path, change, sentence):
    study = study_of(slices(), tmp_path / "in")
    made = written(outlined(study.series[0]), study, tmp_path, forms=ALONE)["key-objects.dcm"]
    assert check(made, source=study.series[0].instances) == ()
    change(made)
    assert any(sentence in said for said in check(made, source=study.series[0].instances))
