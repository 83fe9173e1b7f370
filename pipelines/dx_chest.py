"""The pipeline ``dx_chest``: findings of a frontal chest X-ray, where an opacity is, lungs and heart, which way up.

    series → frontal pictures of one size → turned upright → outlines, findings, place of an opacity → turned back

A picture that is turned by a quarter or a half is called rotated, and read as it would be upright. One that is unlike
those of the training is not read. It writes nothing, and what it says is not a diagnosis.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from pipelines import imaging
from pipelines.base import Finding, Findings, Measurement, Segment, UnsuitableStudy, WithheldStudy
from pipelines.carded import Carded
from pipelines.domain import Domain, class_findings
from pipelines.evidence import codes
from pipelines.instance import number, text
from pipelines.models.certainty import probabilities, strangeness
from pipelines.pictures import Look, Picture, alone, pictures
from pipelines.probability import Probability, held, in_steps
from pipelines.series import Series
from pipelines.study import BadPixels, Study

CARD = Path(__file__).parent / "weights" / "dx_chest-1.2.0.json"
DOMAIN = Domain(
    "a frontal X-ray of the chest",
    modalities=frozenset({"CR", "DX"}),
    parts=frozenset({"CHEST", "THORAX", "LUNG", "LUNGS"}),
    words=r"chest|thorax|lung|\bcxr\b",
    smallest=96,
)
LATERAL = frozenset({"LL", "RL", "LLD", "RLD", "LATERAL", "LLO", "RLO", "LAO", "RAO", "LPO", "RPO"})  # View Position

ROTATED = "rotated"
OUTLINES = ("right lung", "left lung", "heart")
TURNS = ("upright", "needs 90 degrees clockwise", "upside down", "needs 90 degrees counterclockwise")
# What the network learns. Only the opacity was learnt from radiologists; the others from a text program's reports.
FINDINGS = (
    "opacity", "infiltration", "atelectasis", "effusion", "edema", "consolidation", "nodule", "mass",
    "pleural thickening", "cardiomegaly", "fibrosis", "pneumothorax", "emphysema",
)  # fmt: skip
# What it says: of the rest there was too little to learn from (model card).
SAID = {
    "opacity": codes.OPACITY,
    "edema": codes.PULMONARY_EDEMA,
}
SITES = {"right lung": codes.LUNG, "left lung": codes.LUNG, "heart": codes.HEART}
SIDES = {"right lung": codes.RIGHT, "left lung": codes.LEFT}

OUTLINE_LOOK = Look((256, 256))
CLASS_LOOK = Look((256, 256))
TURN_LOOK = Look((64, 64))
SMALLEST_SHARE = 0.005  # of the picture; what is smaller is no lung and no heart


@dataclass(frozen=True, eq=False)
class Read:
    """What the networks make of one picture, on its own grid as it is stored.

    Attributes:
        turn: Quarter turns counterclockwise by which it is away from upright, 0 to 3.
        turned: Probability that it is not upright.
        chances: A probability for each of ``FINDINGS``.
        where: The opacity, float32 (rows, columns), 0 to 1.
        masks: bool (outlines, rows, columns).
        steps: How likely each pixel is of each outline, uint8 (outlines, rows, columns), as ``probability`` has it.
        strange: How unlike the pictures of the training, as ``certainty`` has it.
    """

    sop_uid: str
    turn: int
    turned: float
    chances: NDArray[np.float64]
    where: NDArray[np.float32]
    masks: NDArray[np.bool_]
    steps: NDArray[np.uint8]
    strange: float


class Chest(Carded):
    """Reads chest X-rays; the networks stay warm in the instance."""

    def __init__(self, card: Path = CARD, *, device: str | None = None) -> None:
        super().__init__(card, device=device)

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        runs: list[Findings] = []
        refused: list[str] = []
        for series in frontal(study):
            try:
                runs.append(self._findings(series))
            except WithheldStudy as reason:
                refused.append(f"series {series.description or series.uid}: {reason}")
        if not runs:
            raise WithheldStudy("; ".join(refused))
        return (replace(runs[0], notes=(*runs[0].notes, *refused)), *runs[1:])

    def explain(self, study: Study) -> list[tuple[str, NDArray[np.float32], str]]:
        """SOP Instance UID, map (rows, columns) 0 to 1 of where, and of what: the opacity, of each picture."""
        return [
            (picture.sop_uid, self.read(picture).where, FINDINGS[0])
            for series in frontal(study)
            for picture in pictures(series)
        ]

    def read(self, picture: Picture) -> Read:
        """One picture, whichever way up."""
        turns = self._turns(picture.pixels)
        turn = int(turns.argmax())
        upright = np.ascontiguousarray(np.rot90(picture.pixels, -turn))
        chances, where, strange = self._found(upright)
        masks, steps = self._outlined(upright)
        return Read(
            picture.sop_uid,
            turn,
            float(turns[1:].sum()),
            chances,
            np.ascontiguousarray(np.rot90(where, turn)),
            np.ascontiguousarray(np.rot90(masks, turn, (1, 2))),
            np.ascontiguousarray(np.rot90(steps, turn, (1, 2))),
            strange,
        )

    def _turns(self, pixels: NDArray[Any]) -> NDArray[np.float64]:
        """A probability for each of ``TURNS``."""
        logits = self._networks.logits("turn", TURN_LOOK.at(pixels).image[None])
        chances: NDArray[np.float64] = probabilities(logits, self.card.points["turn"]).mean(0)[0].double().numpy()
        return chances

    @torch.inference_mode()
    def _found(self, upright: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float32], float]:
        """Chances, where the opacity is (rows, columns), and how strange; of the picture and its mirror image."""
        points = self.card.points["findings"]
        seen = CLASS_LOOK.at(upright)
        logits, where = self._networks.outputs("findings", torch.stack((seen.image, seen.image.flip(2))))
        chances = probabilities(logits, points).mean((0, 1))
        maps = where.sigmoid().mean(0)  # (2, 1, h, w)
        place = (maps[:1] + maps[1:].flip(3)) / 2
        canvas = F.interpolate(place, size=CLASS_LOOK.canvas, mode="bilinear", align_corners=False)[0]
        embed = self._networks.members("findings")[0].embed
        features = embed(seen.image[None].to(self.device)).float().cpu()  # type: ignore[operator]
        strange = strangeness(features, seen.image[None], self._networks.beside("findings"))
        return chances.double().numpy(), seen.back(canvas)[0], float(strange[0])

    def _outlined(self, upright: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
        """Of each outline the parts that are not much smaller than its largest, and how likely they are."""
        points = self.card.points["outline"]
        seen = OUTLINE_LOOK.at(upright)
        chances = seen.back(self._networks.logits("outline", seen.image[None])[:, 0].sigmoid().mean(0))
        smallest = int(SMALLEST_SHARE * chances[0].size)
        masks, steps = np.empty(chances.shape, bool), in_steps(chances)
        for i, name in enumerate(OUTLINES):
            above = chances[i : i + 1] > points["thresholds"][name]
            masks[i] = imaging.keep_components(above, smallest=smallest, share=0.2)[0]
            held(steps[i], masks[i], points["thresholds"][name])
        return masks, steps

    def _findings(self, series: Series) -> Findings:
        begun = time.perf_counter()
        try:
            shown = list(pictures(series))
        except BadPixels as reason:
            raise WithheldStudy(f"a picture cannot be read: {reason}") from reason
        loaded = time.perf_counter()
        read = [self.read(picture) for picture in shown]
        usual = [each.strange <= self.card.points["findings"]["strangest"] for each in read]
        if not any(usual):
            raise WithheldStudy("no picture looks like the chest X-rays that the networks were trained on")
        thresholds = self.card.points["outline"]["thresholds"]
        said = [
            finding
            for place, each in enumerate(read)
            if usual[place]
            for finding in (*self._classes(each), *_outlines(each, place, len(read), thresholds))
        ]
        stages = {"load": loaded - begun, "network": time.perf_counter() - loaded}
        return Findings(series, tuple(said), (series,), tuple(_notes(read, usual)), self.device, stages)

    def _classes(self, read: Read) -> Iterator[Finding]:
        points, only = self.card.points["findings"], (read.sop_uid,)
        yield Finding(
            codes.IMAGE_ROTATED,
            present=read.turn != 0,
            certainty=min(read.turned, 1.0),
            sop_uids=only,
            label=ROTATED,
        )
        shown = {"classes": list(SAID), "cutoffs": points["cutoffs"]}
        chances = [float(read.chances[FINDINGS.index(name)]) for name in SAID]
        yield from class_findings(chances, shown, SAID, sop_uids=only, site=codes.LUNG)


def frontal(study: Study) -> list[Series]:
    """Series of frontal pictures, each of one size: a series of several is parted, for a mask has one.

    Raises:
        UnsuitableStudy: If there is none.
    """
    parts: dict[tuple[object, ...], list[Any]] = {}
    for series in DOMAIN.series(study):
        for each in series.instances:
            if text(each, "ViewPosition").upper() not in LATERAL:
                key = (series.uid, number(each, "Rows"), number(each, "Columns"))
                parts.setdefault(key, []).append(each)
    if not parts:
        raise UnsuitableStudy("no picture is frontal: by their View Position all are from the side or oblique")
    return [
        Series(text(each[0], "SeriesInstanceUID"), text(each[0], "Modality"), tuple(each)) for each in parts.values()
    ]


def cardiothoracic_ratio(masks: NDArray[np.bool_]) -> float | None:
    """Widest extent of the heart over that of both lungs together, of upright masks (outlines, rows, columns).

    None where one of them is missing.
    """
    if not masks.any(axis=(1, 2)).all():
        return None
    heart, chest = (np.flatnonzero(each.any(axis=0)) for each in (masks[2], masks[0] | masks[1]))
    return float((heart[-1] - heart[0] + 1) / (chest[-1] - chest[0] + 1))


def _outlines(read: Read, place: int, frames: int, thresholds: Mapping[str, float]) -> Iterator[Finding]:
    ratio = cardiothoracic_ratio(np.rot90(read.masks, -read.turn, (1, 2)))
    for i, name in enumerate(OUTLINES):
        site = SITES[name]
        if not read.masks[i].any():
            yield Finding(site, present=False, sop_uids=(read.sop_uid,), label=name, site=site, side=SIDES.get(name))
            continue
        mask = alone(read.masks[i], place, frames)
        likely = Probability(alone(read.steps[i], place, frames), thresholds[name])
        measured = name == "heart" and ratio is not None
        yield Finding(
            site,
            present=True,
            sop_uids=(read.sop_uid,),
            label=name,
            segment=Segment(name, mask, codes.ANATOMICAL_STRUCTURE, site, likely),
            site=site,
            side=SIDES.get(name),
            measurements=(Measurement(codes.CARDIOTHORACIC_RATIO, ratio or 0.0, codes.RATIO),) if measured else (),
        )


def _notes(read: list[Read], usual: list[bool]) -> Iterator[str]:
    for place, (each, is_usual) in enumerate(zip(read, usual, strict=True), start=1):
        name = "the picture" if len(read) == 1 else f"picture {place}"
        if not is_usual:
            yield f"{name} is unlike those of the training and was not read"
        elif each.turn:
            yield f"{name} is turned ({TURNS[each.turn]}): it was read as it would be upright"
