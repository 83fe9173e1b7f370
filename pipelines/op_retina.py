"""The pipeline ``op_retina``: outlines the vessels of a fundus photograph and measures their density.

    photograph → field of view → one size, lit evenly → network, over mirror images → back onto the photograph

Vessel density is the share of the field of view that is vessel, in percent. It writes nothing, and what it says is not
a diagnosis.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines import fundus
from pipelines.base import Finding, Findings, Measurement, Segment, UnsuitableStudy, WithheldStudy
from pipelines.carded import Carded
from pipelines.domain import Domain
from pipelines.evidence import codes
from pipelines.pictures import Picture, alone, by_size, pictures
from pipelines.probability import Probability, held, in_steps
from pipelines.quality import complaint, of_colours
from pipelines.series import Series
from pipelines.study import BadPixels, Study

CARD = Path(__file__).parent / "weights" / "op_retina-1.2.0.json"
LABEL = "vessel"
DOMAIN = Domain("a photograph of the fundus", frozenset({"OP"}), frozenset({"EYE", "RETINA", "FUNDUS"}))
MOST_PICTURES = 12  # of a series
SHORTEST = 300  # pixels of the picture's shorter side; below it vessels are thinner than a pixel
DENSITY_NOTE = "vessel density: the area of vessels in percent of the camera's field of view"


@dataclass(frozen=True, eq=False)
class _Outlined:
    """Vessels of one picture: bool (rows, columns); on the same grid how likely they are, and the field of view."""

    sop_uid: str
    mask: NDArray[np.bool_]
    steps: NDArray[np.uint8]
    field: NDArray[np.bool_]


class Retina(Carded):
    """Reads fundus photographs; the networks stay warm in the instance."""

    def __init__(self, card: Path = CARD, *, device: str | None = None) -> None:
        super().__init__(card, device=device)

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        found: list[Findings] = []
        refused: UnsuitableStudy | WithheldStudy | None = None
        for series in DOMAIN.series(study):
            for part in by_size(series):
                try:
                    found.append(self._findings(part))
                except (UnsuitableStudy, WithheldStudy) as reason:
                    refused = refused or reason
        if refused and not found:
            raise refused
        return tuple(found)

    def probabilities(self, view: fundus.Shown) -> torch.Tensor:
        """Of vessel, (rows, columns) of the image as it is shown."""
        return fundus.merged(self._networks.logits("vessels", fundus.mirrored(view.image), batch=1))

    def _findings(self, series: Series) -> Findings:
        _refuse(series)
        begun = time.perf_counter()
        try:
            shown = list(pictures(series))
        except BadPixels as error:
            raise WithheldStudy(f"the photographs cannot be read: {error}") from error
        loaded = time.perf_counter()
        read = [self._outlined(each) for each in shown]
        threshold = self.card.points["vessels"]["threshold"]
        findings = tuple(_finding(each, place, len(read), threshold) for place, each in enumerate(read))
        stages = {"load": loaded - begun, "network": time.perf_counter() - loaded}
        return Findings(series, findings, (series,), (DENSITY_NOTE,), self.device, stages)

    def _outlined(self, picture: Picture) -> _Outlined:
        if picture.pixels.ndim != 3:
            raise WithheldStudy("the photograph is grey: photographs in colour were validated")
        points, pixels = self.card.points["vessels"], picture.pixels.astype(np.uint8)
        try:
            view = fundus.shown(pixels)
        except fundus.NoFundus as error:
            raise WithheldStudy(f"the photograph does not look like a fundus: {error}") from error
        if said := complaint(of_colours(pixels), points.get("quality", {})):
            raise WithheldStudy(f"the photograph {said}")
        likely, threshold = view.back(self.probabilities(view)), points["threshold"]
        mask = likely > threshold
        return _Outlined(picture.sop_uid, mask, held(in_steps(likely), mask, threshold), view.field)


def _refuse(series: Series) -> None:
    """Raise what speaks against reading this series, as far as headers tell."""
    if len(series.frames) > MOST_PICTURES:
        raise WithheldStudy(f"the series has {len(series.frames)} photographs; at most {MOST_PICTURES} are read")
    shorter = min(int(series.header.Rows), int(series.header.Columns))
    if shorter < SHORTEST:
        raise WithheldStudy(f"the photograph is {shorter} pixels on its shorter side; at least {SHORTEST} are needed")


def _finding(read: _Outlined, place: int, frames: int, threshold: float) -> Finding:
    """Of one photograph; its segment is drawn on that one alone."""
    mask, likely = alone(read.mask, place, frames), Probability(alone(read.steps, place, frames), threshold)
    is_there = bool(read.mask.any())
    density = 100.0 * float(read.mask.sum()) / float(read.field.sum())
    return Finding(
        codes.BLOOD_VESSEL,
        present=is_there,
        label=LABEL,
        site=codes.RETINA,
        sop_uids=(read.sop_uid,),
        segment=Segment(LABEL, mask, codes.ANATOMICAL_STRUCTURE, codes.BLOOD_VESSEL, likely) if is_there else None,
        measurements=(Measurement(codes.AREA, round(density, 3), codes.PERCENT),),
    )
