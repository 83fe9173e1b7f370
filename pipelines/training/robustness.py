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
from pipelines.training.corruptions import Corruption, Pixels, corruptions, greys_of
from pipelines.training.examples import Row, Truth
from pipelines.training.judge import READ, Judgement, judgements
from pipelines.training.resampling import Estimate, Statistic, estimate
from pipelines.training.truths import Judged

Line = dict[str, Any]  # kind, name, degree, unit; measure, n, value, interval, unread (share withheld or passed over)


def natural(
    pipeline: Pipeline,
    parts: Mapping[str, Judged],
    rows: Sequence[Row],
    data: Path,
    labels: Path,
    *,
    heaviest: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Line]:
    """The figures of the pictures as they are, and then spoilt in each way by each degree, or the heaviest alone."""
    modality = text(open_instance(data / rows[0]["file"]), "Modality")
    held = list(judgements(pipeline, parts, rows, data, labels))
    yield from figures(held, {"kind": "as it is", "name": "as it is", "degree": None, "unit": ""})
    everything = [
        (each, degree)
        for each in corruptions(modality)
        for degree in (each.heavy if heaviest else each.degrees)
        if not (each.moves and any(part.boxes for part in parts.values()))  # the box of something turned is another
    ]
    for place, (corruption, degree) in enumerate(everything, start=1):
        progress(f"{corruption.name} {degree:g} ({place} of {len(everything)})")
        moved = {key: _moved(part, corruption, degree) for key, part in parts.items()}
        with tempfile.TemporaryDirectory() as folder:
            spoil(rows, data, Path(folder), corruption, degree, modality)
            held = list(judgements(pipeline, moved, rows, Path(folder), labels))
        about = {"kind": "natural", "name": corruption.name, "degree": degree, "unit": corruption.unit}
        yield from figures(held, about)


def spoil(rows: Sequence[Row], data: Path, out: Path, corruption: Corruption, degree: float, modality: str) -> None:
    """Each row's instance again, spoilt, uncompressed, under the same names."""
    series: dict[str, list[tuple[int, Row]]] = {}
    for place, row in enumerate(rows):
        # the slices of an MR series are shown alike; other pictures each by themselves
        series.setdefault(row["series_uid"] if modality == "MR" else row["file"], []).append((place, row))
    for own in series.values():
        held = [values_of(data / row["file"]) for _, row in own]
        greys = greys_of(held, modality)
        for (place, row), values in zip(own, held, strict=True):
            spoilt = corruption.spoil(values, degree, greys, np.random.default_rng(place))
            ds = dcmread(data / row["file"])
            slope, intercept = _rescale(ds)
            file = out / row["file"]
            file.parent.mkdir(parents=True, exist_ok=True)
            with_pixels(ds, (spoilt - intercept) / slope if values.ndim == 2 else spoilt).save_as(file)


def values_of(file: Path) -> Pixels:
    """Modality values (rows, columns), or RGB (rows, columns, 3)."""
    header = open_instance(file)
    pixels = decode(header).astype(np.float32)
    slope, intercept = _rescale(header)
    return np.asarray(pixels * slope + intercept if pixels.ndim == 2 else pixels, np.float32)


def _rescale(header: Dataset) -> tuple[float, float]:
    return number(header, "RescaleSlope") or 1.0, number(header, "RescaleIntercept") or 0.0


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
    for name in dict.fromkeys(name for each in held for name in each.classes):
        asked = [each for each in held if name in each.classes]
        own = [each for each in asked if each.classes[name].said is not None]
        said = np.array([each.classes[name].said for each in own], float)
        there = np.array([each.classes[name].is_there for each in own], bool)
        unread = 1 - len(own) / len(asked)
        yield about | _line(f"AUROC, {name}", resampling.auroc_of(said, there), own, unread)
    for name in dict.fromkeys(name for each in held for name in each.outlines):
        own = [each for each in held if name in each.outlines]
        scores = np.array([each.outlines[name].dice for each in own])
        yield about | _line(f"Dice, {name}", resampling.mean_of(scores), own, _unread(own))
    for name in dict.fromkeys(name for each in held for name in each.boxes):
        own = [each for each in held if name in each.boxes]
        counts = np.array([[c.hits, c.wrong, c.missed] for c in (each.boxes[name] for each in own)], float)
        yield about | _line(f"box F1, {name}", resampling.f1_of(*counts.T), own, _unread(own))


def _unread(own: Sequence[Judgement]) -> float:
    return sum(each.status != READ for each in own) / len(own)


def _line(measure: str, statistic: Statistic, own: Sequence[Judgement], unread: float) -> Line:
    found = estimate(statistic, [each.patient for each in own])
    return {"measure": measure, "n": len(own), **value_of(found), "unread": round(unread, 4)}


def value_of(found: Estimate) -> Line:
    return {
        "value": None if found.value is None else round(found.value, 4),
        "interval": None if found.interval is None else [round(each, 4) for each in found.interval],
    }
