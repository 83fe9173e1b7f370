"""What the worker's tests share: studies that lie in a spool and a ledger as the listener leaves them, and waiting."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread, dcmwrite
from pydicom.uid import generate_uid

from node.delivery import Destination
from node.ledger import Ledger, NewJob
from node.routing import Route
from node.spool import Spool
from node.worker import WorkerOptions
from pipelines.synthetic import ct_slices
from tests.waiting import until

__all__ = ["ROOT", "Workplace", "events", "pacs", "study_files", "until", "use"]

ROOT = Path(__file__).parents[1]


def use(name: str) -> str:
    return f"tests.pipelines_for_tests:{name}"


def study_files(
    folder: Path, *, patient: str = "SYN-1", count: int = 2, size: int = 32, date: str | None = None
) -> list[Path]:
    """A CT study of a few small slices, with UIDs of its own."""
    uids = {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()}
    made = ct_slices(folder, count=count, size=size, seed=1)
    for path in made:
        instance = dcmread(path)
        for keyword, uid in uids.items():
            setattr(instance, keyword, uid)
        instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        instance.PatientID = patient
        instance.StudyDate = date or instance.StudyDate
        dcmwrite(path, instance)
    return made


@dataclass
class Workplace:
    """A data folder with spool, ledger and evidence."""

    folder: Path

    def __post_init__(self) -> None:
        self.url = f"sqlite:///{self.folder / 'ledger.sqlite'}"
        self.spool = Spool(self.folder / "spool", reserve_bytes=0)
        self.evidence = self.folder / "evidence"
        self.ledger = Ledger(self.url)
        self.ledger.upgrade()
        self._studies = 0

    def arrived(self, *, patient: str = "SYN-1", count: int = 2, date: str | None = None) -> str:
        """A study that has arrived and is due; its UID."""
        self._studies += 1
        files = study_files(self.folder / "sent" / str(self._studies), patient=patient, count=count, date=date)
        arrivals = [self.spool.add(file) for file in files]
        self.ledger.record(arrivals, settle_at=0.0, settle_by_seconds=0.0)
        return arrivals[0].study_uid

    def queued(
        self,
        pipeline: str = "Quick",
        *,
        patient: str = "SYN-1",
        to: tuple[str, ...] = (),
        priority: int = 5,
        date: str | None = None,
    ) -> int:
        """A job for a study of its own; its id."""
        wanted = NewJob(pipeline.lower(), use(pipeline), priority, to, reason="a test wants it")
        (job,) = self.ledger.settle(self.arrived(patient=patient, date=date), [wanted])
        return job.id

    def options(self, broker_url: str, *names: str, to: tuple[str, ...] = (), **others: Any) -> WorkerOptions:
        routes = {name.lower(): Route(name.lower(), use(name), {"Modality": "CT"}, to) for name in names}
        given: dict[str, Any] = {
            "ledger_url": self.url,
            "broker_url": broker_url,
            "spool": self.folder / "spool",
            "evidence": self.evidence,
            "routes": routes,
            "device": "cpu",
            "threads": 1,
        }
        return WorkerOptions(**given | others)


def pacs(name: str, port: int, **others: Any) -> Destination:
    return Destination(name, "dimse", ae_title=name, host="127.0.0.1", port=port, calling_ae_title="WETREAD", **others)


def events(text: str) -> list[dict[str, Any]]:
    """The JSON lines of a log."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]
