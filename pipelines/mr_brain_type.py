"""The pipeline ``mr_brain_type``: glioma, meningioma or pituitary tumour, on slices of a T1 after contrast.

    single images → each by itself
    a stack → the slices on which ``mr_brain`` outlines something → one answer for the series, or none where they differ

It is made for slices that a tumour is known to be on. The networks learnt single slices, and the level of the head
sways them (they call the sella a pituitary tumour, the vertex a meningioma), so the slices of a stack where nothing is
known to be are not judged. It outlines nothing, and what it says is not a diagnosis.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines import mr_brain, mr_sequences
from pipelines.base import Algorithm, Finding, Findings, UnsuitableStudy, WithheldStudy
from pipelines.classifier import AS_IT_IS, MIRRORED, Classifier, ClassPipeline, Judged, each_of, stride
from pipelines.domain import Domain, class_findings
from pipelines.doubles import without_doubles
from pipelines.evidence import codes
from pipelines.fusion import shown_on
from pipelines.instance import text
from pipelines.pictures import Look, Picture, pictures
from pipelines.pixels import BadPixels
from pipelines.series import Series
from pipelines.study import Study

CARD = Path(__file__).parent / "weights" / "mr_brain_type-1.2.0.json"
KIND = "mobile_classifier"
CLASSES = ("glioma", "meningioma", "pituitary", "no tumor")
CODES = {
    "glioma": codes.GLIOMA,
    "meningioma": codes.INTRACRANIAL_MENINGIOMA,
    "pituitary": codes.PITUITARY_ADENOMA,
}
ANY = "any of these tumors"  # said in place of "no tumor": the rest of the brain was not judged, so it is not "normal"
LOOK = Look((192, 192))
DOMAIN = Domain(
    "a T1 of the brain after contrast",
    frozenset({"MR"}),
    frozenset({"HEAD", "BRAIN", "SKULL"}),
    r"brain|head|skull|crani|cerebr|neuro|sella|pituitar|hypophys",
)
STACK = mr_brain.FEWEST_SLICES  # frames of a series from which it is a stack, not single images
# How a stack is judged, where the card does not say: on slices with so much of the outline, of the slice with most;
# from so many slices; a kind from so large a share of the three, and not where "no tumor" is likelier than that.
RULE = {"least_area": 0.5, "fewest": 2, "share": 0.75, "without": 0.5}


@dataclass(frozen=True, eq=False)
class _Outlined:
    """FLAIR as ``mr_brain`` takes it, what it outlines there, and the seconds that took."""

    prepared: mr_brain.Prepared
    mask: NDArray[np.bool_]  # (frames, rows, columns) of FLAIR
    seconds: float


class BrainTumourType(ClassPipeline):
    """Reads brain MR studies; the networks stay warm in the instance."""

    def __init__(self, card: Path = CARD, *, device: str | None = None) -> None:
        super().__init__(Classifier(card, LOOK, views=(AS_IT_IS, MIRRORED), device=device))
        self._finder = mr_brain.BrainTumour(device=device)

    @property
    def algorithm(self) -> Algorithm:
        """The digest is also of the networks that say which slices of a stack are judged."""
        own, finder = super().algorithm, self._finder.algorithm
        both = f"{own.weights_digest}\n{finder.weights_digest}"
        return replace(own, weights_digest=hashlib.sha256(both.encode()).hexdigest())

    def warm_up(self) -> str:
        self._finder.warm_up()
        return super().warm_up()

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        @cache  # once for all of its series, and only where there is a stack
        def outlined() -> _Outlined | WithheldStudy:
            try:
                return self._outlined(study)
            except WithheldStudy as reason:
                return reason

        def one(series: Series) -> Findings:
            if len(series.frames) >= STACK:
                if isinstance(found := outlined(), WithheldStudy):
                    raise found
                return self._stack(series, found)
            read = self._classifier.read_one(series, self._say)
            note = f"each of the {len(series.frames)} images is judged by itself, as if it were the only one"
            return replace(read, notes=(*read.notes, note)) if len(series.frames) > 1 else read

        return each_of(self._series(study), one)

    def each_slice(self, study: Study) -> tuple[Findings, ...]:
        """Every image by itself, also of a stack: as up to 1.1.0, to measure what that was worth."""
        return self._classifier.read(self._series(study), self._say)

    def explain(self, study: Study) -> list[tuple[str, NDArray[np.float32], str]]:
        """For each slice that is read and each class: SOP Instance UID, map (rows, columns) 0 to 1, class."""
        found = self._series(study)
        shown = [series for series in found if len(series.frames) < STACK]
        if len(shown) < len(found):
            for run in self(study):
                uids = {uid for each in run.findings for uid in each.sop_uids}
                if len(run.series.frames) >= STACK:
                    kept = tuple(each for each in run.series.instances if text(each, "SOPInstanceUID") in uids)
                    shown.append(Series(run.series.uid, run.series.modality, kept))
        return self._classifier.explain(shown)

    def _series(self, study: Study) -> list[Series]:
        return readable(study)

    def _say(self, judged: Sequence[Judged]) -> Iterable[Finding]:
        points = self._classifier.points
        kinds = points | {"classes": points["classes"][:3]}
        for each in judged:
            yield from class_findings(each.chances[:3], kinds, CODES, sop_uids=(each.sop_uid,), site=codes.BRAIN)
            without = each.chances[3]
            yield Finding(
                codes.NEOPLASM,
                present=without < points["cutoffs"]["no tumor"],
                certainty=min(max(1 - without, 0.0), 1.0),
                sop_uids=(each.sop_uid,),
                label=ANY,
                site=codes.BRAIN,
            )

    def _outlined(self, study: Study) -> _Outlined:
        """FLAIR as ``mr_brain`` takes it, and its outline; gaps do not matter, for nothing is measured.

        Raises:
            WithheldStudy: If there is none.
        """
        begun = time.perf_counter()
        try:
            prepared = mr_brain.prepare(study)
        except (UnsuitableStudy, WithheldStudy) as reason:
            raise WithheldStudy(f"which of its slices show a tumor is not known: {reason}") from reason
        segment = self._finder.judge(prepared, self._finder.probabilities(prepared)).segment
        if segment is None:
            raise WithheldStudy("which of its slices show a tumor is not known: mr_brain outlines nothing on FLAIR")
        return _Outlined(prepared, segment.mask, time.perf_counter() - begun)

    def _stack(self, found: Series, outlined: _Outlined) -> Findings:
        """One answer for a whole stack, from the slices on which the outline is large; the larger counts more.

        Raises:
            WithheldStudy: If there are too few such slices, or they do not agree.
        """
        begun, (series, doubled) = time.perf_counter(), without_doubles(found)
        areas = _areas(series, outlined)
        rule = RULE | self._classifier.points.get("stack", {})
        places = np.flatnonzero(areas >= max(1.0, rule["least_area"] * areas.max(initial=0.0)))[:: stride(series)]
        if len(places) < rule["fewest"]:
            raise WithheldStudy(
                f"mr_brain's outline is on {len(places)} of its {len(series.frames)} slices; "
                f"{rule['fewest']} that agree are needed"
            )
        try:
            shown = _at(series, set(places.tolist()))
        except BadPixels as reason:
            raise WithheldStudy(f"a picture cannot be read: {reason}") from reason
        loaded = time.perf_counter()
        judged = self._classifier.judge_frames(shown)
        usual = [each.strange <= self._classifier.points["strangest"] for each in judged]
        if sum(usual) < rule["fewest"]:
            raise WithheldStudy(f"{usual.count(False)} of the {len(usual)} slices are unlike those of the training")
        kept = [each for each, is_usual in zip(judged, usual, strict=True) if is_usual]
        shares = agreed(kept, areas[places][usual], rule)
        sop_uids = tuple(dict.fromkeys(each.sop_uid for each in kept))
        points = {"classes": CLASSES[:3], "cutoffs": dict.fromkeys(CLASSES[:3], rule["share"])}
        findings = class_findings(shares, points, CODES, sop_uids=sop_uids, site=codes.BRAIN)
        notes = [
            f"one answer for the series, from {len(kept)} of its {len(series.frames)} slices: those on which mr_brain "
            "outlines most; whether there is a tumor was not judged, only which of the three kinds it looks like",
            *([doubled] if doubled else []),
            *outlined.prepared.notes,
        ]
        read = (series, *(each for each in outlined.prepared.read if each.uid != series.uid))
        stages = {"outline": outlined.seconds, "load": loaded - begun, "network": time.perf_counter() - loaded}
        return Findings(series, tuple(findings), read, tuple(notes), self.device, stages)


def agreed(judged: Sequence[Judged], areas: NDArray[np.float64], rule: Mapping[str, float]) -> list[float]:
    """The share of each of the three kinds, the mean over slices by their areas; one is at least ``rule["share"]``.

    Raises:
        WithheldStudy: If none is, or the slices look as if there were no tumor.
    """
    mean = np.average([each.chances for each in judged], axis=0, weights=areas)
    if mean[3] > rule["without"]:
        raise WithheldStudy(
            f"none of the three tumors seems to be there ({mean[3]:.0%}), on the {len(judged)} slices on which "
            "mr_brain outlines something"
        )
    shares = mean[:3] / mean[:3].sum()
    if shares.max() < rule["share"]:
        first = np.argmax([each.chances[:3] for each in judged], axis=1)
        counts = ", ".join(f"{CLASSES[kind]} {np.sum(first == kind)}" for kind in range(3))
        said = ", ".join(f"{CLASSES[kind]} {shares[kind]:.0%}" for kind in range(3))
        raise WithheldStudy(
            f"its slices do not agree on the kind of tumor: {said}, {rule['share']:.0%} is needed "
            f"(slices that look most like each: {counts})"
        )
    return [float(share) for share in shares]


def _areas(series: Series, outlined: _Outlined) -> NDArray[np.float64]:
    """How much of the outline lies on each frame.

    Raises:
        WithheldStudy: If the series does not say where it lies, or not relative to FLAIR.
    """
    if said := mr_sequences.obstacle(series):
        raise WithheldStudy(f"it cannot be read as one stack: {said}")
    areas = shown_on(outlined.mask, outlined.prepared.flair, series) if series.spacing else None
    if areas is None:
        raise WithheldStudy(
            "which of its slices show a tumor is not known: it does not share FLAIR's frame of reference"
        )
    return areas.astype(np.float64)


def _at(series: Series, places: set[int]) -> list[Picture]:
    """Some of the pictures of a series, by their place."""
    return [picture for place, picture in enumerate(islice(pictures(series), max(places) + 1)) if place in places]


def readable(study: Study) -> list[Series]:
    """The series of the study that are T1 after contrast, by acquisition and description.

    Raises:
        UnsuitableStudy: If there is none.
    """
    found = [each for each in DOMAIN.series(study) if mr_sequences.role(each) == mr_sequences.T1_POST]
    if not found:
        raise UnsuitableStudy(f"no series is {DOMAIN.what} among {mr_sequences.description_of(study)}")
    return found
