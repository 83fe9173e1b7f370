"""The bell and the clock: a real redis-server, real Celery workers in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from node import broker
from node import clock as module
from node.clock import Clock, Ringing
from node.ledger import StudyState
from node.routing import Route
from node.tasks import ANALYZE, DELIVER, Bell, make_app
from tests.test_broker import client
from tests.waiting import PATIENCE
from tests.workplace import ROOT, Workplace, until, use

# A worker that writes down each number that it hears, and takes a while over it.
WORKER = """
import sys, threading, time
from node.tasks import serve
url, queue, path, seconds, threads = sys.argv[1:]
def act(number):
    with open(path, "a") as file: file.write(f"{number}\\n")
    if number == 13: raise RuntimeError("unlucky")
    time.sleep(float(seconds))
    with open(path + ".done", "a") as file: file.write(f"{number}\\n")
serve(url, queue, act, threads=int(threads), stop=threading.Event(), name="test")
"""


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with broker.embedded(tmp_path) as running:
        yield running


@contextmanager
def worker(
    url: str, heard: Path, queue: str = ANALYZE, *, seconds: float = 0.0, threads: int = 1
) -> Iterator[subprocess.Popen[bytes]]:
    heard.touch()
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, url, queue, str(heard), str(seconds), str(threads)], cwd=ROOT
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def numbers(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()]


def done(path: Path) -> list[int]:
    return numbers(path.with_name(f"{path.name}.done"))


def test_what_is_rung_is_heard_the_most_urgent_first(url: str, tmp_path: Path) -> None:
    bell = Bell(url)
    for number, priority in ((1, 9), (2, 5), (3, 0), (4, 5), (5, 1)):
        assert bell.ring_job(number, priority)
    assert bell.waiting(ANALYZE) == {0: 1, 1: 1, 2: 0, 3: 0, 4: 0, 5: 2, 6: 0, 7: 0, 8: 0, 9: 1}
    with worker(url, tmp_path / "heard"):
        until(lambda: len(numbers(tmp_path / "heard")) == 5)
    assert numbers(tmp_path / "heard") == [3, 5, 2, 4, 1]


def test_what_is_rung_while_a_job_runs_waits_by_its_priority(url: str, tmp_path: Path) -> None:
    bell = Bell(url)
    with worker(url, tmp_path / "heard", seconds=3.0):
        bell.ring_job(1, 5)
        until(lambda: numbers(tmp_path / "heard") == [1])
        for number, priority in ((2, 9), (3, 5), (4, 0)):
            bell.ring_job(number, priority)
        until(lambda: len(numbers(tmp_path / "heard")) == 4)
    assert numbers(tmp_path / "heard") == [1, 4, 3, 2]


def test_threads_hear_at_the_same_time(url: str, tmp_path: Path) -> None:
    bell = Bell(url)
    with worker(url, tmp_path / "heard", DELIVER, seconds=600.0, threads=4):
        for number in range(4):
            bell.ring_delivery(number, 5)
        until(lambda: sorted(numbers(tmp_path / "heard")) == [0, 1, 2, 3])


def test_a_task_that_fails_does_not_end_the_worker_and_a_forged_one_does_nothing(url: str, tmp_path: Path) -> None:
    bell = Bell(url)
    app = make_app(url)
    with worker(url, tmp_path / "heard") as process:
        bell.ring_job(13, 5)
        app.send_task("wetread.analyze", args=["'; DROP TABLE jobs"], queue=ANALYZE)
        app.send_task("wetread.analyze", args=[1, 2, 3], queue=ANALYZE)
        app.send_task("os.system", args=["true"], queue=ANALYZE)
        app.send_task("wetread.analyze", args=[7], queue=ANALYZE, serializer="pickle")
        bell.ring_job(14, 9)
        until(lambda: numbers(tmp_path / "heard") == [13, 14])
        assert process.poll() is None


def test_a_worker_finishes_its_task_at_sigterm_and_takes_no_other(url: str, tmp_path: Path) -> None:
    bell = Bell(url)
    with worker(url, tmp_path / "heard", seconds=5.0) as process:
        bell.ring_job(1, 5)
        until(lambda: numbers(tmp_path / "heard") == [1])
        bell.ring_job(2, 5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert done(tmp_path / "heard") == [1]
    assert numbers(tmp_path / "heard") == [1]


def share_of_a_cpu(process: psutil.Process, seconds: float) -> float:
    begun, before = time.monotonic(), sum(process.cpu_times()[:2])
    time.sleep(seconds)
    return float((sum(process.cpu_times()[:2]) - before) / (time.monotonic() - begun))


def test_an_idle_worker_stops_at_once_and_costs_nearly_nothing(url: str, tmp_path: Path) -> None:
    with worker(url, tmp_path / "heard") as process:
        Bell(url).ring_job(1, 5)
        until(lambda: numbers(tmp_path / "heard") == [1])
        usage = psutil.Process(process.pid)
        assert min(share_of_a_cpu(usage, 2.0) for _ in range(3)) < 0.1
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def test_a_flushed_broker_is_rung_and_heard_like_a_new_one(url: str, tmp_path: Path) -> None:
    bell = Bell(url)
    with worker(url, tmp_path / "heard"):
        bell.ring_job(1, 5)
        until(lambda: numbers(tmp_path / "heard") == [1])
        client(tmp_path).flushall()
        bell.ring_job(2, 5)
        until(lambda: numbers(tmp_path / "heard") == [1, 2])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("pause", [0.0, 1.0], ids=["before the acknowledgement", "at rest"])
def test_a_worker_hears_again_after_the_broker_was_killed(url: str, tmp_path: Path, pause: float, threads: int) -> None:
    bell = Bell(url)
    with worker(url, tmp_path / "heard", threads=threads, seconds=0.01) as process:
        bell.ring_job(1, 5)
        while numbers(tmp_path / "heard") != [1]:  # pytest's own limit ends it
            time.sleep(0.0005)
        time.sleep(pause)
        os.kill(broker.server_id(tmp_path), signal.SIGKILL)
        until(lambda: bell.ring_job(2, 5))
        until(lambda: 2 in numbers(tmp_path / "heard"))
        assert process.poll() is None


def test_a_broker_that_is_off_or_silent_costs_seconds_and_no_error(tmp_path: Path) -> None:
    begun = time.monotonic()
    bell = Bell(broker.broker_url(tmp_path))  # never started
    assert not bell.ring_job(1, 5)
    assert bell.waiting(ANALYZE) is None
    assert time.monotonic() - begun < 60.0
    with broker.embedded(tmp_path) as url:
        bell = Bell(url)
        assert bell.ring_job(1, 5)
        process = psutil.Process(broker.server_id(tmp_path))
        process.suspend()  # as a machine that has lost its network: the connection stands, and nothing comes
        try:
            begun = time.monotonic()
            assert not bell.ring_job(2, 5)
            assert time.monotonic() - begun < 100.0
        finally:
            process.resume()
        until(lambda: bell.ring_job(3, 5))


def test_a_full_broker_refuses_and_nothing_breaks(url: str, tmp_path: Path) -> None:
    bell = Bell(url)
    client(tmp_path).config_set("maxmemory", 1)
    assert not bell.ring_job(1, 5)
    client(tmp_path).config_set("maxmemory", 0)
    until(lambda: bell.ring_job(2, 5))


# ── The clock ────────────────────────────────────────────────────────────────────────────────────────────────────────


def routes(**when: object) -> dict[str, Route]:
    return {"quick": Route("quick", use("Quick"), when, ("PACS",), 3)}


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


def clock(place: Workplace, bell: Bell, when: dict[str, Route]) -> Clock:
    return Clock(place.ledger, path=place.spool.path, routes=when, bell=bell)


def test_a_study_whose_time_has_come_settles_and_its_job_is_rung(place: Workplace, url: str) -> None:
    bell = Bell(url)
    study = place.arrived()
    clock(place, bell, routes(Modality="CT")).settle()
    history = place.ledger.study(study)
    assert history.study.state == StudyState.SETTLED
    (job,) = history.jobs
    assert (job.pipeline, job.use, job.priority, job.destinations) == ("quick", use("Quick"), 3, ("PACS",))
    assert "Modality is CT" in job.why
    assert bell.waiting(ANALYZE) == dict.fromkeys(range(10), 0) | {3: 1}


def test_a_study_that_no_rule_wants_is_unrouted(place: Workplace, url: str) -> None:
    study = place.arrived()
    clock(place, Bell(url), routes(Modality="MR")).settle()
    assert place.ledger.study(study).study.state == StudyState.UNROUTED
    assert place.ledger.due() == []


def test_a_study_whose_files_are_gone_or_damaged_does_not_stop_the_others(place: Workplace, url: str) -> None:
    lost, torn, good = (place.arrived() for _ in range(3))
    for instance in place.ledger.instances(lost):
        place.spool.path(instance.sha256).unlink()
    for instance in place.ledger.instances(torn):
        path = place.spool.path(instance.sha256)
        path.chmod(0o600)
        path.write_bytes(b"torn")
    clock(place, Bell(url), routes(Modality="CT")).settle()
    states = [place.ledger.study(study).study.state for study in (lost, torn, good)]
    assert states == [StudyState.UNROUTED, StudyState.UNROUTED, StudyState.SETTLED]
    for study, why in ((lost, "No such file"), (torn, "it is not a DICOM file")):
        said = place.ledger.study(study).study.reason or ""
        assert said.startswith("no header of its 2 instances can be read, so no pipeline and no report is possible")
        assert why in said


def test_a_study_whose_pixels_are_cut_off_is_routed_by_its_header(place: Workplace, url: str) -> None:
    study = place.arrived()
    for instance in place.ledger.instances(study):
        path = place.spool.path(instance.sha256)
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-100])
    clock(place, Bell(url), routes(Modality="CT")).settle()
    assert [job.pipeline for job in place.ledger.study(study).jobs] == ["quick"]


def test_two_clocks_settle_a_study_once(place: Workplace, url: str) -> None:
    studies = [place.arrived() for _ in range(5)]
    clocks = [clock(place, Bell(url), routes(Modality="CT")) for _ in range(2)]
    threads = [threading.Thread(target=each.settle) for each in clocks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(place.ledger.study(study).jobs) for study in studies] == [1] * 5


def test_the_clock_rings_again_after_flushall(place: Workplace, url: str) -> None:
    assert module.RING_SECONDS < 10
    bell = Bell(url)
    job = place.queued()
    stop = threading.Event()
    thread = threading.Thread(target=clock(place, bell, {}).run, args=(stop,))
    thread.start()
    try:
        until(lambda: sum((bell.waiting(ANALYZE) or {}).values()) == 1)
        client(place.folder).flushall()
        until(lambda: sum((bell.waiting(ANALYZE) or {}).values()) == 1)
    finally:
        stop.set()
        thread.join()
    assert place.ledger.ready() == [(job, 5)]


class Counter:
    """A bell that counts, and whose queue holds what the test says."""

    def __init__(self, queue: int = 0) -> None:
        self.queue = queue
        self.rung: list[int] = []

    def ring_job(self, job_id: int, priority: int) -> bool:
        self.rung.append(job_id)
        return True

    ring_delivery: Callable[[int, int], bool] = ring_job

    def waiting(self, queue: str) -> dict[int, int] | None:
        return dict.fromkeys(range(10), 0) | {5: self.queue}


def test_what_waits_behind_others_is_not_rung_hundreds_of_times() -> None:
    bell = Counter()
    ringing = Ringing(bell, ANALYZE, bell.ring_job)
    ready = [(number, 5) for number in range(100)]
    ringing.ring(ready)
    assert len(bell.rung) == 100
    bell.queue = 100
    for _ in range(20):
        ringing.ring(ready)
    assert len(bell.rung) == 100
    bell.queue = 0  # flushed
    ringing.ring(ready)
    assert len(bell.rung) == 200


def test_a_queue_that_is_full_is_not_filled_further() -> None:
    bell = Counter(queue=999)
    Ringing(bell, ANALYZE, bell.ring_job).ring([(number, 5) for number in range(100)] + [(1000, 0)])
    assert bell.rung == [0, 1000]


def test_a_study_whose_header_cannot_be_read_now_waits_and_the_others_do_not(place: Workplace, url: str) -> None:
    def folders(study: str) -> set[Path]:
        return {place.spool.path(instance.sha256).parent for instance in place.ledger.instances(study)}

    away = place.arrived()
    good = next(study for study in iter(place.arrived, "") if folders(study).isdisjoint(folders(away)))
    moved = [(folder, folder.with_name(f"{folder.name}-away")) for folder in folders(away)]
    for folder, elsewhere in moved:  # as a mount that is absent
        folder.rename(elsewhere)
    ticking = clock(place, Bell(url), routes(Modality="CT"))
    ticking.settle()
    waiting = place.ledger.study(away).study
    assert waiting.state == StudyState.RECEIVING
    assert "cannot be read now: the file cannot be read: its folder is not there" in (waiting.reason or "")
    assert place.ledger.study(good).study.state == StudyState.SETTLED
    for folder, elsewhere in moved:
        elsewhere.rename(folder)
    clock(place, Bell(url), routes(Modality="CT")).settle()
    assert (place.ledger.entry(away).state, place.ledger.entry(away).reason) == (StudyState.SETTLED, None)


def test_a_study_whose_header_cannot_be_read_for_long_is_given_up_and_read_when_it_is_released(
    place: Workplace, url: str
) -> None:
    study = place.arrived()
    paths = [place.spool.path(one.sha256) for one in place.ledger.instances(study)]
    for path in paths:
        path.rename(path.with_name(f"{path.name}.aside"))
        path.symlink_to("/proc/self/mem")  # whose first byte cannot be read: EIO
    ticking = clock(place, Bell(url), routes(Modality="CT"))
    ticking.settle()
    assert place.ledger.entry(study).state == StudyState.RECEIVING
    Clock(place.ledger, path=place.spool.path, routes={}, bell=Bell(url), away_seconds=0.0).settle()
    given_up = place.ledger.entry(study)
    assert given_up.state == StudyState.UNROUTED
    assert "Input/output error" in (given_up.reason or "")
    for path in paths:
        path.with_name(f"{path.name}.aside").replace(path)
    place.ledger.release(study)
    clock(place, Bell(url), routes(Modality="CT")).settle()
    assert place.ledger.entry(study).state == StudyState.SETTLED
