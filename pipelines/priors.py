"""Earlier readings of the same patient by the same pipeline: what a change is said against.

    a run as JSON, its report ─ prior_of → Prior ─ latest → the one to compare with

Same patient: Patient ID and its issuer. Same kind of series: modality, description, side and body part. Same weights:
the Device UID, for two networks err in two ways. It reads headers of reports, and no pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset

from pipelines.base import Algorithm, Earlier
from pipelines.evidence import codes
from pipelines.evidence.check import REPORT, processing_equipment
from pipelines.instance import text
from pipelines.series import Series

_HEAD = ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "StudyDate", "StudyTime"]
_HEAD += ["PatientID", "IssuerOfPatientID", "ContributingEquipmentSequence", "SpecificCharacterSet"]


@dataclass(frozen=True)
class Prior:
    """One series of an earlier study, as it was read.

    Attributes:
        patient: Patient ID and its issuer.
        when: Study Date and Study Time, as DICOM writes them.
        device_uid: Of the algorithm; it derives from the weights.
        kind: ``kind_of`` the series.
        volumes: cm³, by the finding's label.
    """

    patient: tuple[str, str]
    when: tuple[str, str]
    device_uid: str
    kind: str
    volumes: dict[str, float]
    study: Earlier


def kind_of(series: Series) -> str:
    """A digest that two series of one kind share, and that tells nobody's name."""
    keywords = ("SeriesDescription", "Laterality", "ImageLaterality", "BodyPartExamined")
    said = [series.modality, *(" ".join(text(series.header, keyword).upper().split()) for keyword in keywords)]
    return hashlib.sha256("\x1f".join(said).encode()).hexdigest()[:16]


def patient_of(header: Dataset) -> tuple[str, str] | None:
    """Patient ID and issuer; None where there is no ID."""
    number = text(header, "PatientID").strip()
    return (number, text(header, "IssuerOfPatientID").strip()) if number else None


def when(header: Dataset) -> tuple[str, str] | None:
    """Study Date and Time; None without a date of eight digits."""
    date = text(header, "StudyDate").strip()
    return (date, text(header, "StudyTime").strip()) if len(date) == 8 and date.isdigit() else None


def prior_of(run: Mapping[str, Any], objects: Sequence[Path]) -> Prior | None:
    """A run as ``Run.as_json`` gives it, of which ``objects`` are the evidence; None where nothing follows from it."""
    if run["status"] != "read" or not run.get("series_kind"):
        return None
    for path in objects:
        try:
            head = dcmread(path, specific_tags=_HEAD, stop_before_pixels=True)
        except Exception:  # noqa: S112  # purged, or away: a prior that cannot be read is none
            continue
        machines, patient, moment = processing_equipment(head), patient_of(head), when(head)
        if text(head, "SOPClassUID") == REPORT and machines and patient and moment:
            volumes = {
                finding["label"]: float(measured["value"])
                for finding in run["findings"]
                for measured in finding["measurements"]
                if measured["name"][0] == codes.VOLUME.value and finding["label"]
            }
            study_uid, series_uid, sop_uid = (text(head, keyword) for keyword in _HEAD[3:0:-1])
            study = Earlier(study_uid, series_uid, sop_uid, moment[0])
            return Prior(patient, moment, text(machines[0], "DeviceUID"), run["series_kind"], volumes, study)
    return None


def latest(priors: Sequence[Prior], series: Series, algorithm: Algorithm) -> tuple[Prior | None, str | None]:
    """The newest reading to compare a series with; or a sentence, where there is one that must not be compared."""
    patient, moment = patient_of(series.header), when(series.header)
    if patient is None or moment is None:
        return None, None
    earlier = [each for each in priors if each.patient == patient and each.when < moment]
    own = [each for each in earlier if each.study.study_uid != text(series.header, "StudyInstanceUID")]
    alike = sorted((each for each in own if each.kind == kind_of(series)), key=lambda each: each.when)
    same = [each for each in alike if each.device_uid == algorithm.device_uid]
    if same:
        newest = [each for each in same if each.study.study_uid == same[-1].study.study_uid]
        if len(newest) == 1:
            return newest[0], None
        return None, f"the study of {_day(same[-1])} has several series of this kind, so no change is said"
    if alike:
        return None, f"other weights read the study of {_day(alike[-1])}, so no change is said"
    return None, None


def _day(prior: Prior) -> str:
    return f"{prior.when[0][:4]}-{prior.when[0][4:6]}-{prior.when[0][6:]}"
