"""The pipeline ``mr_brain``: outlines the FLAIR abnormality of a brain MR and measures its volume.

    series by acquisition → one grid → turned axial → head cut out, z-scored → networks → back onto FLAIR's grid

Fuses T1 before contrast, FLAIR and T1 after contrast where they share a frame of reference; a missing T1 is said and
degrades the result, without FLAIR there is none. It writes nothing, and what it says is not a diagnosis.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydicom.sr.coding import Code

from pipelines import geometry, imaging, mr_sequences
from pipelines.base import Algorithm, Finding, Findings, Measurement, Segment, UnsuitableStudy, WithheldStudy
from pipelines.doubles import without_doubles
from pipelines.evidence import codes
from pipelines.fusion import Turn, onto, turn_of
from pipelines.models.ensemble import Card, Ensemble
from pipelines.probability import Probability, held, in_steps
from pipelines.series import Series
from pipelines.sides import middle_of, side_of
from pipelines.study import BadPixels, Study

WEIGHTS = Path(__file__).parent / "weights"
CARD = WEIGHTS / "mr_brain-1.1.0.json"
LABEL = "FLAIR abnormality"

FEWEST_SLICES = 10  # trained on stacks of 12 to 62
MOST_MISSING = 0.1  # of the slices of FLAIR; beyond it a volume in cm3 would be a guess
SHORTEST_MM = 60.0  # of the head, foot to head; below it the head's size cannot be judged
COARSEST_MM = 2.0  # in plane
USUAL_STEP_MM = 5.0  # between slices of the training data; thinner stacks look further away for neighbours
LEAST_COVERED = 0.5  # of the head by a T1 that is used
WHOLLY_COVERED = 0.99  # below it a reader is told
SCORE_PIXELS = 200  # the lesion score is the mean logit of so many brightest pixels of the probability map


@dataclass(frozen=True, eq=False)
class Prepared:
    """A study as the networks take it, and the way back.

    Attributes:
        images: float32 (frames, sequences, *CANVAS); a missing sequence is all 0.
        shape: Of the turned volume.
        step: How many slices away a neighbour is looked for.
        middle: x of the head's middle in mm (LPS); lesions are on the right or on the left of it.
    """

    flair: Series
    read: tuple[Series, ...]
    images: torch.Tensor
    box: imaging.HeadBox
    turn: Turn
    shape: tuple[int, ...]
    step: int
    notes: tuple[str, ...]
    middle: float | None = None

    def onto_source(self, canvas: torch.Tensor) -> NDArray[np.float32]:
        """(frames, *CANVAS) → (frames, rows, columns) of FLAIR."""
        return np.ascontiguousarray(self.turn.back(imaging.paste(canvas, self.box, self.shape)))


class BrainTumour:
    """Reads brain MR studies; the networks stay warm in the instance."""

    def __init__(self, card: Path = CARD, *, device: str | None = None) -> None:
        self.card = Card.read(card)
        self._networks = Ensemble(self.card, card.with_suffix(".safetensors"), device=device)

    @property
    def networks(self) -> Ensemble:
        return self._networks

    @property
    def device(self) -> str:
        return self._networks.device

    @property
    def algorithm(self) -> Algorithm:
        family = Code("123110", "DCM", "Artificial Intelligence")
        return Algorithm(self.card.name, self.card.version, family, self.card.digest)

    def warm_up(self) -> str:
        """Probe the processor now rather than in the first study."""
        return "half precision" if self._networks.uses_half_precision else "single precision"

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        begun = time.perf_counter()
        prepared = prepare(study, most_missing=MOST_MISSING)
        loaded = time.perf_counter()
        canvas = self._networks.probabilities(prepared.images, step=prepared.step)
        finding = self.judge(prepared, canvas)
        stages = {"load": loaded - begun, "network": time.perf_counter() - loaded}
        return (Findings(prepared.flair, (finding,), prepared.read, prepared.notes, self.device, stages),)

    def probabilities(self, prepared: Prepared) -> torch.Tensor:
        """(frames, *CANVAS): for evaluation and explanation."""
        return self._networks.probabilities(prepared.images, step=prepared.step)

    def outline(self, prepared: Prepared, canvas: torch.Tensor) -> NDArray[np.bool_]:
        """Probabilities on the canvas → bool mask on the grid of FLAIR, small components dropped."""
        return self._outlined(prepared.onto_source(canvas), prepared.flair)

    def _outlined(self, likely: NDArray[np.float32], flair: Series) -> NDArray[np.bool_]:
        smallest = math.ceil(self.card.smallest_cm3 / voxel_cm3(flair))
        return imaging.keep_components(likely > self.card.threshold, smallest=smallest, share=self.card.smallest_share)

    def judge(self, prepared: Prepared, canvas: torch.Tensor) -> Finding:
        """Whether there is a lesion by probabilities on the canvas, and its outline."""
        likely = prepared.onto_source(canvas)
        mask = self._outlined(likely, prepared.flair)
        offset, slope = self.card.certainty
        certainty = 1 / (1 + math.exp(-(offset + slope * lesion_score(canvas))))
        if not mask.any() or certainty < self.card.present_from:
            return Finding(
                codes.LESION, present=False, certainty=min(certainty, 0.5), label=LABEL, site=codes.BRAIN,
                sop_uids=tuple(str(each.SOPInstanceUID) for each in prepared.flair.instances),
            )  # fmt: skip
        touched = {id(prepared.flair.frames[place].instance) for place in np.flatnonzero(mask.any(axis=(1, 2)))}
        return Finding(
            codes.LESION,
            present=True,
            certainty=certainty,
            label=LABEL,
            site=codes.BRAIN,
            side=side_of(mask, prepared.flair, prepared.middle),
            sop_uids=tuple(str(each.SOPInstanceUID) for each in prepared.flair.instances if id(each) in touched),
            segment=Segment(
                LABEL, mask, codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE, codes.LESION,
                Probability(held(in_steps(likely), mask, self.card.threshold), self.card.threshold),
            ),
            measurements=_measurements(mask, prepared.flair),
        )  # fmt: skip


def prepare(study: Study, *, most_missing: float | None = None) -> Prepared:
    """Find the sequences, fuse them and bring them onto the canvas. The first FLAIR that can be read is read.

    Args:
        most_missing: Share of FLAIR's slices that may be missing; None: any, as when training on thinned studies.

    Raises:
        UnsuitableStudy: If there is no FLAIR that can be read.
        WithheldStudy: If there is, but not such as the networks were trained on.
    """
    refused: UnsuitableStudy | WithheldStudy | None = None
    for found in mr_sequences.candidates(study, mr_sequences.FLAIR):
        flair, doubled = without_doubles(found)
        notes = [f"FLAIR: {doubled}"] if doubled else []
        if refused:
            notes.append(f"another FLAIR series was passed over: {refused}")
        try:
            _refuse(flair, most_missing)
            return _prepared(study, flair, [*notes, *flair.faults])
        except (UnsuitableStudy, WithheldStudy) as error:
            refused = refused or error
    raise refused or UnsuitableStudy(f"no FLAIR series of a head among {mr_sequences.description_of(study)}")


def _prepared(study: Study, flair: Series, notes: list[str]) -> Prepared:
    turn = turn_of(flair)
    between, rows, columns = _turned_spacing(flair, turn)
    try:
        volume = turn.there(flair.volume())
        head = imaging.head_mask(volume)
        box = imaging.head_box(head, pixel_ratio=rows / columns)
        scores = {mr_sequences.FLAIR: imaging.standardise(volume, head)}
    except BadPixels as error:
        raise WithheldStudy(f"the FLAIR series cannot be read: {error}") from error
    except imaging.NoHead as error:
        raise WithheldStudy(f"the FLAIR series cannot be read: {error}") from error
    read = [flair]
    for name in (mr_sequences.T1_PRE, mr_sequences.T1_POST):
        partner = _partner(study, name, flair, head, turn)
        notes += partner.notes
        if partner.series is not None and partner.scores is not None:
            scores[name] = partner.scores
            read.append(partner.series)
    images = torch.zeros(len(volume), len(imaging.SEQUENCES), *imaging.CANVAS)
    for place, name in enumerate(imaging.SEQUENCES):
        if name in scores:
            images[:, place] = imaging.cut(scores[name], box)
    step = max(1, round(USUAL_STEP_MM / between))
    middle = middle_of(turn.back(head), flair)
    return Prepared(flair, tuple(read), images, box, turn, volume.shape, step, tuple(notes), middle)


def lesion_score(canvas: torch.Tensor) -> float:
    """How sure the networks are of the surest part of a volume: what the certainty is fitted on."""
    top = canvas.flatten().topk(min(SCORE_PIXELS, canvas.numel())).values
    return float(torch.logit(top, eps=1e-4).mean())


def voxel_cm3(series: Series) -> float:
    assert series.spacing is not None  # _refuse sees to it
    return float(np.prod(series.spacing)) / 1000


def _refuse(flair: Series, most_missing: float | None) -> None:
    """Raise what speaks against reading this FLAIR, as far as headers tell."""
    if said := mr_sequences.obstacle(flair):
        raise WithheldStudy(f"the FLAIR series cannot be read as one volume: {said}")
    part = str(flair.get("BodyPartExamined") or "").upper()
    if part and part not in ("BRAIN", "HEAD", "SKULL", "HEADNECK", "WHOLEHEAD"):
        raise UnsuitableStudy(f"the FLAIR series shows the body part {part}, not the brain")
    if flair.spacing is None:
        raise WithheldStudy("the FLAIR series does not say how far its pixels and slices are apart")
    between, rows, columns = _turned_spacing(flair, turn_of(flair))
    frames = _turned_frames(flair)
    if max(rows, columns) > COARSEST_MM:
        what = "not axial" if not mr_sequences.is_axial(flair) else "coarse"
        raise UnsuitableStudy(
            f"the FLAIR series is {what}: its pixels in the axial plane are {max(rows, columns):.1f} mm, "
            f"at most {COARSEST_MM} mm are read"
        )
    if frames < FEWEST_SLICES or frames * between < SHORTEST_MM:
        raise WithheldStudy(
            f"the FLAIR series has {frames} axial slices over {frames * between:.0f} mm; at least {FEWEST_SLICES} "
            f"over {SHORTEST_MM:.0f} mm were validated"
        )
    missing, there = _missing(flair), len(flair.frames)
    if most_missing is not None and missing > most_missing * (missing + there):
        raise WithheldStudy(
            f"the FLAIR series has gaps: {missing} of {missing + there} slices are missing; at most "
            f"{most_missing:.0%} may be, for a volume to be measured"
        )


def _missing(series: Series) -> int:
    """How many slices the gaps have room for, by a small distance: where many are missing the usual one is a gap."""
    if not series.planes or len(series.planes) < 2:
        return 0
    apart = geometry.steps(series.planes)
    least = np.percentile(apart, 10, method="lower")  # the very smallest may be one slice out of its place
    return int(sum(max(0, round(step / least) - 1) for step in apart))


def _turned_spacing(series: Series, turn: Turn) -> tuple[float, float, float]:
    assert series.spacing is not None
    between, rows, columns = (series.spacing[axis] for axis in turn.order)
    return between, rows, columns


def _turned_frames(series: Series) -> int:
    shape = (len(series.frames), int(series.header.Rows), int(series.header.Columns))
    return shape[turn_of(series).order[0]]


@dataclass(frozen=True, eq=False)
class _Partner:
    """The series of a role as z-scores on FLAIR's turned grid; or why there is none, in the notes."""

    notes: tuple[str, ...]
    series: Series | None = None
    scores: NDArray[np.float32] | None = None


def _partner(study: Study, name: str, flair: Series, head: NDArray[np.bool_], turn: Turn) -> _Partner:
    """The first series of this role that can be used, else what is wrong with the first."""
    called = f"T1 {'before' if name == mr_sequences.T1_PRE else 'after'} contrast"
    found = mr_sequences.candidates(study, name)
    tried = []
    for series in found:
        tried.append(_fused(series, called, flair, head, turn))
        if tried[-1].series is not None:
            return tried[-1]
    return tried[0] if tried else _Partner((f"{called} is missing: the outline is less sure",))


def _fused(found: Series, called: str, flair: Series, head: NDArray[np.bool_], turn: Turn) -> _Partner:
    series, doubled = without_doubles(found)
    if said := mr_sequences.obstacle(series):
        return _Partner((f"{called} cannot be read as one volume ({said}) and was not used",))
    is_in_place = series.frame_of_reference and series.frame_of_reference == flair.frame_of_reference
    try:
        fused = onto(series, flair) if is_in_place else None
        if fused is None:
            return _Partner((f"{called} does not share FLAIR's frame of reference and grid, and was not used",))
        volume, covered = turn.there(fused[0]), turn.there(fused[1])
        share = float(covered[head].mean())
        if share < LEAST_COVERED:
            return _Partner((f"{called} covers only {share:.0%} of the head and was not used",))
        scores = imaging.standardise(volume, head & covered)
    except (BadPixels, imaging.NoHead) as error:
        return _Partner((f"{called} cannot be read ({error}) and was not used",))
    scores[~covered] = 0.0  # the mean of the head: as if nothing were known there
    notes = [f"{called}: {doubled}"] if doubled else []
    if share < WHOLLY_COVERED:
        notes.append(f"{called} covers only {share:.0%} of the head: elsewhere the outline is less sure")
    return _Partner(tuple(notes), series, scores)


def _measurements(mask: NDArray[np.bool_], series: Series) -> tuple[Measurement, ...]:
    assert series.spacing is not None
    volume = Measurement(codes.VOLUME, float(mask.sum()) * voxel_cm3(series), codes.CUBIC_CENTIMETER)
    return (volume,)
