"""The operating points of a pipeline, from patients that a member was not trained on: threshold, clean-up, certainty.

Goes the way of the product (DICOM, head cut-out, back onto the source's grid), so that the numbers hold there. It
trains nothing and never sees the dev or test patients.
"""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, optimize

from pipelines.base import UnsuitableStudy, WithheldStudy
from pipelines.mr_brain import BrainTumour, Prepared, lesion_score, prepare, voxel_cm3
from pipelines.training.cases import fold_of
from pipelines.training.pack import OperatingPoint, pack
from pipelines.training.prepare import Labelled, NoLabels, labelled_studies

THRESHOLDS = (0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
SMALLEST_CM3 = (0.1, 0.2, 0.5, 1.0)  # a few voxels are no finding
SHARES = (0.0, 0.05, 0.1, 0.2, 0.35, 0.6)
NOISE = 0.003
GUARD = 2  # slices beside a lesion that count neither as with it nor as without


@dataclass(frozen=True, eq=False)
class Judged:
    """One patient of a fold: probabilities on the grid of FLAIR, what a person drew, and the lesion scores.

    Attributes:
        without: Lesion scores of the slabs of this patient that show no lesion.
    """

    patient: str
    probability: NDArray[np.float32]
    truth: NDArray[np.bool_]
    voxel_cm3: float
    score: float
    without: tuple[float, ...]


def judge(labelled: Labelled, canvas_of: Callable[[Prepared], torch.Tensor]) -> Judged:
    """One patient, with ``canvas_of`` giving the probabilities (frames, *CANVAS) of the member that did not see it."""
    prepared = prepare(labelled.study)
    canvas = canvas_of(prepared)
    truth = labelled.truth(prepared.flair)
    slabs = _slabs_without(np.asarray(prepared.turn.there(truth.astype(np.float32)).any(axis=(1, 2))))
    return Judged(
        labelled.patient,
        prepared.onto_source(canvas),
        truth,
        voxel_cm3(prepared.flair),
        lesion_score(canvas),
        tuple(lesion_score(canvas[first : last + 1]) for first, last in slabs),
    )


def judge_folds(
    members: Mapping[int, Path],
    data: Path,
    labels: Path,
    *,
    splits: Collection[str] = ("train",),
    said: Callable[[str], None] = lambda _: None,
) -> list[Judged]:
    """Every patient of the folds, each by the member that was trained without that fold.

    Args:
        members: Fold → the weights of the member that did not see it.
        data, labels: As in ``train``.
    """
    judged = []
    with tempfile.TemporaryDirectory() as folder:
        pipelines = {fold: _alone(member, Path(folder, f"{fold}.json")) for fold, member in members.items()}
        for labelled in labelled_studies(data, labels, wanted=splits, left_out=said):
            if (fold := fold_of(labelled.patient)) not in pipelines:
                continue
            try:
                judged.append(judge(labelled, pipelines[fold].probabilities))
            except (UnsuitableStudy, WithheldStudy, NoLabels) as reason:
                said(f"{labelled.patient} is left out: {reason}")  # as it was from training
                continue
            said(f"judged {labelled.patient}")
    return judged


def _alone(member: Path, card: Path) -> BrainTumour:
    """One member as a pipeline of its own; its operating point is not used."""
    pack([member], card, OperatingPoint(0.5, 0.0, 0.0, (0.0, 1.0), 0.5), name="mr_brain", version="0")
    return BrainTumour(card)


def _slabs_without(touched: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last slice of each run of at least four slices away from the lesion."""
    free = ~ndimage.binary_dilation(touched, iterations=GUARD)
    labels, count = ndimage.label(free)
    runs = [np.flatnonzero(labels == number + 1) for number in range(count)]
    return [(int(run[0]), int(run[-1])) for run in runs if run.size >= 4]


def choose(judged: Sequence[Judged]) -> tuple[OperatingPoint, float]:
    """The operating point for the best mean volume Dice, and that Dice.

    Few patients cannot tell points apart that differ by less than ``NOISE``: of those, the one that interferes least is
    taken, with the threshold nearest to one half and the fewest components dropped.
    """
    if not judged:
        raise ValueError("there is no patient to choose the operating point on")
    scores: dict[tuple[float, float, float], float] = {}
    for threshold in THRESHOLDS:
        components = [_components(each.probability > threshold, each.truth) for each in judged]
        for smallest, share in itertools.product(SMALLEST_CM3, SHARES):
            floors = [math.ceil(smallest / each.voxel_cm3) for each in judged]
            dices = [each.dice(floor, share) for each, floor in zip(components, floors, strict=True)]
            scores[threshold, smallest, share] = float(np.mean(dices))
    good = [point for point, score in scores.items() if score >= max(scores.values()) - NOISE]
    threshold, smallest, share = min(good, key=lambda point: (abs(point[0] - 0.5), point[2], point[1]))
    score = scores[threshold, smallest, share]
    with_lesion = [each.score for each in judged if each.truth.any()]
    without = [value for each in judged for value in each.without]
    certainty = logistic(with_lesion, without)
    return OperatingPoint(threshold, smallest, share, certainty, present_from(with_lesion, without, certainty)), score


@dataclass(frozen=True, eq=False)
class _Components:
    """Of one mask: voxels of each component, and how many of them are lesion; ``total`` voxels are."""

    sizes: NDArray[np.intp]
    hits: NDArray[np.intp]
    total: int

    def dice(self, smallest: int, share: float) -> float:
        """Dice of the mask after ``keep_components``, without making it."""
        if not self.sizes.size:
            return 1.0 if self.total == 0 else 0.0
        kept = self.sizes >= max(float(smallest), share * float(self.sizes.max()))
        both = int(self.sizes[kept].sum()) + self.total
        return 2.0 * int(self.hits[kept].sum()) / both if both else 1.0


def _components(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> _Components:
    labels, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    hits = np.bincount(labels[truth], minlength=count + 1)[1:]
    return _Components(sizes, hits, int(truth.sum()))


def logistic(with_lesion: Iterable[float], without: Iterable[float]) -> tuple[float, float]:
    """Offset and slope of P(lesion | score); both kinds weigh the same, and Platt's targets keep it from 0 and 1."""
    positive, negative = np.asarray(list(with_lesion)), np.asarray(list(without))
    if not positive.size or not negative.size:
        raise ValueError("the certainty needs patients with and slabs without a lesion")
    high, low = (positive.size + 1) / (positive.size + 2), 1 / (negative.size + 2)

    def loss(point: NDArray[np.float64]) -> float:
        def cross_entropy(scores: NDArray[np.float64], target: float) -> float:
            z = point[0] + point[1] * scores
            return float(np.mean(np.logaddexp(0, z) - target * z))

        return cross_entropy(positive, high) + cross_entropy(negative, low)

    found = optimize.minimize(loss, x0=np.array([0.0, 1.0]), method="Nelder-Mead").x
    return float(found[0]), float(found[1])


def present_from(with_lesion: Sequence[float], without: Sequence[float], certainty: tuple[float, float]) -> float:
    """The certainty to call a lesion present from: the best sum of sensitivity and specificity.

    Where a gap lies between the two kinds, two thirds of the way up: people without any lesion, of whom the folds have
    none, show more than a slab without one.
    """
    low, high = max(without), min(with_lesion)
    if low >= high:
        positive, negative = np.asarray(with_lesion), np.asarray(without)
        places = np.sort(np.concatenate((positive, negative)))
        high = float(max(places, key=lambda place: (positive >= place).mean() + (negative < place).mean()))
        low = float(max(places[places < high], default=high))
    offset, slope = certainty
    return 1 / (1 + math.exp(-(offset + slope * (low + (high - low) * 2 / 3))))
