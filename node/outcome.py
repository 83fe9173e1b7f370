"""What the child's answer amounts to: the outcome of a job, and its files as evidence that is on disk to stay.

Knows neither the ledger's tables nor the child, and decides nothing about trying again.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydicom import dcmread

from node.ledger import Evidence

# How numpy, torch, CUDA, Python and the system say it; the pipeline's error reaches us as a sentence only.
is_out_of_memory = re.compile(
    r"out of memory|(unable|can't|cannot|could not|not enough memory).*allocate|MemoryError", re.I
).search
is_no_room = re.compile(r"no space left|quota exceeded|read-only file system", re.I).search
_IDENTITY = ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"]


def complaint(reply: Mapping[str, Any], is_such: Callable[[str], object]) -> str | None:
    """Why a run failed, if it was for such a reason."""
    for run in reply["runs"]:
        if run["status"] == "failed" and is_such(run["reason"] or ""):
            return str(run["reason"])
    return None


def outcome_of(runs: Sequence[Mapping[str, Any]]) -> tuple[str, str | None]:
    """Of several runs the worst; with the reasons of all that are not read."""
    worst = max((run["status"] for run in runs), key=("read", "unsuitable", "withheld", "failed").index)
    reasons = [run["reason"] for run in runs if run["status"] != "read" and run["reason"]]
    return worst, "; ".join(dict.fromkeys(reasons)) or None


def stages_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds per stage, of all runs together."""
    stages: dict[str, float] = {}
    for run in runs:
        for stage, seconds in run["stages"].items():
            stages[stage] = stages.get(stage, 0.0) + seconds
    return stages


def evidence_of(path: Path, form: str, root: Path) -> Evidence:
    """The object in the file ``path`` below ``root``, as the ledger writes it down."""
    header = dcmread(path, specific_tags=_IDENTITY, stop_before_pixels=True)
    sop_class, sop_uid, series_uid = (str(header[keyword].value) for keyword in _IDENTITY)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Evidence(str(path.relative_to(root)), digest, sop_uid, sop_class, series_uid, form)


def device_of(path: Path) -> str:
    """The Device UID of the algorithm that made the object: it is of the weights (PS3.3 C.7.5.1, AIR)."""
    header = dcmread(path, specific_tags=["ContributingEquipmentSequence"], stop_before_pixels=True)
    return str(header.ContributingEquipmentSequence[-1].DeviceUID)


def make_names_durable(folder: Path, root: Path) -> None:
    """The files are on disk already (pipelines.filing); so are the folders above them after this."""
    below = [path for path in folder.rglob("*") if path.is_dir()] if folder.is_dir() else []
    above = [folder, *folder.parents[: folder.parents.index(root) + 1]]
    for directory in (*below, *above):
        if directory.is_dir():
            descriptor = os.open(directory, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def remove_older(folder: Path, root: Path, evidence: Sequence[Evidence]) -> None:
    """What attempts that came to nothing left beside this one; what the job's ``evidence`` names stays."""
    named = {(root / one.path).relative_to(folder.parent).parts[0] for one in evidence}
    for other in folder.parent.iterdir() if folder.parent.is_dir() else ():
        if other.name.isdigit() and int(other.name) < int(folder.name) and other.name not in named:
            shutil.rmtree(other, ignore_errors=True)
