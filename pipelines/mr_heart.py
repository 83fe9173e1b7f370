"""The pipeline ``mr_heart``: outlines the cavity of the left ventricle on every frame of a short-axis cine MR.

    series → levels and phases → middle of each frame, between its neighbours → networks → outlines
           → end-diastole and end-systole → volumes, ejection fraction

The heart is looked for in the middle of each picture, where a planned short axis has it. What the beat is worth is
``ventricle``'s to say; nothing is written here, and what it says is not a diagnosis.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydicom.sr.coding import Code
from scipy import ndimage

from pipelines.base import Finding, Findings, Measurement, Segment, UnsuitableStudy, WithheldStudy
from pipelines.carded import Carded
from pipelines.cine import Place, beside, places
from pipelines.domain import Domain
from pipelines.evidence import codes
from pipelines.instance import number, text
from pipelines.pictures import Middle, pictures
from pipelines.pixels import BadPixels
from pipelines.probability import Probability, held, in_steps
from pipelines.series import Series
from pipelines.study import Study
from pipelines.ventricle import Beat, beat, ejection_fraction, level_gaps, volume

CARD = Path(__file__).parent / "weights" / "mr_heart-1.2.0.json"
LABEL = "left ventricle"
LOOK = Middle((128, 128), share=0.5)
DOMAIN = Domain(
    "a short-axis cine MR of the heart",
    frozenset({"MR"}),
    frozenset({"HEART", "CARDIAC", "CHEST", "THORAX"}),
    r"cine|short.?axis|\bs?ax\b|heart|cardia",
)
_OTHER_VIEWS = re.compile(r"\b[234] ?-?ch|lax\b|long.?axis|chamber|rvot|lvot|aort|flow|lge|delayed|late|tagg", re.I)
_OTHER_KINDS = re.compile(r"scout|loc|t1|t2|stir|haste|perf|stress|rest", re.I)


class HeartCine(Carded):
    """Reads cardiac MR studies; the networks stay warm in the instance."""

    def __init__(self, card: Path = CARD, *, device: str | None = None) -> None:
        super().__init__(card, device=device)

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        found = DOMAIN.series(study)
        objections = [objection(series) for series in found]
        read = [series for series, against in zip(found, objections, strict=True) if against is None]
        if not read:
            raise UnsuitableStudy(f"no series is {DOMAIN.what}: {objections[0]}")
        return tuple(self._read(series) for series in read)

    def _read(self, series: Series) -> Findings:
        begun = time.perf_counter()
        if len({(number(each, "Rows"), number(each, "Columns")) for each in series.instances}) > 1:
            raise WithheldStudy("the frames of the cine have several sizes")
        try:
            seen = [LOOK.at(picture.pixels) for picture in pictures(series)]
        except BadPixels as error:
            raise WithheldStudy(f"the cine cannot be read: {error}") from error
        where = places(series)
        loaded = time.perf_counter()
        logits = self._networks.logits("outline", beside(torch.stack([each.image for each in seen]), where))
        chances = logits.sigmoid().mean(0)  # (frames, 1, rows, columns)
        threshold = self.card.points["outline"]["thresholds"][LABEL]
        masks, steps = [], []
        for each, chance in zip(seen, chances, strict=True):
            likely = each.back(chance)[0]
            masks.append(one_cavity(likely > threshold))
            steps.append(held(in_steps(likely), masks[-1], threshold))
        mask = np.stack(masks)
        stages = {"load": loaded - begun, "network": time.perf_counter() - loaded}
        findings, notes = said_of(mask, series, where, Probability(np.stack(steps), threshold))
        return Findings(series, findings, (series,), notes, self.device, stages)


def objection(series: Series) -> str | None:
    """Why a series of the heart is no short-axis cine; None if it may be one."""
    words = series.description
    if _OTHER_VIEWS.search(words) or (_OTHER_KINDS.search(words) and "cine" not in words.lower()):
        return f"the description {words!r} is of another view or kind of picture"
    where = places(series)
    if len(where) < 2 or len({place.phase for place in where}) < 2:
        return "it has no two frames of one heart beat"
    return None


def one_cavity(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest part of a mask (rows, columns), without holes: papillary muscles count as cavity."""
    parts, count = ndimage.label(mask)
    if count > 1:
        sizes = np.bincount(parts.ravel())
        mask = parts == 1 + int(np.argmax(sizes[1:]))
    return np.asarray(ndimage.binary_fill_holes(mask))


def said_of(
    mask: NDArray[np.bool_], series: Series, where: Sequence[Place], probability: Probability | None = None
) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """Findings and notes of an outline (frames, rows, columns): the whole, then each level at both ends of the beat."""
    notes = list(series.faults)
    uids = [text(frame.instance, "SOPInstanceUID") for frame in series.frames]
    if not mask.any():
        absent = Finding(codes.LEFT_VENTRICLE, present=False, label=LABEL, site=codes.HEART)
        return (absent,), (*notes, "no left ventricle was found in the middle of the pictures")
    drawn: NDArray[np.bool_] = np.any(mask, axis=(1, 2))
    if not drawn.all():
        notes.append(f"no left ventricle was found on {int((~drawn).sum())} of {len(mask)} frames")
    pixels = mask.sum(axis=(1, 2)).astype(float)
    found = beat(pixels, where)
    if found is None:
        notes.append("no level has frames of two phases, so there is no end-diastole, end-systole, ejection fraction")
    else:
        notes += _of_levels(found, where)
    whole = Finding(
        codes.LEFT_VENTRICLE,
        present=True,
        label=LABEL,
        site=codes.HEART,
        sop_uids=tuple(dict.fromkeys(uid for uid, is_drawn in zip(uids, drawn, strict=True) if is_drawn)),
        segment=Segment(LABEL, mask, codes.ANATOMICAL_STRUCTURE, codes.LEFT_VENTRICLE, probability),
        measurements=_of_the_beat(found, pixels, series, where) if found else (),
    )
    if gaps := level_gaps(series):
        notes.append(gaps)
    each = _by_level(found, mask, series, where) if found and len(set(uids)) == len(uids) else ()
    return (whole, *each), tuple(notes)


def _of_levels(found: Beat, where: Sequence[Place]) -> list[str]:
    alone = len({place.level for place in where}) - len(found.levels)
    notes = [f"end-diastole is phase {found.diastole + 1}, end-systole phase {found.systole + 1} of those sent"]
    if alone:
        notes.append(f"{alone} levels have no frame at both, and have no part in volumes and ejection fraction")
    return notes


def _of_the_beat(
    found: Beat, pixels: NDArray[np.float64], series: Series, where: Sequence[Place]
) -> tuple[Measurement, ...]:
    said = []
    spacing = series.spacing
    if spacing is not None and len(found.levels) > 1:
        for name, phase in ((codes.LV_ED_VOLUME, found.diastole), (codes.LV_ES_VOLUME, found.systole)):
            cm3 = volume(pixels, where, found.levels, phase) * float(np.prod(spacing)) / 1000
            said.append(Measurement(name, cm3, codes.CUBIC_CENTIMETER))
    fraction = ejection_fraction(found, pixels, where)
    if fraction is not None and len(found.levels) > 1:
        said.append(Measurement(codes.LV_EJECTION_FRACTION, 100 * fraction, codes.PERCENT))
    return tuple(said)


def _by_level(found: Beat, mask: NDArray[np.bool_], series: Series, where: Sequence[Place]) -> tuple[Finding, ...]:
    """The area of each level at end-diastole and end-systole, with a box around it on its frame."""
    said = []
    ends = {found.diastole: "end-diastole", found.systole: "end-systole"}
    for index, place in enumerate(where):
        if place.phase not in ends or not mask[index].any():
            continue
        area, unit = _area(mask[index], series)
        rows, columns = np.nonzero(mask[index])
        top, left = int(rows.min()), int(columns.min())
        said.append(
            Finding(
                codes.LEFT_VENTRICLE,
                present=True,
                label=f"{LABEL}, level {place.level + 1}, {ends[place.phase]}",
                site=codes.HEART,
                sop_uids=(text(series.frames[index].instance, "SOPInstanceUID"),),
                box=(left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1),
                measurements=(Measurement(codes.AREA, area, unit),),
            )
        )
    return tuple(said)


def _area(mask: NDArray[np.bool_], series: Series) -> tuple[float, Code]:
    plane = series.frames[0].plane
    if plane is None or plane.spacing is None:
        return float(mask.sum()), codes.PIXELS
    return float(mask.sum()) * plane.spacing[0] * plane.spacing[1], codes.SQUARE_MILLIMETER
