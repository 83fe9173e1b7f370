"""Where a pipeline looks: its own maps and occlusion maps over each picture, and how often they point at what is there.

Occlusion goes the way of the product: a part of the picture is hidden in the DICOM file, and the pipeline reads it
anew. So it needs no look inside, and tells of any pipeline that gives a certainty.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from pipelines.base import Finding, Pipeline, UnsuitableStudy, WithheldStudy
from pipelines.frames import Frame
from pipelines.instance import text
from pipelines.pictures import pictures
from pipelines.pixels import BadPixels
from pipelines.study import Study, read_files
from pipelines.training import resampling
from pipelines.training.examples import Row, group_of
from pipelines.training.judge import onto
from pipelines.training.resampling import Estimate
from pipelines.training.truths import Judged

LEAST_DROP = 0.02  # of the certainty: below it nothing that was hidden mattered
Map = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Explained:
    """One picture and one class.

    Attributes:
        pixels: As ``pictures`` gives them.
        own, hidden: Maps float32 (rows, columns), 0 to 1: the pipeline's own, and by occlusion; None where there is
            none to be had.
        drop: By how much the certainty fell when the most important part was hidden.
    """

    sop_uid: str
    name: str
    certainty: float
    present: bool
    pixels: NDArray[Any]
    own: Map | None
    hidden: Map | None
    drop: float = 0.0


def explain(pipeline: Pipeline, study: Study, *, grid: int = 8, wanted: str | None = None) -> Iterator[Explained]:
    """Every picture of a study that the pipeline gives a certainty of, for the classes that it says are there.

    Where it says none, for the one that it is surest of.

    Args:
        grid: So many parts across and down are hidden one after the other; 0: none are.
        wanted: This class only, whether it is there or not.

    Raises:
        UnsuitableStudy, WithheldStudy: As the pipeline does.
    """
    answers = pipeline(study)
    explained = pipeline.explain(study) if hasattr(pipeline, "explain") else []
    own = {(uid, name): where for uid, where, name in explained}
    for answer in answers:
        for picture in pictures(answer.series):
            said = [each for each in answer.findings if picture.sop_uid in each.sop_uids and each.certainty is not None]
            chosen = _chosen(said, wanted)
            maps = _occluded(pipeline, picture.frame, chosen, grid) if grid and chosen else {}
            for each in chosen:
                name = named(each)
                hidden, drop = maps.get(name, (None, 0.0))
                where = own.get((picture.sop_uid, name))
                yield Explained(
                    picture.sop_uid, name, each.certainty or 0.0, each.present, picture.pixels, where, hidden, drop
                )


def named(finding: Finding) -> str:
    return finding.label or finding.code.meaning


def _chosen(said: Sequence[Finding], wanted: str | None) -> list[Finding]:
    by_name: dict[str, Finding] = {}
    for each in said:
        by_name.setdefault(named(each), each)
    if wanted is not None:
        return [by_name[wanted]] if wanted in by_name else []
    present = [each for each in by_name.values() if each.present]
    return present or sorted(by_name.values(), key=lambda each: -(each.certainty or 0.0))[:1]


def _occluded(
    pipeline: Pipeline, frame: Frame, chosen: Sequence[Finding], grid: int
) -> dict[str, tuple[Map | None, float]]:
    """Class → map of what its certainty falls by when that part is hidden, and the most that it falls by."""
    ds = dcmread(frame.instance.filename)
    if ds.file_meta.TransferSyntaxUID.is_compressed:
        ds.decompress()
    whole = ds.pixel_array
    colour = int(ds.SamplesPerPixel) > 1
    rows, columns = int(ds.Rows), int(ds.Columns)
    fill = np.median(whole.reshape(-1, whole.shape[-1]), axis=0) if colour else np.median(whole)
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    base = {named(each): each.certainty or 0.0 for each in chosen}
    drops = {name: np.zeros((grid, grid), np.float32) for name in base}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "hidden.dcm"
        for place in np.ndindex(grid, grid):
            top, left = (_span(each, size, grid) for each, size in zip(place, (rows, columns), strict=True))
            changed = whole.copy()
            changed[(..., top, left, slice(None)) if colour else (..., top, left)] = fill
            ds.PixelData = changed.tobytes() + b"\0" * (changed.nbytes % 2)
            ds.save_as(file, enforce_file_format=True)
            for name, certainty in _certainties(pipeline, file, text(frame.instance, "SOPInstanceUID")).items():
                if name in drops:
                    drops[name][place] = max(0.0, base[name] - certainty)
    return {name: _map(drop, (rows, columns)) for name, drop in drops.items()}


def _span(place: int, size: int, grid: int) -> slice:
    """Twice as wide as the step: parts overlap, so that nothing lies just between two."""
    step = size / grid
    return slice(max(0, round((place - 0.5) * step)), min(size, round((place + 1.5) * step)))


def _certainties(pipeline: Pipeline, file: Path, sop_uid: str) -> dict[str, float]:
    """Of every class of that picture; none where the pipeline does not read what was changed."""
    studies, _ = read_files([file])
    try:
        answers = pipeline(studies[0])
    except (UnsuitableStudy, WithheldStudy, BadPixels):
        return {}
    findings = [each for answer in answers for each in answer.findings if sop_uid in each.sop_uids]
    return {named(each): each.certainty for each in findings if each.certainty is not None}


def _map(drop: Map, shape: tuple[int, int]) -> tuple[Map | None, float]:
    most = float(drop.max())
    if most < LEAST_DROP:
        return None, most
    fine = F.interpolate(torch.from_numpy(drop / most)[None, None], size=shape, mode="bilinear", align_corners=False)
    return fine[0, 0].numpy(), most


def points_at(where: Map, mask: NDArray[np.bool_]) -> bool:
    """Whether the highest point of a map lies in the mask (the pointing game, Zhang et al. 2016)."""
    return bool(mask.flat[int(where.argmax())])


def marked(row: Row, parts: Mapping[str, Judged], labels: Path, shape: tuple[int, int]) -> NDArray[np.bool_] | None:
    """What people have drawn on a picture, all of it, as bool (rows, columns); None where nothing is."""
    drawn = np.zeros(shape, bool)
    for part in parts.values():
        truth = part.truth(row, labels)
        for mask in truth.masks if truth is not None and truth.masks is not None else ():
            drawn |= onto(mask, shape)
        for _, (x, y, wide, high) in part.boxes(row, labels, shape) if part.boxes else ():
            drawn[round(y) : round(y + high), round(x) : round(x + wide)] = True
    return drawn if drawn.any() else None


@dataclass(frozen=True)
class Pointing:
    """How often maps point into what people have drawn, and how often a blind point would (its mean area)."""

    rate: Estimate
    by_chance: float


def pointing(hits: Sequence[bool], areas: Sequence[float], rows: Sequence[Row]) -> Pointing:
    """Args: a hit, the marked share of the picture and the row of the index, each per picture."""
    values = np.array(hits, np.float64)
    rate = resampling.estimate(resampling.mean_of(values), [group_of(row) for row in rows])
    return Pointing(rate, float(np.mean(areas)))


def drawing(each: Explained, mask: NDArray[np.bool_] | None, out: Path) -> None:
    """A PNG: the picture (with what people have drawn on it in green), the pipeline's own map, the occlusion map."""
    from pipelines.training.pictures import pyplot

    plt = pyplot()
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.7), layout="constrained")
    said = "present" if each.present else "not present"
    figure.suptitle(f"{each.name}: {each.certainty:.2f}, {said}", fontsize=11)
    own = "the pipeline's own map" if each.own is not None else "it gives no map of its own"
    hidden = f"hiding parts: down by {each.drop:.2f} at most"
    titles = ("picture", own, hidden if each.hidden is not None else "hiding parts changes nothing, or was not tried")
    for axis, title, where in zip(axes, titles, (None, each.own, each.hidden), strict=True):
        axis.axis("off")
        axis.set_title(title, fontsize=9)
        axis.imshow(each.pixels, cmap="gray", **_grey_range(each.pixels))
        if where is not None:
            axis.imshow(where, cmap="inferno", alpha=np.clip(where * 0.8, 0, 0.6), vmin=0, vmax=1)
        if mask is not None:
            axis.contour(mask, levels=[0.5], colors="lime", linewidths=1)
    figure.savefig(out, dpi=100)
    plt.close(figure)


def _grey_range(pixels: NDArray[Any]) -> dict[str, float]:
    if pixels.ndim == 3:
        return {}
    low, high = np.percentile(pixels, (0.5, 99.5))
    return {"vmin": float(low), "vmax": float(max(high, low + 1e-6))}
