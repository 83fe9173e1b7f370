"""The main job, whole: dcmtk's storescu sends a study, the node reads it, SEG and SR are found in Orthanc.

The node runs as `wetread up` does, every part in its own process; the peers are separate programs.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from highdicom.seg import segread
from pydicom import dcmread

from node.ledger import Ledger
from pipelines.synthetic import Truth, brain_mr
from tests.peers import Orthanc, free_port, needs, orthanc, where

pytestmark = [needs("Orthanc", "storescu", "redis-server"), pytest.mark.timeout(600)]
SEG, SR = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.34"


@dataclass(frozen=True)
class Node:
    """A node that runs, and the PACS that it delivers to."""

    folder: Path
    dicom_port: int
    web_port: int
    pacs: Orthanc
    settings: Path

    @property
    def ledger(self) -> Ledger:
        return Ledger(f"sqlite:///{self.folder / 'data' / 'ledger.sqlite'}")

    def send(self, folder: Path) -> None:
        command = [where("storescu") or "", "+sd", "+r", "-aec", "WETREAD", "-aet", "CT1"]
        environment = {**os.environ, "TCP_NODELAY": "1"}
        target = ["127.0.0.1", str(self.dicom_port), str(folder)]
        subprocess.run([*command, *target], check=True, env=environment, capture_output=True, timeout=120)

    def evidence(self, study_uid: str, *, count: int, seconds: float = 240) -> list[dict[str, dict[str, list[str]]]]:
        """What the PACS has of the study by QIDO-RS, when it has at least ``count`` objects."""
        until = time.monotonic() + seconds
        found = []
        while time.monotonic() < until:
            answer = httpx.get(f"{self.pacs.dicom_web}/studies/{study_uid}/instances", timeout=20)
            found = answer.json() if answer.status_code == 200 and answer.content else []
            if len(found) >= count:
                return found
            time.sleep(0.5)
        history = self.ledger.study(study_uid)
        raise AssertionError(f"{len(found)} of {count} objects after {seconds} s; {history.study} {history.jobs}")

    def fetch(self, item: dict[str, dict[str, list[str]]]) -> io.BytesIO:
        return io.BytesIO(self.pacs.file(item["00080018"]["Value"][0]))


def run(settings: Path, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "node", "--settings", str(settings), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


@contextmanager
def running(folder: Path, pacs: Orthanc) -> Iterator[Node]:
    node = Node(folder, free_port(), free_port(), pacs, folder / "settings.toml")
    node.settings.write_text(
        f"""
[node]
dicom_port = {node.dicom_port}
web_port = {node.web_port}
data = {json.dumps(str(folder / "data"))}
quiet_seconds = 1
reserve_gib = 0.1
peers = [{{ ae_title = "CT1", address = "127.0.0.0/8" }}]
[destinations.PACS]
protocol = "dimse"
ae_title = "{pacs.aet}"
host = "127.0.0.1"
port = {pacs.dicom_port}
[destinations.WEB]
protocol = "dicomweb"
url = "{pacs.dicom_web}"
[pipelines.mr_brain]
use = "pipelines.mr_brain:BrainTumour"
when = {{ Modality = "MR", BodyPartExamined = "BRAIN" }}
deliver_to = ["PACS", "WEB"]
"""
    )
    command = [sys.executable, "-m", "node", "--settings", str(node.settings), "up"]
    with (folder / "node.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            _wait_until_ready(node, process)
            yield node
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                assert process.wait(60) == 0, (folder / "node.log").read_text()[-3000:]
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)


def _wait_until_ready(node: Node, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, (node.folder / "node.log").read_text()[-3000:]
        try:
            if httpx.get(f"http://127.0.0.1:{node.web_port}/health", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise AssertionError((node.folder / "node.log").read_text()[-3000:])


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("node")
    with orthanc(folder / "pacs") as pacs, running(folder, pacs) as node:
        yield node


@pytest.fixture(scope="module")
def lesion(node: Node) -> Truth:
    truth = brain_mr(node.folder / "lesion", seed=11, lesion="random", slices=12, patient="SYN-0101")
    node.send(node.folder / "lesion")
    return truth


def by_class(items: list[dict[str, dict[str, list[str]]]], sop_class: str) -> dict[str, dict[str, list[str]]]:
    return next(item for item in items if item["00080016"]["Value"][0] == sop_class)


def test_the_pacs_gets_a_segmentation_where_the_lesion_is(node: Node, lesion: Truth) -> None:
    items = node.evidence(lesion.study_uid, count=2)
    seg = segread(node.fetch(by_class(items, SEG)))
    flair = sorted((dcmread(path) for path in lesion.files), key=lambda one: float(one.ImagePositionPatient[2]))
    sources = [one.SOPInstanceUID for one in flair if "FLAIR" in one.SeriesDescription]
    mask = seg.get_pixels_by_source_instance(sources, combine_segments=False, assert_missing_frames_are_empty=True)
    found = mask[..., 0].astype(bool)
    overlap = 2 * np.logical_and(found, lesion.mask).sum() / (found.sum() + lesion.mask.sum())
    assert overlap > 0.5


def test_the_pacs_gets_a_report_that_is_not_verified(node: Node, lesion: Truth) -> None:
    report = dcmread(node.fetch(by_class(node.evidence(lesion.study_uid, count=2), SR)))
    assert report.VerificationFlag == "UNVERIFIED"
    assert report.StudyInstanceUID == lesion.study_uid
    assert report.get("SyntheticData") == "YES"


def test_delivered_means_read_back_at_both_destinations(node: Node, lesion: Truth) -> None:
    node.evidence(lesion.study_uid, count=2)
    for _ in range(100):
        deliveries = node.ledger.study(lesion.study_uid).deliveries
        if len(deliveries) == 2 and all(one.verified for one in deliveries):
            break
        time.sleep(0.2)
    assert {(one.destination, one.state, one.verified) for one in deliveries} == {
        ("PACS", "DELIVERED", True),
        ("WEB", "DELIVERED", True),
    }


def test_a_study_without_flair_comes_back_as_a_report_that_says_so(node: Node) -> None:
    truth = brain_mr(node.folder / "t1", seed=5, lesion=None, sequences=("T1 PRE",), slices=12, patient="SYN-0102")
    node.send(node.folder / "t1")
    (item,) = node.evidence(truth.study_uid, count=1)
    assert "FLAIR" in str(dcmread(node.fetch(item)))


def test_a_late_image_makes_a_new_revision_that_names_the_old(node: Node) -> None:
    truth = brain_mr(node.folder / "late", seed=6, lesion=None, slices=12, patient="SYN-0103")
    late = truth.files[-1]
    late = late.rename(node.folder / late.name)
    node.send(node.folder / "late")
    (first,) = node.evidence(truth.study_uid, count=1)
    (node.folder / "after").mkdir()
    late.rename(node.folder / "after" / late.name)
    node.send(node.folder / "after")
    items = node.evidence(truth.study_uid, count=2)
    newer = next(item for item in items if item["00080018"] != first["00080018"])
    predecessor = dcmread(node.fetch(newer)).PredecessorDocumentsSequence[0]
    named = predecessor.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert named == first["00080018"]["Value"][0]


def test_status_tells_what_became_of_every_study(node: Node, lesion: Truth) -> None:
    node.evidence(lesion.study_uid, count=2)
    shown = json.loads(run(node.settings, "status", "--json").stdout)
    (job,) = next(study for study in shown["studies"] if study["uid"] == lesion.study_uid)["jobs"]
    assert job["state"] == "DONE"
    assert "mr_brain" in run(node.settings, "status").stdout


def test_a_stranger_is_not_let_in(node: Node, lesion: Truth) -> None:
    command = [where("echoscu") or "", "-aec", "WETREAD", "-aet", "STRANGER", "127.0.0.1", str(node.dicom_port)]
    assert subprocess.run(command, capture_output=True).returncode != 0
