"""`wetread work` as it runs: real processes, a real redis-server, dcmtk's storescp; and what SIGKILL does to each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from node import broker
from node.delivery import Destination
from node.ledger import DeliveryState, JobState
from node.routing import Route
from node.worker import WorkerOptions, devices
from pipelines.forms import Wanted
from tests import peers
from tests.test_broker import client
from tests.waiting import PATIENCE, has_ended
from tests.workplace import ROOT, Workplace, pacs, until

PROGRAM = """
import signal, sys, threading
from node import log, processes, worker
log.to_stderr()
stop = threading.Event()
signal.signal(signal.SIGTERM, processes.on_signal(stop))
worker.run(worker.WorkerOptions.from_json(sys.stdin.buffer.read()), stop)
"""


class Working:
    """A worker that runs."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    def part(self, name: str) -> psutil.Process | None:
        """The process that analyzes, delivers, or is the clock."""
        for child in psutil.Process(self.process.pid).children():
            try:
                if name in child.cmdline():
                    return child
            except psutil.Error:
                continue
        return None

    def reader(self) -> psutil.Process | None:
        """The child that reads."""
        analyze = self.part("analyze")
        try:
            found = analyze.children() if analyze else []
        except psutil.Error:  # it has ended meanwhile
            return None
        return found[0] if found else None


@contextmanager
def working(options: WorkerOptions) -> Iterator[Working]:
    log = options.evidence.parent / "worker.log"
    with log.open("ab") as sink:
        process = subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=ROOT, stdin=subprocess.PIPE, stderr=sink)
    assert process.stdin is not None
    process.stdin.write(options.to_json())
    process.stdin.close()
    try:
        yield Working(process, log)
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        process.wait()
        for child in children:
            if child.is_running():
                child.kill()


pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with broker.embedded(tmp_path) as running:
        yield running


def states(place: Workplace) -> Counter[str]:
    return Counter(place.ledger.overview().jobs)


def all_done(place: Workplace, count: int) -> None:
    until(lambda: states(place) == {"DONE": count}, what="all jobs are done")


def attempts(place: Workplace) -> list[int]:
    return [job.attempts for job in place.ledger.jobs()]


@peers.needs("storescp")
def test_a_study_that_settles_becomes_evidence_at_every_destination(place: Workplace, url: str, tmp_path: Path) -> None:
    with peers.storescp(tmp_path / "a", aet="A") as first, peers.storescp(tmp_path / "b", aet="B") as second:
        destinations = {"A": pacs("A", first.dicom_port), "B": pacs("B", second.dicom_port)}
        options = place.options(url, "Quick", to=("A", "B"), destinations=destinations)
        with working(options):
            study = place.arrived()
            until(lambda: {one.state for one in place.ledger.study(study).deliveries} == {DeliveryState.DELIVERED})
        assert (len(first.files), len(second.files)) == (1, 1)
    history = place.ledger.study(study)
    assert [(job.state, job.attempts) for job in history.jobs] == [(JobState.DONE, 1)]
    assert [one.attempts for one in history.deliveries] == [1, 1]


def test_a_poison_study_is_quarantined_and_ten_good_ones_are_done(place: Workplace, url: str) -> None:
    with working(place.options(url, "Quick")):
        poison = place.arrived(patient="POISON")
        good = [place.arrived() for _ in range(10)]
        until(lambda: states(place) == {"DONE": 10, "QUARANTINED": 1})
    (job,) = place.ledger.study(poison).jobs
    assert job.attempts == 3
    assert "killed by SIGSEGV" in (job.reason or "")
    assert len(place.ledger.evidence(job.key)) == 1
    assert [place.ledger.study(study).jobs[0].attempts for study in good] == [1] * 10


def test_whatever_is_killed_every_job_is_done_once(
    place: Workplace, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESTS_SECONDS", "0.5")
    options = place.options(url, "Slow", lease_seconds=10.0)
    with working(options) as worker:
        studies = [place.arrived() for _ in range(12)]
        until(lambda: states(place)["DONE"] >= 1)
        reader = until(worker.reader)
        reader.kill()
        until(lambda: states(place)["DONE"] >= 3)
        analyze = until(lambda: worker.part("analyze"))
        reader = worker.reader()
        analyze.kill()
        until(lambda: reader is None or has_ended(reader))
        until(lambda: worker.part("clock")).kill()
        until(lambda: states(place)["DONE"] >= 5)
        client(tmp_path).flushall()
        until(lambda: states(place)["DONE"] >= 7)
        os.kill(broker.server_id(tmp_path), signal.SIGKILL)
        all_done(place, 12)
    jobs = [job for study in studies for job in place.ledger.study(study).jobs]
    assert len(jobs) == 12
    assert sum(job.attempts for job in jobs) <= 12 + 2  # the two that were under way when their process was killed
    assert all(len(place.ledger.study(job.study_uid).evidence[job.id]) == 1 for job in jobs)


def test_sigterm_lets_the_running_job_finish_and_leaves_no_process(
    place: Workplace, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESTS_SECONDS", "8")
    with working(place.options(url, "Slow", drain_seconds=PATIENCE)) as worker:
        place.arrived()
        place.arrived()
        until(lambda: states(place)["RUNNING"] == 1)
        family = psutil.Process(worker.process.pid).children(recursive=True)
        assert len(family) >= 4  # analyze, its child, deliver, clock
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(PATIENCE) == 0
        until(lambda: all(map(has_ended, family)))
    assert states(place) == {"DONE": 1, "QUEUED": 1}


def test_sigterm_gives_a_long_job_back(place: Workplace, url: str) -> None:
    with working(place.options(url, "Loops", drain_seconds=1.0)) as worker:
        place.arrived()
        until(lambda: states(place)["RUNNING"] == 1)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(PATIENCE) == 0  # what it does has no end
    assert states(place) == {"QUEUED": 1}
    assert place.ledger.ready()  # at once, by any worker


def test_no_patient_and_no_password_is_in_the_log_the_queue_or_a_command_line(
    place: Workplace, url: str, tmp_path: Path
) -> None:
    secret = Destination("WEB", "dicomweb", url="http://127.0.0.1:1/dicom-web", user="u", password="hunter2")
    with working(place.options(url, "Quick", to=("WEB",), destinations={"WEB": secret})) as worker:
        place.arrived(patient="CANARY-PATIENT")
        poison = place.arrived(patient="POISON-CANARY")
        until(lambda: states(place) == {"DONE": 1, "QUARANTINED": 1})
        until(lambda: place.ledger.deliveries()[0].attempts == 1)
        password = (tmp_path / "redis" / "password").read_text()
        family = [psutil.Process(worker.process.pid), *psutil.Process(worker.process.pid).children(recursive=True)]
        for process in family:
            shown = " ".join((*process.cmdline(), *process.environ().values()))
            assert "hunter2" not in shown
            assert password not in shown
        log = worker.log.read_text()
    assert poison
    kept = b"".join(path.read_bytes() for path in (tmp_path / "redis").rglob("*aof*") if path.is_file())
    for canary in ("CANARY", "hunter2", password):
        assert canary not in log
        assert canary.encode() not in kept
    assert "claimed" in log


def test_options_come_through_json_as_they_were(tmp_path: Path) -> None:
    route = Route("a", "p:A", {"Modality": ["MR", "CT"], "SliceThickness": {"min": 0, "max": 6}}, ("PACS",), 2)
    secure = Destination(
        "PACS",
        "dimse",
        ae_title="P",
        host="h",
        port=1,
        tls="required",
        tls_ca=tmp_path / "ca.pem",
        password="x",
        evidence=Wanted("references", "LABELMAP", key_objects=True),
    )
    options = WorkerOptions(
        "sqlite://",
        "redis://",
        spool=tmp_path,
        evidence=tmp_path,
        routes={"a": route},
        destinations={"PACS": secure},
        device="cuda:1",
        memory_gib=2.5,
    )
    again = WorkerOptions.from_json(options.to_json())
    assert again == replace(options, routes=again.routes)
    assert again.routes["a"].when == route.when
    assert again.routes["a"].conditions == route.conditions
    assert (again.routes["a"].deliver_to, again.routes["a"].priority) == (("PACS",), 2)


def test_a_device_that_is_named_is_taken_at_its_word() -> None:
    assert devices("cpu") == ("cpu",)
    assert devices("cuda:3") == ("cuda:3",)
    assert devices("auto")
