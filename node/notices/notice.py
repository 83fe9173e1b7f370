"""What there is to tell: whose study it is, what was found in it, how urgent that makes it.

The patient is read from the head of the evidence when the notice is sent: the ledger never holds a name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.valuerep import PersonName

from node.errors import NodeError
from node.ledger import Evidence, Job
from node.triage.rules import Rule, Said, said_for
from pipelines.base import derived_uid

_HEAD = (
    "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber",
    "StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "StudyDescription", "ReferringPhysicianName",
    "SpecificCharacterSet",
)  # fmt: skip
REPORT = "1.2.840.10008.5.1.4.1.1.88.34"  # Comprehensive 3D SR Storage


@dataclass(frozen=True)
class Patient:
    """As the images say it; any of it may be empty."""

    id: str
    issuer: str
    name: PersonName
    birth_date: str
    sex: str


@dataclass(frozen=True)
class Notice:
    """What a receiver is told.

    Attributes:
        key: Always the same for the same job, receiver and findings: what is sent twice can be known by it.
        priority: 0 the most urgent to 9.
        study_date, study_time: As DICOM has them, or empty.
        report: SOP Instance UID of the report that says the same in full, if there is one.
        corrects: Whether an earlier reading of the study was reported.
        findings: What is above its operating point, at least one.
    """

    key: str
    patient: Patient
    study_uid: str
    accession: str
    study_id: str
    study_date: str
    study_time: str
    description: str
    pipeline: str
    version: str
    priority: int
    findings: tuple[Said, ...]
    evidence: tuple[Evidence, ...]
    found_at: datetime
    corrects: bool

    @property
    def report(self) -> Evidence | None:
        return next((one for one in self.evidence if one.sop_class == REPORT), None)

    @property
    def impression(self) -> str:
        """One line for people; it names no patient."""
        said = "; ".join(one.sentence for one in self.findings)
        return f"{said} ({self.pipeline} {self.version}; by a computer, not yet seen by a person)"

    def uid(self, message: str) -> str:
        """The UID of one message of this notice."""
        return derived_uid("notice", self.key, message)


def notice_of(job: Job, evidence: Sequence[Evidence], root: Path, *, rules: Sequence[Rule], receiver: str) -> Notice:
    """The notice about a job that is done.

    Raises:
        NodeError: If its evidence, which says whose it is, is not there or cannot be read; or nothing is above its
            operating point.
    """
    runs = json.loads(job.runs or "[]")
    findings = said_for(rules, job.pipeline, runs, receiver)
    if not findings:
        raise NodeError(f"nothing that job {job.id} has found is above its operating point: there is nothing to tell")
    if not evidence:
        raise NodeError(f"job {job.id} has left no evidence that says whose study it is")
    head = _head(root / evidence[0].path)
    said = "\n".join([job.key, receiver, *(one.sentence for one in findings)])

    def text(keyword: str) -> str:
        return str(head.get(keyword) or "").strip()

    return Notice(
        key=hashlib.sha256(said.encode()).hexdigest(),
        patient=Patient(
            text("PatientID"), text("IssuerOfPatientID"), PersonName(head.get("PatientName") or ""),
            text("PatientBirthDate"), text("PatientSex"),
        ),
        study_uid=job.study_uid,
        accession=text("AccessionNumber"),
        study_id=text("StudyID"),
        study_date=text("StudyDate"),
        study_time=text("StudyTime"),
        description=text("StudyDescription"),
        pipeline=job.pipeline,
        version=next((run["version"] for run in runs), ""),
        priority=job.priority,
        findings=findings,
        evidence=tuple(evidence),
        found_at=datetime.fromtimestamp(job.done_at or 0.0, UTC),
        corrects=job.predecessor_key is not None,
    )  # fmt: skip


def _head(path: Path) -> Dataset:
    try:
        return dcmread(path, specific_tags=list(_HEAD), stop_before_pixels=True)
    except Exception as error:  # whatever pydicom raises may quote the patient
        raise NodeError(f"the evidence {path.name} cannot be read: {type(error).__name__}") from error
