"""The pipeline ``ct_chest``: outlines tumours of the lung on CT, through windows of 48 × 48 pixels of 2 mm.

    series → each slice at 2 mm → its one window where it is a patch, else windows over the lungs → networks
           → windows put together, their middles counting most → back onto the slices

What was measured is patches with a tumour in their middle. On a whole CT the same networks look through sliding
windows; how good that is was never measured, and every report of one says so. It is not a diagnosis.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from pipelines.base import Finding, Findings, Measurement, Segment, WithheldStudy
from pipelines.carded import Carded
from pipelines.domain import Domain
from pipelines.evidence import codes
from pipelines.imaging import keep_components
from pipelines.instance import text
from pipelines.pictures import Look
from pipelines.pixels import BadPixels
from pipelines.probability import Probability, held, in_steps
from pipelines.quality import complaint
from pipelines.series import Series
from pipelines.study import Study
from pipelines.windows import MM, SIDE, at_scale, corners, cut, from_scale, put_together

CARD = Path(__file__).parent / "weights" / "ct_chest-1.2.0.json"
LABEL = "tumor"
LOOK = Look((2 * SIDE, 2 * SIDE), window=(-1350.0, 150.0))  # HU; twice as fine as the patch, for a smooth outline
DOMAIN = Domain(
    "a CT of the chest", frozenset({"CT"}), frozenset({"CHEST", "LUNG", "THORAX"}), r"chest|thorax|lung", smallest=24
)
COARSEST_MM = 2.5  # of the pixels of a slice
SMALLEST_CM3 = 0.1  # on a whole CT, where a speck is a vessel
UNMEASURED = "a whole CT was read by sliding windows: how well that finds or outlines tumours was never measured"


class LungTumour(Carded):
    """Reads CT of the chest; the networks stay warm in the instance."""

    def __init__(self, card: Path = CARD, *, device: str | None = None) -> None:
        super().__init__(card, device=device)

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        read: list[Findings] = []
        refused: list[WithheldStudy] = []
        for series in DOMAIN.series(study):
            try:
                read.append(self._read(series))
            except WithheldStudy as reason:
                refused.append(reason)
        if not read:
            raise refused[0]
        return tuple(read)

    def _read(self, series: Series) -> Findings:
        begun = time.perf_counter()
        spacing = _spacing(series)
        try:
            volume = series.volume()
        except BadPixels as error:
            raise WithheldStudy(f"the slices cannot be read: {error}") from error
        loaded = time.perf_counter()
        is_patch = all(n * mm <= (SIDE + 1) * MM for n, mm in zip(volume.shape[1:], spacing, strict=True))
        if is_patch:
            self._refuse_unlike(volume, spacing)
        threshold = self.card.points["outline"]["thresholds"][LABEL]
        step = 1 if is_patch else step_of(series)
        mask, steps = np.zeros(volume.shape, bool), np.zeros(volume.shape, np.uint8)
        for place in range(0, len(volume), step):
            likely = self.chances(volume[place], spacing)
            mask[place : place + step], steps[place : place + step] = likely > threshold, in_steps(likely)
        if not is_patch and series.spacing is not None:
            smallest = round(1000 * SMALLEST_CM3 / float(np.prod(series.spacing)))
            mask = keep_components(mask, smallest=smallest, share=0)
        notes = list(series.faults) if is_patch else [*series.faults, UNMEASURED]
        stages = {"load": loaded - begun, "network": time.perf_counter() - loaded}
        finding = _finding(mask, Probability(held(steps, mask, threshold), threshold), series)
        return Findings(series, (finding,), (series,), tuple(notes), self.device, stages)

    def _refuse_unlike(self, volume: NDArray[np.float32], spacing: tuple[float, float]) -> None:
        """Of patches alone: how sharp whole slices are was never measured.

        Raises:
            WithheldStudy: If most slices are blurred or coarse.
        """
        usual = self.card.points["outline"].get("quality", {})
        said = [each for picture in volume if (each := complaint(window(at_scale(picture, spacing)), usual))]
        if 2 * len(said) > len(volume):
            raise WithheldStudy(f"a patch {said[0]}")

    def chances(self, picture: NDArray[np.float32], spacing: tuple[float, float]) -> NDArray[np.float32]:
        """Of a tumour at each pixel of a slice (rows, columns) in HU."""
        small = at_scale(picture, spacing)
        places = corners(small)
        if not places:
            return np.zeros(picture.shape, np.float32)
        images = torch.stack([LOOK.at(window).image for window in cut(small, places)])
        # A tumour is one whichever way the lung is turned; the many windows of a whole slice are looked at once.
        ways = _FLIPS if len(places) == 1 else _FLIPS[:1]
        views = [self._networks.logits("outline", images.flip(axes)).sigmoid().mean(0).flip(axes) for axes in ways]
        chances = F.avg_pool2d(torch.stack(views).mean(0), 2)[:, 0]  # (windows, SIDE, SIDE)
        return from_scale(put_together(chances, places, (small.shape[0], small.shape[1])), picture.shape, spacing)


def window(picture: NDArray[np.float32]) -> torch.Tensor:
    """(1, rows, columns), 0 to 1: a slice at 2 mm as the networks are shown it, but not yet twice as fine."""
    low, high = LOOK.window or (0.0, 1.0)
    return torch.from_numpy((picture[None] - low) / (high - low)).float().clamp(0, 1)


_FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))


def _spacing(series: Series) -> tuple[float, float]:
    plane = series.frames[0].plane
    if plane is None or plane.spacing is None:
        raise WithheldStudy("the slices do not say how far their pixels are apart, so they cannot be brought to 2 mm")
    if max(plane.spacing) > COARSEST_MM:
        raise WithheldStudy(
            f"the pixels of the slices are {max(plane.spacing):.1f} mm; at most {COARSEST_MM} mm are read"
        )
    return plane.spacing


def step_of(series: Series) -> int:
    """Of slices much thinner than 2 mm some are read, and the next have the same outline."""
    between = series.spacing[0] if series.is_volume and series.spacing else MM
    return max(1, int(MM / between + 0.01))


def _finding(mask: NDArray[np.bool_], probability: Probability, series: Series) -> Finding:
    uids = [text(frame.instance, "SOPInstanceUID") for frame in series.frames]
    if not mask.any():
        judged = tuple(dict.fromkeys(uids))
        return Finding(codes.NEOPLASM, present=False, label=LABEL, site=codes.LUNG, sop_uids=judged)
    drawn: NDArray[np.bool_] = np.any(mask, axis=(1, 2))
    return Finding(
        codes.NEOPLASM,
        present=True,
        label=LABEL,
        site=codes.LUNG,
        sop_uids=tuple(dict.fromkeys(uid for uid, is_drawn in zip(uids, drawn, strict=True) if is_drawn)),
        segment=Segment(LABEL, mask, codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE, codes.NEOPLASM, probability),
        measurements=(_size(mask, series),),
    )


def _size(mask: NDArray[np.bool_], series: Series) -> Measurement:
    """The volume; of a single slice, or of slices that do not say how far apart they are, the area."""
    rows, columns = _spacing(series)
    if len(mask) > 1 and series.is_volume and series.spacing is not None:
        return Measurement(codes.VOLUME, float(mask.sum() * np.prod(series.spacing)) / 1000, codes.CUBIC_CENTIMETER)
    return Measurement(codes.AREA, float(mask.sum()) * rows * columns, codes.SQUARE_MILLIMETER)
