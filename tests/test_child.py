"""The child that reads studies: real processes, real limits, real crashes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.uid import generate_uid

from node.warm import Child, Died, Limits, NotWanted, PipelineFault, StudyFault, TookTooLong, TookTooMuch
from pipelines.forms import USUAL
from tests.waiting import PATIENCE, has_ended
from tests.workplace import ROOT, study_files, until, use

MIB = 1 << 20


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return study_files(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    made = Child(Limits(memory_bytes=1024 * MIB))
    yield made
    made.close()


def ask(files: list[Path], out: Path, pipeline: str = "Quick") -> dict[str, Any]:
    return {
        "use": use(pipeline),
        "name": "test",
        "study": str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID),
        "files": [str(file) for file in files],
        "out": str(out),
        "job": "a job",
        "forms": sorted(map(str, USUAL)),
        "predecessors": {},
    }


def read(child: Child, question: dict[str, Any], *, seconds: float = PATIENCE) -> dict[str, Any]:
    return child.read(question, seconds=seconds, wanted=lambda: True)


def test_a_study_is_read_and_its_report_lies_on_disk(child: Child, files: list[Path], tmp_path: Path) -> None:
    (run,) = read(child, ask(files, tmp_path))["runs"]
    assert run["status"] == "read"
    assert [finding["present"] for finding in run["findings"]] == [False]
    assert [dcmread(path).Modality for path in run["objects"]] == ["SR"]


def test_the_same_child_reads_the_next_study(child: Child, files: list[Path], tmp_path: Path) -> None:
    read(child, ask(files, tmp_path))
    first = child.pid
    read(child, ask(files, tmp_path))
    assert child.pid == first is not None


def test_what_a_pipeline_prints_does_not_get_into_the_answer(
    files: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    loud = Child(Limits())  # started here, its standard error is the one that is captured
    try:
        (run,) = read(loud, ask(files, tmp_path, "Prints"))["runs"]
    finally:
        loud.close()
    assert run["status"] == "read"
    seen = capfd.readouterr()
    assert "noise" in seen.err
    assert seen.out == ""


@pytest.mark.parametrize(("pipeline", "said"), [("Segfaults", "SIGSEGV"), ("IsKilled", "SIGKILL")])
def test_a_crash_is_said_and_the_next_study_is_read(
    child: Child, files: list[Path], tmp_path: Path, pipeline: str, said: str
) -> None:
    with pytest.raises(Died, match=said):
        read(child, ask(files, tmp_path, pipeline))
    assert read(child, ask(files, tmp_path))["runs"][0]["status"] == "read"


def test_who_takes_too_long_is_killed(child: Child, files: list[Path], tmp_path: Path) -> None:
    child.load(use("Loops"))
    process = psutil.Process(child.pid)
    with pytest.raises(TookTooLong, match="longer than the limit of 1 s"):
        read(child, ask(files, tmp_path, "Loops"), seconds=1.0)
    assert not process.is_running()


def test_memory_beyond_the_limit_is_refused_to_the_pipeline(child: Child, files: list[Path], tmp_path: Path) -> None:
    (run,) = read(child, ask(files, tmp_path, "Allocates"))["runs"]
    assert run["status"] == "failed"
    assert "allocate" in run["reason"]


def test_memory_that_no_rlimit_counts_is_seen_from_outside(child: Child, files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(TookTooMuch, match="more memory than the limit of 1 GiB"):
        read(child, ask(files, tmp_path, "GrowsUnseen"))


def test_who_is_not_wanted_any_more_is_killed(child: Child, files: list[Path], tmp_path: Path) -> None:
    child.load(use("Loops"))
    with pytest.raises(NotWanted):
        child.read(ask(files, tmp_path, "Loops"), seconds=30.0, wanted=lambda: False)
    assert child.pid is None


def test_a_pipeline_that_cannot_be_loaded_is_a_fault_of_the_pipeline(
    child: Child, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TESTS_WEIGHTS", str(tmp_path / "damaged.safetensors"))
    with pytest.raises(PipelineFault, match=r"the weights damaged.safetensors are damaged"):
        child.load(use("Damaged"))
    with pytest.raises(PipelineFault, match="has no Nothing"):
        child.load(use("Nothing"))


def test_a_study_of_which_no_file_can_be_read_is_a_fault_of_the_study(
    child: Child, files: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"no DICOM at all")
    question = ask(files, tmp_path) | {"files": [str(broken)]}
    with pytest.raises(StudyFault, match="none of the 1 files of the study can be read"):
        read(child, question)


def test_a_pipeline_that_warms_up_does_so_when_it_is_loaded_and_says_how_it_computes(
    child: Child, files: list[Path], tmp_path: Path
) -> None:
    assert child.load(use("WarmsUp"))["precision"] == "single precision"
    assert child.load(use("Quick"))["precision"] is None
    assert read(child, ask(files, tmp_path, "WarmsUp"))["runs"][0]["status"] == "read"


def test_a_question_larger_than_a_pipe_gets_through(child: Child, files: list[Path], tmp_path: Path) -> None:
    question = ask(files, tmp_path)
    question["files"] += [f"/nowhere/{number:0200}.dcm" for number in range(3000)]
    assert read(child, question)["runs"][0]["status"] == "read"


def test_a_child_has_its_threads_and_its_device_and_no_password(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PACS_PASSWORD", "secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    assert Limits("cuda:1", 3).environment()["CUDA_VISIBLE_DEVICES"] == "5"
    limited = Child(Limits("cpu", 3))
    try:
        (run,) = read(limited, ask(files, tmp_path, "Tells"))["runs"]
    finally:
        limited.close()
    assert "OMP_NUM_THREADS=3 CUDA_VISIBLE_DEVICES= PACS_PASSWORD=None" in run["reason"]


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    program = (
        "import time; from node.warm import Child, Limits; "
        f"child = Child(Limits()); child.load({use('Quick')!r}); print(child.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    until(lambda: has_ended(child))


def test_a_report_says_why_a_study_is_not_read_and_goes_under_no_name_that_may_be_wrong(
    child: Child, files: list[Path], tmp_path: Path
) -> None:
    about = {"reason": "it took too long", "algorithm": child.load(use("Quick"))["algorithm"]}
    child.close()  # and another is started, which does not load the pipeline
    question = ask(files, tmp_path / "out", "Damaged") | about
    (run,) = child.report(question, seconds=PATIENCE, wanted=lambda: True)["runs"]
    assert (run["status"], run["reason"]) == ("failed", "it took too long")
    (report,) = (dcmread(path) for path in run["objects"])
    assert (report.Modality, report.PatientID) == ("SR", "SYN-1")
    other = dcmread(files[0])
    other.PatientID, other.SOPInstanceUID = "SYN-2", generate_uid()
    other.file_meta.MediaStorageSOPInstanceUID = other.SOPInstanceUID
    dcmwrite(tmp_path / "other.dcm", other)
    question = ask([*files, tmp_path / "other.dcm"], tmp_path / "none") | about
    with pytest.raises(StudyFault, match="nothing is written under a name that may be the wrong one"):
        child.report(question, seconds=PATIENCE, wanted=lambda: True)
    assert not (tmp_path / "none").exists()
