"""Whatever is sent, sent again, late, edited or of another patient, and whoever dies in between: nothing is lost, and
there is one finished job per study, revision and pipeline."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from node.errors import LostClaim
from node.ledger import Claim, JobState, Ledger, StudyState
from node.spool import Arrival
from tests.ledgers import LONGEST, QUIET, arrival, made, upgraded_file, wanted

STUDIES = st.sampled_from(("1.2.1", "1.2.2"))
IMAGES = st.integers(1, 3)
PIPELINES = ("mr_brain", "mr_heart")
LEASE = 30.0
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # nobody cuts the power here: no need to wait for a disk
ENDED = {JobState.DONE, JobState.SUPERSEDED, JobState.QUARANTINED, JobState.FAILED}


class Node(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY))
        (self.folder / "ledger.sqlite").write_bytes(upgraded_file())
        self.ledger = self.opened()
        self.now = 1000.0
        self.sent: list[Arrival] = []
        self.newest: dict[str, dict[str, str]] = {}  # study → SOP Instance UID → SHA-256
        self.running: list[Claim] = []
        self.deserted: list[Claim] = []  # their workers are dead, or only seem so
        self.finished: Counter[int] = Counter()

    def opened(self) -> Ledger:
        return Ledger(f"sqlite:///{self.folder / 'ledger.sqlite'}", clock=lambda: self.now)

    def teardown(self) -> None:
        if not hasattr(self, "folder"):
            return
        try:
            self.everything_comes_to_an_end()
        finally:
            self.ledger.close()
            shutil.rmtree(self.folder)

    # What happens

    @rule(study=STUDIES, images=st.lists(IMAGES, min_size=1, max_size=3))
    def send(self, study: str, images: list[int]) -> None:
        self.deliver([arrival(image, study=study, at=self.now) for image in images])

    @precondition(lambda self: self.sent)
    @rule(choose=st.randoms(use_true_random=False))
    def send_again(self, choose) -> None:  # type: ignore[no-untyped-def]
        self.deliver([choose.choice(self.sent)])

    @rule(study=STUDIES, image=IMAGES, content=st.sampled_from(("", "edited", "edited twice")))
    def send_edited(self, study: str, image: int, content: str) -> None:
        self.deliver([arrival(image, study=study, content=content, at=self.now)])

    @rule(study=STUDIES, image=st.integers(4, 6))
    def send_of_another_patient(self, study: str, image: int) -> None:
        self.deliver([arrival(image, study=study, at=self.now, patient_key="b" * 64)])

    def deliver(self, arrivals: list[Arrival]) -> None:
        self.ledger.record(arrivals, settle_at=self.now + QUIET, settle_by_seconds=LONGEST)
        for one in arrivals:
            known = {(old.sop_uid, old.sha256) for old in self.sent}
            if (one.sop_uid, one.sha256) not in known:
                self.newest.setdefault(one.study_uid, {})[one.sop_uid] = one.sha256
            self.sent.append(one)

    @rule(seconds=st.sampled_from((1.0, QUIET, LEASE)))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def settle(self) -> None:
        for study in self.ledger.due():
            seen = len(self.ledger.instances(study))
            self.ledger.settle(study, [wanted(name) for name in PIPELINES], seen=seen)

    @rule(position=st.integers(0, 3))
    def claim(self, position: int) -> None:
        for job_id, _ in self.ready()[position : position + 1]:
            if claim := self.ledger.claim(job_id, owner=f"worker {position}", lease_seconds=LEASE):
                current = self.ledger.study(claim.job.study_uid).study
                assert current.state is not StudyState.HELD
                if current.state is StudyState.SETTLED:
                    assert set(claim.files) == set(self.newest[claim.job.study_uid].values())
                self.running.append(claim)

    def ready(self) -> list[tuple[int, int]]:
        return self.ledger.ready()

    @precondition(lambda self: self.running)
    @rule()
    def finish(self) -> None:
        self.end(self.running.pop(0))

    @precondition(lambda self: self.deserted)
    @rule()
    def finish_after_all(self) -> None:
        self.end(self.deserted.pop(0))

    def end(self, claim: Claim) -> None:
        try:
            self.ledger.finish(claim, outcome="read", evidence=made("sr", key=str(claim.job.id)))
        except LostClaim:
            return
        self.finished[claim.job.id] += 1

    @precondition(lambda self: self.running)
    @rule()
    def fail(self) -> None:
        claim = self.running.pop(0)
        try:
            self.ledger.fail(claim, reason="no memory", retry_at=self.now + 1)
        except LostClaim:
            return

    @precondition(lambda self: self.running)
    @rule()
    def kill_worker(self) -> None:
        self.deserted.append(self.running.pop(0))

    @rule()
    def kill_node(self) -> None:
        self.deserted += self.running
        self.running = []
        self.ledger.close()
        self.ledger = self.opened()

    @rule(study=STUDIES)
    def release(self, study: str) -> None:
        if study in self.newest:
            self.ledger.release(study)

    # What is always so

    @invariant()
    def nothing_is_lost_and_nothing_is_doubled(self) -> None:
        if not hasattr(self, "ledger"):
            return
        versions = {(one.sop_uid, one.sha256) for one in self.sent}
        assert self.ledger.overview().instances == len(versions)
        assert self.ledger.known(sha256 for _, sha256 in versions) == {sha256 for _, sha256 in versions}
        for study, newest in self.newest.items():
            assert {one.sop_uid: one.sha256 for one in self.ledger.instances(study)} == newest

    @invariant()
    def a_job_is_finished_at_most_once(self) -> None:
        if not hasattr(self, "ledger"):
            return
        jobs = self.ledger.jobs(10_000)
        assert len({(job.study_uid, job.revision, job.pipeline) for job in jobs}) == len(jobs)
        assert {job.id for job in jobs if job.state is JobState.DONE} == set(self.finished)
        assert set(self.finished.values()) <= {1}

    @invariant()
    def a_study_in_doubt_is_left_alone(self) -> None:
        if not hasattr(self, "ledger"):
            return
        held = {entry.uid for entry in self.ledger.studies() if entry.state is StudyState.HELD}
        assert not held & set(self.ledger.due(self.now + 2 * LONGEST))
        assert not held & {self.ledger.job(job_id).study_uid for job_id, _ in self.ready()}

    def everything_comes_to_an_end(self) -> None:
        for study in self.newest:
            self.ledger.release(study)
        self.now += LONGEST
        self.settle()
        for _ in range(6):
            self.now += LEASE
            for job_id, _ in self.ready():
                if claim := self.ledger.claim(job_id, owner="last", lease_seconds=LEASE):
                    self.end(claim)
        assert self.ready() == []
        for study, newest in self.newest.items():
            history = self.ledger.study(study)
            assert history.study.state is StudyState.SETTLED
            assert [one.predecessor for one in history.revisions] == [None, *range(1, len(history.revisions))]
            assert history.revisions[-1].instances == len(newest)
            assert {job.state for job in history.jobs} <= ENDED
            last = [job for job in history.jobs if job.revision == history.study.revision]
            assert {job.pipeline for job in last} == set(PIPELINES)
            assert {job.state for job in last} <= {JobState.DONE, JobState.QUARANTINED}


def test_nothing_is_lost_and_every_revision_is_read_once() -> None:
    quick = settings(
        max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    run_state_machine_as_test(Node, settings=quick)
