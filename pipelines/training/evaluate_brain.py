"""What ``mr_brain`` is worth on labelled studies: overlap, surface, subgroups, missing sequences, pictures.

Goes the way of the product: DICOM in, the pipeline's own Findings out. Every interval is 95 %, by 2,000 resamples of
the patients. It chooses nothing: operating points come from ``operate``. How often a split has been opened before, it
cannot know: the model card says it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.base import Findings, Pipeline, UnsuitableStudy, WithheldStudy
from pipelines.mr_brain import LABEL, voxel_cm3
from pipelines.mr_sequences import T1_POST, T1_PRE, role
from pipelines.study import Study
from pipelines.training.evaluate import Asked, report_of
from pipelines.training.judge import Judgement, Overlap, small
from pipelines.training.metrics import dice, hausdorff95, interval, surface_dice
from pipelines.training.page import page
from pipelines.training.pictures import Slice, gallery
from pipelines.training.prepare import Labelled, labelled_studies
from pipelines.training.report_brain import markdown

READ = "read"
FEWEST_FOR_INTERVAL = 3  # of one or two patients the resamples say nothing
TOLERANCE_MM = 2.0  # of the surface Dice
REMOVED: dict[str, frozenset[str]] = {
    "all sequences": frozenset(),
    "without T1 before contrast": frozenset({T1_PRE}),
    "without T1 after contrast": frozenset({T1_POST}),
    "FLAIR only": frozenset({T1_PRE, T1_POST}),
}


@dataclass(frozen=True)
class Row:
    """One patient, read once."""

    patient: str
    institution: str
    condition: str
    sequences: int
    dice: float
    surface_dice: float
    hausdorff95_mm: float  # infinite where one of the two is empty
    volume_cm3: float
    reference_cm3: float
    certainty: float
    seconds: float
    status: str = READ  # or the sentence why it was not read


def evaluate(
    pipeline: Pipeline,
    data: Path,
    split: str,
    out: Path,
    *,
    labels: Path,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Read every study of ``split`` and write report.html, report.json, report.md and gallery.png into ``out``.

    Args:
        data, labels: As in ``train``.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    slices: list[tuple[float, Slice]] = []
    held: list[Judgement] = []
    for labelled in labelled_studies(data, labels, wanted=(split,)):
        for condition, removed in REMOVED.items():
            study = without(labelled.study, removed)
            if removed and len(study.series) == len(labelled.study.series):
                continue  # it was not there in the first place: nothing to take away
            row, picture = read_one(pipeline, replace(labelled, study=study), condition)
            rows.append(row)
            if not removed and picture is not None:
                slices.append((row.dice, picture))
            if not removed:
                held.append(_judgement(row, picture))
        progress(
            f"{rows[-1].patient}: Dice {next(r.dice for r in reversed(rows) if r.condition == 'all sequences'):.3f}"
        )
    report = summary(rows, pipeline, split)
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / "report.md").write_text(markdown(report))
    gallery([picture for _, picture in sorted(slices, key=lambda each: each[0])[:8]], out / "gallery.png")
    shown = report_of(held, pipeline, ("outline",), Asked(split))
    (out / "report.html").write_text(page(shown, held))
    return report


def _judgement(row: Row, picture: Slice | None) -> Judgement:
    """A patient as the page shows them."""
    overlap = Overlap(row.dice, row.surface_dice, row.hausdorff95_mm, row.volume_cm3, row.reference_cm3, "cm3")
    drawn = small(picture.picture, picture.truth, picture.ours) if picture else None
    index = {"patient_id": row.patient, "institution": row.institution, "path": row.patient, "sop_uid": row.patient}
    return Judgement(index, row.status, outlines={LABEL: overlap}, drawn=drawn)


def without(study: Study, removed: frozenset[str]) -> Study:
    """The study less the series of these roles."""
    return Study(study.uid, tuple(series for series in study.series if role(series) not in removed))


def read_one(pipeline: Pipeline, labelled: Labelled, condition: str) -> tuple[Row, Slice | None]:
    """A study that the pipeline does not read counts as Dice 0: leaving it out would flatter.

    Of its volume and its time nothing is known, so ``summary`` leaves it out there.
    """
    blank = Row(labelled.patient, labelled.institution, condition, len(labelled.study.series), 0, 0, np.inf, 0, 0, 0, 0)
    try:
        answer = pipeline(labelled.study)[0]
    except (UnsuitableStudy, WithheldStudy) as refusal:
        return replace(blank, status=str(refusal)), None
    truth = labelled.truth(answer.series)
    ours = _mask_of(answer, truth.shape)
    spacing = answer.series.spacing or (1.0, 1.0, 1.0)
    voxel = voxel_cm3(answer.series)
    row = replace(
        blank,
        dice=dice(ours, truth),
        surface_dice=surface_dice(ours, truth, spacing, tolerance=TOLERANCE_MM),
        hausdorff95_mm=hausdorff95(ours, truth, spacing),
        volume_cm3=float(ours.sum()) * voxel,
        reference_cm3=float(truth.sum()) * voxel,
        certainty=answer.findings[0].certainty or 0.0,
        seconds=sum(answer.stages.values()),
    )
    place = int(np.argmax((ours ^ truth).sum(axis=(1, 2))))
    caption = f"{labelled.patient[:12]} slice {place + 1}: Dice {row.dice:.2f}"
    return row, Slice(answer.series.volume()[place], truth[place], ours[place], caption)


def _mask_of(answer: Findings, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    mask = np.zeros(shape, bool)
    for finding in answer.findings:
        if finding.segment is not None:
            mask |= finding.segment.mask
    return mask


def summary(rows: Sequence[Row], pipeline: Pipeline, split: str) -> dict[str, Any]:
    """Everything that the report says, as plain values."""
    full = [row for row in rows if row.condition == "all sequences"]
    fused = {row.patient for row in full if row.sequences >= 3}
    institutions = sorted({row.institution for row in full})
    by_institution = [
        {"institution": name, **_statistics(row.dice for row in full if row.institution == name)}
        for name in institutions
    ]
    was_read = [row for row in full if row.status == READ]
    return {
        "pipeline": pipeline.algorithm.name,
        "version": pipeline.algorithm.version,
        "weights_sha256": _weights_sha256(pipeline),
        "split": split,
        "n_unread": len(full) - len(was_read),
        "dice": _statistics(row.dice for row in full),
        "surface_dice_2mm": _statistics(row.surface_dice for row in full),
        "hausdorff95_mm": {"median": _finite(float(np.median([row.hausdorff95_mm for row in full])))},
        "by_institution": sorted(by_institution, key=lambda each: each["mean"]),
        "by_sequences": [
            {
                "condition": name,
                **_statistics(row.dice for row in rows if row.condition == name and row.patient in fused),
            }
            for name in REMOVED
        ],
        "missing_in_source": _statistics(row.dice for row in full if row.sequences < 3),
        "volume_cm3": _agreement([row.volume_cm3 - row.reference_cm3 for row in was_read]),
        "seconds_median": float(np.median([row.seconds for row in was_read])) if was_read else None,
        "patients": [{key: _finite(value) for key, value in asdict(row).items()} for row in rows],
        "spacing": "nominal where the source has lost it: cm3 and mm are then relative",
    }


def _weights_sha256(pipeline: Pipeline) -> str:
    """Of the weights file where the pipeline has a card; its algorithm's digest may cover the card too."""
    card = getattr(pipeline, "card", None)
    return str(getattr(card, "sha256", pipeline.algorithm.weights_digest))


def _statistics(values: Iterable[float]) -> dict[str, Any]:
    held = list(values)
    if not held:
        return {"n": 0, "mean": None, "median": None, "worst": None, "interval": None}
    return {
        "n": len(held),
        "mean": float(np.mean(held)),
        "median": float(np.median(held)),
        "worst": float(np.min(held)),
        "interval": list(interval(held)) if len(held) >= FEWEST_FOR_INTERVAL else None,
    }


def _agreement(differences: Sequence[float]) -> dict[str, Any]:
    """Bland and Altman's, of the studies that were read."""
    if not differences:
        return {"n": 0, "mean_difference": None, "limits_of_agreement": None, "median_absolute_difference": None}
    mean, spread = float(np.mean(differences)), 1.96 * float(np.std(differences))
    return {
        "n": len(differences),
        "mean_difference": mean,
        "limits_of_agreement": [mean - spread, mean + spread],
        "median_absolute_difference": float(np.median(np.abs(differences))),
    }


def _finite(value: Any) -> Any:
    """JSON has no infinity."""
    return None if isinstance(value, float) and not np.isfinite(value) else value
