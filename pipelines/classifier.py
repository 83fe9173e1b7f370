"""What the pipelines share that say which classes a picture shows: chances for each image, and where they come from.

    series → pictures → canvas → networks, mirrored where sides mean nothing → calibrated chances → findings

Which series is read, what the classes are and how they are coded is each pipeline's own. Pictures that are unlike those
of the training are not judged; where that is all of them, the series is withheld.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipelines.base import Algorithm, Finding, Findings, SaliencyMap, WithheldStudy
from pipelines.carded import Carded
from pipelines.evidence.codes import CLASS_ACTIVATION
from pipelines.instance import number, text
from pipelines.models.certainty import probabilities, strangeness, undecided
from pipelines.pictures import Look, Picture, Seen, pictures
from pipelines.pixels import BadPixels
from pipelines.series import Series
from pipelines.study import Study

ROLE = "class"
AS_IT_IS: tuple[int, ...] = ()
MIRRORED, FLIPPED, TURNED = (3,), (2,), (2, 3)  # the axes of (N, channels, rows, columns) that are turned over
MOST_MAPS = 8  # of one class, where maps are asked for
USUAL_STEP_MM = 4.0  # thinner stacks are read at so many millimetres: their neighbours say the same


@dataclass(frozen=True, eq=False)
class Judged:
    """What the networks say of one instance; of several frames the surest for each class.

    Attributes:
        chances: A probability per class, calibrated.
        strange: How unlike the pictures of the training, as ``certainty`` has it; of several frames the least.
    """

    sop_uid: str
    chances: tuple[float, ...]
    strange: float


class Classifier(Carded):
    """The networks of one pipeline; they stay warm in the instance."""

    def __init__(
        self, card: Path, look: Look, *, views: Sequence[tuple[int, ...]] = (AS_IT_IS,), device: str | None = None
    ) -> None:
        super().__init__(card, device=device)
        self.points = self.card.points[ROLE]
        self._look, self._views = look, tuple(views)

    def chances(self, images: Tensor) -> Tensor:
        """(N, classes) of images (N, channels, *canvas): the mean over members and views."""
        each = [
            probabilities(self._networks.logits(ROLE, images.flip(view) if view else images), self.points).mean(0)
            for view in self._views
        ]
        return torch.stack(each).mean(0)

    @torch.inference_mode()
    def strangeness(self, images: Tensor) -> Tensor:
        """(N,) of images (N, channels, *canvas)."""
        embed = self._networks.members(ROLE)[0].embed
        parts = [embed(part.to(self.device)).float().cpu() for part in torch.split(images, 16)]  # type: ignore[operator]
        return strangeness(torch.cat(parts), images, self._networks.beside(ROLE))

    def judge(self, shown: Iterable[Picture]) -> list[Judged]:
        """Each instance, in the order of the pictures."""
        found: dict[str, Judged] = {}
        for each in self.judge_frames(shown):
            before = found.get(each.sop_uid, each)
            most = tuple(map(max, before.chances, each.chances))
            found[each.sop_uid] = Judged(each.sop_uid, most, min(before.strange, each.strange))
        return list(found.values())

    def judge_frames(self, shown: Iterable[Picture]) -> list[Judged]:
        """Each picture by itself, also where an instance has several."""
        seen = [(picture.sop_uid, self._look.at(picture.pixels).image) for picture in shown]
        images = torch.stack([image for _, image in seen])
        chances, strange = self.chances(images).tolist(), self.strangeness(images).tolist()
        return [Judged(uid, tuple(row), far) for (uid, _), row, far in zip(seen, chances, strange, strict=True)]

    def read(
        self, found: Sequence[Series], say: Callable[[Sequence[Judged]], Iterable[Finding]]
    ) -> tuple[Findings, ...]:
        """A run for each series that can be read, as ``each_of`` has it.

        Args:
            say: What to make of the images of one series.

        Raises:
            WithheldStudy: If none can be read: undecodable, or unlike the pictures of the training.
        """
        return each_of(found, lambda series: self.read_one(series, say))

    def read_one(self, series: Series, say: Callable[[Sequence[Judged]], Iterable[Finding]]) -> Findings:
        """The images of one series, each by itself.

        Raises:
            WithheldStudy: If it cannot be read.
        """
        judged, notes, stages = self._usual(series)
        return Findings(series, tuple(say(judged)), (series,), tuple(notes), self.device, stages)

    def _usual(self, series: Series) -> tuple[list[Judged], list[str], dict[str, float]]:
        """What can be judged of a series, sentences that a reader must know, and seconds per stage."""
        begun, step = time.perf_counter(), stride(series)
        try:
            shown = list(islice(pictures(series), 0, None, step))
        except BadPixels as reason:
            raise WithheldStudy(f"a picture cannot be read: {reason}") from reason
        loaded = time.perf_counter()
        judged = self.judge(shown)
        stages = {"load": loaded - begun, "network": time.perf_counter() - loaded}
        most = float(self.points["strangest"])
        usual = [each for each in judged if each.strange <= most]
        if not usual:
            least = min(each.strange for each in judged)
            raise WithheldStudy(f"unlike the pictures of the training: {least:.1f} away, up to {most:.1f} is read")
        notes = [f"slices are thin: one of {step} was read"] if step > 1 else []
        if len(usual) < len(judged):
            notes.append(
                f"{len(judged) - len(usual)} of {len(judged)} images are unlike those of the training: not read"
            )
        return usual, [*notes, *self._undecided(usual)], stages

    def _undecided(self, judged: Sequence[Judged]) -> Iterable[str]:
        """A sentence for each class that some images leave open."""
        left_open = Counter(name for each in judged for name in undecided(each.chances, self.points))
        for name, count in left_open.items():
            sure = 1 - self.points["sets"]["miss"]
            yield f"{name} may be there or not on {count} of {len(judged)} images, to be right on {sure:.0%} of either"

    def explain(self, found: Sequence[Series]) -> list[tuple[str, NDArray[np.float32], str]]:
        """For each picture that would be read and each class: SOP Instance UID, map (rows, columns) 0 to 1, class."""
        shown = (picture for series in found for picture in islice(pictures(series), 0, None, stride(series)))
        return [
            (picture.sop_uid, where, name)
            for picture in shown
            for where, name in zip(self.maps(picture), self.points["classes"], strict=True)
        ]

    def saliency(self, findings: Findings) -> tuple[SaliencyMap, ...]:
        """A map for each class that is present, of the images of one frame that show it most surely."""
        series = findings.series
        places = {text(frame.instance, "SOPInstanceUID"): place for place, frame in enumerate(series.frames)}
        found = []
        for index, name in enumerate(self.points["classes"]):
            there = [each for each in findings.findings if each.label == name and each.present and each.sop_uids]
            surest = sorted(there, key=lambda each: -(each.certainty or 0.0))[:MOST_MAPS]
            uids = {uid for each in surest for uid in each.sop_uids}
            shown = tuple(each for each in series.instances if text(each, "SOPInstanceUID") in uids)
            single = tuple(each for each in shown if (number(each, "NumberOfFrames") or 1) == 1)
            if not single:
                continue
            pairs = [
                (places[picture.sop_uid], self.maps(picture)[index])
                for picture in pictures(Series(series.uid, series.modality, single))
            ]
            for part in by_shape(pairs):
                values = np.stack([where for _, where in part])
                found.append(SaliencyMap(name, CLASS_ACTIVATION, tuple(place for place, _ in part), values))
        return tuple(found)

    @torch.inference_mode()
    def maps(self, picture: Picture) -> NDArray[np.float32]:
        """(classes, rows, columns), 0 to 1: class activation maps (Zhou et al. 2016), the mean over the members.

        Where the picture speaks for a class, relative to the spot that does so most; a class that nothing speaks for
        has a map of zeros.
        """
        seen: Seen = self._look.at(picture.pixels)
        total = torch.zeros(len(self.points["classes"]), *self._look.canvas)
        for net in self._networks.members(ROLE):
            coarse = net.maps(seen.image[None].to(self.device))  # type: ignore[operator]  # (1, features, h, w)
            spoken = torch.einsum("kf,fhw->khw", net.head.weight, coarse[0])  # type: ignore[union-attr]
            if self.points["exclusive"]:
                spoken = spoken - spoken.mean(0)  # what speaks for all classes speaks for none
            size = list(self._look.canvas)
            total += F.interpolate(spoken[None], size=size, mode="bilinear", align_corners=False)[0].float().cpu()
        found = seen.back(total.relu())
        most = found.max(axis=(1, 2), keepdims=True)
        return np.asarray(np.divide(found, most, out=np.zeros_like(found), where=most > 0).clip(0, 1))


def each_of(found: Sequence[Series], one: Callable[[Series], Findings]) -> tuple[Findings, ...]:
    """A run for each series that can be read; those that cannot are named in the notes of the first.

    Raises:
        WithheldStudy: If none can be read.
    """
    runs: list[Findings] = []
    refused: list[tuple[Series, WithheldStudy]] = []
    for series in found:
        try:
            runs.append(one(series))
        except WithheldStudy as reason:
            refused.append((series, reason))
    if not runs:
        raise refused[0][1]
    said = [f"series {series.description or series.uid} was not read: {reason}" for series, reason in refused]
    return (replace(runs[0], notes=(*runs[0].notes, *said)), *runs[1:])


def by_shape(pairs: Sequence[tuple[int, NDArray[np.float32]]]) -> list[list[tuple[int, NDArray[np.float32]]]]:
    """Maps of one size each: photographs of a series may have several."""
    groups: dict[tuple[int, ...], list[tuple[int, NDArray[np.float32]]]] = {}
    for pair in pairs:
        groups.setdefault(pair[1].shape, []).append(pair)
    return list(groups.values())


class ClassPipeline(ABC):
    """A pipeline that says which classes a picture shows: which series it reads, and what it says, is its own."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    @property
    def device(self) -> str:
        return self._classifier.device

    @property
    def algorithm(self) -> Algorithm:
        return self._classifier.algorithm

    def warm_up(self) -> str:
        return self._classifier.warm_up()

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        return self._classifier.read(self._series(study), self._say)

    def explain(self, study: Study) -> list[tuple[str, NDArray[np.float32], str]]:
        """For each picture that would be read and each class: SOP Instance UID, map (rows, columns) 0 to 1, class."""
        return self._classifier.explain(self._series(study))

    @abstractmethod
    def _series(self, study: Study) -> Sequence[Series]:
        """Those that are read.

        Raises:
            UnsuitableStudy: If there is none.
        """

    @abstractmethod
    def _say(self, judged: Sequence[Judged]) -> Iterable[Finding]:
        """What to make of the images of one series."""


def stride(series: Series) -> int:
    """1 where every slice is read; n where slices are thin and every n-th is."""
    return max(1, round(USUAL_STEP_MM / series.spacing[0])) if series.spacing and len(series.frames) > 1 else 1
