"""Findings to measurement groups of a TID 1500 report, in the way that a destination asks for.

``references`` is what IHE AI Results describes: a volumetric group (TID 1411) that refers to the segment and its
series. ``regions`` is what OHIF 3.13.2 survives. It takes the groups of one Tracking Unique Identifier together, and if
one such set has no SCOORD the whole report fails to load. So a volumetric group has the outlines themselves, as regions
on the source images, beside its numbers; the largest comes first, for OHIF shows the first. A number that has no
outline is inferred from an image (TID 320), by the place on it where OHIF is to write it, and a comment says what was
found, for OHIF writes numbers and comments. What has no number either, and a run that found or read nothing, has the
number of frames that it looked at: a report without any number is an empty viewport.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import Comprehensive3DSRStorage

from pipelines.base import Algorithm, Finding, Findings, Measurement, Segment
from pipelines.evidence import codes, content, equipment, regions
from pipelines.evidence.seg import Drawn, Placed
from pipelines.evidence.stamp import Stamp
from pipelines.evidence.tracking import Track
from pipelines.frames import Frame
from pipelines.instance import text
from pipelines.series import Series

MOST_APART = 20  # outlines that need a group each: of a hundred nuclei or twigs of vessels the largest will do
LONGEST_LINE = 100  # characters that OHIF has room for; the evaluations of the report have all of them
PAIRED = (codes.BREAST, codes.RETINA)  # organs that are imaged one at a time
_Body = tuple[str, list[Dataset]]  # the template, and what a group has beyond what all groups say


@dataclass(frozen=True, eq=False)
class Writing:
    """How the findings of one run are written.

    Attributes:
        drawn: Where the segments are.
        regions: ``regions`` or ``references`` (``pipelines.forms``).
        rank: How many findings without an outline came before.
    """

    series: Series
    algorithm: Algorithm
    drawn: Drawn
    regions: str
    rank: int = 0


def groups(findings: Findings, tracks: Sequence[Track], writing: Writing) -> tuple[list[Dataset], list[Dataset]]:
    """The measurement groups, and the evaluations of what goes into no group."""
    written: list[Dataset] = []
    loose: list[Dataset] = []
    rank = 0
    for finding, track in zip(findings.findings, tracks, strict=True):
        made = list(_groups_of(finding, track, replace(writing, rank=rank)))
        written += made
        rank += not (finding.segment or finding.box)
        if not made:
            loose.append(evaluation(finding))
    return written, loose


def evaluation(finding: Finding) -> Dataset:
    """Is it there? The finding is the question, so that nobody takes one that is absent for one that is there."""
    return content.code(finding.code, codes.PRESENT if finding.present else codes.ABSENT)


def _groups_of(finding: Finding, track: Track, writing: Writing) -> Iterable[Dataset]:
    places = _places(finding.segment, writing) if finding.segment else ()
    if finding.segment and (writing.regions == "regions" or not places):
        bodies = _outlined(finding, finding.segment, writing)
    elif places:
        bodies = _referring(finding, places, writing)
    elif finding.box:
        bodies = [("1410", [*_numbers(finding), regions.box(finding, writing.series).as_region()])]
    else:
        bodies = _without_region(finding, track, writing)
    for template, body in bodies:
        yield content.container(codes.MEASUREMENT_GROUP, [*_said_of(finding, track, writing), *body], template=template)


def _places(segment: Segment, writing: Writing) -> tuple[Placed, ...]:
    """Where this very segment is: another finding may have one of the same label on another picture."""
    found = writing.drawn.places.get(segment.label, ())
    return tuple(place for place in found if segment.mask[list(place.stack.frames)].any())


def _said_of(finding: Finding, track: Track, writing: Writing) -> Iterable[Dataset]:
    """What every group of a finding says, whatever its template."""
    yield content.words(codes.TRACKING_IDENTIFIER, track.identifier, content.OBSERVATION)
    yield content.uid(codes.TRACKING_UNIQUE_IDENTIFIER, track.uid, content.OBSERVATION)
    if finding.present:
        yield content.code(codes.FINDING, finding.code)
    if finding.site:
        yield _site(finding, finding.site, writing.series)
    yield from equipment.in_group(writing.algorithm)
    yield evaluation(finding)


def _site(finding: Finding, site: Code, series: Series) -> Dataset:
    """The site and its side (TID 1419): what the pipeline says, else of a paired organ what the images say."""
    item = content.code(codes.FINDING_SITE, site, content.MODIFIES)
    said = finding.side or (_side_of_images(finding, series) if site in PAIRED else None)
    if said:
        item.ContentSequence = [content.code(codes.LATERALITY, said, content.MODIFIES)]
    return item


def _side_of_images(finding: Finding, series: Series) -> Code | None:
    """Image Laterality (0020,0062) or Laterality (0020,0060) of all that it was judged on."""
    found = {
        text(frame.instance, "ImageLaterality") or text(frame.instance, "Laterality")
        for frame in regions.judged_on(finding, series)
    }
    return {"R": codes.RIGHT, "L": codes.LEFT}.get(found.pop()) if len(found) == 1 else None


def _outlined(finding: Finding, segment: Segment, writing: Writing) -> list[_Body]:
    """TID 1411 with the numbers and all outlines; of pictures that lie nowhere, TID 1410 for each outline."""
    parts = [outline.as_region() for outline in regions.outlines(segment.mask, writing.series)]
    if writing.series.planes:
        return [("1411", [*_numbers(finding), *parts])]
    apart = parts[:MOST_APART]
    return [("1410", [*(_numbers(finding) if part is apart[0] else ()), part]) for part in apart]


def _referring(finding: Finding, places: Sequence[Placed], writing: Writing) -> list[_Body]:
    """TID 1411 with a segment, or TID 1410 for a single picture; the numbers are of the whole, and are said once."""
    return [
        ("1410" if place.is_plane else "1411", [*(() if before else _numbers(finding)), *_segment(place, writing)])
        for before, place in enumerate(places)
    ]


def _segment(place: Placed, writing: Writing) -> Iterable[Dataset]:
    """The reference to a segment and to what it was drawn on."""
    reference = content.instance(place.segmentation.SOPClassUID, place.segmentation.SOPInstanceUID)
    if place.is_plane:
        # the frame is of one segment; to name both is not allowed (PS3.3 Table 10-3)
        reference.ReferencedFrameNumber = list(place.frames)
        yield content.image(codes.REFERENCED_SEGMENTATION_FRAME, reference)
        source = regions.reference(writing.series.frames[place.stack.frames[0]])
        yield content.image(codes.SOURCE_IMAGE_FOR_SEGMENTATION, source)
    else:
        reference.ReferencedSegmentNumber = place.number
        yield content.image(codes.REFERENCED_SEGMENT, reference)
        yield content.uid(codes.SOURCE_SERIES_FOR_SEGMENTATION, writing.series.uid)


def _without_region(finding: Finding, track: Track, writing: Writing) -> list[_Body]:
    """TID 1501 for what has no outline, as a class or something that is absent."""
    numbers = list(_numbers(finding))
    if writing.regions == "regions":
        frames = regions.judged_on(finding, writing.series)
        numbers = numbers or [_count(frames)]
        for number in numbers:
            number.ContentSequence = [regions.title(frames, writing.rank), *number.get("ContentSequence", ())]
        numbers.append(content.words(codes.COMMENT, _in_words(finding, track, writing.algorithm)))
    frames = regions.judged_on(finding, writing.series) if finding.sop_uids else ()
    return [
        ("1501", [*numbers, *(content.image(codes.SOURCE_OF_MEASUREMENT, regions.reference(each)) for each in frames)])
    ]


def without_findings(words: str, why: str, series: Series, stamp: Stamp) -> list[Dataset]:
    """A group that says over an image why there are no findings; none where the study has no image.

    Args:
        words: What became of the run, in a few words.
        why: One sentence, or nothing.
    """
    if not series.is_image or not series.frames:
        return []
    algorithm = stamp.algorithm
    number = _count(series.frames)
    number.ContentSequence = [regions.title(series.frames)]
    said = f"{words} (AI, not verified: {algorithm.name} {algorithm.version})" + (f": {why}" if why else "")
    parts = [
        content.words(codes.TRACKING_IDENTIFIER, words, content.OBSERVATION),
        content.uid(codes.TRACKING_UNIQUE_IDENTIFIER, stamp.uid("tracking", "outcome"), content.OBSERVATION),
        *equipment.in_group(algorithm),
        number,
        content.words(codes.COMMENT, said if len(said) <= LONGEST_LINE else f"{said[: LONGEST_LINE - 3]}..."),
    ]
    return [content.container(codes.MEASUREMENT_GROUP, parts, template="1501")]


def _count(frames: Sequence[Frame]) -> Dataset:
    return content.quantity(codes.NUMBER_OF_FRAMES, len(frames), codes.NO_UNITS)


def _in_words(finding: Finding, track: Track, algorithm: Algorithm) -> str:
    """What a reader has to see beside a number."""
    answer = "present" if finding.present else "absent"
    return f"{track.identifier}: {answer} (AI, not verified: {algorithm.name} {algorithm.version})"


def _numbers(finding: Finding) -> Iterable[Dataset]:
    """Its certainty in percent, and its measurements (TID 300)."""
    if finding.certainty is not None:
        yield content.quantity(codes.CERTAINTY_OF_FINDING, round(finding.certainty * 100, 4), codes.PERCENT)
    for each in finding.measurements:
        number = content.quantity(each.name, float(each.value), each.unit)
        if behind := list(_behind(each)):
            number.ContentSequence = behind
        yield number


def _behind(measurement: Measurement) -> Iterable[Dataset]:
    """How far off it may be (TID 310), and of a change, since when and by which report (TID 319)."""
    if measurement.within is not None:
        yield content.quantity(codes.UNCERTAINTY, measurement.within, measurement.unit, content.PROPERTIES)
    if measurement.against is not None:
        reference = content.instance(Comprehensive3DSRStorage, measurement.against.sop_uid)
        yield content.document(codes.PRIOR_REPORT, reference, content.INFERRED)
        yield content.date(codes.STUDY_DATE, measurement.against.date, content.INFERRED)
