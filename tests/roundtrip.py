"""Segmentations of ours as others read them: highdicom by its source images, dcmqi as a volume in space."""

from __future__ import annotations

import gzip
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray

from pipelines.base import Finding, Findings, Segment
from pipelines.evidence import codes
from pipelines.evidence.encode import part10
from pipelines.evidence.seg import draw
from pipelines.evidence.source import take_over
from pipelines.evidence.stamp import Stamp
from pipelines.evidence.tracking import tracks
from pipelines.probability import Probability
from pipelines.series import Series
from tests.findings import ALGORITHM, STARTED

DCMQI = Path(sys.executable).with_name("segimage2itkimage")
_NAMES = ("a", "b")
_TYPES = {"unsigned char": "u1", "uint8": "u1", "short": "i2", "unsigned short": "u2", "int16": "i2", "uint16": "u2"}


def written(
    series: Series, masks: tuple[NDArray[np.bool_], ...], path: Path, likely: tuple[Probability, ...] = ()
) -> Path:
    """The masks as segments 1, 2 … of one object: BINARY, or with their probabilities FRACTIONAL."""
    each = zip(_NAMES, masks, likely or (None, None), strict=True)
    segments = [Segment(name, mask, codes.TISSUE, codes.TISSUE, probability) for name, mask, probability in each]
    findings = Findings(series, tuple(Finding(codes.LESION, True, segment=each) for each in segments))
    stamp = Stamp(take_over(series.header), ALGORITHM, "job", STARTED)
    drawn = draw(findings, tracks(findings.findings, "job"), stamp, "FRACTIONAL" if likely else "BINARY")
    (object_,) = drawn.objects
    path.write_bytes(b"".join(part10(object_)))
    return path


def by_highdicom(path: Path, series: Series) -> NDArray[np.bool_]:
    """(segments, frames, rows, columns), frames as the series has them."""
    return fractions_by_highdicom(path, series).astype(bool)


def fractions_by_highdicom(path: Path, series: Series) -> NDArray[Any]:
    """The same with fractions, of 0 to 1."""
    read = hd.seg.segread(path)
    how: dict[str, Any] = {"ignore_spatial_locations": True, "assert_missing_frames_are_empty": True}
    if len(series.instances) == 1 and len(series.frames) > 1:
        numbers = [frame.number for frame in series.frames]
        found = read.get_pixels_by_source_frame(series.header.SOPInstanceUID, numbers, **how)
    else:
        found = read.get_pixels_by_source_instance([frame.instance.SOPInstanceUID for frame in series.frames], **how)
    return np.moveaxis(found, -1, 0)


@dataclass(frozen=True, eq=False)
class Lying:
    """A volume (slices, rows, columns), masks or fractions, and, in mm (LPS), where each slice's first pixel lies."""

    voxels: NDArray[Any]
    positions: NDArray[np.float64]


def by_dcmqi(path: Path, folder: Path) -> list[Lying]:
    """A mask per segment, of the slices from the first to the last that has any."""
    return [Lying(each.voxels > 0, each.positions) for each in fractions_by_dcmqi(path, folder)]


def fractions_by_dcmqi(path: Path, folder: Path) -> list[Lying]:
    """The same with the values that are stored."""
    folder.mkdir()
    command = [str(DCMQI), "--inputDICOM", str(path), "--outputDirectory", str(folder), "--outputType", "nrrd"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    if told.returncode or "ERROR" in told.stdout + told.stderr:
        raise RuntimeError(f"dcmqi: {told.stdout[-400:]} {told.stderr[-400:]}")
    return [_nrrd(each) for each in sorted(folder.glob("*.nrrd"))]


def _nrrd(path: Path) -> Lying:
    head, _, raw = path.read_bytes().partition(b"\n\n")
    said = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
    raw = gzip.decompress(raw) if said["encoding"] == "gzip" else raw
    size = [int(each) for each in said["sizes"].split()][::-1]
    voxels = np.frombuffer(raw, _TYPES[said["type"]]).reshape(size)
    axes, origin = (
        np.array([_vector(each) for each in said[key].split()]) for key in ("space directions", "space origin")
    )
    if said["space"] != "left-posterior-superior":
        raise RuntimeError(f"the space is {said['space']}")
    return Lying(voxels, origin[0] + np.arange(size[0])[:, None] * axes[2])


def _vector(text: str) -> list[float]:
    return [float(each) for each in text.strip("()").split(",")]


def on_frames(lying: Lying, series: Series) -> NDArray[Any]:
    """The voxels on the frames of the series, each slice where it lies along the normal.

    Raises:
        ValueError: If a slice that has any voxel lies on no frame.
    """
    shape = (len(series.frames), *lying.voxels.shape[1:])
    found = np.zeros(shape, lying.voxels.dtype)
    planes = series.planes
    assert planes is not None
    normal = np.cross(*np.array(planes[0].orientation).reshape(2, 3))
    heights = np.array([plane.position for plane in planes]) @ normal
    for voxels, height in zip(lying.voxels, lying.positions @ normal, strict=True):
        if voxels.any():
            place = int(np.abs(heights - height).argmin())
            if abs(heights[place] - height) > 0.01:
                raise ValueError(f"a slice lies {abs(heights[place] - height):.3f} mm off the nearest frame")
            found[place] |= voxels
    return found
