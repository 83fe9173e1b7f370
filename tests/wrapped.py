"""Real pictures of the project's data folder, wrapped as DICOM by its own tool, and the masks drawn on them."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

from pipelines.base import Pipeline
from pipelines.reading import read
from pipelines.run import Run
from pipelines.study import Study, read_folder
from tests.peers import SHARED


@dataclass(frozen=True)
class Wrapped:
    """Some studies of the split ``dev`` of one set, and its index by SOP Instance UID."""

    name: str
    studies: tuple[Study, ...]
    rows: dict[str, dict[str, str]]

    def drawn(self, sop_uid: str) -> NDArray[np.bool_]:
        return np.asarray(Image.open(SHARED / "data" / self.name / self.rows[sop_uid]["mask"])) > 0


def needs_weights(card: Path) -> pytest.MarkDecorator:
    """A mark: the test is skipped where the weights of a pipeline were not trained yet."""
    return pytest.mark.skipif(not card.exists(), reason=f"not trained yet: {card.name}")


def wrapped(name: str, folder: Path, *, limit: int) -> Wrapped:
    tool = SHARED / "tools" / "to_dicom.py"
    command = [sys.executable, tool, SHARED / "data" / name, folder, "--split", "dev", "--limit", limit]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    studies, _ = read_folder(folder)
    with (folder / "index.csv").open(newline="") as file:
        return Wrapped(name, tuple(studies), {row["sop_uid"]: row for row in csv.DictReader(file)})


def runs_of(pipeline: Pipeline, study: Study, out: Path) -> tuple[Run, ...]:
    made = read(study, pipeline, name="test", out=out, job=study.uid)
    assert all(run.status == "read" for run in made), [run.reason for run in made]
    return made


def outlines(objects: Sequence[Path], label: str) -> dict[str, NDArray[np.bool_]]:
    """SOP Instance UID of a source image → mask (rows, columns), as the Segmentations among the files hold it."""
    found: dict[str, NDArray[np.bool_]] = {}
    for file in objects:
        ds = dcmread(file)
        if ds.Modality != "SEG":
            continue
        numbers = {int(each.SegmentNumber) for each in ds.SegmentSequence if each.SegmentLabel == label}
        pixels = ds.pixel_array.reshape(-1, ds.Rows, ds.Columns).astype(bool)
        for mask, groups in zip(pixels, ds.PerFrameFunctionalGroupsSequence, strict=True):
            if _segment_number(groups, ds) in numbers:
                source = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
                found[str(source)] = mask
    return found


def _segment_number(groups: Dataset, ds: Dataset) -> int:
    """Of a frame; where all frames are of one segment it is said once for all."""
    held = groups if "SegmentIdentificationSequence" in groups else ds.SharedFunctionalGroupsSequence[0]
    return int(held.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
