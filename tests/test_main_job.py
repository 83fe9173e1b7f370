"""The main job, whole: dcmtk's storescu sends a study, the node reads it, SEG and SR are found in Orthanc.

The node runs as `wetread up` does, every part in its own process; the peers are separate programs.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from highdicom.seg import segread
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread

from node.ledger import Delivery
from pipelines.synthetic import Truth, brain_mr
from tests.peers import ROOT, needs, needs_shared, orthanc, where
from tests.running_node import Item, Node, run, running
from tests.waiting import until

pytestmark = [needs("Orthanc", "storescu", "redis-server"), pytest.mark.timeout(900)]
SEG, SR = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.34"


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


def by_class(items: list[Item], sop_class: str) -> Item:
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
    ledger = node.ledger

    def verified() -> tuple[Delivery, ...]:
        found = ledger.study(lesion.study_uid).deliveries
        return found if len(found) == 2 and all(one.verified for one in found) else ()

    deliveries: tuple[Delivery, ...] = until(verified, what="both destinations were asked back")
    ledger.close()
    assert {(one.destination, one.state, one.verified) for one in deliveries} == {
        ("PACS", "DELIVERED", True),
        ("WEB", "DELIVERED", True),
    }


def test_a_study_without_flair_comes_back_as_a_report_that_says_so(node: Node) -> None:
    truth = brain_mr(node.folder / "t1", seed=5, lesion=None, sequences=("T1 PRE",), slices=12, patient="SYN-0102")
    node.send(node.folder / "t1")
    (item,) = node.evidence(truth.study_uid, count=1)
    assert "no FLAIR series" in dcmread(node.fetch(item)).to_json()


def test_a_late_image_makes_a_new_revision_that_names_the_old(node: Node) -> None:
    truth = brain_mr(node.folder / "late", seed=6, lesion=None, slices=12, patient="SYN-0103")
    late = truth.files[-1]
    late = late.rename(node.folder / late.name)
    node.send(node.folder / "late")
    (first,) = node.evidence(truth.study_uid, count=1, sop_class=SR)
    (node.folder / "after").mkdir()
    late.rename(node.folder / "after" / late.name)
    node.send(node.folder / "after")
    items = node.evidence(truth.study_uid, count=2, sop_class=SR)
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


@needs_shared("data", "brain_mri_lgg")
def test_the_outline_of_a_real_patient_lies_where_the_radiologist_drew_it(node: Node) -> None:
    """One patient of the dev part, wrapped as DICOM; a check of orientation and scale, no measure of accuracy."""
    shared, out = ROOT.parent / "shared", node.folder / "real"
    wrap = [sys.executable, shared / "tools/to_dicom.py", shared / "data/brain_mri_lgg", out]
    subprocess.run([*map(str, wrap), "--split", "dev", "--limit", "20"], check=True, capture_output=True)
    with (out / "index.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["sequence"] == "FLAIR"]
    node.send(out)
    items = node.evidence(rows[0]["study_uid"], count=2)
    seg = segread(node.fetch(by_class(items, SEG)))
    uids = [row["sop_uid"] for row in rows]
    found = seg.get_pixels_by_source_instance(uids, combine_segments=False, assert_missing_frames_are_empty=True)
    truth = np.stack([drawn(shared / "data/brain_mri_lgg", row["mask"], found.shape[1:3]) for row in rows])
    overlap = 2 * np.logical_and(found[..., 0], truth).sum() / (found[..., 0].astype(bool).sum() + truth.sum())
    assert overlap > 0.6


def drawn(folder: Path, mask: str, shape: tuple[int, int]) -> NDArray[np.bool_]:
    return np.asarray(Image.open(folder / mask)) > 0 if mask else np.zeros(shape, np.bool_)
