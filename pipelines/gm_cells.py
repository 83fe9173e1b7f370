"""The pipeline ``gm_cells``: finds nuclei in microscope pictures, and counts the cells of blood smears.

    picture → smear, nuclei or neither → a box per cell, or numbered nuclei with boxes and their outline → counts

Which of the two a picture shows is taken from its headers where they tell, else from the picture; what looks like
neither is withheld, and so is what was taken as no picture of the training was. It writes nothing, and what it says is
not a diagnosis.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines import nuclei, smears
from pipelines.base import Finding, Findings, Measurement, Segment, UnsuitableStudy, WithheldStudy
from pipelines.carded import Carded
from pipelines.domain import Domain
from pipelines.evidence import codes
from pipelines.instance import items, text
from pipelines.models.certainty import probabilities
from pipelines.pictures import Look, Picture, by_size, pictures
from pipelines.probability import Probability, held, in_steps
from pipelines.quality import complaint
from pipelines.series import Series
from pipelines.study import BadPixels, Study

CARD = Path(__file__).parent / "weights" / "gm_cells-1.2.0.json"
# Organs are not read: which tissues the nuclei of the training are of is not known.
DOMAIN = Domain("a microscope picture", frozenset({"GM", "SM"}), frozenset({"BLOOD"}))
NUCLEI, SMEAR, OTHER = KINDS = ("nuclei", "blood smear", "other")
LOOK = Look((96, 96), colour=True)  # of the network that tells the kinds apart
MOST_PICTURES = 40  # of a series; a whole slide has thousands, and was not validated

NUCLEUS_LABEL = "nucleus"
CELL_CODES = {
    "red blood cell": codes.RED_BLOOD_CELL,
    "white blood cell": codes.WHITE_BLOOD_CELL,
    "platelet": codes.PLATELET,
}
# What headers say of a picture, in capitals, by what it then shows; the first that is met counts.
_SAID = {
    SMEAR: ("BLOOD", "SMEAR", "HEMATO", "HAEMATO"),
    NUCLEI: ("NUCLE", "DAPI", "HOECHST", "FLUORESC", "HISTO"),
}
_WHERE = ("BodyPartExamined", "SeriesDescription", "StudyDescription", "ProtocolName")
_SIDE_PICTURES = {"LABEL", "OVERVIEW", "LOCALIZER", "THUMBNAIL"}  # of Image Type, value 3 (PS3.3 C.8.12.4.1.1)


@dataclass(frozen=True)
class _Read:
    """What was found in one picture.

    Attributes:
        findings: A summary per class, then the cells one by one.
        mask: bool (rows, columns) of nuclei; None of a smear.
        steps: How likely each pixel is of a nucleus, uint8 (rows, columns), as ``probability`` has it.
    """

    findings: tuple[Finding, ...]
    mask: NDArray[np.bool_] | None = None
    steps: NDArray[np.uint8] | None = None


class Cells(Carded):
    """Reads microscope pictures; the networks stay warm in the instance."""

    def __init__(self, card: Path = CARD, *, device: str | None = None) -> None:
        super().__init__(card, device=device)
        self._nuclei = nuclei.Rule(**self.card.points["nuclei"]["rule"])
        self._smears = smears.Rule(**self.card.points["smears"]["rule"])

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        found: list[Findings] = []
        refused: UnsuitableStudy | WithheldStudy | None = None
        for series in _microscopy(study):
            for part in by_size(series):
                try:
                    found.append(self._findings(part))
                except (UnsuitableStudy, WithheldStudy) as reason:
                    refused = refused or reason
        if refused and not found:
            raise refused
        return tuple(found)

    def _findings(self, series: Series) -> Findings:
        if len(series.frames) > MOST_PICTURES:
            raise WithheldStudy(
                f"the series has {len(series.frames)} pictures; at most {MOST_PICTURES} are read, and no whole slides"
            )
        begun = time.perf_counter()
        try:
            shown = list(pictures(series))
        except BadPixels as error:
            raise WithheldStudy(f"the pictures cannot be read: {error}") from error
        loaded = time.perf_counter()
        kind, notes = self._kind(series, shown)
        read = [self._nuclei_of(each) if kind == NUCLEI else self._smear_of(each) for each in shown]
        findings = [each for one in read for each in one.findings]
        if kind == NUCLEI:
            whole = _outlined(findings, read, series, self._nuclei.threshold)
            findings = [whole, *(each for each in findings if each.box)]
        stages = {"load": loaded - begun, "network": time.perf_counter() - loaded}
        return Findings(series, tuple(findings), (series,), notes, self.device, stages)

    def _kind(self, series: Series, shown: Sequence[Picture]) -> tuple[str, tuple[str, ...]]:
        """Nuclei or smear, and what is to be said of how that was told.

        Raises:
            WithheldStudy: If a picture looks like neither.
        """
        points = self.card.points["kind"]
        told = said_kind(series)
        looks = [self.looks_like(each) for each in shown]
        for chances in looks:
            if chances[OTHER] >= points["cutoffs"][OTHER]:
                raise WithheldStudy(
                    f"a picture looks like neither stained or fluorescent nuclei nor a blood smear "
                    f"({chances[OTHER]:.0%} sure)"
                )
        smear = float(np.mean([chances[SMEAR] / (chances[SMEAR] + chances[NUCLEI]) for chances in looks]))
        seen = SMEAR if smear > 0.5 else NUCLEI
        if told is None:
            return seen, (f"the headers do not say what was pictured; by its look it is taken for {_A[seen]}",)
        if told != seen:
            return told, (f"the headers say that it is {_A[told]}, but it looks like {_A[seen]}",)
        return told, ()

    def looks_like(self, picture: Picture) -> dict[str, float]:
        """Kind: probability."""
        logits = self._networks.logits("kind", LOOK.at(picture.pixels).image[None]).mean(0)[0]
        return dict(zip(KINDS, probabilities(logits, self.card.points["kind"]).tolist(), strict=True))

    def _refuse_unlike(self, image: torch.Tensor, role: str) -> None:
        if said := complaint(image, self.card.points[role].get("quality", {})):
            raise WithheldStudy(f"a picture {said}")

    def _nuclei_of(self, picture: Picture) -> _Read:
        view = nuclei.shown(picture.pixels)
        self._refuse_unlike(view.picture, "nuclei")
        maps = nuclei.merged(self._networks.logits("nuclei", nuclei.mirrored(view.image)))
        rows, columns = view.size
        likely, core = (each[:rows, :columns].numpy() for each in maps)
        numbers, found = nuclei.numbered(likely, core, self._nuclei)
        fit = self.card.points["nuclei"]["certainty"]
        boxes = tuple(
            Finding(
                codes.NUCLEUS,
                present=True,
                certainty=_certainty(each.score, fit),
                label=NUCLEUS_LABEL,
                sop_uids=(picture.sop_uid,),
                box=nuclei.on_source(each.box, view),
            )
            for each in sorted(found, key=lambda each: -each.score)
        )
        kept = np.isin(numbers, [each.number for each in found])
        mask = nuclei.mask_on_source(kept, view)
        steps = held(in_steps(nuclei.map_on_source(likely, view)), mask, self._nuclei.threshold)
        return _Read(boxes, mask, steps)

    def _smear_of(self, picture: Picture) -> _Read:
        if picture.pixels.ndim != 3:
            raise WithheldStudy("the blood smear is not in colour: only stained smears in colour are read")
        view = smears.shown(picture.pixels.astype(np.uint8))
        self._refuse_unlike(view.picture, "smears")
        maps = smears.merged(self._networks.logits("smears", smears.mirrored(view.image)))
        found = smears.cells(maps, view, self._smears)
        uids, fits = (picture.sop_uid,), self.card.points["smears"]["certainty"]
        counts = {kind: sum(each.kind == kind for each in found) for kind in smears.CLASSES}
        summaries = [
            Finding(
                CELL_CODES[kind], present=count > 0, label=kind, sop_uids=uids, measurements=(_count(count),)
            )
            for kind, count in counts.items()
        ]  # fmt: skip
        cells = [
            Finding(
                CELL_CODES[each.kind],
                present=True,
                certainty=_certainty(each.score, fits[each.kind]),
                label=each.kind,
                sop_uids=uids,
                box=each.box,
            )
            for each in found
        ]
        return _Read((*summaries, *cells))


_A = {NUCLEI: "a picture of nuclei", SMEAR: "a blood smear"}


def said_kind(series: Series) -> str | None:
    """What the headers say that the series shows; None where they do not."""
    header = series.header
    regions = [text(each, "CodeMeaning") for each in items(header, "AnatomicRegionSequence")]
    said = " ".join([*(text(header, keyword) for keyword in _WHERE), *regions]).upper()
    return next((kind for kind, words in _SAID.items() if any(word in said for word in words)), None)


def _microscopy(study: Study) -> list[Series]:
    """The series that are microscope pictures.

    Raises:
        UnsuitableStudy: If there are none.
    """
    found = DOMAIN.series(study)
    kept = [series for series in found if not _SIDE_PICTURES & {str(each) for each in series.get("ImageType") or ()}]
    if not kept:
        raise UnsuitableStudy("the pictures are labels or overviews of slides, not what a microscope magnifies")
    return kept


def _outlined(nuclei_found: Sequence[Finding], read: Sequence[_Read], series: Series, threshold: float) -> Finding:
    """All nuclei of the series together: their outline and their number."""
    mask = np.stack([each.mask for each in read if each.mask is not None])
    likely = Probability(np.stack([each.steps for each in read if each.steps is not None]), threshold)
    uids = tuple(dict.fromkeys(text(frame.instance, "SOPInstanceUID") for frame in series.frames))
    is_there = bool(nuclei_found) and bool(mask.any())
    segment = Segment(NUCLEUS_LABEL, mask, codes.ANATOMICAL_STRUCTURE, codes.NUCLEUS, likely) if is_there else None
    return Finding(
        codes.NUCLEUS,
        present=is_there,
        label=NUCLEUS_LABEL,
        sop_uids=uids,
        segment=segment,
        measurements=(_count(len(nuclei_found)),),
    )


def _count(number: int) -> Measurement:
    return Measurement(codes.NUMBER_OF_SIMILAR_FINDINGS, float(number), codes.NO_UNITS)


def _certainty(score: float, fit: Sequence[float]) -> float:
    """By the logistic fit (offset, slope) on the folds: how often such a box was right."""
    odds = math.log(max(score, 1e-4) / max(1 - score, 1e-4))
    return 1 / (1 + math.exp(-(fit[0] + fit[1] * odds)))
