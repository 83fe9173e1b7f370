"""One job from claim to evidence, with a real child, spool and ledger."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from node import analysis as module
from node import holding, reader
from node.analysis import Analysis, Rules
from node.ledger import MAX_ATTEMPTS, Job, JobState
from node.warm import Limits
from tests.waiting import PATIENCE
from tests.workplace import Workplace, until

MIB = 1 << 20


class Bench:
    """An Analysis at a workplace, and what it rang."""

    def __init__(self, folder: Path) -> None:
        self.place = Workplace(folder)
        self.stop = threading.Event()
        self.rung: list[int] = []
        self.again: list[int] = []
        self._made: list[Analysis] = []

    def analysis(self, *, device: str = "cpu", **rules: float) -> Analysis:
        made = Analysis(
            self.place.ledger,
            Limits(device, 1, 1024 * MIB),
            Rules(self.place.evidence, "bench", **rules),  # type: ignore[arg-type]
            path=self.place.spool.path,
            finished=lambda number, _: self.rung.append(number),
            again=lambda number, _: self.again.append(number),
            stop=self.stop,
        )
        self._made.append(made)
        return made

    def job(self, number: int) -> Job:
        return self.place.ledger.job(number)

    def close(self) -> None:
        for each in self._made:
            each.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def child_of(analysis: Analysis) -> int:
    found = analysis._reader.pid
    assert found is not None
    return found


def soon(act: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_a_job_becomes_evidence_and_rings_for_each_destination(bench: Bench) -> None:
    number = bench.place.queued("Quick", to=("PACS", "WEB"))
    bench.analysis()(number)
    job = bench.job(number)
    assert (job.state, job.outcome, job.reason, job.attempts) == (JobState.DONE, "read", None, 1)
    assert json.loads(job.runs or "")[0]["pipeline"] == "quick"
    assert set(job.stages) == {"network", "encode"}
    history = bench.place.ledger.study(job.study_uid)
    assert [each.id for each in history.deliveries] == bench.rung
    assert {each.destination for each in history.deliveries} == {"PACS", "WEB"}
    (evidence,) = history.evidence[number]
    path = bench.place.evidence / evidence.path
    assert str(dcmread(path).SOPInstanceUID) == evidence.sop_uid
    assert path.parent == bench.place.evidence / job.key / "1" / "quick"


def test_a_job_that_is_rung_twice_is_done_once(bench: Bench) -> None:
    number = bench.place.queued("Quick", to=("PACS",))
    analysis = bench.analysis()
    analysis(number)
    analysis(number)
    assert bench.job(number).attempts == 1
    assert len(bench.rung) == 1


def test_a_bell_for_a_job_that_does_not_exist_is_a_log_line(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.analysis()(4711)
    assert "a bell rang for nothing" in caplog.text


@pytest.mark.parametrize(("pipeline", "outcome"), [("Unsuitable", "unsuitable"), ("Raises", "failed")])
def test_what_was_not_evaluated_is_said_in_a_report_that_goes_out(bench: Bench, pipeline: str, outcome: str) -> None:
    number = bench.place.queued(pipeline, to=("PACS",))
    bench.analysis()(number)
    job = bench.job(number)
    assert (job.state, job.outcome) == (JobState.DONE, outcome)
    assert job.reason in ("this pipeline reads nothing at all", "the network is not in the mood")
    assert len(bench.rung) == 1
    (evidence,) = bench.place.ledger.study(job.study_uid).evidence[number]
    assert dcmread(bench.place.evidence / evidence.path).Modality == "SR"


@pytest.mark.parametrize(
    ("pipeline", "reason"),
    [
        ("Loops", "it took longer than the limit of 30 s"),
        ("Allocates", "it needs more memory than the limit of 1 GiB"),
        ("GrowsUnseen", "it took more memory than the limit of 1 GiB"),
    ],
)
def test_a_job_beyond_a_limit_fails_at_once_with_a_report_that_says_so_and_the_next_is_done(
    bench: Bench, pipeline: str, reason: str
) -> None:
    analysis = bench.analysis(time_limit_seconds=30.0 if pipeline == "Loops" else 300.0)
    number, good = bench.place.queued(pipeline, to=("PACS",)), bench.place.queued("Quick")
    analysis(number)
    job = bench.job(number)
    assert (job.state, job.outcome, job.attempts) == (JobState.DONE, "failed", 1)
    assert job.reason is not None
    assert reason in job.reason
    assert len(bench.rung) == 1
    (evidence,) = bench.place.ledger.evidence(job.key)
    report = dcmread(bench.place.evidence / evidence.path)
    assert (report.StudyInstanceUID, report.Modality) == (job.study_uid, "SR")
    assert reason in report.to_json()
    analysis(good)
    assert bench.job(good).state == JobState.DONE


def report_of(bench: Bench, number: int) -> Dataset:
    """The one report that the ledger has of a job, from its file."""
    (evidence,) = bench.place.ledger.evidence(bench.job(number).key)
    return dcmread(bench.place.evidence / evidence.path)


def test_a_job_that_crashes_its_child_three_times_is_quarantined_and_a_report_says_so(bench: Bench) -> None:
    analysis = bench.analysis()
    number = bench.place.queued("Segfaults", to=("PACS",))
    for attempt in (1, 2):
        analysis(number)
        assert bench.job(number).state == JobState.QUEUED
        assert bench.again == [number] * attempt
    analysis(number)
    job = bench.job(number)
    assert (job.state, job.outcome, job.attempts) == (JobState.QUARANTINED, "failed", 3)
    assert job.reason == "segfaults was lost 3 times while it read the study: its process was killed by SIGSEGV"
    assert len(bench.rung) == 1
    report = report_of(bench, number)
    assert (report.StudyInstanceUID, report.PatientID, report.Modality) == (job.study_uid, "SYN-1", "SR")
    assert "lost 3 times" in report.to_json()


def test_a_quarantined_job_that_is_retried_is_read_and_delivered_anew(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESTS_MOOD", str(tmp_path / "mood"))
    analysis = bench.analysis()
    number = bench.place.queued("CrashesForNow", to=("PACS",))
    for _ in range(3):
        analysis(number)
    assert bench.job(number).state == JobState.QUARANTINED
    (tmp_path / "mood").touch()
    bench.place.ledger.retry(number)
    analysis(number)
    assert (bench.job(number).state, bench.job(number).outcome) == (JobState.DONE, "read")
    assert len(bench.rung) == 2
    assert len({one.sop_uid for one in bench.place.ledger.evidence(bench.job(number).key)}) == 2


def test_a_job_that_took_three_workers_along_is_reported_by_the_fourth_and_not_read_again(bench: Bench) -> None:
    number = bench.place.queued("IsKilled", to=("PACS",))
    for _ in range(3):
        assert bench.place.ledger.claim(number, owner="died", lease_seconds=0.0)
    bench.analysis()(number)
    job = bench.job(number)
    assert (job.state, job.outcome, job.attempts) == (JobState.QUARANTINED, "failed", 4)
    assert "lost 3 times" in report_of(bench, number).to_json()
    assert len(bench.rung) == 1


def test_a_quarantined_job_without_a_header_says_why_no_report_is_possible(bench: Bench) -> None:
    number = bench.place.queued("IsKilled", to=("PACS",))
    for _ in range(3):
        assert bench.place.ledger.claim(number, owner="died", lease_seconds=0.0)
    for instance in bench.place.ledger.instances(bench.job(number).study_uid):
        bench.place.spool.path(instance.sha256).unlink()
    bench.analysis()(number)
    assert bench.job(number).state == JobState.QUARANTINED
    assert "not even a header tells whose study it is" in (bench.job(number).reason or "")
    assert bench.rung == []


def test_a_study_whose_pixels_are_cut_off_in_every_file_leaves_a_report(bench: Bench) -> None:
    number = bench.place.queued("Quick", to=("PACS",))
    for instance in bench.place.ledger.instances(bench.job(number).study_uid):
        path = bench.place.spool.path(instance.sha256)
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-100])
    bench.analysis()(number)
    job = bench.job(number)
    assert (job.state, job.outcome) == (JobState.DONE, "failed")
    assert "none of the 2 files of the study can be read: it is cut off" in (job.reason or "")
    report = report_of(bench, number)
    assert (report.PatientID, report.Modality) == ("SYN-1", "SR")
    assert "cut off" in report.to_json()


def test_a_child_that_is_killed_from_outside_costs_one_attempt(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTS_SECONDS", "2")
    analysis = bench.analysis()
    number = bench.place.queued("Slow")
    analysis.warm(["tests.pipelines_for_tests:Slow"])
    thread = soon(lambda: analysis(number))
    until(lambda: bench.job(number).state == JobState.RUNNING)
    os.kill(child_of(analysis), signal.SIGKILL)
    thread.join()
    assert bench.job(number).state == JobState.QUEUED
    analysis(number)
    assert (bench.job(number).state, bench.job(number).attempts) == (JobState.DONE, 2)


def test_the_lease_is_kept_alive_while_the_child_works(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTS_SECONDS", "8")
    monkeypatch.setattr(holding, "BEAT_SECONDS", 0.3)
    analysis = bench.analysis(lease_seconds=5.0)
    number = bench.place.queued("Slow")
    analysis.warm(["tests.pipelines_for_tests:Slow"])
    thread = soon(lambda: analysis(number))
    until(lambda: bench.job(number).state == JobState.RUNNING)
    seen = []
    while thread.is_alive():
        seen += bench.place.ledger.ready()
        time.sleep(0.1)
    assert not seen
    assert (bench.job(number).state, bench.job(number).attempts) == (JobState.DONE, 1)


def test_the_lease_is_kept_alive_while_the_cpu_takes_over_from_the_gpu(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESTS_SECONDS", "8")
    monkeypatch.setattr(holding, "BEAT_SECONDS", 0.3)
    analysis = bench.analysis(device="cuda:0", lease_seconds=5.0)
    number = bench.place.queued("SlowToLoadOnTheCpu")
    analysis.warm(["tests.pipelines_for_tests:SlowToLoadOnTheCpu"])
    thread = soon(lambda: analysis(number))
    until(lambda: bench.job(number).state == JobState.RUNNING)
    seen = []
    while thread.is_alive():
        seen += bench.place.ledger.ready()
        time.sleep(0.1)
    assert not seen
    assert (bench.job(number).outcome, bench.job(number).attempts) == ("read", 1)


def test_the_log_says_how_a_pipeline_computes_before_the_first_study(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    bench.analysis().warm(["tests.pipelines_for_tests:WarmsUp"])
    (said,) = [record.event_keys for record in caplog.records if record.message == "warm"]  # type: ignore[attr-defined]
    assert (said["device"], said["precision"]) == ("cpu", "single precision")


def test_a_job_that_is_cancelled_stops_and_leaves_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "BEAT_SECONDS", 0.3)
    analysis = bench.analysis()
    number = bench.place.queued("Loops")
    thread = soon(lambda: analysis(number))
    until(lambda: bench.job(number).state == JobState.RUNNING)
    bench.place.ledger.cancel(number)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert bench.job(number).state == JobState.CANCELLED
    assert not [path for path in bench.place.evidence.rglob("*") if path.is_file()]


def test_the_result_of_who_lost_the_claim_is_dropped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTS_SECONDS", "6")
    monkeypatch.setattr(holding, "BEAT_SECONDS", 600.0)
    analysis = bench.analysis(lease_seconds=0.5)  # and no heartbeat: as if the machine had slept
    number = bench.place.queued("Slow", to=("PACS",))
    analysis.warm(["tests.pipelines_for_tests:Slow"])
    thread = soon(lambda: analysis(number))
    until(lambda: bench.job(number).state == JobState.RUNNING)
    until(lambda: bench.place.ledger.claim(number, owner="another", lease_seconds=60.0))
    thread.join()
    job = bench.job(number)
    assert (job.state, job.owner, job.attempts) == (JobState.RUNNING, "another", 2)
    assert bench.rung == []


def test_a_worker_that_stops_gives_its_job_back_and_the_attempt_does_not_count(bench: Bench) -> None:
    analysis = bench.analysis(drain_seconds=0.5)
    number = bench.place.queued("Loops")
    thread = soon(lambda: analysis(number))
    until(lambda: bench.job(number).state == JobState.RUNNING)
    bench.stop.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert bench.job(number).state == JobState.QUEUED
    assert bench.place.ledger.ready() == [(number, 5)]


def test_jobs_of_a_pipeline_with_damaged_weights_wait_until_they_are_mended(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "test.safetensors"
    monkeypatch.setenv("TESTS_WEIGHTS", str(weights))
    for each in (module, reader):
        monkeypatch.setattr(each, "LOAD_AGAIN_SECONDS", 5.0)
    analysis = bench.analysis()
    number, other = bench.place.queued("Damaged"), bench.place.queued("Quick")
    for _ in range(5):
        analysis(number)
    job = bench.job(number)
    assert (job.state, job.attempts) == (JobState.QUEUED, 1)
    assert job.reason is not None
    assert "the weights test.safetensors are damaged" in job.reason
    analysis(other)
    assert bench.job(other).state == JobState.DONE
    weights.touch()
    until(lambda: (analysis(number), bench.job(number).state == JobState.DONE)[1])


def test_a_study_whose_files_are_gone_fails_with_the_reason(bench: Bench) -> None:
    number = bench.place.queued("Quick")
    for instance in bench.place.ledger.instances(bench.job(number).study_uid):
        bench.place.spool.path(instance.sha256).unlink()
    bench.analysis()(number)
    assert bench.job(number).state == JobState.FAILED
    reason = bench.job(number).reason or ""
    assert "none of the 2 files of the study can be read" in reason
    assert "no report can say so, for not even a header tells whose study it is" in reason


@pytest.mark.parametrize("away", ["every file", "one file", "the drive"])
def test_a_study_that_cannot_be_read_for_now_waits(bench: Bench, away: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NO_ROOM_SECONDS", 0.0)
    number = bench.place.queued("Quick")
    paths = [bench.place.spool.path(one.sha256) for one in bench.place.ledger.instances(bench.job(number).study_uid)]
    moved = {path.parents[1] for path in paths} if away == "the drive" else paths[: 1 if away == "one file" else None]
    for path in moved:
        path.rename(path.with_name(f"{path.name}.aside"))
        if away != "the drive":
            path.symlink_to("/proc/self/mem")  # whose first byte cannot be read: EIO
    analysis = bench.analysis()
    for _ in range(MAX_ATTEMPTS + 1):  # which do not count
        analysis(number)
        assert bench.job(number).state == JobState.QUEUED
    assert "the study cannot be read now" in (bench.job(number).reason or "")
    for path in moved:
        path.with_name(f"{path.name}.aside").replace(path)
    analysis(number)
    assert (bench.job(number).state, bench.job(number).outcome) == (JobState.DONE, "read")


@pytest.mark.parametrize("away", ["every file", "one file"])
def test_a_study_that_cannot_be_read_for_long_fails_with_the_reason_and_can_be_retried(
    bench: Bench, away: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NO_ROOM_SECONDS", 0.0)
    number = bench.place.queued("Quick", to=("PACS",))
    paths = [bench.place.spool.path(one.sha256) for one in bench.place.ledger.instances(bench.job(number).study_uid)]
    moved = paths[: 1 if away == "one file" else None]
    for path in moved:
        path.rename(path.with_name(f"{path.name}.aside"))
        path.symlink_to("/proc/self/mem")  # whose first byte cannot be read: EIO
    bench.analysis(away_seconds=3600.0)(number)
    waiting = bench.job(number)
    assert (waiting.state, waiting.away_since is None) == (JobState.QUEUED, False)
    bench.analysis(away_seconds=3600.0)(number)
    assert bench.job(number).away_since == waiting.away_since
    bench.analysis(away_seconds=0.0)(number)
    job = bench.job(number)
    assert "it has waited 0 minutes for that to pass" in (job.reason or "")
    if away == "one file":  # the other says whose study it is
        assert (job.state, job.outcome) == (JobState.DONE, "failed")
        assert "cannot be read now" in report_of(bench, number).to_json()
    else:
        assert job.state == JobState.FAILED
    assert job.away_since is None
    for path in moved:
        path.with_name(f"{path.name}.aside").replace(path)
    bench.place.ledger.retry(number)
    bench.analysis()(number)
    assert (bench.job(number).state, bench.job(number).outcome) == (JobState.DONE, "read")


def test_without_room_for_evidence_the_job_waits(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    number = bench.place.queued("Quick")
    bench.analysis(reserve_bytes=1 << 60)(number)
    assert (bench.job(number).state, bench.job(number).attempts) == (JobState.QUEUED, 0)
    assert "no room for evidence" in caplog.text


def test_what_an_attempt_that_came_to_nothing_left_is_removed(bench: Bench) -> None:
    number = bench.place.queued("Quick")
    ledger = bench.place.ledger
    claim = ledger.claim(number, owner="killed", lease_seconds=0.0)
    assert claim is not None
    left = bench.place.evidence / claim.job.key / "1" / "quick" / "sr.dcm"
    left.parent.mkdir(parents=True)
    left.touch()
    bench.analysis()(number)
    assert [path.name for path in (bench.place.evidence / claim.job.key).iterdir()] == ["2"]


def test_what_does_not_fit_on_the_gpu_is_read_once_more_on_the_cpu(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    number = bench.place.queued("NoRoomOnGpu")
    bench.analysis(device="cuda:0")(number)
    assert (bench.job(number).state, bench.job(number).outcome) == (JobState.DONE, "read")
    assert "once more on the CPU" in caplog.text


def test_the_report_of_a_failed_reading_outlasts_the_retry_for_as_long_as_the_ledger_names_it(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mood = tmp_path / "mood"
    monkeypatch.setenv("TESTS_MOOD", str(mood))
    analysis = bench.analysis()
    number = bench.place.queued("Moody", to=("PACS",))
    analysis(number)
    assert bench.job(number).outcome == "failed"
    bench.place.ledger.retry(number)
    mood.touch()
    analysis(number)
    assert (bench.job(number).outcome, bench.job(number).attempts) == ("read", 2)
    evidence = bench.place.ledger.evidence(bench.job(number).key)
    assert [Path(one.path).parts[1] for one in evidence] == ["1", "2"]
    assert all((bench.place.evidence / one.path).is_file() for one in evidence)


def test_a_job_waits_for_room_and_for_weights_however_often_it_takes(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESTS_MOOD", str(tmp_path / "mood"))
    monkeypatch.setenv("TESTS_SAYS", "[Errno 28] No space left on device")
    monkeypatch.setattr(module, "NO_ROOM_SECONDS", 0.0)
    analysis = bench.analysis()
    number = bench.place.queued("Moody")
    for attempt in range(1, 6):
        analysis(number)
        assert (bench.job(number).state, bench.job(number).attempts) == (JobState.QUEUED, attempt)
    (tmp_path / "mood").touch()
    analysis(number)
    assert bench.job(number).state == JobState.DONE
