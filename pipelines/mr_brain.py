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

from pipelines import imaging, mr_sequences
from pipelines.base import Algorithm, Finding, Findings, Measurement, Segment, UnsuitableStudy, WithheldStudy
from pipelines.evidence import codes
from pipelines.fusion import Turn, onto, turn_of
from pipelines.models.ensemble import Card, Ensemble
from pipelines.series import Series
from pipelines.study import BadPixels, Study

WEIGHTS = Path(__file__).parent / "weights"
CARD = WEIGHTS / "mr_brain-1.0.0.json"
LABEL = "FLAIR abnormality"

FEWEST_SLICES = 10  # trained on stacks of 19 to 87
SHORTEST_MM = 60.0  # of the head, foot to head; below it the head's size cannot be judged
COARSEST_MM = 2.0  # in plane
USUAL_STEP_MM = 5.0  # between slices of the training data; thinner stacks look further away for neighbours
SCORE_PIXELS = 200  # the lesion score is the mean logit of so many brightest pixels of the probability map


@dataclass(frozen=True, eq=False)
class Prepared:
    """A study as the networks take it, and the way back.

    Attributes:
        images: float32 (frames, sequences, *CANVAS); a missing sequence is all 0.
        shape: Of the turned volume.
        step: How many slices away a neighbour is looked for.
    """

    flair: Series
    read: tuple[Series, ...]
    images: torch.Tensor
    box: imaging.HeadBox
    turn: Turn
    shape: tuple[int, ...]
    step: int
    notes: tuple[str, ...]

    def onto_source(self, canvas: torch.Tensor) -> NDArray[np.float32]:
        """(frames, *CANVAS) → (frames, rows, columns) of FLAIR."""
        return np.ascontiguousarray(self.turn.back(imaging.paste(canvas, self.box, self.shape)))


class BrainTumour:
    """Reads brain MR studies; the networks stay warm in the instance."""

    def __init__(self, card: Path = CARD, *, device: str | None = None) -> None:
        self.card = Card.read(card)
        self._networks = Ensemble(self.card, card.with_suffix(".safetensors"), device=device)

    @property
    def device(self) -> str:
        return self._networks.device

    @property
    def algorithm(self) -> Algorithm:
        family = Code("123110", "DCM", "Artificial Intelligence")
        return Algorithm(self.card.name, self.card.version, family, self.card.sha256)

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        begun = time.perf_counter()
        prepared = prepare(study)
        loaded = time.perf_counter()
        canvas = self._networks.probabilities(prepared.images, step=prepared.step)
        finding = self._judge(prepared, canvas)
        stages = {"load": loaded - begun, "network": time.perf_counter() - loaded}
        return (Findings(prepared.flair, (finding,), prepared.read, prepared.notes, self.device, stages),)

    def probabilities(self, prepared: Prepared) -> torch.Tensor:
        """(frames, *CANVAS): for evaluation and explanation."""
        return self._networks.probabilities(prepared.images, step=prepared.step)

    def outline(self, prepared: Prepared, canvas: torch.Tensor) -> NDArray[np.bool_]:
        """Probabilities on the canvas → bool mask on the grid of FLAIR, small components dropped."""
        mask = prepared.onto_source(canvas) > self.card.threshold
        smallest = math.ceil(self.card.smallest_cm3 / voxel_cm3(prepared.flair))
        return imaging.keep_components(mask, smallest=smallest, share=self.card.smallest_share)

    def _judge(self, prepared: Prepared, canvas: torch.Tensor) -> Finding:
        mask = self.outline(prepared, canvas)
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
            sop_uids=tuple(str(each.SOPInstanceUID) for each in prepared.flair.instances if id(each) in touched),
            segment=Segment(LABEL, mask, codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE, codes.LESION),
            measurements=_measurements(mask, prepared.flair),
        )


def prepare(study: Study) -> Prepared:
    """Find the sequences, fuse them and bring them onto the canvas.

    Raises:
        UnsuitableStudy: If there is no FLAIR that can be read.
        WithheldStudy: If there is, but not such as the networks were trained on.
    """
    flair = _flair_of(study)
    turn = turn_of(flair)
    try:
        volumes: dict[str, NDArray[np.float32]] = {mr_sequences.FLAIR: turn.there(flair.volume())}
        read, notes = [flair], list(flair.faults)
        for name in (mr_sequences.T1_PRE, mr_sequences.T1_POST):
            series, volume, note = _partner(study, name, flair)
            notes += [note] if note else []
            if series is not None and volume is not None:
                volumes[name] = turn.there(volume)
                read.append(series)
    except BadPixels as error:
        raise WithheldStudy(f"a series cannot be read: {error}") from error
    shape = volumes[mr_sequences.FLAIR].shape
    between, rows, columns = _turned_spacing(flair, turn)
    try:
        head = imaging.head_mask(volumes[mr_sequences.FLAIR])
        box = imaging.head_box(head, pixel_ratio=rows / columns)
        images = torch.zeros(shape[0], len(imaging.SEQUENCES), *imaging.CANVAS)
        for place, name in enumerate(imaging.SEQUENCES):
            if name in volumes:
                images[:, place] = imaging.cut(imaging.standardise(volumes[name], head), box)
    except imaging.NoHead as error:
        raise WithheldStudy(str(error)) from error
    step = max(1, round(USUAL_STEP_MM / between))
    return Prepared(flair, tuple(read), images, box, turn, shape, step, tuple(notes))


def lesion_score(canvas: torch.Tensor) -> float:
    """How sure the networks are of the surest part of a volume: what the certainty is fitted on."""
    top = canvas.flatten().topk(min(SCORE_PIXELS, canvas.numel())).values
    return float(torch.logit(top, eps=1e-4).mean())


def voxel_cm3(series: Series) -> float:
    assert series.spacing is not None  # _flair_of sees to it
    return float(np.prod(series.spacing)) / 1000


def _flair_of(study: Study) -> Series:
    found = mr_sequences.candidates(study, mr_sequences.FLAIR)
    if not found:
        raise UnsuitableStudy(f"no FLAIR series of a head among {mr_sequences.description_of(study)}")
    flair = found[0]
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
    return flair


def _turned_spacing(series: Series, turn: Turn) -> tuple[float, float, float]:
    assert series.spacing is not None
    between, rows, columns = (series.spacing[axis] for axis in turn.order)
    return between, rows, columns


def _turned_frames(series: Series) -> int:
    shape = (len(series.frames), int(series.header.Rows), int(series.header.Columns))
    return shape[turn_of(series).order[0]]


def _partner(study: Study, name: str, flair: Series) -> tuple[Series | None, NDArray[np.float32] | None, str | None]:
    """The series of this role on the grid of FLAIR, or a sentence why there is none."""
    when = "before" if name == mr_sequences.T1_PRE else "after"
    found = mr_sequences.candidates(study, name)
    if not found:
        return None, None, f"T1 {when} contrast is missing: the outline is less sure"
    for series in found:
        if series.frame_of_reference and series.frame_of_reference == flair.frame_of_reference:
            volume = onto(series, flair)
            if volume is not None and volume.std() > 0:
                return series, volume, None
    return (
        None,
        None,
        f"T1 {when} contrast does not share FLAIR's frame of reference and grid, and was not used",
    )


def _measurements(mask: NDArray[np.bool_], series: Series) -> tuple[Measurement, ...]:
    assert series.spacing is not None
    volume = Measurement(codes.VOLUME, float(mask.sum()) * voxel_cm3(series), codes.CUBIC_CENTIMETER)
    return (volume,)
