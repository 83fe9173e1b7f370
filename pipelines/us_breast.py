"""The pipeline ``us_breast``: says of each ultrasound picture of a breast whether it is normal, or shows a lesion that
looks benign or malignant, and outlines the lesion.

    series → each picture, stretched to a square → two kinds of networks, over it and its mirror image
           → one class, an outline, its size

Class and outline come from different networks and may disagree; that is said, not hidden. Nothing is written here, and
what it says is not a diagnosis.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.base import Finding, Findings, Segment, UnsuitableStudy, WithheldStudy
from pipelines.carded import Carded
from pipelines.domain import Domain
from pipelines.evidence import codes
from pipelines.frames import Frame
from pipelines.imaging import keep_components
from pipelines.models.certainty import probabilities, strangeness
from pipelines.pictures import Look, Picture, Seen, alone, by_size, pictures
from pipelines.pixels import BadPixels, frame_count
from pipelines.probability import Probability, held, in_steps
from pipelines.scale import mm_per_pixel, size_of
from pipelines.series import Series
from pipelines.study import Study

CARD = Path(__file__).parent / "weights" / "us_breast-1.1.0.json"
LABEL = "lesion"
CLASSES = ("normal", "benign", "malignant")
CODES = {"normal": codes.NORMAL, "benign": codes.BENIGN, "malignant": codes.MALIGNANT}
# Stretched, since most of the pictures to learn from had lost their proportions.
LOOKS = {"class": Look((192, 192), stretch=True), "outline": Look((160, 160), stretch=True)}
DOMAIN = Domain("an ultrasound of a breast", frozenset({"US"}), frozenset({"BREAST"}), r"breast|mamma", smallest=64)
SMALLEST_SHARE = 0.3  # of the largest part of an outline; smaller ones are dropped


class BreastUltrasound(Carded):
    """Reads ultrasound pictures; the networks stay warm in the instance."""

    def __init__(self, card: Path = CARD, *, device: str | None = None) -> None:
        super().__init__(card, device=device)

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        parts = [part for series in DOMAIN.series(study) for part in by_size(series)]
        stills = [part for part in parts if all(frame_count(each) == 1 for each in part.instances)]
        if not stills:
            raise UnsuitableStudy("no series is an ultrasound of a breast in single pictures: clips are not read")
        return tuple(self._read(part) for part in stills)

    def _read(self, series: Series) -> Findings:
        begun = time.perf_counter()
        try:
            found = list(pictures(series))
        except BadPixels as error:
            raise WithheldStudy(f"the pictures cannot be read: {error}") from error
        seen = {role: [look.at(each.pixels) for each in found] for role, look in LOOKS.items()}
        loaded = time.perf_counter()
        self._refuse_strange(seen["class"])
        chances = self.chances(torch.stack([each.image for each in seen["class"]]))
        segments = self._segments(seen["outline"])
        stages = {"load": loaded - begun, "network": time.perf_counter() - loaded}
        findings: list[Finding] = []
        notes = list(series.faults)
        for place, picture in enumerate(found):
            decided = self.decided(chances[place])
            findings += _of_classes(chances[place], decided, picture.sop_uid)
            findings.append(_of_outline(segments[place], place, picture))
            notes += _contradictions(decided, segments[place] is not None, picture.frame)
        return Findings(series, tuple(findings), (series,), tuple(notes), self.device, stages)

    def chances(self, images: torch.Tensor) -> NDArray[np.float64]:
        """(N, classes) of images (N, 1, rows, columns): the mean over members, picture and mirror image."""
        points = self.card.points["class"]
        both = [probabilities(self._networks.logits("class", each), points) for each in (images, images.flip(-1))]
        mean: NDArray[np.float64] = torch.stack(both).mean((0, 1)).double().numpy()
        return mean

    def decided(self, chances: Sequence[float] | NDArray[np.float64]) -> str:
        """The one class that is said to be there: malignant from its cutoff on, else the likelier of the others."""
        by_name = dict(zip(self.card.points["class"]["classes"], chances, strict=True))
        if by_name["malignant"] >= self.card.points["class"]["cutoffs"]["malignant"]:
            return "malignant"
        return "benign" if by_name["benign"] >= by_name["normal"] else "normal"

    def _segments(self, seen: Sequence[Seen]) -> list[Segment | None]:
        """Of each picture; None where nothing is outlined."""
        images = torch.stack([each.image for each in seen])
        straight = self._networks.logits("outline", images).sigmoid()
        mirrored = self._networks.logits("outline", images.flip(-1)).sigmoid().flip(-1)
        mean = torch.stack([straight, mirrored]).mean((0, 1))  # (N, 1, rows, columns)
        threshold = self.card.points["outline"]["thresholds"][LABEL]
        found: list[Segment | None] = []
        for place, (each, chance) in enumerate(zip(seen, mean, strict=True)):
            likely = each.back(chance)[0]
            mask = keep_components(likely[None] > threshold, smallest=1, share=SMALLEST_SHARE)[0]
            steps = held(in_steps(likely), mask, threshold)
            found.append(
                Segment(
                    LABEL, alone(mask, place, len(seen)), codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE, codes.LESION,
                    Probability(alone(steps, place, len(seen)), threshold),
                ) if mask.any() else None
            )  # fmt: skip
        return found

    def _refuse_strange(self, seen: Sequence[Seen]) -> None:
        known, most = self._networks.beside("class"), self.card.points["class"]["strangest"]
        net = self._networks.members("class")[0]
        images = torch.stack([each.image for each in seen])
        with torch.inference_mode():
            features = net.embed(images.to(self.device)).cpu()  # type: ignore[operator]
        strange = float(strangeness(features, images, known).min())
        if strange > most:
            raise WithheldStudy(
                f"the pictures are unlike the ultrasound that was validated: distance {strange:.1f}, at most {most:.1f}"
            )


def _of_classes(chances: NDArray[np.float64], decided: str, sop_uid: str) -> list[Finding]:
    return [
        Finding(
            CODES[name],
            present=name == decided,
            certainty=min(max(float(chance), 0.0), 1.0),
            sop_uids=(sop_uid,),
            label=name,
            site=codes.BREAST,
        )
        for name, chance in zip(CLASSES, chances, strict=True)
    ]


def _of_outline(segment: Segment | None, place: int, picture: Picture) -> Finding:
    sop_uids = (picture.sop_uid,)
    if segment is None:
        return Finding(codes.LESION, present=False, label=LABEL, sop_uids=sop_uids, site=codes.BREAST)
    return Finding(
        codes.LESION,
        present=True,
        label=LABEL,
        site=codes.BREAST,
        sop_uids=sop_uids,
        segment=segment,
        measurements=size_of(segment.mask[place], mm_per_pixel(picture.frame, segment.mask[place])),
    )


def _contradictions(decided: str, is_outlined: bool, frame: Frame) -> list[str]:
    if decided == "normal" and is_outlined:
        return [f"{frame.title} is called normal, yet something in it is outlined as a lesion: the two disagree"]
    if decided != "normal" and not is_outlined:
        return [f"{frame.title} is called {decided}, yet no lesion in it is outlined: the two disagree"]
    return []
