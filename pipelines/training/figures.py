"""From judgements to what a report says: values with intervals, subgroups with the worst first. Plain values out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.training import resampling
from pipelines.training.examples import Row
from pipelines.training.judge import READ, Chance, Judgement, Overlap
from pipelines.training.resampling import Statistic, estimate

USUAL = ("view", "sex", "age", "institution", "sequence")  # columns that are looked at where nobody names any
MOST_GROUPS = 12
BINS = 8  # of the calibration
Measure = dict[str, Any]


def figures(
    held: Sequence[Judgement],
    *,
    prevalence: float | None = None,
    by: Sequence[str] = (),
    cutoffs: Measure | None = None,
) -> Measure:
    """Everything that the report says of these judgements.

    Args:
        prevalence: For the predictive values; None: that of the pictures themselves, and it is said so.
        by: Columns of the index to look at apart; without, the usual ones that are there.
        cutoffs: Operating points as the card fixes them, by class.
    """
    return {
        "n_pictures": len(held),
        "n_patients": len({each.patient for each in held}),
        "n_unread": sum(each.status != READ for each in held),
        "unread": sorted({each.status for each in held if each.status != READ}),
        "classes": [_of_class(name, held, prevalence, by, cutoffs or {}) for name in _names(held, "classes")],
        "outlines": [_of_outline(name, held, by) for name in _names(held, "outlines")],
        "boxes": [_of_boxes(name, held, by) for name in _names(held, "boxes")],
    }


def _names(held: Sequence[Judgement], kind: str) -> list[str]:
    return list(dict.fromkeys(name for each in held for name in getattr(each, kind)))


def _of_class(
    name: str, held: Sequence[Judgement], prevalence: float | None, by: Sequence[str], cutoffs: Measure
) -> Measure:
    known = [each for each in held if name in each.classes]
    chances = [each.classes[name] for each in known]
    patients = [each.patient for each in known]
    there, read, said = _arrays(chances)
    share = float(there.mean())
    sensitivity, specificity = _rates(chances)
    ppv = resampling.predictive_of(sensitivity, specificity, share if prevalence is None else prevalence)
    own = [patient for patient, is_read in zip(patients, read, strict=True) if is_read]
    brier = resampling.mean_of((said[read] - there[read]) ** 2)
    return {
        "name": name,
        "n": len(known),
        "positives": int(there.sum()),
        "unread": int((~read).sum()),
        "cutoff": cutoffs.get(name),
        "auroc": estimate(resampling.auroc_of(said[read], there[read]), own).as_json(),
        "sensitivity": estimate(sensitivity, patients).as_json(),
        "specificity": estimate(specificity, patients).as_json(),
        "ppv": estimate(ppv, patients).as_json(),
        "prevalence": share if prevalence is None else prevalence,
        "prevalence_is_stated": prevalence is not None,
        "brier": estimate(brier, own).as_json(),
        "mean_certainty_less_share": float(said[read].mean() - there[read].mean()) if read.any() else None,
        "roc": _roc(said[read], there[read]),
        "calibration": _calibration(said[read], there[read]),
        "subgroups": _subgroups(known, by, lambda part: _auroc_of_part(name, part)),
    }


def _arrays(chances: Sequence[Chance]) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64]]:
    there = np.array([each.is_there for each in chances], bool)
    read = np.array([each.said is not None for each in chances], bool)
    return there, read, np.array([each.said or 0.0 for each in chances])


def _rates(chances: Sequence[Chance]) -> tuple[Statistic, Statistic]:
    """Sensitivity and specificity; what was not read is missed where it is there, and called where it is not."""
    there, read, _ = _arrays(chances)
    called = np.array([bool(each.present) for each in chances])
    return resampling.share_of(called & read, there), resampling.share_of(~called & read, ~there)


def _auroc_of_part(name: str, part: Sequence[Judgement]) -> Measure:
    chances, patients = [each.classes[name] for each in part], [each.patient for each in part]
    there, read, said = _arrays(chances)
    sensitivity, specificity = _rates(chances)
    own = [patient for patient, is_read in zip(patients, read, strict=True) if is_read]
    return {
        "positives": int(there.sum()),
        "main": estimate(resampling.auroc_of(said[read], there[read]), own).as_json(),
        "sensitivity": estimate(sensitivity, patients).as_json(),
        "specificity": estimate(specificity, patients).as_json(),
    }


def _roc(said: NDArray[np.float64], there: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """(1 - specificity, sensitivity) from the highest cutoff down; empty where one kind is missing."""
    if not there.any() or there.all():
        return []
    order = np.argsort(-said, kind="stable")
    last = np.append(np.flatnonzero(np.diff(said[order])), len(said) - 1)  # equal values move together
    found = np.cumsum(there[order])[last] / there.sum()
    wrong = np.cumsum(~there[order])[last] / (~there).sum()
    return [(0.0, 0.0), *((float(x), float(y)) for x, y in zip(wrong, found, strict=True))]


def _calibration(said: NDArray[np.float64], there: NDArray[np.bool_]) -> list[Measure]:
    """Mean certainty and share of those that have it, in bins of equal numbers of pictures."""
    parts = [part for part in np.array_split(np.argsort(said), min(BINS, max(1, len(said) // 5))) if len(part)]
    return [{"said": float(said[p].mean()), "share": float(there[p].mean()), "n": len(p)} for p in parts]


def _of_outline(name: str, held: Sequence[Judgement], by: Sequence[str]) -> Measure:
    known = [each for each in held if name in each.outlines]
    overlaps, patients = [each.outlines[name] for each in known], [each.patient for each in known]
    values = np.array([each.dice for each in overlaps])
    distances = [each.hausdorff95 for each in overlaps]
    read = [each.outlines[name] for each in known if each.status == READ]
    median = float(np.median(distances))
    return {
        "name": name,
        "n": len(known),
        "unread": len(known) - len(read),
        "dice": _mean(values, patients),
        "dice_median": float(np.median(values)),
        "dice_worst": float(values.min()),
        "surface_dice": _mean(np.array([each.surface_dice for each in overlaps]), patients),
        "surface_unit": "pixels" if any(each.unit == "pixels" for each in read) else "mm",
        "hausdorff95_median": median if np.isfinite(median) else None,
        "values": [float(value) for value in values],
        "agreement": _agreement(read),
        "subgroups": _subgroups(known, by, lambda part: _dice_of_part(name, part)),
    }


def _mean(values: NDArray[np.float64], patients: Sequence[str]) -> dict[str, object]:
    return estimate(resampling.mean_of(values), patients).as_json()


def _dice_of_part(name: str, part: Sequence[Judgement]) -> Measure:
    values = np.array([each.outlines[name].dice for each in part])
    return {"main": _mean(values, [each.patient for each in part]), "worst": float(values.min())}


def _agreement(read: Sequence[Overlap]) -> Measure | None:
    """Bland and Altman's, of the sizes of what was read; None where units differ or there are too few."""
    units = {each.unit for each in read}
    if len(read) < 2 or len(units) != 1:
        return None
    return agreement([each.ours for each in read], [each.reference for each in read], unit=units.pop())


def agreement(ours: Sequence[float], reference: Sequence[float], *, unit: str) -> Measure:
    """Mean difference and limits of agreement (Bland and Altman 1986), with the points."""
    one, other = np.asarray(ours), np.asarray(reference)
    mean, spread = float((one - other).mean()), 1.96 * float((one - other).std(ddof=1))
    points = [((float(a) + float(b)) / 2, float(a) - float(b)) for a, b in zip(one, other, strict=True)]
    return {"unit": unit, "n": len(points), "mean": mean, "limits": (mean - spread, mean + spread), "points": points}


def _of_boxes(name: str, held: Sequence[Judgement], by: Sequence[str]) -> Measure:
    known = [each for each in held if name in each.boxes]
    patients = [each.patient for each in known]
    hits, wrong, missed = _counts(name, known)
    found, there = hits + wrong, hits + missed
    return {
        "name": name,
        "n": len(known),
        "boxes": int(there.sum()),
        "f1": estimate(resampling.f1_of(hits, wrong, missed), patients).as_json(),
        "sensitivity": float(hits.sum() / there.sum()) if there.any() else None,
        "ppv": float(hits.sum() / found.sum()) if found.any() else None,
        "agreement": agreement(found.tolist(), there.tolist(), unit="count") if len(known) > 1 else None,
        "subgroups": _subgroups(known, by, lambda part: _f1_of_part(name, part)),
    }


def _counts(name: str, part: Sequence[Judgement]) -> tuple[NDArray[np.float64], ...]:
    counts = [each.boxes[name] for each in part]
    return tuple(np.array([getattr(each, key) for each in counts], float) for key in ("hits", "wrong", "missed"))


def _f1_of_part(name: str, part: Sequence[Judgement]) -> Measure:
    hits, wrong, missed = _counts(name, part)
    return {"main": estimate(resampling.f1_of(hits, wrong, missed), [each.patient for each in part]).as_json()}


def _subgroups(
    known: Sequence[Judgement], by: Sequence[str], measure: Callable[[Sequence[Judgement]], Measure]
) -> list[Measure]:
    """Every value of every column, the worst first; those that cannot be measured stand last."""
    rows = [each.row for each in known]
    out = []
    for column in by or USUAL:
        group = _grouping(column, rows)
        values = sorted({group(row) for row in rows if column in row})
        if not 1 < len(values) <= MOST_GROUPS:
            continue
        for value in values:
            part = [each for each in known if group(each.row) == value]
            out.append({"column": column, "value": value, "n": len(part), **measure(part)})
    return sorted(out, key=lambda each: (each["main"]["value"] is None, each["main"]["value"]))


def _grouping(column: str, rows: Sequence[Row]) -> Callable[[Row], str]:
    """The value as it is; numbers of many values in thirds."""
    values = [row.get(column, "") for row in rows]
    try:
        numbers = [float(value) for value in values if value]
    except ValueError:
        numbers = []
    if len(set(numbers)) <= MOST_GROUPS:
        return lambda row: row.get(column) or "not said"
    low, high = (float(each) for each in np.quantile(numbers, (1 / 3, 2 / 3)))

    def third(row: Row) -> str:
        if not row.get(column):
            return "not said"
        value = float(row[column])
        return f"below {low:g}" if value < low else f"{high:g} or more" if value >= high else f"{low:g} to {high:g}"

    return third


def worst(held: Sequence[Judgement], kind: str, name: str, *, most: int = 6) -> list[Judgement]:
    """The pictures on which the pipeline was furthest from the truth, of those that it read."""
    known = [each for each in held if name in getattr(each, kind) and each.status == READ]
    measures: dict[str, Callable[[Judgement], float]] = {
        "classes": lambda each: -abs(float(each.classes[name].is_there) - (each.classes[name].said or 0.0)),
        "outlines": lambda each: each.outlines[name].dice,
        "boxes": lambda each: -each.boxes[name].wrong - each.boxes[name].missed,
    }
    return sorted(known, key=measures[kind])[:most]
