"""The dev part of a set of DICOM studies through ``wetread read``: what the benchmarks of pictures measure."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

RESAMPLES = 2000


def rows_of(data: Path, split: str = "dev") -> list[dict[str, str]]:
    """Of ``index.csv``, of one split."""
    with (data / "index.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["split"] == split]


def read(data: Path, rows: Sequence[dict[str, str]], pipeline: str, out: Path) -> dict[str, Any]:
    """The JSON of ``wetread read`` on the studies of these rows; evidence in ``out``."""
    with tempfile.TemporaryDirectory() as folder:
        for name in {Path(row["file"]).parts[0] for row in rows}:
            shutil.copytree(data / name, Path(folder) / name)
        command = [sys.executable, "-m", "node", "read", folder, "--out", str(out), "--pipeline", pipeline, "--json"]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr[-2000:]}")
    held: dict[str, Any] = json.loads(done.stdout)
    return held


def interval(groups: Sequence[str], measure: Callable[[Sequence[int]], float]) -> tuple[float, float]:
    """95 %, by resampling of whole groups (patients, or pictures where no patient is known)."""
    rng, names = np.random.default_rng(0), sorted(set(groups))
    places = {name: [i for i, each in enumerate(groups) if each == name] for name in names}
    drawn = [
        measure([place for name in rng.choice(names, len(names)) for place in places[name]]) for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(drawn, (2.5, 97.5))
    return float(low), float(high)


def said(value: float, groups: Sequence[str], measure: Callable[[Sequence[int]], float]) -> str:
    low, high = interval(groups, measure)
    return f"{value:.3f} ({low:.3f} to {high:.3f})"
