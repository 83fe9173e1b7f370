"""The example of a pipeline of another package: it is installed as any package is, and reads a study by its name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from pipelines.evidence import codes
from tests.peers import ROOT
from tests.slices import saved, slice_of

EXAMPLE = ROOT / "docs" / "example_pipeline"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package and its metadata, as pip leaves them."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    source.mkdir()
    for each in EXAMPLE.iterdir():
        if each.is_file():
            (source / each.name).write_bytes(each.read_bytes())  # building leaves files beside the source
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(folder / "site"), str(source)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert answer.returncode == 0, answer.stderr
    return folder / "site"


def test_an_installed_pipeline_reads_a_study_by_the_name_of_its_entry_point(installed: Path, tmp_path: Path) -> None:
    for number in range(1, 6):
        pixels = np.full((32, 32), 40, np.int16)
        pixels[8:12, 8:18] = 3000 if number in (2, 3) else 1200
        saved(slice_of(number, pixels), tmp_path / "in" / f"{number}.dcm")
    (tmp_path / "settings.toml").write_text('[pipelines.metal]\nuse = "ct_metal"\nwhen = { Modality = "CT" }\n')
    command = [sys.executable, "-m", "node", "read", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--json"]
    environment = {"PYTHONPATH": f"{ROOT}:{installed}", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    answer = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=tmp_path, env=environment)
    assert answer.returncode == 0, answer.stderr
    (run,) = json.loads(answer.stdout)["studies"][0]["runs"]
    assert (run["pipeline"], run["version"], run["status"], run["reason"]) == ("metal", "0.1.0", "read", None)
    (finding,) = run["findings"]
    assert finding["code"] == ["40388003", "SCT", "Implant"]
    assert finding["measurements"][0]["value"] == pytest.approx(2 * 4 * 10 / 1000)
    segmentation = next(ds for ds in map(dcmread, run["objects"]) if ds.Modality == "SEG")
    assert segmentation.SegmentSequence[0].SegmentLabel == "metal"


def test_the_example_is_short() -> None:
    lines = [line for file in EXAMPLE.glob("*.*") for line in file.read_text().splitlines()]
    assert len(lines) < 60


def test_a_code_that_is_declared_may_leave_and_never_changes_its_meaning() -> None:
    assert codes.declared("52988006", "SCT", "Lesion", "CID 7151") is codes.LESION
    with pytest.raises(ValueError, match="means 'Lesion', not 'Cyst'"):
        codes.declared("52988006", "SCT", "Cyst", "CID 7151")
