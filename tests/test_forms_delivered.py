"""Each destination is sent the forms that it takes, each made once; one that comes later gets its own, too."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydicom import dcmread

from node.destinations import Destination
from node.ledger import DeliveryState, JobState
from node.outbox import Outbox
from pipelines.forms import PRESETS, Wanted
from tests import scripted
from tests.test_analysis import Bench
from tests.workplace import pacs

IMPLICIT, EXPLICIT, RLE = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5"
CLASSES = {
    "1.2.840.10008.5.1.4.1.1.88.34": [EXPLICIT],
    "1.2.840.10008.5.1.4.1.1.66.4": [EXPLICIT, RLE],
    "1.2.840.10008.5.1.4.1.1.66.7": [RLE],
    "1.2.840.10008.5.1.4.1.1.88.59": [EXPLICIT],
    "1.2.840.10008.5.1.4.1.1.11.1": [EXPLICIT],
    "1.2.840.10008.5.1.4.1.1.7": [EXPLICIT],
    "1.2.840.10008.5.1.4.1.1.104.1": [EXPLICIT],
    "1.2.840.10008.5.1.4.1.1.481.3": [IMPLICIT],
}
PLAIN = Wanted()
MODERN = Wanted("references", "LABELMAP")
SILENT = Wanted("off", "off", derived_series=False)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("forms"))
    yield made
    made.close()


class Hospital:
    """Destinations that keep what they are sent, each taking its own forms."""

    def __init__(self, bench: Bench, folder: Path, stack: ExitStack, **taken: Wanted) -> None:
        self.bench, self.taken = bench, taken
        self.peers = {name: stack.enter_context(scripted.scp(folder / name, classes=CLASSES)) for name in taken}

    def destination(self, name: str) -> Destination:
        return pacs(name, self.peers[name].port, verify=False, evidence=self.taken[name])

    def read(self, job: int) -> None:
        forms = {name: wanted.forms for name, wanted in self.taken.items()}
        self.bench.analysis(forms=forms)(job)  # type: ignore[arg-type]

    def deliver(self, job: int) -> None:
        """All that is due for the job."""
        box = Outbox(
            self.bench.place.ledger,
            evidence=self.bench.place.evidence,
            destinations={name: self.destination(name) for name in self.taken},
            owner="outbox",
            stop=threading.Event(),
        )
        for number, _ in self.bench.place.ledger.ready_deliveries(self.bench.place.ledger.now() + 3600):
            if self.bench.place.ledger.delivery(number).job_id == job:
                self.bench.place.ledger.retry_delivery(number)
                box(number)

    def forms_at(self, name: str) -> list[str]:
        """What the destination was sent, as the ledger calls it; once for each time."""
        forms = {one.sop_uid: one.form for job in self.bench.place.ledger.jobs() for one in self.evidence(job.key)}
        return sorted(forms[event.split()[1]] for event in self.peers[name].events if event.startswith("store"))

    def evidence(self, key: str):
        return self.bench.place.ledger.evidence(key)

    def said(self, job: int) -> dict[str, str]:
        """What the ledger says of deliveries of the job beside their states."""
        study = self.bench.place.ledger.study(self.bench.job(job).study_uid)
        return {one.destination: one.reason for one in study.deliveries if one.reason}

    def states(self, job: int) -> dict[str, DeliveryState]:
        study = self.bench.place.ledger.study(self.bench.job(job).study_uid)
        return {one.destination: one.state for one in study.deliveries}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def test_each_destination_is_sent_what_it_takes(bench: Bench, tmp_path: Path, stack: ExitStack) -> None:
    hospital = Hospital(bench, tmp_path, stack, PLAIN=PLAIN, MODERN=MODERN, ALIKE=PLAIN, SILENT=SILENT)
    job = bench.place.queued("Outlines", to=("PLAIN", "MODERN", "ALIKE", "SILENT"))
    hospital.read(job)
    made = hospital.evidence(bench.job(job).key)
    assert sorted(one.form for one in made) == [
        "SEG BINARY",
        "SEG LABELMAP",
        "SR references LABELMAP",
        "SR regions BINARY",
    ]
    hospital.deliver(job)
    assert hospital.forms_at("PLAIN") == hospital.forms_at("ALIKE") == ["SEG BINARY", "SR regions BINARY"]
    assert hospital.forms_at("MODERN") == ["SEG LABELMAP", "SR references LABELMAP"]
    assert hospital.forms_at("SILENT") == []
    assert set(hospital.states(job).values()) == {DeliveryState.DELIVERED}
    assert hospital.said(job) == {"SILENT": "nothing was sent: the run left no object of a kind that it takes"}


def test_a_destination_that_is_added_later_gets_its_forms_and_the_others_nothing_twice(
    bench: Bench, tmp_path: Path, stack: ExitStack
) -> None:
    hospital = Hospital(bench, tmp_path, stack, PLAIN=PLAIN)
    job = bench.place.queued("Outlines", to=("PLAIN",))
    hospital.read(job)
    hospital.deliver(job)
    before = hospital.evidence(bench.job(job).key)

    hospital = Hospital(bench, tmp_path / "later", stack, PLAIN=PLAIN, MODERN=MODERN)
    assert bench.place.ledger.send_again(job, "MODERN") is not None
    hospital.deliver(job)
    assert bench.job(job).state == JobState.QUEUED
    assert hospital.forms_at("MODERN") == []  # not a part of it
    hospital.read(job)
    hospital.deliver(job)
    assert hospital.forms_at("MODERN") == ["SEG LABELMAP", "SR references LABELMAP"]
    assert hospital.forms_at("PLAIN") == []
    assert hospital.states(job) == {"PLAIN": DeliveryState.DELIVERED, "MODERN": DeliveryState.DELIVERED}
    after = hospital.evidence(bench.job(job).key)
    assert after[: len(before)] == before
    old, new = (
        {dcmread(bench.place.evidence / one.path).SegmentSequence[-1].TrackingUID for one in made if "SEG" in one.form}
        for made in (before, after[len(before) :])
    )
    assert old == new


def test_other_weights_do_not_add_to_what_the_first_have_said(
    bench: Bench, tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospital = Hospital(bench, tmp_path, stack, PLAIN=PLAIN)
    job = bench.place.queued("Outlines", to=("PLAIN",))
    hospital.read(job)
    hospital.deliver(job)
    hospital = Hospital(bench, tmp_path / "later", stack, MIXED=Wanted(segmentation="BINARY", report="references"))
    bench.place.ledger.send_again(job, "MIXED")
    hospital.deliver(job)
    monkeypatch.setenv("WEIGHTS_FOR_TESTS", "cd" * 32)
    hospital.read(job)
    assert bench.job(job).state == JobState.FAILED
    assert "other weights of outlines" in (bench.job(job).reason or "")
    hospital.deliver(job)
    assert hospital.forms_at("MIXED") == ["SEG BINARY"]  # what there is, and somebody has to look
    assert hospital.states(job)["MIXED"] == DeliveryState.DEAD


def test_an_old_pacs_is_sent_pictures_and_a_page_and_a_planning_system_structures(
    bench: Bench, tmp_path: Path, stack: ExitStack
) -> None:
    hospital = Hospital(bench, tmp_path, stack, LEGACY=PRESETS["legacy"], PLANNING=PRESETS["planning"])
    job = bench.place.queued("Outlines", to=("LEGACY", "PLANNING"))
    hospital.read(job)
    hospital.deliver(job)
    assert set(hospital.forms_at("LEGACY")) == {"DOC", "KO", "PR", "SC"}
    assert set(hospital.forms_at("PLANNING")) == {"RTSTRUCT", "SEG BINARY"}
    assert set(hospital.states(job).values()) == {DeliveryState.DELIVERED}
    assert hospital.said(job) == {}


def test_a_planning_system_hears_of_what_was_not_found_and_not_read(
    bench: Bench, tmp_path: Path, stack: ExitStack
) -> None:
    hospital = Hospital(bench, tmp_path, stack, PLANNING=PRESETS["planning"])
    for pipeline in ("Quick", "Unsuitable", "Raises"):
        job = bench.place.queued(pipeline, to=("PLANNING",))
        hospital.read(job)
        hospital.deliver(job)
        assert hospital.states(job) == {"PLANNING": DeliveryState.DELIVERED}
    assert hospital.forms_at("PLANNING") == ["RTSTRUCT"] * 3
