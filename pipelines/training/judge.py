"""A pipeline's findings held against what is known of the pictures: DICOM in, one ``Judgement`` per picture out.

Goes the way of the product: the pipeline reads whole studies, and its own findings are compared on the source's grid.
No statistics here: see ``figures``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.base import Finding, Findings, Pipeline, UnsuitableStudy, WithheldStudy
from pipelines.instance import text
from pipelines.pictures import pictures
from pipelines.pixels import BadPixels
from pipelines.series import Series
from pipelines.study import Study, read_files
from pipelines.training.examples import Row, Truth, group_of
from pipelines.training.metrics import dice, hausdorff95, surface_dice
from pipelines.training.truths import Box, Judged

READ = "read"
TOLERANCE = 2.0  # of the surface Dice: mm, or pixels where the spacing is not known
LEAST_OVERLAP = 0.5  # intersection over union from which a box is a hit
THUMBNAIL = 240  # pixels at most


@dataclass(frozen=True)
class Chance:
    """What is so of a class, and what the pipeline said; ``said`` is None where it did not read the picture."""

    is_there: bool
    said: float | None = None
    present: bool | None = None


@dataclass(frozen=True)
class Overlap:
    """An outline against the reference. Sizes are in ``unit``: mm2, cm3 or pixels; distances in mm or pixels."""

    dice: float
    surface_dice: float = 0.0
    hausdorff95: float = float("inf")
    ours: float = 0.0
    reference: float = 0.0
    unit: str = "pixels"


@dataclass(frozen=True)
class Counted:
    """Boxes of one label: found rightly, found wrongly, missed."""

    hits: int
    wrong: int
    missed: int


@dataclass(frozen=True, eq=False)
class Drawn:
    """A picture for people, and on it what is so and what was said: masks bool (rows, columns)."""

    picture: NDArray[np.uint8]  # (rows, columns) or (rows, columns, 3)
    truth: NDArray[np.bool_]
    ours: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Judgement:
    """One picture, or where outlines are judged as a whole one study.

    Attributes:
        row: Of the index.
        status: READ, or the sentence why it was not.
    """

    row: Row
    status: str = READ
    classes: dict[str, Chance] = field(default_factory=dict)
    outlines: dict[str, Overlap] = field(default_factory=dict)
    boxes: dict[str, Counted] = field(default_factory=dict)
    drawn: Drawn | None = None

    @property
    def patient(self) -> str:
        return group_of(self.row)


def judgements(
    pipeline: Pipeline, parts: Mapping[str, Judged], rows: Sequence[Row], data: Path, labels: Path
) -> Iterator[Judgement]:
    """Read every study of the rows, and judge each row that something is known of.

    What is not read is judged too, as not read: to leave it out would flatter.
    """
    by_study: dict[str, list[Row]] = {}
    for row in rows:
        by_study.setdefault(row["study_uid"], []).append(row)
    for uid, own in by_study.items():
        studies, refused = read_files(data / row["file"] for row in own)
        study = next((each for each in studies if each.uid == uid), None)
        answers, status = _read(pipeline, study) if study else ((), refused[0].reason if refused else "no such study")
        for part in parts.values():
            known = [(row, truth) for row in own if (truth := part.truth(row, labels)) is not None]
            judge = _as_a_whole if part.whole else _one_by_one
            yield from judge(part, known, answers, status, labels)


def _read(pipeline: Pipeline, study: Study) -> tuple[tuple[Findings, ...], str]:
    try:
        return pipeline(study), READ
    except (UnsuitableStudy, WithheldStudy, BadPixels) as refusal:
        return (), str(refusal)


Known = list[tuple[Row, Truth]]


def _one_by_one(
    part: Judged, known: Known, answers: Sequence[Findings], status: str, labels: Path
) -> Iterator[Judgement]:
    seen: dict[int, list[NDArray[Any]]] = {}  # decoded once, however many rows a series has
    for row, truth in known:
        sop = row["sop_uid"]
        answer = next((each for each in answers if place_of(each.series, sop) is not None), None)
        if answer is None:
            yield _unread(part, row, truth, status, labels)
            continue
        place = place_of(answer.series, sop) or 0
        if id(answer) not in seen:
            seen[id(answer)] = [each.pixels for each in pictures(answer.series)]
        picture = seen[id(answer)][place]
        shape = (picture.shape[0], picture.shape[1])
        said = [each for each in answer.findings if not each.sop_uids or sop in each.sop_uids]
        boxes = part.boxes(row, labels, shape) if part.boxes else []
        drawn = [onto(mask, shape) for mask in _masks(part, truth)]
        found = [_outlined(said, name, (1, *shape), [place])[0] for name in part.labels[: len(drawn)]]
        spacing, unit = _flat_spacing(answer.series, place)
        overlaps = {
            name: overlap(ours, mask, spacing, unit)
            for name, ours, mask in zip(part.labels, found, drawn, strict=False)
        }
        truth_shown = np.logical_or.reduce([*drawn, _edges([box for _, box in boxes], shape)])
        ours_shown = np.logical_or.reduce([*found, _edges([each.box for each in said if each.box], shape)])
        counts = counted(boxes, said) if part.boxes else {}
        thumbnail = small(picture, truth_shown, ours_shown)
        yield Judgement(row, READ, _chances(part, truth, said), overlaps, counts, thumbnail)


def _as_a_whole(
    part: Judged, known: Known, answers: Sequence[Findings], status: str, labels: Path
) -> Iterator[Judgement]:
    if not known:
        return
    row, first = known[0]
    answer = next((each for each in answers if place_of(each.series, row["sop_uid"]) is not None), None)
    if answer is None:
        blank = {name: Overlap(0.0) for name in part.labels}
        yield replace(_unread(part, row, first, status, labels), outlines=blank)
        return
    volume = answer.series.volume()
    spacing = answer.series.spacing
    places = {each["sop_uid"]: place_of(answer.series, each["sop_uid"]) for each, _ in known}
    overlaps = {}
    all_drawn, all_ours = np.zeros(volume.shape, bool), np.zeros(volume.shape, bool)
    for number, name in enumerate(part.labels):
        drawn = np.zeros(volume.shape, bool)
        for each, truth in known:
            place = places[each["sop_uid"]]
            if place is not None and truth.masks is not None:
                drawn[place] = onto(truth.masks[number], (volume.shape[1], volume.shape[2]))
        ours = _outlined(answer.findings, name, volume.shape, range(len(volume)))
        overlaps[name] = overlap(ours, drawn, spacing or (1.0, 1.0, 1.0), "cm3" if spacing else "pixels")
        all_drawn, all_ours = all_drawn | drawn, all_ours | ours
    wrong = (all_ours ^ all_drawn).sum(axis=(1, 2))
    worst = int(wrong.argmax()) if wrong.any() else int(all_drawn.sum(axis=(1, 2)).argmax())
    shown = small(volume[worst], all_drawn[worst], all_ours[worst])
    yield Judgement(row, READ, _chances(part, first, answer.findings), overlaps, {}, shown)


def place_of(series: Series, sop_uid: str) -> int | None:
    """Which frame of the series the instance is (its first)."""
    uids = [text(frame.instance, "SOPInstanceUID") for frame in series.frames]
    return uids.index(sop_uid) if sop_uid in uids else None


def _unread(part: Judged, row: Row, truth: Truth, status: str, labels: Path) -> Judgement:
    """A class that was not said, an outline that was not drawn, boxes that were all missed."""
    why = "the pipeline passed this picture over" if status == READ else status
    classes = {name: Chance(there > 0.5) for name, there in _known_classes(part, truth)}
    outlines = {name: Overlap(0.0) for name in part.labels[: len(_masks(part, truth))]}
    boxes = counted(part.boxes(row, labels, (1, 1)), ()) if part.boxes else {}
    return Judgement(row, why, classes, outlines, boxes)


def _masks(part: Judged, truth: Truth) -> list[NDArray[np.bool_]]:
    return list(truth.masks) if truth.masks is not None and part.labels else []


def _known_classes(part: Judged, truth: Truth) -> list[tuple[str, float]]:
    return [(n, float(each)) for n, each in zip(part.classes, truth.labels, strict=False) if not np.isnan(each)]


def _chances(part: Judged, truth: Truth, said: Sequence[Finding]) -> dict[str, Chance]:
    return {name: _chance(name, there > 0.5, said) for name, there in _known_classes(part, truth)}


def _chance(name: str, is_there: bool, said: Sequence[Finding]) -> Chance:
    own = [each for each in said if each.label == name and not each.box]
    own = [each for each in own if each.sop_uids] or own  # of the picture itself rather than of its whole series
    if not own:
        return Chance(is_there)
    surest = max(own, key=lambda each: (each.certainty or 0.0, each.present))
    certainty = float(surest.present) if surest.certainty is None else surest.certainty
    return Chance(is_there, certainty, any(each.present for each in own))


def _outlined(said: Sequence[Finding], name: str, shape: tuple[int, ...], places: Sequence[int]) -> NDArray[np.bool_]:
    """bool ``shape``: those frames of all segments whose label holds the words of ``name``."""
    words, mask = set(name.lower().split()), np.zeros(shape, bool)
    for each in said:
        if each.segment is not None and words <= set(re.findall(r"\w+", each.segment.label.lower())):
            mask |= each.segment.mask[list(places)]
    return mask


def overlap(ours: NDArray[np.bool_], drawn: NDArray[np.bool_], spacing: tuple[float, ...], unit: str) -> Overlap:
    """Of two masks of one shape, in the plane or in space; ``spacing`` per axis."""
    size = float(np.prod(spacing)) / (1000 if unit == "cm3" else 1)
    return Overlap(
        dice(ours, drawn),
        surface_dice(ours, drawn, spacing, tolerance=TOLERANCE),
        hausdorff95(ours, drawn, spacing),
        float(ours.sum()) * size,
        float(drawn.sum()) * size,
        unit,
    )


def _flat_spacing(series: Series, place: int) -> tuple[tuple[float, float], str]:
    """Rows and columns in mm, where the header says so of the patient; else pixels."""
    plane = series.frames[place].plane
    given = plane.spacing if plane else series.frames[place].get("PixelSpacing")
    return ((float(given[0]), float(given[1])), "mm2") if given else ((1.0, 1.0), "pixels")


def onto(mask: NDArray[np.bool_], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask on the grid of its picture, where a set has it on another."""
    if mask.shape == shape:
        return mask
    return np.asarray(Image.fromarray(mask).resize((shape[1], shape[0]), Image.Resampling.NEAREST))


def counted(boxes: Sequence[tuple[str, Box]], said: Sequence[Finding]) -> dict[str, Counted]:
    """Of each label, the boxes matched to those of the truth, the surest first."""
    found = [(each.label or each.code.meaning, each.box, each.certainty or 0.0) for each in said if each.box]
    counts = {}
    for label in dict.fromkeys([*(name for name, _ in boxes), *(name for name, _, _ in found)]):
        left = [box for name, box in boxes if name == label]
        own = sorted((each for each in found if each[0] == label), key=lambda each: -each[2])
        total, hits = len(left), 0
        for _, box, _ in own:
            best = max(left, key=lambda each: shared(box, each), default=None)
            if best is not None and shared(box, best) >= LEAST_OVERLAP:
                left.remove(best)
                hits += 1
        counts[label] = Counted(hits, len(own) - hits, total - hits)
    return counts


def shared(one: Box, other: Box) -> float:
    """Intersection over union."""
    wide = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    high = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    common = max(wide, 0.0) * max(high, 0.0)
    return common / max(one[2] * one[3] + other[2] * other[3] - common, 1e-9)


def _edges(boxes: Sequence[Box], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Boxes as filled regions, so that their outline is drawn."""
    mask = np.zeros(shape, bool)
    for x, y, wide, high in boxes:
        mask[round(y) : round(y + high), round(x) : round(x + wide)] = True
    return mask


def small(picture: NDArray[Any], truth: NDArray[np.bool_], ours: NDArray[np.bool_]) -> Drawn:
    """A picture for people, no larger than need be."""
    step = max(1, -(-max(truth.shape) // THUMBNAIL))
    part = picture[::step, ::step]
    if part.dtype != np.uint8:
        low, high = np.percentile(part, (0.5, 99.5))
        part = (np.clip((part - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)
    return Drawn(part, truth[::step, ::step], ours[::step, ::step])
