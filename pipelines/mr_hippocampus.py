"""The pipeline ``mr_hippocampus``: outlines the anterior and posterior part of a hippocampus in a small T1 volume.

    series by its headers → turned axial → z-scored → networks → back onto the series' grid → volumes in cm³
                                                           an earlier study of the patient → change of each volume

It reads one hippocampus in a small volume of about 1 mm voxels, not whole heads. It writes nothing, and what it says is
not a diagnosis.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines import imaging
from pipelines.base import Earlier, Finding, Findings, Measurement, Segment, UnsuitableStudy, WithheldStudy
from pipelines.carded import Carded
from pipelines.doubles import without_doubles
from pipelines.evidence import codes
from pipelines.fusion import Turn, turn_of
from pipelines.models.unet3d import padded, unpadded
from pipelines.probability import Probability, held, in_steps
from pipelines.series import Series
from pipelines.study import BadPixels, Study

CARD = Path(__file__).parent / "weights" / "mr_hippocampus-1.0.0.json"
ROLE = "outline"
LABELS = ("anterior", "posterior")

# cm³, by version: 95 % limits of agreement with outlines by hand, 42 volumes (benchmarks/mr_hippocampus_dev.md).
LIMITS_CM3 = {"1.0.0": {"anterior": 0.275, "posterior": 0.195}}
UNTESTED = (
    "of a change within +/- its uncertainty nothing follows: that is the error against outlines by hand, taken twice; "
    "how far two scans of one person differ was never measured"
)

# mm, of the turned volume: to the head, to the back, to the left. Trained on 26 to 47, 41 to 59 and 31 to 43.
SMALLEST_MM = (22.0, 34.0, 26.0)
LARGEST_MM = (64.0, 80.0, 64.0)  # beyond, it is no region cropped to one hippocampus
VOXEL_MM = (0.8, 1.25)  # trained on 1 mm, scaled by a fifth
_PARTS = ("BRAIN", "HEAD", "HIPPOCAMPUS")
_SAYS_NAME = re.compile(r"hippocamp", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A series as the networks take it, and the way back.

    Attributes:
        image: float32 (frames, rows, columns), to the head, to the back, to the left; z-scored.
    """

    series: Series
    image: torch.Tensor
    turn: Turn
    notes: tuple[str, ...]

    def onto_source(self, volume: NDArray[Any]) -> NDArray[Any]:
        """A mask of ``image``, or steps, on the grid of the series."""
        return np.ascontiguousarray(self.turn.back(volume))


@dataclass(frozen=True, eq=False)
class Outline:
    """What the networks make of one volume; masks are bool (frames, rows, columns) of ``Prepared.image``.

    Attributes:
        sureness: 0 to 1, how far the probabilities agree with the outline drawn from them: the lower of the two parts.
        likely: Of each part.
    """

    parts: tuple[NDArray[np.bool_], NDArray[np.bool_]]
    sureness: float
    likely: tuple[Probability, Probability]


class Hippocampus(Carded):
    """Reads small MR volumes of one hippocampus; the networks stay warm in the instance."""

    def __init__(self, card: Path = CARD, *, device: str | None = None) -> None:
        super().__init__(card, device=device)

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        begun = time.perf_counter()
        prepared = prepare(study)
        loaded = time.perf_counter()
        found = outline(self.probabilities(prepared.image), self.card.points[ROLE])
        _refuse_unlikely(found, prepared, self.card.points[ROLE])
        findings = tuple(_finding(place, found, prepared) for place in range(len(LABELS)))
        stages = {"load": loaded - begun, "network": time.perf_counter() - loaded}
        return (Findings(prepared.series, findings, (prepared.series,), prepared.notes, self.device, stages),)

    def since(self, findings: Findings, volumes: Mapping[str, float], earlier: Earlier) -> Findings:
        """With the change of each part since an earlier study, in cm³ and in percent of what it was."""
        limits = LIMITS_CM3.get(self.card.version, {})
        told = tuple(
            _with_change(each, volumes.get(each.label or ""), limits.get(each.label or ""), earlier)
            for each in findings.findings
        )
        day = f"{earlier.date[:4]}-{earlier.date[4:6]}-{earlier.date[6:]}"
        return replace(
            findings, findings=told, notes=(*findings.notes, f"compared with the study of {day}; {UNTESTED}")
        )

    def probabilities(self, image: torch.Tensor) -> NDArray[np.float32]:
        """(3, frames, rows, columns) of neither, anterior and posterior: the mean over members and mirror image."""
        x = padded(image)
        both = torch.cat((x, x.flip(-1)))  # left to right: a hippocampus of the other side
        seen = self._networks.logits(ROLE, both).softmax(2).mean(0)  # (2, 3, …)
        mean = (seen[0] + seen[1].flip(-1)) / 2
        return np.ascontiguousarray(unpadded(mean, image.shape).numpy())


def outline(probabilities: NDArray[np.float32], point: dict[str, Any]) -> Outline:
    """The largest region with a probability of hippocampus above ``threshold``, each voxel to its likelier part.

    The probability of a part is its own, held to the outline where a voxel of that region is likely of neither alone.
    """
    inside = imaging.keep_components(1 - probabilities[0] > point["threshold"], smallest=1, share=0.9)
    anterior = inside & (probabilities[1] >= probabilities[2])
    parts = (anterior, inside & ~anterior)
    shares = [_agreement(each, mask) for each, mask in zip(probabilities[1:], parts, strict=True)]
    steps = (
        held(in_steps(each), mask, point["threshold"]) for each, mask in zip(probabilities[1:], parts, strict=True)
    )
    anterior_likely, posterior_likely = (Probability(each, point["threshold"]) for each in steps)
    return Outline(parts, min(shares), (anterior_likely, posterior_likely))


def _agreement(probability: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    total = float(probability.sum()) + float(mask.sum())
    return 2 * float(probability[mask].sum()) / total if total else 0.0


def _refuse_unlikely(found: Outline, prepared: Prepared, point: dict[str, Any]) -> None:
    """Raise what speaks against believing the outline: anatomy first, then the networks' own doubt."""
    centres = [np.argwhere(mask).mean(axis=0) if mask.any() else None for mask in found.parts]
    if missing := [name for name, centre in zip(LABELS, centres, strict=True) if centre is None]:
        raise WithheldStudy(f"no {' and no '.join(missing)} part was found: the volume shows no whole hippocampus")
    (front_height, front, _), (back_height, back, _) = centres  # type: ignore[misc]
    if front >= back or front_height >= back_height:
        raise WithheldStudy("the anterior part lies behind or above the posterior one: the orientation may be wrong")
    least, most = point["volume_cm3"]
    for name, volume in zip(LABELS, _volumes(found, prepared), strict=True):
        if not least <= volume <= most:
            raise WithheldStudy(f"the {name} part would have {volume:.2f} cm³; {least:g} to {most:g} were validated")
    if found.sureness < point["sure_from"]:
        asked = f"{found.sureness:.2f}; at least {point['sure_from']:.2f} is asked"
        raise WithheldStudy(f"the networks are not sure of the outline ({asked})")


def _volumes(found: Outline, prepared: Prepared) -> list[float]:
    return [float(mask.sum()) * voxel_cm3(prepared.series) for mask in found.parts]


def voxel_cm3(series: Series) -> float:
    assert series.spacing is not None  # _refuse_by_geometry sees to it
    return float(np.prod(series.spacing)) / 1000


def _finding(place: int, found: Outline, prepared: Prepared) -> Finding:
    name, mask, likely = LABELS[place], found.parts[place], found.likely[place]
    series, own = prepared.series, prepared.onto_source(mask)
    touched = {id(series.frames[place].instance) for place in np.flatnonzero(own.any(axis=(1, 2)))}
    volume = Measurement(codes.VOLUME, float(mask.sum()) * voxel_cm3(series), codes.CUBIC_CENTIMETER)
    return Finding(
        codes.HIPPOCAMPUS,
        present=True,
        label=name,
        site=codes.BRAIN,
        sop_uids=tuple(str(each.SOPInstanceUID) for each in series.instances if id(each) in touched),
        segment=Segment(
            name, own, codes.ANATOMICAL_STRUCTURE, codes.HIPPOCAMPUS,
            Probability(prepared.onto_source(likely.steps), likely.threshold),
        ),
        measurements=(volume,),
    )  # fmt: skip


def _with_change(finding: Finding, before: float | None, limit: float | None, earlier: Earlier) -> Finding:
    now = next((each.value for each in finding.measurements if each.name == codes.VOLUME), None)
    if now is None or not before:
        return finding
    # Two readings that err apart from each other err by the root of two more.
    within = None if limit is None else round(limit * 2**0.5, 3)
    percent = None if within is None else round(100 * within / before, 1)
    change = Measurement(codes.CHANGE_OF_VOLUME, now - before, codes.CUBIC_CENTIMETER, within, earlier)
    relative = 100 * (now - before) / before
    share = Measurement(codes.CHANGE_OF_VOLUME_IN_PERCENT, relative, codes.PERCENT, percent, earlier)
    return replace(finding, measurements=(*finding.measurements, change, share))


def prepare(study: Study) -> Prepared:
    """The first series that can be read, those whose description names the hippocampus before others.

    Raises:
        UnsuitableStudy: If no series is a small MR volume of a head.
        WithheldStudy: If one is, but not such as the networks were trained on.
    """
    said: list[UnsuitableStudy | WithheldStudy] = []
    for series in sorted(study.series, key=lambda each: not _SAYS_NAME.search(each.description)):
        try:
            return _prepared(series)
        except (UnsuitableStudy, WithheldStudy) as reason:
            said.append(reason)
    withheld = [reason for reason in said if isinstance(reason, WithheldStudy)]
    raise (withheld or said)[0]


def _prepared(found: Series) -> Prepared:
    _refuse_by_headers(found)
    series, doubled = without_doubles(found)
    _refuse_by_geometry(series)
    turn = turn_of(series)
    try:
        volume = turn.there(series.volume())
        image = imaging.standardise(volume, np.ones(volume.shape, bool))
    except (BadPixels, imaging.NoHead) as error:
        raise WithheldStudy(f"{_named(series)} cannot be read: {error}") from error
    notes = (*([doubled] if doubled else []), *series.faults)
    return Prepared(series, torch.from_numpy(np.ascontiguousarray(image)), turn, notes)


def _refuse_by_headers(series: Series) -> None:
    if series.modality != "MR" or not series.is_image:
        raise UnsuitableStudy(f"{_named(series)} is {series.modality or 'of no modality'}, not a picture of MR")
    part = str(series.get("BodyPartExamined") or "").upper()
    if part and part not in _PARTS:
        raise UnsuitableStudy(f"{_named(series)} shows the body part {part}, not the brain")
    kinds = {str(value).upper() for value in series.get("ImageType") or ()}
    if kinds & {"DERIVED", "SECONDARY", "LOCALIZER"}:
        raise UnsuitableStudy(f"{_named(series)} is derived or a localizer, not an acquired volume")


def _refuse_by_geometry(series: Series) -> None:
    """Size first: a whole head is another kind of study, whatever else is wrong with it."""
    if len(series.frames) < 2 or not series.planes:
        raise UnsuitableStudy(f"{_named(series)} is no volume: its slices are single or do not say where they lie")
    if series.spacing is None:
        raise WithheldStudy(f"{_named(series)} does not say how far its pixels and slices are apart")
    spacing = _turned(series, series.spacing)
    sizes = (len(series.frames), int(series.header.Rows), int(series.header.Columns))
    extent = [count * step for count, step in zip(_turned(series, sizes), spacing, strict=True)]
    shown = " × ".join(f"{each:.0f}" for each in extent)
    if any(own > most for own, most in zip(extent, LARGEST_MM, strict=True)):
        most = " × ".join(f"{each:.0f}" for each in LARGEST_MM)
        raise UnsuitableStudy(f"{_named(series)} shows {shown} mm, not a region cropped to one hippocampus ({most} mm)")
    if not series.is_volume or series.affine is None:
        raise WithheldStudy(
            f"{_named(series)} is not one even volume: {'; '.join(series.faults) or 'its slices differ'}"
        )
    low, high = VOXEL_MM
    if not all(low <= step <= high for step in spacing):
        voxel = " × ".join(f"{each:.2g}" for each in spacing)
        raise WithheldStudy(f"{_named(series)} has voxels of {voxel} mm; {low:g} to {high:g} mm were validated")
    if any(own < least for own, least in zip(extent, SMALLEST_MM, strict=True)):
        raise WithheldStudy(f"{_named(series)} shows {shown} mm: too little for a whole hippocampus")


def _turned(series: Series, values: tuple[float, ...]) -> list[float]:
    return [values[axis] for axis in turn_of(series).order]


def _named(series: Series) -> str:
    return f"the series {series.description!r}" if series.description else "the series without a description"
