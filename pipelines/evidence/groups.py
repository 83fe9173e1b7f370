"""Findings to measurement groups of a TID 1500 report, in the way that a destination's preset asks for.

``air`` is what IHE AI Results describes: a volumetric group (TID 1411) that refers to the segment and its series.
``ohif`` is what OHIF 3.13.2 survives. It takes the groups of one Tracking Unique Identifier together, and if one such
set has no SCOORD the whole report fails to load. So a volumetric group has the outlines themselves, as regions on the
source images, beside its numbers; the largest comes first, for OHIF shows the first. A number that has no outline is
inferred from the whole of an image (TID 320), and what has neither goes into no group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import highdicom as hd
from pydicom.dataset import Dataset

from pipelines.base import Algorithm, Finding, Findings, Segment
from pipelines.evidence import codes, equipment, regions
from pipelines.evidence.seg import Drawn, Placed
from pipelines.evidence.tracking import Track
from pipelines.series import Series

PRESETS = ("ohif", "air")


@dataclass(frozen=True, eq=False)
class Writing:
    """How the findings of one run are written.

    Attributes:
        drawn: Where the segments are.
        preset: One of ``PRESETS``.
    """

    series: Series
    algorithm: Algorithm
    drawn: Drawn
    preset: str


def groups(findings: Findings, tracks: Sequence[Track], writing: Writing) -> tuple[list[Dataset], list[Dataset]]:
    """The measurement groups, and the evaluations of what goes into no group."""
    written: list[Any] = []
    loose: list[Dataset] = []
    for finding, track in zip(findings.findings, tracks, strict=True):
        made = _groups_of(finding, track, writing)
        written += made
        if not made:
            loose += evaluation(finding)
    return [item for group in written for item in group], loose


def evaluation(finding: Finding) -> Any:
    """Is it there? The finding is the question, so that nobody takes one that is absent for one that is there."""
    return hd.sr.QualitativeEvaluation(finding.code, codes.PRESENT if finding.present else codes.ABSENT)


def _groups_of(finding: Finding, track: Track, writing: Writing) -> list[Any]:
    places = writing.drawn.places.get(finding.segment.label, ()) if finding.segment else ()
    if finding.segment and (writing.preset == "ohif" or not places):
        return _outlined(finding, finding.segment, track, writing)
    if places:
        return [_referring_group(finding, track, writing, place, place is places[0]) for place in places]
    if finding.box:
        region = regions.box(finding, writing.series).as_region()
        return [_planar(finding, track, writing, region=region, numbers=_numbers(finding))]
    return _group_without_region(finding, track, writing)


def _outlined(finding: Finding, segment: Segment, track: Track, writing: Writing) -> list[Any]:
    """TID 1411 with the numbers and all outlines; of pictures that lie nowhere, TID 1410 for each outline."""
    outlines = regions.outlines(segment.mask, writing.series)
    parts = [outline.as_region() for outline in outlines]
    if writing.series.planes:
        return [_volumetric(finding, track, writing, referenced_regions=parts, measurements=_numbers(finding))]
    return [
        _planar(finding, track, writing, region=part, numbers=_numbers(finding) if part is parts[0] else ())
        for part in parts
    ]


def _referring_group(finding: Finding, track: Track, writing: Writing, place: Placed, is_first: bool) -> Any:
    """TID 1411, or TID 1410 for a single picture; the numbers are of the whole, and are said once."""
    segmentation = place.segmentation
    uids = segmentation.SOPClassUID, segmentation.SOPInstanceUID
    numbers = _numbers(finding) if is_first else []
    if place.stack.is_flat:
        source = regions.source_of_segmentation(writing.series.frames[place.stack.frames[0]])
        segment = hd.sr.ReferencedSegmentationFrame(*uids, list(place.frames), place.number, source)
        return _planar(finding, track, writing, segment=segment, numbers=numbers)
    series = hd.sr.SourceSeriesForSegmentation(writing.series.uid)
    reference = hd.sr.ReferencedSegment(*uids, place.number, source_series=series)
    return _volumetric(finding, track, writing, referenced_segment=reference, measurements=numbers)


def _group_without_region(finding: Finding, track: Track, writing: Writing) -> list[Any]:
    """TID 1501 for what has no outline, as a class or something that is absent."""
    if writing.preset != "ohif":
        return [_group(finding, track, writing, numbers=_numbers(finding))]
    numbers = _numbers(finding, inferred_from=regions.whole_image(finding, writing.series))
    return [_group(finding, track, writing, numbers=numbers)] if numbers else []


def _group(finding: Finding, track: Track, writing: Writing, *, numbers: list[Any]) -> Any:
    frames = regions.judged_on(finding, writing.series) if finding.sop_uids else ()
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        measurements=numbers,
        source_images=[regions.source_of_group(frame) for frame in frames] or None,
        **_said_of(finding, track, writing),
    )


def _volumetric(finding: Finding, track: Track, writing: Writing, **region_and_numbers: Any) -> Any:
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        **region_and_numbers, **_said_of(finding, track, writing)
    )


def _planar(
    finding: Finding, track: Track, writing: Writing, *, region: Any = None, segment: Any = None, numbers: Any = ()
) -> Any:
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        referenced_region=region,
        referenced_segment=segment,
        measurements=list(numbers),
        **_said_of(finding, track, writing),
    )


def _said_of(finding: Finding, track: Track, writing: Writing) -> dict[str, Any]:
    """What every group of a finding says, whatever its template."""
    return {
        "tracking_identifier": hd.sr.TrackingIdentifier(uid=track.uid, identifier=track.identifier),
        "finding_type": finding.code if finding.present else None,
        "finding_sites": [hd.sr.FindingSite(finding.site)] if finding.site else None,
        "algorithm_id": equipment.in_group(writing.algorithm),
        "qualitative_evaluations": [evaluation(finding)],
    }


def _numbers(finding: Finding, inferred_from: regions.Outline | None = None) -> list[Any]:
    """Its certainty in percent, and its measurements (TID 300)."""
    numbers = (
        [] if finding.certainty is None else [(codes.CERTAINTY_OF_FINDING, finding.certainty * 100, codes.PERCENT)]
    )
    numbers += [(each.name, float(each.value), each.unit) for each in finding.measurements]
    return [
        hd.sr.Measurement(
            name, value, unit, referenced_coordinates=[inferred_from.as_source()] if inferred_from else None
        )
        for name, value, unit in numbers
    ]
