"""Promises of pipelines.reading: every outcome of a pipeline is a Run and leaves its evidence, whole or not at all."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from pipelines.base import (
    Algorithm,
    Finding,
    Findings,
    Measurement,
    SaliencyMap,
    Segment,
    UnsuitableStudy,
    WithheldStudy,
    derived_uid,
)
from pipelines.evidence import codes
from pipelines.forms import PRESETS, Wanted
from pipelines.models.store import DamagedWeights
from pipelines.reading import job_key, read
from pipelines.run import Run
from pipelines.study import BadPixels, Series, Study, read_files, read_folder
from pipelines.synthetic import Truth, brain_mr

ABNORMAL = codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE
ALGORITHM = Algorithm("bright", "1.2.3", codes.ARTIFICIAL_INTELLIGENCE, "ab" * 32)

Answer = Callable[[Study], tuple[Findings, ...]]


class Reader:
    """A pipeline that answers by a function."""

    algorithm = ALGORITHM

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        return self.answer(study)


def flair(study: Study) -> Series:
    return next(series for series in study.series if "FLAIR" in series.description)


def findings(series: Series, mask: NDArray[np.bool_]) -> Findings:
    if not mask.any():
        return Findings(
            series,
            (Finding(codes.LESION, present=False, certainty=0.02, label="FLAIR abnormality"),),
            stages={"load": 0.5, "network": 0.25},
        )
    assert series.affine is not None
    volume = float(abs(np.linalg.det(series.affine)) * mask.sum() / 1000)
    finding = Finding(
        codes.LESION,
        present=True,
        certainty=0.97,
        segment=Segment("FLAIR abnormality", mask, ABNORMAL, codes.LESION),
        measurements=(Measurement(codes.VOLUME, volume, codes.CUBIC_CENTIMETER),),
    )
    return Findings(series, (finding,), stages={"load": 0.5, "network": 0.25})


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return brain_mr(tmp_path_factory.mktemp("brain"), seed=5, lesion="random", slices=10, matrix=64)


@pytest.fixture
def study(truth: Truth) -> Study:
    ((study,), refused) = read_files(truth.files)
    assert not refused
    return study


@pytest.fixture
def reader(truth: Truth) -> Reader:
    """Finds the lesion because it has been told where it is."""
    return Reader(lambda study: (findings(flair(study), truth.mask),))


def nothing(study: Study) -> tuple[Findings, ...]:
    return (findings(flair(study), np.zeros(flair(study).volume().shape, bool)),)


def raising(error: Exception) -> Reader:
    def answer(study: Study) -> tuple[Findings, ...]:
        raise error

    return Reader(answer)


def run_of(study: Study, pipeline: Reader, out: Path, job: str = "job 1") -> Run:
    (run,) = read(study, pipeline, name="mr_test", out=out, job=job)
    return run


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def report_text(path: Path) -> str:
    return "\n".join(element.value for element in dcmread(path).iterall() if element.keyword == "TextValue")


def test_a_finding_leaves_an_outline_and_a_report(study: Study, reader: Reader, truth: Truth, tmp_path: Path) -> None:
    run = run_of(study, reader, tmp_path)
    assert (run.status, run.reason) == ("read", None)
    assert files_in(tmp_path) == ["mr_test/seg.dcm", "mr_test/sr.dcm"]
    assert sorted(run.objects) == [tmp_path / "mr_test/seg.dcm", tmp_path / "mr_test/sr.dcm"]
    outline = dcmread(tmp_path / "mr_test/seg.dcm")
    assert outline.StudyInstanceUID == study.uid
    assert int(outline.pixel_array.sum()) == int(truth.mask.sum())


def test_the_json_is_what_scripts_rely_on(study: Study, reader: Reader, truth: Truth, tmp_path: Path) -> None:
    told = json.loads(json.dumps(run_of(study, reader, tmp_path).as_json()))
    (finding,) = told.pop("findings")
    (measurement,) = finding.pop("measurements")
    assert finding == {
        "code": ["52988006", "SCT", "Lesion"],
        "label": None,
        "certainty": 0.97,
        "present": True,
        "sop_uids": [],
        "segment": "FLAIR abnormality",
        "box": None,
    }
    assert (measurement["name"], measurement["unit"]) == (["118565006", "SCT", "Volume"], "cm3")
    assert measurement["value"] == pytest.approx(truth.volume_cm3)
    assert told["series_uid"] == flair(study).uid
    assert {key: told[key] for key in ("pipeline", "version", "status", "reason", "device")} == {
        "pipeline": "mr_test",
        "version": "1.2.3",
        "status": "read",
        "reason": None,
        "device": "cpu",
    }
    assert told["seconds"] >= told["stages"]["encode"] > 0
    assert (told["stages"]["load"], told["stages"]["network"]) == (0.5, 0.25)
    assert sorted(told["objects"]) == [str(tmp_path / "mr_test/seg.dcm"), str(tmp_path / "mr_test/sr.dcm")]


def test_nothing_found_is_a_report_too(study: Study, tmp_path: Path) -> None:
    run = run_of(study, Reader(nothing), tmp_path)
    assert run.status == "read"
    (finding,) = run.as_json()["findings"]
    assert (finding["present"], finding["label"]) == (False, "FLAIR abnormality")
    assert files_in(tmp_path) == ["mr_test/sr.dcm"]


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (UnsuitableStudy("no FLAIR among 2 series"), "unsuitable", "no FLAIR among 2 series"),
        (WithheldStudy("the patient is 3 years old"), "withheld", "the patient is 3 years old"),
        (MemoryError("Unable to\n  allocate 3 GiB"), "failed", "Unable to allocate 3 GiB"),
        (OSError(28, "No space left on device"), "failed", "[Errno 28] No space left on device"),
        (BadPixels("instance 3: cut off"), "failed", "instance 3: cut off"),
    ],
)
def test_what_is_not_evaluated_has_a_report_that_says_why(
    study: Study, tmp_path: Path, error: Exception, status: str, reason: str
) -> None:
    run = run_of(study, raising(error), tmp_path)
    assert (run.status, run.reason, run.series_uid, run.findings) == (status, reason, None, ())
    assert files_in(tmp_path) == ["mr_test/sr.dcm"]
    assert reason in report_text(tmp_path / "mr_test/sr.dcm")
    assert run.as_json()["series_uid"] is None


@pytest.mark.parametrize(
    "error", [ValueError("invalid literal: 'DOE^JANE'"), KeyError("DOE^JANE"), RuntimeError("DOE")]
)
def test_the_words_of_a_library_s_error_are_not_told_for_they_may_name_the_patient(
    study: Study, tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    run = run_of(study, raising(error), tmp_path)
    assert run.reason is not None
    assert re.fullmatch(rf"{type(error).__name__} at test_reading\.py:\d+", run.reason)
    assert "DOE" not in report_text(tmp_path / "mr_test/sr.dcm") + caplog.text


def test_an_error_that_means_memory_still_says_so(study: Study, tmp_path: Path) -> None:
    run = run_of(study, raising(RuntimeError("DefaultCPUAllocator: can't allocate memory for DOE^JANE")), tmp_path)
    assert run.reason is not None
    assert run.reason.endswith(": out of memory")
    assert "DOE" not in run.reason


def test_a_study_of_two_patients_is_held_and_nothing_is_written(truth: Truth, reader: Reader, tmp_path: Path) -> None:
    odd = dcmread(truth.files[0])
    odd.PatientID = "SOMEBODY ELSE"
    odd.save_as(tmp_path / "odd.dcm")
    ((study,), _) = read_files([tmp_path / "odd.dcm", *truth.files[1:]])
    run = run_of(study, reader, tmp_path / "out")
    assert run.status == "failed"
    assert run.reason == "the instances of this study differ in Patient ID; it is held for a person to look at"
    assert not files_in(tmp_path / "out")


def test_the_same_job_twice_makes_the_same_bytes(study: Study, reader: Reader, tmp_path: Path) -> None:
    first = {path.name: path.read_bytes() for path in run_of(study, reader, tmp_path).objects}
    second = {path.name: path.read_bytes() for path in run_of(study, reader, tmp_path).objects}
    assert first == second


def test_the_uids_are_of_the_job_and_not_of_the_folder(study: Study, reader: Reader, tmp_path: Path) -> None:
    uids = []
    for folder, job in (("a", "job 1"), ("b", "job 1"), ("c", "job 2")):
        run_of(study, reader, tmp_path / folder, job)
        uids.append(dcmread(tmp_path / folder / "mr_test/sr.dcm").SOPInstanceUID)
    assert uids[0] == uids[1] != uids[2]


def test_a_failure_and_a_later_success_are_different_objects(study: Study, reader: Reader, tmp_path: Path) -> None:
    run_of(study, raising(RuntimeError("the lights went out")), tmp_path)
    before = dcmread(tmp_path / "mr_test/sr.dcm").SOPInstanceUID
    run_of(study, reader, tmp_path)
    assert dcmread(tmp_path / "mr_test/sr.dcm").SOPInstanceUID != before


def test_an_outline_of_an_earlier_run_does_not_stay(study: Study, reader: Reader, tmp_path: Path) -> None:
    run_of(study, reader, tmp_path)
    run_of(study, Reader(nothing), tmp_path, "job 2")
    assert files_in(tmp_path) == ["mr_test/sr.dcm"]


def test_a_mask_on_another_grid_is_a_failure_with_a_report_and_no_outline(study: Study, tmp_path: Path) -> None:
    wrong = np.ones((3, 8, 8), bool)
    run = run_of(study, Reader(lambda each: (findings(flair(each), wrong),)), tmp_path)
    assert run.status == "failed"
    assert run.reason is not None
    assert run.reason.startswith("no evidence could be written: ")
    assert files_in(tmp_path) == ["mr_test/sr.dcm"]


def test_a_folder_that_cannot_be_made_is_a_failure_and_no_exception(
    study: Study, reader: Reader, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("a file where the folder should be")
    run = run_of(study, reader, tmp_path / "out")
    assert run.status == "failed"
    assert run.reason is not None
    assert "Not a directory" in run.reason
    assert run.objects == {}


def test_several_answers_have_a_folder_each_by_their_series(study: Study, tmp_path: Path) -> None:
    def each(study: Study) -> tuple[Findings, ...]:
        return tuple(findings(series, np.zeros(series.volume().shape, bool)) for series in study.series)

    runs = read(study, Reader(each), name="mr_test", out=tmp_path, job="job 1")
    assert [run.series_uid for run in runs] == [series.uid for series in study.series]
    assert files_in(tmp_path) == sorted(f"mr_test/{series.uid}/sr.dcm" for series in study.series)
    assert len({dcmread(path).SOPInstanceUID for run in runs for path in run.objects}) == len(study.series)


@pytest.mark.parametrize(("answer", "status"), [((), "unsuitable"), (("glioma",), "failed"), (None, "failed")])
def test_an_answer_that_is_none_is_no_reading(study: Study, tmp_path: Path, answer: object, status: str) -> None:
    run = run_of(study, Reader(lambda _: answer), tmp_path)  # type: ignore[arg-type,return-value]
    assert run.status == status
    assert run.reason


def test_weights_that_are_damaged_are_a_failure_with_the_reason(study: Study, tmp_path: Path) -> None:
    class Damaged(Reader):
        @property
        def algorithm(self) -> Algorithm:  # type: ignore[override]
            raise DamagedWeights("the weights are not the ones that the card names")

    (run,) = read(study, Damaged(nothing), name="mr_test", out=tmp_path, job="job 1")
    assert (run.status, run.reason) == ("failed", "the weights are not the ones that the card names")


def test_a_missing_slice_stands_in_the_notes(truth: Truth, tmp_path: Path) -> None:
    ((whole,), _) = read_files(truth.files)
    gone = flair(whole).instances[4].filename
    ((study,), _) = read_files([path for path in truth.files if str(path) != gone])
    run = run_of(study, Reader(nothing), tmp_path)
    assert any("slice missing between 4 and 6" in note for note in run.notes)


def test_a_job_is_the_study_its_instances_and_the_weights(study: Study, truth: Truth) -> None:
    reader = Reader(nothing)
    same = job_key(read_files(truth.files[::-1])[0][0], reader)
    fewer = job_key(read_files(truth.files[1:])[0][0], reader)
    retrained = Reader(nothing)
    retrained.algorithm = replace(ALGORITHM, weights_digest="cd" * 32)
    assert job_key(study, reader) == same
    assert len({same, fewer, job_key(study, retrained)}) == 3


def test_our_own_evidence_in_the_folder_does_not_make_it_another_job(
    study: Study, reader: Reader, truth: Truth, tmp_path: Path
) -> None:
    shutil.copytree(truth.files[0].parents[1], tmp_path / "study")
    run_of(study, reader, tmp_path / "study")
    ((again,), _) = read_folder(tmp_path / "study")
    assert len(again.series) == len(study.series) + 2
    assert job_key(again, reader) == job_key(study, reader)


def test_what_is_written_is_not_read_as_a_picture(study: Study, reader: Reader, tmp_path: Path) -> None:
    run_of(study, reader, tmp_path)
    ((evidence,), refused) = read_folder(tmp_path)
    assert not refused
    assert {(series.modality, series.is_volume) for series in evidence.series} == {("SEG", False), ("SR", False)}


def test_the_report_has_the_uid_that_its_job_derives(study: Study, reader: Reader, tmp_path: Path) -> None:
    run_of(study, reader, tmp_path, "job 7")
    assert dcmread(tmp_path / "mr_test/sr.dcm").SOPInstanceUID == derived_uid("job 7", "sr")


class Explained(Reader):
    """Says where it looked, by a function, and whether it was asked."""

    def __init__(self, answer: Answer, maps: Callable[[Findings], tuple[SaliencyMap, ...]]) -> None:
        super().__init__(answer)
        self.maps, self.asked = maps, 0

    def saliency(self, found: Findings) -> tuple[SaliencyMap, ...]:
        self.asked += 1
        return self.maps(found)


def everywhere(found: Findings) -> tuple[SaliencyMap, ...]:
    return (SaliencyMap("FLAIR abnormality", codes.SALIENCY, (2, 3), np.ones((2, 64, 64), np.float32)),)


def test_where_a_pipeline_looked_is_asked_only_for_who_takes_maps(study: Study, tmp_path: Path) -> None:
    reader = Explained(nothing, everywhere)
    run_of(study, reader, tmp_path)
    assert (reader.asked, files_in(tmp_path)) == (0, ["mr_test/sr.dcm"])
    forms = Wanted(parametric_map=True).forms
    (run,) = read(study, reader, name="mr_test", out=tmp_path, job="job 1", forms=forms)
    assert (reader.asked, files_in(tmp_path)) == (1, ["mr_test/map.dcm", "mr_test/sr.dcm"])
    assert "maps" in run.stages


def test_a_map_that_cannot_be_made_takes_no_finding_along(study: Study, tmp_path: Path) -> None:
    def fails(found: Findings) -> tuple[SaliencyMap, ...]:
        raise MemoryError("no memory for it")

    forms = Wanted(parametric_map=True).forms
    (run,) = read(study, Explained(nothing, fails), name="mr_test", out=tmp_path, job="job 1", forms=forms)
    assert (run.status, len(run.findings)) == ("read", 1)
    assert run.notes == ("no map of where it looked: no memory for it",)
    assert "no map of where it looked" in report_text(tmp_path / "mr_test/sr.dcm")


@pytest.mark.parametrize("preset", PRESETS)
def test_to_repeat_a_job_is_to_make_the_same_bytes_whatever_is_made(
    study: Study, reader: Reader, tmp_path: Path, preset: str
) -> None:
    digests = []
    for started in (datetime(2026, 1, 1), datetime(2026, 1, 2)):
        forms = PRESETS[preset].forms
        (run,) = read(study, reader, name="mr_test", out=tmp_path, job="job 1", forms=forms, started=started)
        assert run.status == "read"
        digests.append({path.name: path.read_bytes() for path in run.objects})
    assert digests[0]
    assert digests[0] == digests[1]
