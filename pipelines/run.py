"""What came of one pipeline on one study, or one series of it, and the same as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.sr.coding import Code

from pipelines.base import Finding, Measurement
from pipelines.forms import Form


@dataclass(frozen=True)
class Run:
    """What came of one pipeline and one series, or group of series, of a study.

    Attributes:
        status: "read" (also when nothing was found), "unsuitable", "withheld" or "failed"; all but the first with
            a ``reason``.
        series_uid: The series that masks and boxes lie on; None where none was read.
        seconds: From the call of the pipeline until the evidence lay on disk.
        objects: The evidence, as written, and the form of each object.
        stages: Seconds per stage: "load", "network", "maps", "encode" where they are known.
    """

    pipeline: str
    version: str
    status: str
    reason: str | None = None
    series_uid: str | None = None
    seconds: float = 0.0
    device: str = "cpu"
    findings: tuple[Finding, ...] = ()
    series_kind: str | None = None  # as priors.kind_of says
    notes: tuple[str, ...] = ()
    objects: dict[Path, Form] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As scripts rely on it."""
        return {
            "pipeline": self.pipeline,
            "version": self.version,
            "status": self.status,
            "reason": self.reason,
            "series_uid": self.series_uid,
            "series_kind": self.series_kind,
            "seconds": round(self.seconds, 3),
            "device": self.device,
            "findings": [_finding_as_json(finding) for finding in self.findings],
            "notes": list(self.notes),
            "stages": {stage: round(seconds, 3) for stage, seconds in self.stages.items()},
            "objects": [str(path) for path in self.objects],
            "forms": [str(form) for form in self.objects.values()],
        }


def _finding_as_json(finding: Finding) -> dict[str, Any]:
    return {
        "code": _code_as_json(finding.code),
        "label": finding.label,
        "certainty": finding.certainty,
        "present": finding.present,
        "sop_uids": list(finding.sop_uids),
        "segment": finding.segment.label if finding.segment else None,
        "box": list(finding.box) if finding.box else None,
        "measurements": [_measurement_as_json(each) for each in finding.measurements],
    }


def _measurement_as_json(measurement: Measurement) -> dict[str, Any]:
    name, unit = _code_as_json(measurement.name), measurement.unit.value
    said: dict[str, Any] = {"name": name, "value": float(measurement.value), "unit": unit}
    if measurement.within is not None:
        said["within"] = measurement.within
    if earlier := measurement.against:
        said["against"] = {"study_uid": earlier.study_uid, "date": earlier.date, "report_uid": earlier.sop_uid}
    return said


def _code_as_json(code: Code) -> list[str]:
    return [code.value, code.scheme_designator, code.meaning]
