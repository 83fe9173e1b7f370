"""Findings on the right and on the left of patients who lie in any way, and what the report says of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.base import Finding, Findings, Segment
from pipelines.evidence import codes
from pipelines.evidence.groups import Writing, groups
from pipelines.evidence.seg import Drawn
from pipelines.evidence.tracking import tracks
from pipelines.series import Series
from pipelines.sides import side_of
from tests.findings import ALGORITHM, slices

RIGHT_OR_LEFT = {"R": "Right", "L": "Left"}
_SHAPE = (3, 12, 14)


def case(number: int) -> tuple[str, Finding, Series]:
    """The truth, and a finding whose side was computed from the images.

    The truth is made first: a point on the one side of the middle, in the patient. The images are then put so that
    one voxel lies there, by inverting nothing of ours: position = point - direction * distance from the first voxel.
    """
    random = np.random.default_rng(number)
    truth, middle = str(random.choice(["R", "L"])), random.uniform(-150, 150)
    row, column = np.linalg.qr(random.normal(size=(3, 3)))[0][:2]
    normal = np.cross(row, column) * random.choice([-1, 1])
    spacing, distance = random.uniform(0.3, 4, 2), random.uniform(0.5, 8)
    voxel = [int(random.integers(1, size - 1)) for size in _SHAPE]
    away = random.uniform(4, 80) * (1 if truth == "L" else -1)  # x grows to the left
    point = np.array([middle + away, *random.uniform(-200, 200, 2)])
    first = point - normal * distance * voxel[0] - column * spacing[0] * voxel[1] - row * spacing[1] * voxel[2]
    size: dict[str, Any] = {
        "Rows": _SHAPE[1],
        "Columns": _SHAPE[2],
        "PixelSpacing": [f"{each:.6f}" for each in spacing],
    }
    images = slices(_SHAPE[0], PixelData=b"", **size)
    for place, image in enumerate(images):
        image.ImagePositionPatient = [f"{each:.8g}" for each in first + place * distance * normal]
        image.ImageOrientationPatient = [f"{each:.9f}" for each in (*row, *column)]
    series = Series("1.2.3.4", "MR", tuple(images))
    mask = np.zeros(_SHAPE, np.bool_)
    mask[tuple(voxel)] = True
    segment = Segment("lesion", mask, codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE, codes.LESION)
    side = side_of(mask, series, middle)
    return truth, Finding(codes.LESION, True, 0.9, segment=segment, site=codes.BRAIN, side=side), series


def said_of(finding: Finding, series: Series) -> str | None:
    """The side that the measurement group of the report says, if any."""
    findings = Findings(series, (finding,))
    writing = Writing(series, ALGORITHM, Drawn(), "regions")
    (group,), _ = groups(findings, tracks(findings.findings, "job"), writing)
    (site,) = [item for item in group.ContentSequence if item.ConceptNameCodeSequence[0].CodeMeaning == "Finding Site"]
    sides = [item.ConceptCodeSequence[0].CodeMeaning for item in site.get("ContentSequence", [])]
    return sides[0] if sides else None
