"""A node for the web server's tests: a real ledger, spool and evidence with a study of each fate, and no process."""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from node.accounts import Accounts
from node.actions import Actions
from node.audit import Source, Trail
from node.ledger import Evidence, Job, JobState, Ledger, NewJob
from node.retention import Retention, Terms
from node.routing import Route
from node.spool import Origin, Spool
from node.web.app import WebOptions, serve
from node.web.site import Model, Place, Site, disk_check
from tests.findings import ALGORITHM, lesion, outlined, saved, slices, study_of, written
from tests.ledgers import upgraded_file
from tests.peers import free_port
from tests.waiting import PATIENCE, until

get, post = functools.partial(httpx.get, timeout=PATIENCE), functools.partial(httpx.post, timeout=PATIENCE)

SCRIPT = "<script>alert(1)</script>"
HOSTILE = f"{SCRIPT}^Eva"  # a patient's name, and what no page may ever run
READ, HELD, UNROUTED, FAILED, DEAD, WAITING = (f"1.2.826.0.1.3680043.10.99.{number}" for number in range(1, 7))
ROUTES = {
    "mr_brain": Route(
        "mr_brain", "pipelines.mr_brain:BrainTumour", {"Modality": "MR", "BodyPartExamined": "BRAIN"}, ("PACS",)
    ),
    "ct_head": Route("ct_head", "pipelines.ct_head:HeadHaemorrhage", {"Modality": "CT"}, ("PACS",), priority=1),
}
SIZE = 64


@dataclass(frozen=True)
class Home:
    """Where it all lies; ``database``: the ledger's URL, where that is not a file beside the rest."""

    folder: Path
    database: str | None = None

    @property
    def spool(self) -> Spool:
        return Spool(self.folder / "spool", reserve_bytes=0)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.database or f"sqlite:///{self.folder / 'ledger.sqlite'}")

    @property
    def trail(self) -> Trail:
        return Trail(self.folder / "audit", Source("WETREAD", "here"))

    @property
    def accounts(self) -> Accounts:
        return Accounts(self.folder / "accounts.json")


def images(study_uid: str, count: int = 6, **elements: Any) -> list[Any]:
    """A stack in which a bright square lies on a ramp, of a patient whose name is hostile."""
    made = slices(count, StudyInstanceUID=study_uid, SeriesInstanceUID=f"{study_uid}.1", **elements)
    for number, each in enumerate(made, 1):
        pixels = 300 + np.add.outer(np.arange(SIZE), np.arange(SIZE)) * 5
        pixels[12:28, 30:50] += 400
        each.SOPInstanceUID, each.PatientName, each.BodyPartExamined = f"{study_uid}.1.{number}", HOSTILE, "BRAIN"
        each.Rows, each.Columns, each.PixelData = SIZE, SIZE, pixels.astype("<u2").tobytes()
    return made


def received(home: Home, study_uid: str, *, ago: float, **elements: Any) -> list[Any]:
    """The images of a study in spool and ledger, as the listener leaves them."""
    made = images(study_uid, **elements)
    at = time.time() - ago
    with_spool, ledger = home.spool, home.ledger
    folder = saved(made, home.folder / "sent" / study_uid)
    arrivals = [
        with_spool.add(path, Origin(caller="CT1", address="127.0.0.1", received_at=at + 0.2 * number))
        for number, path in enumerate(sorted(folder.iterdir()))
    ]
    ledger.record(arrivals, settle_at=at + 4, settle_by_seconds=600, now=at)
    ledger.close()
    return made


def queued(home: Home, study_uid: str, *, ago: float, pipeline: str = "mr_brain") -> Job:
    route = ROUTES[pipeline]
    new = NewJob(
        pipeline,
        route.use,
        route.priority,
        ("PACS",),
        "Modality is MR and BodyPartExamined is BRAIN, in 1 of 1 series",
    )
    ledger = home.ledger
    (job,) = ledger.settle(study_uid, (new,), now=time.time() - ago)
    ledger.close()
    return job


def read(home: Home, job: Job, made: list[Any], *, ago: float) -> int:
    """A reading as the worker leaves it, with a Segmentation and a report; the id of its delivery."""
    study = study_of(made, home.folder / "read" / job.study_uid)
    mask = np.zeros((len(made), SIZE, SIZE), bool)
    mask[1:5, 12:28, 30:50] = True
    out = home.folder / "evidence" / str(job.id)
    objects = written(outlined(study.series[0], lesion(mask)), study, out)
    found = [
        Evidence(f"{job.id}/{name}", "0" * 64, str(ds.SOPInstanceUID), str(ds.SOPClassUID), str(ds.SeriesInstanceUID))
        for name, ds in objects.items()
    ]
    finding = {
        "code": ["52988006", "SCT", "Lesion"], "certainty": 0.97, "present": True, "sop_uids": [],
        "segment": "FLAIR abnormality", "box": None,
        "measurements": [{"name": ["118565006", "SCT", "Volume"], "value": 41.2, "unit": "cm3"}],
    }  # fmt: skip
    run = {
        "pipeline": job.pipeline, "version": ALGORITHM.version, "status": "read", "reason": None,
        "series_uid": study.series[0].uid, "seconds": 1.9, "device": "cpu", "findings": [finding], "objects": [],
    }  # fmt: skip
    ledger = home.ledger
    claim = ledger.claim(job.id, owner="host-1-cpu-ab", lease_seconds=60, now=time.time() - ago - 2)
    assert claim is not None
    (delivery,) = ledger.finish(
        claim, outcome="read", runs_json=json.dumps([run]), evidence=found, stages={"load": 0.4, "network": 1.2},
        now=time.time() - ago,
    )  # fmt: skip
    ledger.close()
    return delivery


def sent(home: Home, delivery: int, *, ago: float, state: str = "DELIVERED", reason: str | None = None) -> None:
    ledger = home.ledger
    claim = ledger.claim_delivery(delivery, "host-1-deliver-ab", 60, time.time() - ago - 0.5)
    assert claim is not None
    good = state == "DELIVERED"
    ledger.finish_delivery(claim, state=state, verified=good, reason=reason, now=time.time() - ago)
    ledger.close()


def furnished(folder: Path, database: str | None = None) -> Home:
    """A study that was read and delivered, and one each that is held, unrouted, failed, undeliverable, waiting."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ledger.sqlite").write_bytes(upgraded_file())
    home = Home(folder, database)
    made = received(home, READ, ago=3000)
    sent(home, read(home, queued(home, READ, ago=2990), made, ago=2985), ago=2980)
    received(home, HELD, ago=2000)
    home.ledger.hold(
        HELD, "identity: instance 1.2.3 names another patient (ID, issuer, name or birth date) than the study's first"
    )
    received(home, UNROUTED, ago=1500)
    home.ledger.settle(UNROUTED, (), reason="none of the 2 rules wants it", now=time.time() - 1490)
    received(home, FAILED, ago=900)
    job = queued(home, FAILED, ago=890)
    ledger = home.ledger
    claim = ledger.claim(job.id, owner="host-1-cpu-ab", lease_seconds=60, now=time.time() - 880)
    assert claim is not None
    assert (
        ledger.fail(claim, reason="reading took longer than 600 s", retry_at=None, now=time.time() - 270)
        is JobState.FAILED
    )
    made = received(home, DEAD, ago=700)
    number = read(home, queued(home, DEAD, ago=690), made, ago=680)
    sent(
        home,
        number,
        ago=670,
        state="DEAD",
        reason="PACS accepts no 1.2.840.10008.5.1.4.1.1.66.4 in transfer syntax 1.2.840.10008.1.2.1",
    )
    received(home, WAITING, ago=60)
    queued(home, WAITING, ago=50)
    return home


def site_of(home: Home, **others: Any) -> Site:
    site = Site(
        ledger=home.ledger,
        actions=Actions(home.ledger, home.trail, destinations=("PACS",), path=home.spool.path),
        trail=home.trail,
        name="WETREAD",
        folder=home.folder,
        instance=home.spool.path,
        evidence=home.folder / "evidence",
        checks={"disk": disk_check(home.folder, 0)},
        parts=lambda: {
            "listen": {"state": "running", "pid": None, "since": time.time() - 86400, "restarts": 0, "last_end": None}
        },
        routes=ROUTES,
        places=(Place("PACS", "PACS (ORTHANC at 127.0.0.1:4242)", "dimse", False, lambda: None),),
        models=lambda: [Model("mr_brain", "mr_brain", "1.0.0", "shipped", "# mr_brain 1.0.0\n\nWhat it reads.")],
        retention=Retention(
            home.ledger, home.spool, evidence=home.folder / "evidence", trail=home.trail, terms=Terms(images=0.01)
        ),
        settings={"node": {"ae_title": "WETREAD", "database": "hidden"}},
    )
    return replace(site, **others)


def answers(url: str) -> bool:
    """Whether a web server answers there; one that nobody reaches yet does not."""
    try:
        get(url)
    except httpx.TransportError:
        return False
    return True


@contextmanager
def serving(home: Home, **others: Any) -> Iterator[str]:
    """The web server over a real socket; its address."""
    port, stop = free_port(), threading.Event()
    site = others.pop("site", None) or site_of(home)
    options = WebOptions("127.0.0.1", port, site, home.accounts, **others)
    thread = threading.Thread(target=serve, args=(options, stop))
    thread.start()
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: answers(f"{url}/health/live"), what="the web server answers")
        yield url
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert not thread.is_alive()
