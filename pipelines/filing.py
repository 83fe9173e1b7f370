"""Puts the evidence of one run into its folder: all of it or none, in place of what an earlier run left there.

Builds no object itself: that is ``pipelines.evidence``.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pydicom import dcmread

from pipelines import evidence
from pipelines.base import Algorithm, Findings, derived_uid
from pipelines.evidence import NotEvaluated, Predecessor
from pipelines.evidence.sr import report_uid
from pipelines.forms import Form
from pipelines.instance import text
from pipelines.study import Study

_log = logging.getLogger(__name__)

# What the UIDs of a run's first objects derive from where there is no report.
_FIRST = (("seg",), ("document", 1), ("capture", 1), ("structures", 1))
_DESK = ".part"  # evidence is made in here and moved out when it is whole


@dataclass(frozen=True, eq=False)
class Filing:
    """Where the evidence of a run goes, and under whose name.

    Attributes:
        job: Seeds every UID of the run's objects.
        predecessors: The reports of the study's former revision, by their forms.
        folder: Of this run alone.
        forms: What is made.
    """

    study: Study
    algorithm: Algorithm
    job: str
    folder: Path
    forms: Collection[Form]
    predecessors: Mapping[Form, Predecessor] = field(default_factory=dict)

    def put(self, outcome: Findings | NotEvaluated, *, started: datetime) -> dict[Path, Form]:
        """Write the evidence of an outcome, durable on return; raises what ``evidence.write`` raises, with no trace.

        An outcome that is no reading has UIDs of its own: a later attempt that succeeds makes new objects, for a PACS
        refuses other content under a UID that it has.
        """
        job = self.job if isinstance(outcome, Findings) else f"{self.job}/{outcome.status}"
        with _emptied(self.folder / _DESK) as desk:
            written = evidence.write(
                outcome,
                study=self.study,
                algorithm=self.algorithm,
                job=job,
                started=_earlier_start(self.folder, job, self.forms) or started,
                out=desk,
                forms=self.forms,
                predecessors=self.predecessors,
            )
            return {_moved(path, self.folder): form for path, form in written.items()}


@contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    """A folder that is empty at the start and gone at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _moved(path: Path, folder: Path) -> Path:
    target = path.replace(folder / path.name)  # its content is on the disk already; the name is not
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return target


def _earlier_start(folder: Path, job: str, forms: Collection[Form]) -> datetime | None:
    """When this very job was started before, if an object of it lies here: to repeat it is to make the same bytes."""
    uids = {report_uid(job, form) for form in forms} | {derived_uid(job, *parts) for parts in _FIRST}
    for path in sorted(folder.glob("*.dcm")):
        try:
            made = dcmread(path, specific_tags=["SOPInstanceUID", "ContentDate", "ContentTime"])
            if text(made, "SOPInstanceUID") in uids:
                said = text(made, "ContentDate") + text(made, "ContentTime")
                return datetime.strptime(said, "%Y%m%d%H%M%S.%f" if "." in said else "%Y%m%d%H%M%S")
        except Exception:
            _log.debug("not read: %s", path.name)
    return None


def clear(folder: Path, keep: Collection[Path]) -> None:
    """Remove the DICOM objects that earlier runs left in a run's folder and that are none of this one's."""
    for path in folder.rglob("*.dcm"):
        if path not in keep:
            path.unlink(missing_ok=True)
    for below in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        if not any(below.iterdir()):
            below.rmdir()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
