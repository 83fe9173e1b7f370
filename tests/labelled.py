"""Pictures of the project's data folder as DICOM studies, as its own tool wraps them: real pictures for the tests."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest

from tests.peers import SHARED, needs_shared


def needs_set(name: str) -> pytest.MarkDecorator:
    return needs_shared("data", name)


def wrapped(name: str, folder: Path, counts: dict[str, int], *, one_study: bool = False) -> dict[str, str]:
    """Put so many training pictures of each label into ``folder``; SOP Instance UID → label.

    Args:
        one_study: All are slices of one series, 5 mm apart.
    """
    tool, made = SHARED / "tools" / "to_dicom.py", folder.parent / f"{folder.name} wrapped"
    command = [sys.executable, str(tool), str(SHARED / "data" / name), str(made), "--split", "train"]
    subprocess.run(command, check=True, capture_output=True)
    with (made / "index.csv").open() as file:
        rows = list(csv.DictReader(file))
    chosen = [row for label, count in counts.items() for row in [r for r in rows if r["label"] == label][:count]]
    first = pydicom.dcmread(made / chosen[0]["file"])
    for place, row in enumerate(chosen):
        ds = pydicom.dcmread(made / row["file"])
        if one_study:
            for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName"):
                setattr(ds, keyword, first[keyword].value)
            ds.InstanceNumber, ds.ImagePositionPatient = place + 1, [0, 0, 5.0 * place]
        ds.save_as(folder / f"{place}.dcm")
    return {row["sop_uid"]: row["label"] for row in chosen}
