"""What a job asks the reader: which files, in which forms the evidence is made, and what was said before."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from node.audit import Transfer
from node.errors import Refusal
from node.instance import head_of
from node.ledger import Claim, Job, Ledger
from pipelines.forms import ALONE, USUAL, Form, Kind

REPORT = "1.2.840.10008.5.1.4.1.1.88.34"  # Comprehensive 3D SR Storage


class Questions:
    """Makes them of what the ledger holds.

    Args:
        path: Where the instance with a SHA-256 lies.
        forms: What each destination takes.
    """

    def __init__(self, ledger: Ledger, *, path: Callable[[str], Path], forms: Mapping[str, frozenset[Form]]) -> None:
        self._ledger, self._path, self._taken = ledger, path, forms

    def question(self, claim: Claim, folder: Path, *, compares: bool) -> dict[str, Any]:
        """As child.py is asked; the evidence is to lie in ``folder``.

        Args:
            compares: The pipeline says what changed since an earlier study.
        """
        job = claim.job
        return {
            "use": job.use,
            "name": job.pipeline,
            "study": job.study_uid,
            "files": [str(self._path(sha256)) for sha256 in claim.files],
            "out": str(folder),
            "job": job.key,
            "forms": self.forms(job),
            "predecessors": self._reports_before(job),
            "priors": self._earlier_readings(job) if compares else [],
        }

    def transfer(self, claim: Claim) -> Transfer:
        """What is read, as the audit trail names it."""
        for sha256 in claim.files[:1]:
            with contextlib.suppress(OSError, Refusal):  # it is damaged, or away; the reading says so
                return Transfer(claim.job.study_uid, head_of(self._path(sha256)).patient_id)
        return Transfer(claim.job.study_uid)

    def forms(self, job: Job) -> list[str]:
        """All that any of its destinations takes, and what was made or asked for before; each is made once.

        And a report, whoever takes one: of every run there is one, and nothing else is there of each.
        """
        taken = [self._taken[name] for name in job.destinations if name in self._taken] or [USUAL]
        names = {*(str(form) for forms in taken for form in forms), *job.forms, *job.asked}
        has_report = any(Form.named(name).kind == Kind.REPORT for name in names)
        return sorted(names if has_report else {*names, str(ALONE)})

    def _earlier_readings(self, job: Job) -> list[dict[str, Any]]:
        """What the pipeline said of the patient's other studies, run by run."""
        return [run for runs in self._ledger.earlier_readings(job) for run in json.loads(runs)]

    def _reports_before(self, job: Job) -> dict[str, tuple[str, str]]:
        """By form: SOP and Series Instance UID of the report that this job's will follow."""
        made = self._ledger.evidence(job.predecessor_key) if job.predecessor_key else ()
        reports = [one for one in made if one.sop_class == REPORT]
        # A job that failed and was retried has left two: the one that counts is of the later attempt.
        last = {one.form: one for one in sorted(reports, key=lambda one: int(Path(one.path).parts[1]))}
        return {form: (one.sop_uid, one.series_uid) for form, one in last.items()}
