"""What was found, as it is marked on images: the outlines and boxes of what is present, each with its name and colour.

Looks at masks; knows neither objects nor pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.base import Finding, Findings
from pipelines.evidence import regions
from pipelines.evidence.outlines import area, outer_outlines
from pipelines.evidence.seg import COLOURS
from pipelines.evidence.segments import merged
from pipelines.evidence.tracking import named
from pipelines.series import Series


@dataclass(frozen=True, eq=False)
class Mark:
    """A closed polygon on one image.

    Attributes:
        place: Of the image in ``series.frames``.
        polygon: (column, row), shape (points, 2), first point = last; (0, 0) is the top left corner of the top left
            pixel, as in SCOORD and in graphic annotations (PS3.3 C.10.5.1.2).
        name: What a reader calls it.
        colour: CSS.
    """

    place: int
    polygon: NDArray[np.float64]
    name: str
    colour: str


def colours(findings: Findings) -> dict[str, str]:
    """Of what is marked, by name: segments first, in the order in which the Segmentation has them."""
    names = [segment.label for segment in merged(findings)]
    names += [named(finding) for finding in findings.findings if finding.present and finding.box]
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(dict.fromkeys(names))}


def marks(findings: Findings) -> tuple[Mark, ...]:
    """Every outline of every segment, without its holes, and every box; image by image."""
    looks = colours(findings)
    found = [*_outlined(findings, looks), *_boxed(findings, looks)]
    return tuple(sorted(found, key=lambda mark: mark.place))


def _outlined(findings: Findings, looks: dict[str, str]) -> Iterator[Mark]:
    for segment in merged(findings):
        for place in np.flatnonzero(segment.mask.any(axis=(1, 2))).tolist():
            for polygon in outer_outlines(segment.mask[place]):
                yield Mark(place, polygon, segment.label, looks[segment.label])


def _boxed(findings: Findings, looks: dict[str, str]) -> Iterator[Mark]:
    places = {id(frame): place for place, frame in enumerate(findings.series.frames)}
    for finding in findings.findings:
        if finding.present and finding.box:
            outline = regions.box(finding, findings.series)
            yield Mark(places[id(outline.frame)], outline.polygon, named(finding), looks[named(finding)])


def telling(findings: Findings, found: tuple[Mark, ...], *, most: int) -> tuple[int, ...]:
    """The images that tell most of what was found, as places in ``series.frames``, in the order of the series.

    Each finding in turn gives its best image that is not there yet: where most of it is marked, or those that it was
    judged on; what is judged on the whole alone gives none. Where nothing was found it is the middle of the series.
    """
    series = findings.series
    queues = [_best(finding, found, series) for finding in _surest_first(findings)]
    chosen: dict[int, None] = {}
    while any(queues) and len(chosen) < most:
        for queue in queues:
            while queue and queue[0] in chosen:
                queue.pop(0)
            if queue and len(chosen) < most:
                chosen[queue.pop(0)] = None
    return tuple(sorted(chosen)) or (len(series.frames) // 2,)


def _surest_first(findings: Findings) -> list[Finding]:
    present = [finding for finding in findings.findings if finding.present]
    return sorted(present, key=lambda finding: -(finding.certainty or 0.0))


def _best(finding: Finding, found: tuple[Mark, ...], series: Series) -> list[int]:
    """Places, the best first."""
    if finding.segment:
        sizes: dict[int, float] = {}
        for mark in found:
            if mark.name == finding.segment.label:
                sizes[mark.place] = sizes.get(mark.place, 0.0) + area(mark.polygon)
        return sorted(sizes, key=lambda place: -sizes[place])
    if not finding.sop_uids:
        return []
    judged = {id(frame) for frame in regions.judged_on(finding, series)}
    return [place for place, frame in enumerate(series.frames) if id(frame) in judged]
