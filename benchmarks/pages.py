"""How long each page of the dashboard takes with 20,000 studies and 100,000 jobs, beside a ledger of one study.

    .venv/bin/python benchmarks/pages.py [--studies 20000] [--rounds 9]

A web server as `wetread web` starts it, on a ledger that is filled by this file, and one on a ledger of one study: each
page is asked of the two in turn, more than two seconds apart, so that nothing comes from what the server remembers. On
SQLite, and on PostgreSQL where Debian's server is there. Writes pages.json and pages.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Connection, Double, create_engine, insert, literal, select, text

sys.path.insert(0, str(Path(__file__).parents[1]))

from node.ledger import Ledger
from node.ledger.tables import deliveries, evidence, instances, jobs, revisions, studies
from tests import databases
from tests.peers import ROOT, free_port

BUDGET = 0.3  # seconds
PER_STUDY, IMAGES, DAYS, BLOCK = 5, 10, 10, 1000
FIRST = "0" * 64
PIPELINES = ("mr_brain", "ct_head", "dx_chest", "us_breast", "mr_brain_type")
PAGES = {
    "overview": "/", "reading order": "/triage", "queue": "/queue", "queue, waiting": "/queue?show=waiting",
    "queue, failed": "/queue?show=failed", "queue, one pipeline": "/queue?pipeline=ct_head",
    "queue, searched": "/queue?text=77", "studies": "/studies", "studies, held": "/studies?state=held",
    "studies, searched": "/studies?text=77", "study": "/studies/1.9.1", "workers": "/workers",
    "pipelines": "/pipelines", "destinations": "/destinations", "rules": "/rules", "audit": "/audit",
    "settings": "/settings", "metrics": "/metrics",
}  # fmt: skip
RUNS = json.dumps([{
    "pipeline": "mr_brain", "version": "1.0.0", "status": "read", "reason": None, "series_uid": "1.9", "seconds": 2.0,
    "device": "cpu", "objects": [], "findings": [{
        "code": ["52988006", "SCT", "Lesion"], "certainty": 0.9, "present": True, "sop_uids": ["1.9.1.1"] * 8,
        "segment": "FLAIR abnormality", "box": None,
        "measurements": [{"name": ["118565006", "SCT", "Volume"], "value": 41.2, "unit": "cm3"}]}] * 2,
}])  # fmt: skip


def fill(db: Connection, count: int, now: float) -> None:
    """``count`` studies of ten days: most read and delivered, some of each other fate. Every block is made of one."""
    block, rows = (
        min(count, BLOCK),
        {table: [] for table in (studies, instances, revisions, jobs, evidence, deliveries)},
    )
    lasts = DAYS * 86400 * block / count
    for number in range(1, block + 1):
        _study(rows, number, now - (block - number) / block * lasts)
    for table, made in rows.items():
        if made:
            db.execute(insert(table), made)
    for number in range(1, -(-count // block)):
        _repeat(db, number, number * lasts)


def _repeat(db: Connection, number: int, earlier: float) -> None:
    """The first block once more, as other studies that came so many seconds earlier."""
    further = number * BLOCK * PER_STUDY
    for table, is_first in (
        (studies, studies.c.caller == "CT1"), (instances, instances.c.caller == "CT1"),
        (revisions, revisions.c.digest == FIRST), (jobs, jobs.c.id <= BLOCK * PER_STUDY),
        (evidence, evidence.c.job_id <= BLOCK * PER_STUDY), (deliveries, deliveries.c.job_id <= BLOCK * PER_STUDY),
    ):  # fmt: skip
        values: dict[str, Any] = {}
        for column in table.c:
            value: Any = column
            if isinstance(column.type, Double):
                value = column - earlier
            elif column.name in ("uid", "study_uid", "sop_uid", "key"):
                value = column.concat(f".{number}")
            elif column.name == "caller":
                value = literal("CT2")
            elif column.name == "digest":
                value = literal("1" * 64)
            elif column.name == "job_id" or column is jobs.c.id:
                value = column + further
            values[column.name] = value
        if table in (instances, deliveries):
            del values["id"]
        db.execute(insert(table).from_select(list(values), select(*values.values()).where(is_first)))


def _study(rows: dict[Any, list[dict[str, Any]]], number: int, at: float) -> None:
    uid, held = f"1.9.{number}", number % 500 == 0
    times = dict.fromkeys(("first_arrival", "opened_at", "last_arrival", "settle_at", "settle_by"), at)
    rows[studies].append({
        "uid": uid, "state": "held" if held else "settled", "reason": "held by hand" if held else None,
        "patient_key": "0" * 64, "caller": "CT1", "revision": 1, "arrived": IMAGES, "expected": None, **times,
    })  # fmt: skip
    rows[revisions].append({
        "study_uid": uid, "number": 1, "predecessor": None, "digest": FIRST, "instances": IMAGES,
        "opened_at": at, "last_arrival": at, "settled_at": at + 3,
    })  # fmt: skip
    for image in range(IMAGES):
        rows[instances].append({
            "study_uid": uid, "series_uid": f"{uid}.1", "sop_uid": f"{uid}.1.{image}", "size": 500_000,
            "sop_class": "1.2.840.10008.5.1.4.1.1.4", "transfer_syntax": "1.2.840.10008.1.2.1",
            "sha256": f"{number:032x}{image:032x}", "patient_key": "0" * 64, "modality": "MR", "caller": "CT1",
            "address": "127.0.0.1", "received_at": at, "revision": 1,
        })  # fmt: skip
    for place, pipeline in enumerate(PIPELINES):
        _job(rows, (number - 1) * PER_STUDY + place + 1, uid, pipeline, at + 3)


def _job(rows: dict[Any, list[dict[str, Any]]], job: int, uid: str, pipeline: str, at: float) -> None:
    fate = job % 100
    state = {0: "QUEUED", 1: "QUEUED", 2: "QUEUED", 3: "FAILED", 4: "QUARANTINED", 5: "CANCELLED"}.get(fate, "DONE")
    is_done = state == "DONE"
    rows[jobs].append({
        "id": job, "study_uid": uid, "revision": 1, "pipeline": pipeline, "use": f"pipelines.{pipeline}:Reader",
        "priority": job % 10, "destinations": ["PACS"], "why": "Modality is MR, in 1 of 1 series",
        "key": f"{job:056x}", "state": state, "attempts": 1, "forgiven": 0, "not_before": at, "queued_at": at,
        "owner": None if state == "QUEUED" else "host-17-cpu-ab", "claimed_at": None if state == "QUEUED" else at + 2,
        "done_at": None if state == "QUEUED" else at + 6, "outcome": "read" if is_done else None,
        "reason": "reading took longer than 600 s" if state == "FAILED" else None, "runs": RUNS if is_done else None,
        "stages": {"load": 0.4, "network": 2.2} if is_done else None,
    })  # fmt: skip
    if not is_done:
        return
    for position in range(2):
        rows[evidence].append({
            "job_id": job, "sop_uid": f"2.25.{job}.{position}", "position": position, "series_uid": f"2.25.{job}",
            "sop_class": "1.2.840.10008.5.1.4.1.1.66.4", "path": f"{job}/{position}.dcm", "sha256": "0" * 64,
        })  # fmt: skip
    dead = fate == 6
    rows[deliveries].append({
        "job_id": job, "destination": "PACS", "state": "DEAD" if dead else "WAITING" if fate == 7 else "DELIVERED",
        "attempts": 1, "not_before": at, "queued_at": at + 6, "claimed_at": at + 7,
        "first_failed_at": at + 7 if fate in (6, 7) else None, "delivered_at": at + 8 if fate > 7 else None,
        "verified": fate > 7, "verified_at": at + 9 if fate > 7 else None,
        "reason": "PACS does not answer: timed out" if fate in (6, 7) else None,
    })  # fmt: skip


@contextmanager
def server(folder: Path, database: str) -> Iterator[httpx.Client]:
    """`wetread web` on a ledger; what the settings say else is the default, but for one destination that is off."""
    port = free_port()
    folder.mkdir(exist_ok=True)
    where = f'[node]\nweb_port = {port}\ndata = "{folder}"\ndatabase = "{database}"\n'
    pacs = f'[destinations.PACS]\nprotocol = "dimse"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {free_port()}\n'
    (folder / "settings.toml").write_text(where + pacs)
    command = [sys.executable, "-m", "node", "--settings", str(folder / "settings.toml"), "web"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, cwd=ROOT, stderr=log, stdout=log) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
                _wait_for(client, process, folder / "log")
                yield client
        finally:
            process.terminate()


def _wait_for(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        try:
            client.get("/health/live")
            return
        except httpx.TransportError:
            if process.poll() is not None:
                raise RuntimeError(log.read_text()[-2000:]) from None
            time.sleep(0.2)
    raise RuntimeError("the web server does not answer")


def filled(folder: Path, url: str, count: int) -> str:
    """The ledger at ``url``, with so many studies in it."""
    folder.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(url)
    ledger.upgrade()
    engine = create_engine(url)
    with engine.begin() as db:
        fill(db, count, ledger.now())
    with engine.begin() as db:
        db.execute(text("ANALYZE"))
    engine.dispose()
    ledger.close()
    return url


def measure(sites: dict[str, httpx.Client], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds per page and ledger; one round more is made first, to warm up."""
    took: dict[str, dict[str, list[float]]] = {page: {name: [] for name in sites} for page in PAGES}
    for number in range(rounds + 1):
        begun = time.monotonic()
        for page, path in PAGES.items():
            for name, client in sites.items():
                start = time.perf_counter()
                answer = client.get(path)
                seconds = time.perf_counter() - start
                if answer.status_code != 200:
                    raise RuntimeError(f"{page}: {answer.status_code} {answer.text[:500]}")
                if number:
                    took[page][name].append(seconds)
        time.sleep(max(0.0, begun + 2.2 - time.monotonic()))
    return took


def table(found: dict[str, dict[str, dict[str, list[float]]]], arguments: argparse.Namespace) -> str:
    names = list(found)
    lines = [
        "# How long a page takes, milliseconds",
        "",
        f"{arguments.studies:,} studies, {arguments.studies * PER_STUDY:,} jobs, {arguments.studies * IMAGES:,} images "
        f"of ten days; median of {arguments.rounds} answers of `wetread web` over loopback, the full ledger and one "
        "of a single study (empty) asked in turn, on two cores shared with other work. Wanted: 300.",
        "",
        "| page | " + " | ".join(f"{name}: full | empty" for name in names) + " |",
        "| --- |" + " --- | --- |" * len(names),
    ]
    for page in PAGES:
        cells = [
            f"{statistics.median(found[name][page][which]) * 1000:.0f}" for name in names for which in ("full", "empty")
        ]
        lines.append(f"| {page} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "    .venv/bin/python benchmarks/pages.py", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    found = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wr-pages-")))
        kinds: dict[str, dict[str, str]] = {
            "SQLite": {name: f"sqlite:///{folder / name}.sqlite" for name in ("full", "empty")}
        }
        if databases.why_no_postgres() is None:
            cluster = stack.enter_context(databases.postgres())
            kinds["PostgreSQL"] = {name: cluster.new_database() for name in ("full", "empty")}
        for kind, urls in kinds.items():
            for name, count in (("full", arguments.studies), ("empty", 1)):
                filled(folder, urls[name], count)
            with ExitStack() as both:
                sites = {name: both.enter_context(server(folder / f"{kind}-{name}", url)) for name, url in urls.items()}
                found[kind] = measure(sites, arguments.rounds)
    here = Path(__file__).parent
    size = {"studies": arguments.studies, "jobs": arguments.studies * PER_STUDY, "cores": os.cpu_count()}
    (here / "pages.json").write_text(json.dumps({**size, "seconds": found}, indent=1) + "\n")
    (here / "pages.md").write_text(table(found, arguments))
    print(table(found, arguments))


if __name__ == "__main__":
    main()
