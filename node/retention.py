"""What is kept for how long: images, evidence and audit records, each for its own time, and nothing before it is safe.

What is safe the ledger says (ledger/purging.py). Each deletion is recorded in the audit trail before it is done, and
what cannot be recorded is not deleted. A crash at any point leaves files that the next run removes, never a promise
without a file: a file goes aside first, comes back if the same instance has come again meanwhile, and only then goes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from node import log
from node.audit import Actor, Trail, Transfer, deleted
from node.errors import Refusal, Unavailable
from node.instance import head_of
from node.ledger import Ledger
from node.spool import Spool

DAY = 86400.0
_BATCH = 200
_events = log.get("retention")


@dataclass(frozen=True)
class Terms:
    """For how many days what is kept; 0: for ever. ``unrouted``: images of studies that no rule wanted."""

    images: float = 7.0
    evidence: float = 30.0
    unrouted: float = 0.0
    audit: float = 2190.0


@dataclass
class Toll:
    """What goes, or has gone; ``staying``: studies whose time is over and that stay, per reason."""

    studies: int = 0
    images: int = 0
    image_bytes: int = 0
    jobs: int = 0
    evidence: int = 0
    audit_records: int = 0
    staying: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Retention:
    """Looks and deletes; two of them on one spool take turns.

    Args:
        evidence: The folder that evidence lies under.
        told: Destinations that get messages and keep nothing.
    """

    def __init__(
        self,
        ledger: Ledger,
        spool: Spool,
        *,
        evidence: Path,
        trail: Trail,
        terms: Terms,
        told: Collection[str] = (),
    ) -> None:
        self._told = tuple(told)
        self._ledger, self._spool, self._evidence, self._trail, self._terms = ledger, spool, evidence, trail, terms

    def plan(self) -> Toll:
        """What ``purge`` would delete now; nothing is changed."""
        toll, now = Toll(), self._ledger.now()
        if self._terms.images or self._terms.unrouted:
            before, unrouted = self._images_before(now), self._unrouted_before(now)
            for one in self._ledger.expired_images(before, unrouted_before=unrouted, told=self._told, limit=10**9):
                toll.studies, toll.images = toll.studies + 1, toll.images + one.count
                toll.image_bytes += one.bytes
        if self._terms.images:
            toll.staying = self._ledger.staying(now - self._terms.images * DAY, told=self._told)
        if self._terms.evidence:
            expired = self._ledger.expired_evidence(now - self._terms.evidence * DAY, told=self._told, limit=10**9)
            toll.jobs, toll.evidence = len(expired), sum(one.count for one in expired)
        if self._terms.audit:
            toll.audit_records = self._trail.purgeable(self._audit_before())
        return toll

    def purge(self, by: Actor) -> Toll:
        """Delete what ``plan`` says.

        Raises:
            Unavailable: The ledger or the audit trail cannot be written, or another purge is under way.
        """
        toll = Toll()
        with self._alone():
            self._finish()
            self._purge_images(toll, by)
            self._purge_evidence(toll, by)
            if self._terms.audit:
                toll.audit_records = self._trail.purge(self._audit_before())
            self._finish()
            if self._terms.images:
                toll.staying = self._ledger.staying(self._ledger.now() - self._terms.images * DAY, told=self._told)
        _events.info("purged", count=toll.images, bytes=toll.image_bytes)
        return toll

    def _purge_images(self, toll: Toll, by: Actor) -> None:
        if not (self._terms.images or self._terms.unrouted):
            return
        now = self._ledger.now()
        before, unrouted = self._images_before(now), self._unrouted_before(now)
        while expired := self._ledger.expired_images(before, unrouted_before=unrouted, told=self._told, limit=_BATCH):
            for one in expired:
                what = self._transfer(one.study_uid)
                with self._trail.recording() as record:
                    files = self._ledger.forget_images(one.study_uid, before, unrouted_before=unrouted, told=self._told)
                    if files:
                        record(deleted(what, by=by, what=f"{len(files)} images"))
                if not files:
                    return  # something came for it this very moment: the next run looks again
                self._discard(files)
                toll.studies, toll.images = toll.studies + 1, toll.images + len(files)
                toll.image_bytes += one.bytes
                _events.info("images are deleted", study=one.study_uid, count=len(files))

    def _purge_evidence(self, toll: Toll, by: Actor) -> None:
        if not self._terms.evidence:
            return
        before = self._ledger.now() - self._terms.evidence * DAY
        while expired := self._ledger.expired_evidence(before, told=self._told, limit=_BATCH):
            for one in expired:
                what = self._evidence_transfer(one.study_uid, one.key)
                with self._trail.recording() as record:
                    goes = self._ledger.forget_evidence(one.job_id, before, told=self._told)
                    if goes:
                        record(deleted(what, by=by, what=f"evidence of job {one.job_id}"))
                if not goes:
                    return
                shutil.rmtree(self._evidence / one.key, ignore_errors=True)
                toll.jobs, toll.evidence = toll.jobs + 1, toll.evidence + one.count
                _events.info("evidence is deleted", study=one.study_uid, job=one.job_id, count=one.count)

    def _finish(self) -> None:
        """What an earlier run could not finish."""
        while files := self._ledger.being_purged():
            self._discard(files)
        folders = [folder.name for folder in self._evidence.iterdir()] if self._evidence.is_dir() else []
        for key in self._ledger.keys_of_purged(folders):
            shutil.rmtree(self._evidence / key, ignore_errors=True)

    def _discard(self, files: list[str]) -> None:
        for sha256 in files:
            self._spool.discard(sha256, is_wanted=lambda one: bool(self._ledger.known([one])))
        self._ledger.purged(files)

    def _images_before(self, now: float) -> float:
        # Without a time for them no study is old enough.
        return now - self._terms.images * DAY if self._terms.images else -1.0

    def _unrouted_before(self, now: float) -> float | None:
        return now - self._terms.unrouted * DAY if self._terms.unrouted else None

    def _audit_before(self) -> float:
        return self._trail.now() - self._terms.audit * DAY

    def _transfer(self, study_uid: str) -> Transfer:
        found = self._ledger.instances(study_uid)
        classes: dict[str, int] = {}
        for instance in found:
            classes[instance.sop_class] = classes.get(instance.sop_class, 0) + 1
        return Transfer(study_uid, _patient_id(self._spool.path(found[0].sha256)) if found else "", classes)

    def _evidence_transfer(self, study_uid: str, key: str) -> Transfer:
        made = self._ledger.evidence(key)
        classes: dict[str, int] = {}
        for one in made:
            classes[one.sop_class] = classes.get(one.sop_class, 0) + 1
        return Transfer(study_uid, _patient_id(self._evidence / made[0].path) if made else "", classes)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        file = os.open(self._spool.root / "purge.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise Unavailable("another purge is under way on this spool") from None
        finally:
            os.close(file)


def _patient_id(path: Path) -> str:
    try:
        return head_of(path).patient_id
    except (OSError, Refusal):
        return ""
