"""What becomes of a pipeline's figures when pictures are spoilt: DICOM in, spoilt DICOM, findings, figures.

It goes the way of the product, so that what a pipeline withholds is seen, too. Nothing is learnt here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian

from pipelines.base import Pipeline
from pipelines.instance import number, open_instance, text
from pipelines.pixels import decode
from pipelines.training import resampling
from pipelines.training.corruptions import Corruption, corruptions
from pipelines.training.examples import Row, Truth
from pipelines.training.judge import READ, Judgement, judgements
from pipelines.training.resampling import Statistic, estimate
from pipelines.training.truths import Judged

Line = dict[str, Any]  # kind, name, degree, unit; measure, n, value, interval, unread


def natural(
    pipeline: Pipeline,
    parts: Mapping[str, Judged],
    rows: Sequence[Row],
    data: Path,
    labels: Path,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Line]:
    """The figures of the pictures as they are, and then spoilt in each way by each degree."""
    modality = text(open_instance(data / rows[0]["file"]), "Modality")
    held = list(judgements(pipeline, parts, rows, data, labels))
    yield from figures(held, {"kind": "as it is", "name": "as it is", "degree": None, "unit": ""})
    everything = [(each, degree) for each in corruptions(modality) for degree in each.degrees]
    for place, (corruption, degree) in enumerate(everything, start=1):
        if corruption.moves and any(part.boxes for part in parts.values()):
            continue  # the box of something turned is not the box turned
        progress(f"{corruption.name} {degree:g} ({place} of {len(everything)})")
        moved = {key: _moved(part, corruption, degree) for key, part in parts.items()}
        with tempfile.TemporaryDirectory() as folder:
            spoil(rows, data, Path(folder), corruption, degree, modality)
            held = list(judgements(pipeline, moved, rows, Path(folder), labels))
        about = {"kind": "natural", "name": corruption.name, "degree": degree, "unit": corruption.unit}
        yield from figures(held, about)


def spoil(rows: Sequence[Row], data: Path, out: Path, corruption: Corruption, degree: float, modality: str) -> None:
    """Each row's instance again, spoilt, uncompressed, under the same names."""
    for place, row in enumerate(rows):
        header = open_instance(data / row["file"])
        pixels = decode(header).astype(np.float32)
        slope, intercept = number(header, "RescaleSlope") or 1.0, number(header, "RescaleIntercept") or 0.0
        grey = pixels.ndim == 2
        values = pixels * slope + intercept if grey else pixels
        spoilt = corruption.spoil(values.astype(np.float32), degree, modality, np.random.default_rng(place))
        file = out / row["file"]
        file.parent.mkdir(parents=True, exist_ok=True)
        with_pixels(dcmread(data / row["file"]), (spoilt - intercept) / slope if grey else spoilt).save_as(file)


def with_pixels(ds: Dataset, stored: NDArray[np.float32]) -> Dataset:
    bits, signed = int(ds.BitsStored), int(ds.PixelRepresentation) == 1
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    kind = f"<{'i' if signed else 'u'}{int(ds.BitsAllocated) // 8}"
    raw = np.clip(np.rint(stored), low, high).astype(kind).tobytes()
    ds.PixelData = raw + b"\0" * (len(raw) % 2)
    ds["PixelData"].VR = "OW" if ds.BitsAllocated == 16 else "OB"
    if stored.ndim == 3:
        ds.PhotometricInterpretation, ds.PlanarConfiguration = "RGB", 0
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def _moved(part: Judged, corruption: Corruption, degree: float) -> Judged:
    """The truth, moved with the picture."""
    moves = corruption.moves
    if moves is None:
        return part

    def truth(row: Row, labels: Path) -> Truth | None:
        known = part.truth(row, labels)
        if known is None or known.masks is None:
            return known
        return Truth(known.labels, np.stack([moves(mask, degree) for mask in known.masks]))

    return replace(part, truth=truth)


def figures(held: Sequence[Judgement], about: Line) -> Iterator[Line]:
    """A line per measure: AUROC of classes, of what was read; Dice of outlines, 0 where not read; F1 of boxes."""
    unread = round(sum(each.status != READ for each in held) / len(held), 4)
    for name in dict.fromkeys(name for each in held for name in each.classes):
        own = [each for each in held if name in each.classes and each.classes[name].said is not None]
        said = np.array([each.classes[name].said for each in own], float)
        there = np.array([each.classes[name].is_there for each in own])
        yield about | _line(f"AUROC, {name}", resampling.auroc_of(said, there), own, unread)
    for name in dict.fromkeys(name for each in held for name in each.outlines):
        own = [each for each in held if name in each.outlines]
        scores = np.array([each.outlines[name].dice for each in own])
        yield about | _line(f"Dice, {name}", resampling.mean_of(scores), own, unread)
    for name in dict.fromkeys(name for each in held for name in each.boxes):
        own = [each for each in held if name in each.boxes]
        counts = np.array([[c.hits, c.wrong, c.missed] for c in (each.boxes[name] for each in own)], float)
        yield about | _line(f"box F1, {name}", _f1(counts), own, unread)


def _f1(counts: NDArray[np.float64]) -> Statistic:
    def value(weights: NDArray[np.float64]) -> float:
        hits, wrong, missed = weights @ counts
        return float(2 * hits / (2 * hits + wrong + missed)) if hits + wrong + missed else float("nan")

    return value


def _line(measure: str, statistic: Statistic, own: Sequence[Judgement], unread: float) -> Line:
    found = estimate(statistic, [each.patient for each in own]) if own else None
    value = None if found is None or found.value is None else round(found.value, 4)
    interval = None if found is None or found.interval is None else [round(each, 4) for each in found.interval]
    return {"measure": measure, "n": len(own), "value": value, "interval": interval, "unread": unread}
