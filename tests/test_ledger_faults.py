"""The ledger under fire: several processes at once, SIGKILL in the middle, forks, migrations."""

from __future__ import annotations

import multiprocessing
import os
import queue
import random
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from node.ledger import Ledger
from node.ledger.database import Database
from node.ledger.tables import tables
from tests.ledgers import (
    arrival,
    blank_url,
    claimed,
    cluster,
    cluster_template,
    delivery,
    ledger,
    record,
    settled,
    url,
    wanted,
)
from tests.waiting import PATIENCE

__all__ = ["blank_url", "cluster", "cluster_template", "ledger", "url"]  # fixtures

fresh = multiprocessing.get_context("forkserver")  # processes that inherit nothing of ours, yet start quickly
fresh.set_forkserver_preload([__name__])
PER_STUDY = 7


def in_processes(count: int, target: Any, *arguments: Any) -> list[Any]:
    """What ``target(queue, number, …)`` puts into the queue in each of several processes that start together."""
    answers, gate = fresh.Queue(), fresh.Barrier(count)
    processes = [
        fresh.Process(target=target, args=(answers, gate, number, *arguments), daemon=True) for number in range(count)
    ]
    try:
        for process in processes:
            process.start()
        said = [_next(answers, processes) for _ in processes]
        for process in processes:
            process.join(PATIENCE)
        assert [process.exitcode for process in processes] == [0] * count
        return said
    finally:
        for process in processes:
            process.kill()


def _next(answers: Any, processes: list[Any]) -> Any:
    while True:
        try:
            return answers.get(timeout=1)
        except queue.Empty:
            assert not any(process.exitcode for process in processes), "one of the processes failed"


def claim_all(answers: Any, gate: Any, number: int, url: str) -> None:
    ledger = Ledger(url)
    gate.wait(PATIENCE)
    mine = []
    first_round = True
    while ready := ledger.ready(100):
        order = [job_id for job_id, _ in ready]
        random.Random(number).shuffle(order)  # everybody reaches for everything, not in step
        for job_id in order[:25]:
            if claim := ledger.claim(job_id, owner=f"worker {number}", lease_seconds=600, now=100):
                mine.append(claim.job.id)
        if first_round:
            gate.wait(PATIENCE)  # nobody goes on before everybody had something
            first_round = False
    ledger.close()
    answers.put(mine)


def test_several_processes_claim_every_job_exactly_once(ledger: Ledger, url: str) -> None:
    pipelines = tuple(wanted(f"p{number}") for number in range(10))
    jobs = [job.id for n in range(20) for job in settled(ledger, arrival(study=f"1.2.{n}"), jobs=pipelines)]
    claims = in_processes(4, claim_all, url)
    assert Counter(job_id for mine in claims for job_id in mine) == Counter(jobs)
    assert sum(bool(mine) for mine in claims) > 1  # it was a race
    assert ledger.overview().jobs == {"RUNNING": 200}


def claim_deliveries(answers: Any, gate: Any, number: int, url: str, per_destination: list[list[int]]) -> None:
    """Everybody one of his own of each destination, all at the same moment."""
    ledger = Ledger(url)
    claims = []
    for ids in per_destination:
        gate.wait(PATIENCE)
        claims.append(ledger.claim_delivery(ids[number], f"sender {number}", 600, 100))
    ledger.close()
    answers.put([claim.delivery.destination for claim in claims if claim])


def test_several_processes_do_not_overrun_a_destination(ledger: Ledger, url: str) -> None:
    names = tuple(f"PACS{number}" for number in range(15))
    per_study = [delivery(ledger, to=names, study=f"1.2.{number}") for number in range(4)]
    per_destination = [list(ids) for ids in zip(*per_study, strict=True)]
    claims = in_processes(4, claim_deliveries, url, per_destination)
    assert Counter(name for mine in claims for name in mine) == Counter(names)


def settle_all(answers: Any, gate: Any, number: int, url: str) -> None:
    ledger = Ledger(url)
    gate.wait(PATIENCE)
    jobs = [job.id for study_uid in ledger.due(9999) for job in ledger.settle(study_uid, [wanted()], now=10)]
    ledger.close()
    answers.put(jobs)


def test_several_clocks_settle_every_study_once(ledger: Ledger, url: str) -> None:
    record(ledger, *(arrival(study=f"1.2.{number}") for number in range(60)))
    jobs = in_processes(3, settle_all, url)
    assert sorted(job_id for mine in jobs for job_id in mine) == [job_id for job_id, _ in ledger.ready(99)]
    assert {entry.revision for entry in ledger.studies(100)} == {1}
    assert ledger.overview().jobs == {"QUEUED": 60}


def record_everything(answers: Any, gate: Any, number: int, url: str) -> None:
    """The same studies as everybody, in an order of one's own, in batches that cut across them."""
    ledger = Ledger(url)
    gate.wait(PATIENCE)
    everything = [arrival(image, study=f"1.2.{study}") for study in range(6) for image in range(20)]
    random.Random(number).shuffle(everything)
    for start in range(0, len(everything), 15):
        record(ledger, *everything[start : start + 15])
    ledger.close()
    answers.put(None)


def test_several_senders_of_the_same_studies_make_each_image_once(ledger: Ledger, url: str) -> None:
    in_processes(3, record_everything, url)
    assert ledger.overview().instances == 120
    assert {entry.arrived for entry in ledger.studies(100)} == {20}


def upgrade(answers: Any, gate: Any, number: int, url: str) -> None:
    ledger = Ledger(url)
    gate.wait(PATIENCE)
    ledger.upgrade()
    ledger.close()
    answers.put(None)


def test_several_processes_may_upgrade_at_once(blank_url: str) -> None:
    in_processes(3, upgrade, blank_url)
    opened = Ledger(blank_url)
    opened.upgrade()
    record(opened, arrival())
    opened.close()


def record_for_ever(url: str, progress: Any) -> None:
    ledger = Ledger(url)
    for number in range(1_000_000):
        record(ledger, *(arrival(image, study=f"1.2.{number}") for image in range(PER_STUDY)))
        progress.send(number)  # only now could a sender be told: 0x0000


def test_sigkill_in_the_middle_of_a_record_leaves_all_of_a_batch_or_nothing(ledger: Ledger, url: str) -> None:
    promised = -1
    for cycle in range(8):
        ours, theirs = fresh.Pipe(duplex=False)
        process = fresh.Process(target=record_for_ever, args=(url, theirs))
        process.start()
        theirs.close()
        assert ours.poll(PATIENCE)
        time.sleep(0.02 + 0.007 * cycle)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(PATIENCE)
        promised = max(promised, last_of(ours))
        studies = {entry.uid: entry.arrived for entry in ledger.studies(1_000_000)}
        assert set(studies.values()) == {PER_STUDY}
        assert {f"1.2.{number}" for number in range(promised + 1)} <= studies.keys()
        assert ledger.overview().instances == PER_STUDY * len(studies)
    record(ledger, arrival(study="1.2.after"))  # and it goes on


def last_of(pipe: Any) -> int:
    last = -1
    try:
        while True:
            last = pipe.recv()
    except EOFError:
        return last


def test_a_killed_writer_leaves_a_sound_file(tmp_path: Path) -> None:
    file = tmp_path / "ledger.sqlite"
    opened = Ledger(f"sqlite:///{file}")
    opened.upgrade()
    ours, theirs = fresh.Pipe(duplex=False)
    process = fresh.Process(target=record_for_ever, args=(f"sqlite:///{file}", theirs))
    process.start()
    theirs.close()
    assert ours.poll(PATIENCE)
    time.sleep(0.05)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(PATIENCE)
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    opened.close()


def test_sqlite_waits_for_the_disk_and_keeps_a_rollback_journal(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'folder' / 'ledger.sqlite'}")
    with database.writing() as db:
        pragmas = {
            name: db.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("synchronous", "journal_mode", "busy_timeout", "foreign_keys")
        }
    database.close()
    assert pragmas == {"synchronous": 2, "journal_mode": "truncate", "busy_timeout": 30000, "foreign_keys": 1}
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o700


def test_a_child_after_a_fork_uses_connections_of_its_own(ledger: Ledger) -> None:
    record(ledger, arrival(1))
    child = os.fork()
    if child == 0:
        try:
            record(ledger, arrival(2))
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    record(ledger, arrival(3))
    assert ledger.studies()[0].arrived == 3


def test_the_migrations_make_the_tables_that_the_code_has(blank_url: str) -> None:
    database = Database(blank_url)
    database.upgrade()
    with database.reading() as db:
        assert compare_metadata(MigrationContext.configure(db), tables) == []
    database.close()


def test_evidence_of_before_there_were_forms_has_the_form_that_it_was_made_in(blank_url: str) -> None:
    """Written with the tables of that day."""
    database = Database(blank_url)
    database.upgrade("0005")
    job = {
        "study_uid": "1.2",
        "pipeline": "p",
        "use": "a:B",
        "priority": 5,
        "destinations": "[]",
        "why": "",
        "outcome": "read",
    }
    times = dict.fromkeys(("first_arrival", "opened_at", "last_arrival", "settle_at", "settle_by"), 0)
    study = {"uid": "1.2", "state": "settled", "patient_key": "a", "caller": "CT1", "revision": 2, "arrived": 1}
    classes = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.4")
    with database.writing() as db:
        _put(db, "studies", study | times)
        for number, preset in enumerate(("ohif", "air"), start=1):
            state = {"state": "DONE", "attempts": 1, "forgiven": 0, "not_before": 0, "queued_at": 0}
            _put(db, "jobs", job | state | {"id": number, "revision": number, "preset": preset, "key": preset})
            for position, sop_class in enumerate(classes):
                named = {"sop_uid": f"{number}.{position}", "series_uid": "1", "path": "a", "sha256": "b"}
                _put(db, "evidence", named | {"job_id": number, "position": position, "sop_class": sop_class})
    database.upgrade()
    database.close()
    ledger = Ledger(blank_url)
    for number, regions in ((1, "regions"), (2, "references")):
        forms = ["SEG BINARY", f"SR {regions} BINARY", "DERIVED"]
        assert [one.form for one in ledger.evidence(ledger.job(number).key)] == forms
        assert sorted(ledger.job(number).forms) == sorted(forms)
    ledger.close()


def _put(db: Connection, table: str, row: dict[str, object]) -> None:
    names = ", ".join(row)
    db.execute(text(f"INSERT INTO {table} ({names}) VALUES (:{', :'.join(row)})"), row)


def test_no_column_holds_who_the_patient_is() -> None:
    names = {column.name for table in tables.tables.values() for column in table.columns}
    assert {name for name in names if "patient" in name or "name" in name or "birth" in name} == {"patient_key"}


def test_a_backlog_is_claimed_quickly_and_the_urgent_one_first(ledger: Ledger) -> None:
    for batch in range(10):
        record(ledger, *(arrival(study=f"1.2.{batch}.{number}") for number in range(100)))
    for study_uid in ledger.due(9999)[:20]:
        ledger.settle(study_uid, [wanted(f"p{number}") for number in range(40)], now=10)
    record(ledger, arrival(study="1.9"))
    (urgent,) = ledger.settle("1.9", [wanted(priority=0)], now=99)
    began = time.perf_counter()
    assert ledger.ready(100, limit=10)[0] == (urgent.id, 0)
    claimed(ledger, urgent, at=100)
    assert time.perf_counter() - began < 30


@pytest.mark.parametrize("settings", ["sqlite:///{}/with space %41?.sqlite"])
def test_a_folder_may_be_called_what_it_likes(tmp_path: Path, settings: str) -> None:
    opened = Ledger(settings.format(tmp_path))
    opened.upgrade()
    record(opened, arrival())
    opened.close()
