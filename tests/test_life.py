"""``wetread train`` and ``evaluate`` on a few synthetic studies: they run, they resume, they report."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from pipelines.synthetic import LARGE, brain_mr
from tests.test_cli import run

pytestmark = pytest.mark.timeout(900)
COLUMNS = ("study_uid", "sop_uid", "file", "mask", "patient_id", "institution", "split")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven synthetic patients as ``index.csv`` names them: six to train on, one to judge by."""
    folder = tmp_path_factory.mktemp("labelled")
    rows = []
    for number in range(7):
        patient = f"SYN-{number:04d}"
        truth = brain_mr(folder / patient, seed=number, lesion=LARGE, slices=12, patient=patient)
        split = "dev" if number == 6 else "train"
        for file in truth.files:
            header = dcmread(file, stop_before_pixels=True)
            place = truth.mask[header.InstanceNumber - 1]
            mask = f"masks/{patient}-{header.InstanceNumber}.png" if place.any() else ""
            if mask:
                (folder / "masks").mkdir(exist_ok=True)
                Image.fromarray(place.astype(np.uint8)).save(folder / mask)
            uids = (truth.study_uid, header.SOPInstanceUID, file.relative_to(folder))
            rows.append((*uids, mask, f"CASE-{number}", "here", split))  # SYN- would be phantoms
    with (folder / "index.csv").open("w", newline="") as index:
        csv.writer(index).writerows([COLUMNS, *rows])
    return folder


def test_a_network_is_trained_resumed_and_drawn(labelled: Path, tmp_path: Path) -> None:
    first = run("train", "mr_brain", "--data", labelled, "--out", tmp_path / "run", "--budget", "15s", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert (tmp_path / "run" / "weights.safetensors").stat().st_size > 1e6
    assert (tmp_path / "run" / "curve.png").stat().st_size > 1e3
    steps = int(first.stdout.split(" steps")[0])
    spent = 60 * float(first.stdout.split(" min")[0].split()[-1])  # its last step may have taken long
    again = ("--budget", f"{spent + 20:.0f}s", "--resume")
    second = run("train", "mr_brain", "--data", labelled, "--out", tmp_path / "run", *again, cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert int(second.stdout.split(" steps")[0]) > steps


def test_a_pipeline_is_judged_with_intervals_and_pictures(labelled: Path, tmp_path: Path) -> None:
    answer = run("evaluate", "mr_brain", "--data", labelled, "--out", tmp_path / "report", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert json.loads((tmp_path / "report" / "report.json").read_text())
    assert "Dice" in answer.stdout
    assert (tmp_path / "report" / "gallery.png").exists()
    assert "FLAIR abnormality: outline" in (tmp_path / "report" / "report.html").read_text()


def test_a_pipeline_without_a_recipe_and_a_folder_without_labels_are_named(labelled: Path, tmp_path: Path) -> None:
    answer = run("train", "mr_spine", "--data", labelled, "--out", tmp_path / "run", cwd=tmp_path)
    assert answer.returncode == 1
    assert "mr_spine" in answer.stderr
    answer = run(
        "train",
        "mr_brain",
        "--data",
        labelled,
        "--out",
        tmp_path / "run",
        "--budget",
        "9s",
        "--epochs",
        "1",
        cwd=tmp_path,
    )
    assert answer.returncode == 2
    assert "one of them" in answer.stderr
    (tmp_path / "bare").mkdir()
    answer = run("train", "mr_brain", "--data", tmp_path / "bare", "--out", tmp_path / "run", cwd=tmp_path)
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    assert "index.csv" in answer.stderr
