"""What changed since an earlier study of the patient: found in a folder or in the ledger, and said with its source."""

from __future__ import annotations

import csv
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pydicom
import pytest
from click.testing import CliRunner
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from node.analysis import Analysis, Rules
from node.cli import wetread
from node.ledger import JobState
from node.warm import Limits
from pipelines.evidence.check import check
from tests.findings import verdict
from tests.peers import SHARED, needs_shared
from tests.test_mr_hippocampus import dicom  # noqa: F401  # two volumes as DICOM
from tests.workplace import Workplace

CHANGE, PERCENT = "VOL_CHANGE", "VOL_CHANGE_PCT"
needs_set = needs_shared("data", "hippocampus_mri")
assert SHARED


def as_study(source: Path, target: Path, **elements: Any) -> str:
    """The files of a study again, as another; its Study Instance UID."""
    uids = {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()}
    for number, file in enumerate(sorted(source.rglob("*.dcm"))):
        ds = dcmread(file)
        for keyword, value in {**uids, "SOPInstanceUID": generate_uid(), **elements}.items():
            setattr(ds, keyword, value)
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        target.mkdir(parents=True, exist_ok=True)
        ds.save_as(target / f"{number:03}.dcm")
    return uids["StudyInstanceUID"]


def reading(folder: Path, out: Path) -> dict[str, dict[str, Any]]:
    """The run of each study."""
    given = ["read", str(folder), "--out", str(out), "--pipeline", "mr_hippocampus", "--json"]
    answer = CliRunner().invoke(wetread, given)
    assert answer.exit_code == 0, answer.stderr
    return {study["study_uid"]: study["runs"][0] for study in json.loads(answer.stdout)["studies"]}


def measured(run: dict[str, Any], code: str) -> dict[str, dict[str, Any]]:
    """The measurement of that name, by the finding's label."""
    return {
        finding["label"]: each for finding in run["findings"] for each in finding["measurements"]
        if each["name"][0] == code
    }  # fmt: skip


def numbers(report: Dataset, code: str) -> list[Dataset]:
    found = []
    for item in report.get("ContentSequence", ()):
        name = item.get("ConceptNameCodeSequence")
        found += [item] if name and name[0].CodeValue == code else []
        found += numbers(item, code)
    return found


@pytest.fixture
def two(dicom: Path, tmp_path: Path) -> tuple[Path, str, str]:  # noqa: F811
    """A folder with one patient's two studies, a year apart: two volumes of the set; the earlier, the later."""
    with (dicom / "index.csv").open(newline="") as file:
        first, second = dict.fromkeys(row["study_uid"] for row in csv.DictReader(file))
    whose = {"PatientID": "P7", "PatientName": "Seven^P", "PatientBirthDate": "19600101", "PatientSex": "O"}
    issued = {**whose, "IssuerOfPatientID": "HOSPITAL"}
    later = as_study(dicom / first, tmp_path / "in" / "a", StudyDate="20260303", **issued)
    earlier = as_study(dicom / second, tmp_path / "in" / "b", StudyDate="20250302", **issued)
    return tmp_path / "in", earlier, later


@needs_set
def test_the_change_of_each_part_is_said_with_its_uncertainty_and_its_source(
    two: tuple[Path, str, str], tmp_path: Path
) -> None:
    folder, earlier, later = two
    runs = reading(folder, tmp_path / "out")
    assert not measured(runs[earlier], CHANGE)
    assert not [note for note in runs[earlier]["notes"] if "compared" in note]
    before, now = (measured(runs[uid], "118565006") for uid in (earlier, later))
    changes, shares = measured(runs[later], CHANGE), measured(runs[later], PERCENT)
    (report,) = [Path(each) for each in runs[later]["objects"] if Path(each).name == "sr.dcm"]
    (source,) = [Path(each) for each in runs[earlier]["objects"] if Path(each).name == "sr.dcm"]
    for part in ("anterior", "posterior"):
        change = now[part]["value"] - before[part]["value"]
        assert changes[part]["value"] == pytest.approx(change)
        assert shares[part]["value"] == pytest.approx(100 * change / before[part]["value"])
        assert changes[part]["within"] > 0.2
        told = {"study_uid": earlier, "date": "20250302", "report_uid": str(dcmread(source).SOPInstanceUID)}
        assert changes[part]["against"] == told
    (note,) = [note for note in runs[later]["notes"] if "2025-03-02" in note]
    assert "two scans of one person differ was never measured" in note

    made = dcmread(report)
    assert len(numbers(made, CHANGE)) == len(numbers(made, PERCENT)) == 2
    for number in numbers(made, CHANGE):
        uncertainty, document, date = number.ContentSequence
        assert float(uncertainty.MeasuredValueSequence[0].NumericValue) == pytest.approx(
            changes["anterior"]["within"]
        ) or float(uncertainty.MeasuredValueSequence[0].NumericValue) == pytest.approx(changes["posterior"]["within"])
        assert (uncertainty.RelationshipType, document.RelationshipType) == ("HAS PROPERTIES", "INFERRED FROM")
        assert document.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == dcmread(source).SOPInstanceUID
        assert str(date.Date) == "20250302"
    (other,) = made.PertinentOtherEvidenceSequence
    assert other.StudyInstanceUID == earlier
    assert check(report) == ()
    if shutil.which("dciodvfy"):
        assert not [each for path in runs[later]["objects"] for each in verdict(Path(path))]


@needs_set
@pytest.mark.parametrize(
    "changed",
    [
        {"PatientID": "P8"},
        {"IssuerOfPatientID": "ELSEWHERE"},
        {"PatientID": ""},
        {"StudyDate": "20270101"},
        {"StudyDate": ""},
        {"SeriesDescription": "T1 HIPPOCAMPUS LEFT"},
    ],
    ids=["another patient", "another issuer", "no ID", "a later study", "no date", "another kind of series"],
)
def test_without_a_fitting_prior_no_change_is_said(
    two: tuple[Path, str, str], tmp_path: Path, changed: dict[str, str]
) -> None:
    folder, earlier, later = two
    for file in (folder / "b").glob("*.dcm"):
        ds = pydicom.dcmread(file)
        for keyword, value in changed.items():
            setattr(ds, keyword, value)
        ds.save_as(file)
    runs = reading(folder, tmp_path / "out")
    first_is_later = changed.get("StudyDate") == "20270101"
    assert not measured(runs[later], CHANGE)
    assert bool(measured(runs[earlier], CHANGE)) is first_is_later


@needs_set
def test_a_report_of_a_change_is_another_object_than_one_without(two: tuple[Path, str, str], tmp_path: Path) -> None:
    folder, _, later = two
    with_prior = reading(folder, tmp_path / "out")[later]
    shutil.rmtree(folder / "b")
    alone = reading(folder, tmp_path / "alone")[later]
    uids = [{str(dcmread(each).SOPInstanceUID) for each in run["objects"]} for run in (with_prior, alone)]
    assert not uids[0] & uids[1]


def test_the_node_finds_the_prior_in_its_ledger(tmp_path: Path) -> None:
    place, stop = Workplace(tmp_path), threading.Event()
    analysis = Analysis(
        place.ledger,
        Limits("cpu", 1, 1 << 30),
        Rules(place.evidence, "bench"),
        path=place.spool.path,
        finished=lambda *_: None,
        again=lambda *_: None,
        stop=stop,
    )
    try:
        said = {}
        asked = (("P1", "20260101"), ("P2", "20260101"), ("P1", "20270101"), ("P1", "20250101"))
        for number, (patient, date) in enumerate(asked):
            job = place.queued("Grows", patient=patient, date=date)
            analysis(job)
            done = place.ledger.job(job)
            assert (done.state, done.outcome) == (JobState.DONE, "read"), done.reason
            (run,) = json.loads(done.runs or "[]")
            said[number] = measured(run, CHANGE).get("block")
    finally:
        analysis.close()
    assert said[0] is said[1] is said[3] is None  # the first, another patient's, and one that is earlier than both
    assert said[2] is not None
    assert (said[2]["value"], said[2]["against"]["date"]) == (1.0, "20260101")
