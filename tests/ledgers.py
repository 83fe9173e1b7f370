"""What the ledger's tests share: a ledger on either database, and arrivals as the listener makes them."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from node.ledger import Claim, Evidence, Job, Ledger, NewJob
from node.spool import Arrival
from tests import databases

QUIET, LONGEST = 3.0, 600.0
STUDY = "1.2.826.0.1.3680043.10.99"


@pytest.fixture(scope="session")
def cluster() -> Iterator[databases.Cluster]:
    if reason := databases.why_no_postgres():
        pytest.skip(reason)
    with databases.postgres() as running:
        yield running


@cache
def upgraded(blank_url: str) -> str:
    """``blank_url``, where a ledger is made that others are copied from: to migrate each anew takes long."""
    opened = Ledger(blank_url)
    opened.upgrade()
    opened.close()
    return blank_url


@cache
def upgraded_file() -> bytes:
    """What a SQLite ledger is that is up to date."""
    with tempfile.TemporaryDirectory() as folder:
        upgraded(f"sqlite:///{folder}/ledger.sqlite")
        return (Path(folder) / "ledger.sqlite").read_bytes()


@pytest.fixture(scope="session")
def cluster_template(cluster: databases.Cluster) -> str:
    return upgraded(cluster.new_database())


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A ledger that is up to date and empty."""
    if request.param == "sqlite":
        (tmp_path / "ledger.sqlite").write_bytes(upgraded_file())
        yield f"sqlite:///{tmp_path / 'ledger.sqlite'}"
        return
    running = request.getfixturevalue("cluster")
    address = running.new_database(request.getfixturevalue("cluster_template"))
    yield address
    running.drop(address)


@pytest.fixture(params=["sqlite", "postgresql"])
def blank_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database in which there is nothing yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'blank' / 'ledger.sqlite'}"
        return
    running = request.getfixturevalue("cluster")
    address = running.new_database()
    yield address
    running.drop(address)


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    opened = Ledger(url)
    yield opened
    opened.close()


def arrival(number: int = 1, *, study: str = STUDY, content: str = "", at: float = 0.0, **others: object) -> Arrival:
    made = Arrival(
        study_uid=study,
        series_uid=f"{study}.1",
        sop_uid=f"{study}.1.{number}",
        sop_class="1.2.840.10008.5.1.4.1.1.4",
        transfer_syntax="1.2.840.10008.1.2.1",
        sha256=hashlib.sha256(f"{study} {number} {content}".encode()).hexdigest(),
        size=1000,
        patient_key=hashlib.sha256(b"A").hexdigest(),
        modality="MR",
        caller="MR1",
        address="127.0.0.1",
        received_at=at,
        expected=None,
    )
    return replace(made, **others)  # type: ignore[arg-type]


def record(ledger: Ledger, *arrivals: Arrival, settle_at: float | None = None) -> None:
    first, last = (extreme(one.received_at for one in arrivals) for extreme in (min, max))
    settle_at = last + QUIET if settle_at is None else settle_at
    ledger.record(arrivals, settle_at=settle_at, settle_by_seconds=LONGEST, now=first)


def wanted(pipeline: str = "mr_brain", priority: int = 5, to: tuple[str, ...] = ("PACS",)) -> NewJob:
    return NewJob(pipeline, f"pipelines.{pipeline}:Reader", priority, to, "Modality is MR")


def settled(ledger: Ledger, *arrivals: Arrival, jobs: tuple[NewJob, ...] = (wanted(),), at: float = 10.0) -> list[Job]:
    record(ledger, *arrivals)
    return ledger.settle(arrivals[0].study_uid, jobs, now=at)


def claimed(ledger: Ledger, job: Job, *, owner: str = "worker", at: float = 20.0, lease: float = 60.0) -> Claim:
    claim = ledger.claim(job.id, owner=owner, lease_seconds=lease, now=at)
    assert claim is not None
    return claim


def made(*names: str, key: str = "1") -> list[Evidence]:
    return [
        Evidence(
            path=f"{key}/{name}.dcm",
            sha256=hashlib.sha256(name.encode()).hexdigest(),
            sop_uid=f"2.25.{key}.{number}",
            sop_class="1.2.840.10008.5.1.4.1.1.66.4",
            series_uid=f"2.25.{key}",
        )
        for number, name in enumerate(names, 1)
    ]


def delivery(ledger: Ledger, *, to: tuple[str, ...] = ("PACS",), study: str = STUDY) -> list[int]:
    """A study with one job that is done and has two objects: the ids of its deliveries."""
    (job,) = settled(ledger, arrival(study=study), jobs=(wanted(to=to),))
    return ledger.finish(claimed(ledger, job), outcome="read", evidence=made("seg", "sr", key=str(job.id)), now=30)
