"""What is kept for how long: nothing goes that is not safe, and what comes again is kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from node.audit import Actor, Source, Trail
from node.errors import NotNow, Unavailable
from node.ledger import DeliveryState, Evidence, Ledger, NewJob, StudyState
from node.retention import DAY, Retention, Terms
from node.spool import Spool
from tests.test_cli import run
from tests.workplace import study_files, use

ANNA = Actor("anna", "", "command line")


@dataclass
class Bench:
    """A node whose clock is ours."""

    folder: Path
    now: float = 0.0

    def __post_init__(self) -> None:
        self.now = time.time()
        self.url = f"sqlite:///{self.folder / 'ledger.sqlite'}"
        self.ledger = Ledger(self.url, clock=lambda: self.now)
        self.ledger.upgrade()
        self.spool = Spool(self.folder / "spool", reserve_bytes=0)
        self.trail = Trail(self.folder / "audit", Source(), clock=lambda: self.now)
        self.studies = 0

    def retention(self, told: tuple[str, ...] = (), **terms: float) -> Retention:
        return Retention(
            self.ledger,
            self.spool,
            evidence=self.folder / "evidence",
            trail=self.trail,
            terms=Terms(**terms),
            told=told,
        )

    def received(self, files: list[Path] | None = None) -> tuple[str, list[Path]]:
        self.studies += 1
        files = files or study_files(self.folder / "sent" / str(self.studies), patient="SYN-3")
        arrivals = [self.spool.add(file) for file in files]
        self.ledger.record(arrivals, settle_at=0, settle_by_seconds=0)
        self.spool.recorded(arrivals)
        return arrivals[0].study_uid, files

    def read(self, study: str, *, to: tuple[str, ...] = ("PACS",)) -> int:
        """A job that is done, with one object of evidence."""
        (job,) = self.ledger.settle(study, [NewJob("quick", use("Quick"), 5, to)])
        return self.finished(job.id)

    def finished(self, job_id: int) -> int:
        job = self.ledger.job(job_id)
        claim = self.ledger.claim(job.id, owner="w", lease_seconds=60)
        assert claim is not None
        path = self.folder / "evidence" / job.key / "1" / "sr.dcm"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"evidence")
        one = Evidence(f"{job.key}/1/sr.dcm", "0" * 64, f"2.25.{job.id}", "1.2", "1.3")
        self.ledger.finish(claim, outcome="read", runs_json='[{"x": 1}]', evidence=[one])
        return job.id

    def delivered(self, job_id: int, *, verified: bool = True, unverified: str = "") -> None:
        for one in self.ledger.study(self.ledger.job(job_id).study_uid).deliveries:
            claim = self.ledger.claim_delivery(one.id, "s", 60)
            assert claim is not None
            found = verified and one.destination != unverified
            self.ledger.finish_delivery(claim, state=DeliveryState.DELIVERED, verified=found)

    def lying(self) -> int:
        return len(list(self.spool.objects.glob("*/*.dcm")))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def dead(bench: Bench, study: str) -> None:
    job = bench.read(study)
    (one,) = bench.ledger.study(study).deliveries
    claim = bench.ledger.claim_delivery(one.id, "s", 60)
    assert claim is not None
    assert job
    bench.ledger.finish_delivery(claim, state=DeliveryState.DEAD, reason="refused")


def failed(bench: Bench, study: str) -> None:
    (job,) = bench.ledger.settle(study, [NewJob("quick", use("Quick"), 5, ("PACS",))])
    claim = bench.ledger.claim(job.id, owner="w", lease_seconds=60)
    assert claim is not None
    bench.ledger.fail(claim, reason="cannot be read", retry_at=None)


def delivered_and_held(bench: Bench, study: str) -> None:
    bench.delivered(bench.read(study))
    bench.ledger.hold(study, "a lawyer asks")


def one_of_two(bench: Bench, study: str) -> None:
    bench.read(study, to=("PACS", "ARCHIVE"))
    one, _ = bench.ledger.study(study).deliveries
    claim = bench.ledger.claim_delivery(one.id, "s", 60)
    assert claim is not None
    bench.ledger.finish_delivery(claim, state=DeliveryState.DELIVERED, verified=True)


STAYS: dict[str, Callable[[Bench, str], object]] = {
    "more of it is coming": lambda bench, study: None,
    "no rule wanted it": lambda bench, study: bench.ledger.settle(study, []),
    "a job waits or runs": lambda bench, study: bench.ledger.settle(study, [NewJob("quick", use("Quick"))]),
    "a job failed": failed,
    "a job is in quarantine": lambda bench, study: bench.ledger.quarantine(
        bench.ledger.settle(study, [NewJob("quick", use("Quick"))])[0].id
    ),
    "evidence is not delivered": dead,
    "evidence goes nowhere": lambda bench, study: bench.read(study, to=()),
    "no destination could say that it has the evidence": lambda bench, study: bench.delivered(
        bench.read(study), verified=False
    ),
    "held for a person": delivered_and_held,
    "nothing of it was read": lambda bench, study: bench.ledger.cancel(
        bench.ledger.settle(study, [NewJob("quick", use("Quick"))])[0].id
    ),
}


@pytest.mark.parametrize("reason", STAYS)
def test_what_is_not_safely_delivered_stays_however_old(bench: Bench, reason: str) -> None:
    study, _ = bench.received()
    STAYS[reason](bench, study)
    bench.now += 1000 * DAY
    toll = bench.retention(audit=0).purge(ANNA)
    assert (toll.images, toll.evidence if reason != "held for a person" else 0, bench.lying()) == (0, 0, 2)
    assert toll.staying == {reason: 1}


def test_a_study_of_two_destinations_stays_until_both_have_it(bench: Bench) -> None:
    study, _ = bench.received()
    one_of_two(bench, study)
    bench.now += 1000 * DAY
    assert bench.retention().purge(ANNA).images == 0


def test_who_is_told_makes_nothing_safe_and_need_not_be_asked_back(bench: Bench) -> None:
    only_told, _ = bench.received()
    bench.delivered(bench.read(only_told, to=("HOOK",)), unverified="HOOK")
    both, _ = bench.received()
    bench.delivered(bench.read(both, to=("HOOK", "PACS")), unverified="HOOK")
    bench.now += 8 * DAY
    assert bench.retention().purge(ANNA).images == 0
    assert bench.retention(told=("HOOK",)).purge(ANNA).images == 2
    assert bench.ledger.entry(both).purged_at == bench.now
    assert bench.ledger.entry(only_told).purged_at is None


def test_images_go_in_their_time_and_evidence_in_its_own(bench: Bench) -> None:
    study, _ = bench.received()
    job = bench.read(study)
    bench.delivered(job)
    bench.now += 6.9 * DAY
    assert bench.retention().purge(ANNA).images == 0
    bench.now += 0.2 * DAY
    plan = bench.retention().plan()
    assert (plan.studies, plan.images, plan.evidence, bench.lying()) == (1, 2, 0, 2)
    toll = bench.retention().purge(ANNA)
    assert (toll.images, toll.image_bytes, bench.lying()) == (plan.images, plan.image_bytes, 0)
    assert bench.ledger.entry(study).purged_at == bench.now
    assert (bench.folder / "evidence").exists()
    bench.now += 23 * DAY
    assert bench.retention().purge(ANNA).evidence == 1
    assert not list((bench.folder / "evidence").iterdir())
    assert bench.ledger.job(job).runs is None
    said = [entry.as_json() for entry in bench.trail.entries(event="DICOM Study Deleted")]
    assert [one["what"] for one in said] == [[study, "none"], [study, "SYN-3"]]
    assert bench.retention().purge(ANNA).images == 0


def test_looking_changes_nothing(bench: Bench) -> None:
    study, _ = bench.received()
    bench.delivered(bench.read(study))
    bench.now += 1000 * DAY
    before = bench.trail.entries()
    assert bench.retention().plan().evidence == 1
    assert bench.lying() == 2
    assert bench.trail.entries() == before


def test_a_study_that_no_rule_wanted_goes_only_where_a_time_is_set(bench: Bench) -> None:
    study, _ = bench.received()
    bench.ledger.settle(study, [])
    bench.now += 15 * DAY
    assert bench.retention().purge(ANNA).images == 0
    assert bench.retention(unrouted=14).purge(ANNA).images == 2


def test_zero_keeps_for_ever(bench: Bench) -> None:
    study, _ = bench.received()
    bench.delivered(bench.read(study))
    bench.now += 10_000 * DAY
    toll = bench.retention(images=0, evidence=0, audit=0).purge(ANNA)
    assert (toll.images, toll.evidence, toll.audit_records) == (0, 0, 0)


def purged(bench: Bench) -> tuple[str, list[Path], int]:
    study, files = bench.received()
    job = bench.read(study)
    bench.delivered(job)
    bench.now += 8 * DAY
    bench.retention().purge(ANNA)
    assert bench.lying() == 0
    return study, files, job


def test_a_whole_study_that_comes_again_is_kept_and_not_read_twice(bench: Bench) -> None:
    study, files, job = purged(bench)
    bench.received(files)
    assert bench.ledger.settle(study, [NewJob("quick", use("Quick"))]) == []
    assert (bench.ledger.entry(study).state, bench.ledger.entry(study).arrived) == (StudyState.SETTLED, 2)
    assert bench.lying() == 2
    assert len(bench.ledger.study(study).jobs) == 1
    assert bench.retention().purge(ANNA).images == 2  # it was delivered eight days ago
    assert job


def test_a_part_of_a_purged_study_is_held_rather_than_read_as_if_it_were_all(bench: Bench) -> None:
    study, files, _ = purged(bench)
    bench.received(files[:1])
    assert bench.ledger.settle(study, [NewJob("quick", use("Quick"))]) == []
    entry = bench.ledger.entry(study)
    assert entry.state == StudyState.HELD
    assert "1 images came after the 2 of before were deleted" in (entry.reason or "")
    bench.ledger.release(study)
    (job,) = bench.ledger.settle(study, [NewJob("quick", use("Quick"))])
    assert job.revision == 2


def test_what_is_deleted_cannot_be_read_or_sent_again_and_says_so(bench: Bench) -> None:
    _, _, job = purged(bench)
    bench.now += 30 * DAY
    bench.retention().purge(ANNA)
    with pytest.raises(NotNow, match="evidence of job 1 was deleted"):
        bench.ledger.send_again(job, "PACS")


def test_a_job_whose_images_are_deleted_is_not_retried(bench: Bench) -> None:
    study, _ = bench.received()
    wanted = [NewJob(name, use("Quick"), 5, ("PACS",)) for name in ("quick", "other")]
    quick, other = bench.ledger.settle(study, wanted)
    bench.ledger.cancel(other.id)
    bench.delivered(bench.finished(quick.id))
    bench.now += 8 * DAY
    assert bench.retention().purge(ANNA).images == 2
    with pytest.raises(NotNow, match="were deleted; send it again first"):
        bench.ledger.retry(other.id)


def test_a_file_that_comes_again_while_it_goes_stays(bench: Bench) -> None:
    study, files = bench.received()
    bench.delivered(bench.read(study))
    bench.now += 8 * DAY
    shas = bench.ledger.forget_images(study, bench.now - 7 * DAY)  # rows have gone, files not yet: a crash here
    assert len(shas) == 2
    again = bench.spool.add(files[0])  # a link in pending, the ledger does not know it yet
    bench.retention().purge(ANNA)
    assert [path.stem for path in bench.spool.objects.glob("*/*.dcm")] == [again.sha256]
    bench.ledger.record([again], settle_at=0, settle_by_seconds=0)
    bench.spool.recorded([again])
    assert bench.spool.path(again.sha256).exists()
    assert bench.ledger.being_purged() == []


def test_a_file_that_the_ledger_has_again_comes_back(bench: Bench) -> None:
    study, files = bench.received()
    (sha, *_) = [instance.sha256 for instance in bench.ledger.instances(study)]
    assert not bench.spool.discard(sha, is_wanted=lambda one: one == sha)
    assert bench.lying() == len(files)
    assert not list((bench.spool.root / "purging").iterdir())


def test_what_cannot_be_recorded_is_not_deleted(bench: Bench) -> None:
    study, _ = bench.received()
    bench.delivered(bench.read(study))
    bench.now += 8 * DAY
    bench.trail.folder.write_text("a file where the folder should be")
    with pytest.raises(Unavailable, match="audit trail"):
        bench.retention(audit=0).purge(ANNA)
    assert bench.lying() == 2
    assert len(bench.ledger.instances(study)) == 2


def test_purge_shows_first_and_deletes_when_told(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    bench = Bench(tmp_path / "data")
    study, _ = bench.received()
    bench.delivered(bench.read(study))
    (tmp_path / "settings.toml").write_text("[node]\nreserve_gib = 0\n")
    time.sleep(0.2)
    asked = ("purge", "--images-days", "0.000001", "--json")
    shown = json.loads(run(*asked, cwd=tmp_path).stdout)
    assert (shown["deleted"], shown["images"], bench.lying()) == (False, 2, 2)
    done = json.loads(run(*asked, "--yes", cwd=tmp_path).stdout)
    assert (done["deleted"], done["images"], bench.lying()) == (True, 2, 0)
