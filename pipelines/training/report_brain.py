"""The report of an evaluation as a page for people. Values in, Markdown out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def markdown(report: dict[str, Any]) -> str:
    full = [row for row in report["patients"] if row["condition"] == "all sequences"]
    parts = [
        f"# {report['pipeline']} {report['version']} on the split `{report['split']}`",
        f"Weights SHA-256 `{report['weights_sha256']}`. Intervals are 95 %, 2,000 bootstrap resamples by patient. "
        f"Spacing: {report['spacing']}. Studies that were not read: {report['n_unread']}; they count as Dice 0, and "
        "not in volumes and times.",
        "## Overlap with the reference",
        _table(
            ("", "n", "mean", "95 %", "median", "worst"),
            [
                ("volume Dice", *_cells(report["dice"])),
                ("surface Dice, 2 mm", *_cells(report["surface_dice_2mm"])),
            ],
        ),
        f"Median 95th percentile Hausdorff distance: {_number(report['hausdorff95_mm']['median'], 1)} mm.",
        "## Institutions, the worst first",
        _table(
            ("institution", "n", "mean Dice", "95 %", "median", "worst"),
            [(each["institution"], *_cells(each)) for each in report["by_institution"]],
        ),
        "## With sequences taken away",
        "The same patients, all of whom have all three sequences.",
        _table(
            ("read", "n", "mean Dice", "95 %", "median", "worst"),
            [(each["condition"], *_cells(each)) for each in report["by_sequences"]],
        ),
        f"Patients who lack a sequence in the source: {_sentence(report['missing_in_source'])}.",
        "## Volume",
        _agreement(report["volume_cm3"]),
        "## Each patient, the worst first",
        _table(
            ("patient", "sequences", "Dice", "surface Dice", "ours cm³", "reference cm³", "certainty", "status"),
            [
                (
                    row["patient"],
                    str(row["sequences"]),
                    _number(row["dice"]),
                    _number(row["surface_dice"]),
                    _number(row["volume_cm3"], 1),
                    _number(row["reference_cm3"], 1),
                    _number(row["certainty"], 2),
                    row["status"],
                )
                for row in sorted(full, key=lambda each: each["dice"])
            ],
        ),
        f"Median time for a study: {_number(report['seconds_median'], 1)} s.",
    ]
    return "\n\n".join(parts) + "\n"


def _cells(held: dict[str, Any]) -> tuple[str, ...]:
    if not held["n"]:
        return ("0", "–", "–", "–", "–")
    span = "–" if held["interval"] is None else "{:.3f} to {:.3f}".format(*held["interval"])
    mean, median, worst = (_number(held[key]) for key in ("mean", "median", "worst"))
    return (str(held["n"]), mean, span, median, worst)


def _agreement(volume: dict[str, Any]) -> str:
    if not volume["n"]:
        return "No study was read."
    low, high = volume["limits_of_agreement"]
    return (
        f"Ours less the reference, of the {volume['n']} that were read: {volume['mean_difference']:+.1f} cm³ on "
        f"average, limits of agreement {low:+.1f} to {high:+.1f} cm³; median absolute difference "
        f"{volume['median_absolute_difference']:.1f} cm³."
    )


def _sentence(held: dict[str, Any]) -> str:
    n, mean, span, median, worst = _cells(held)
    return "none" if n == "0" else f"n = {n}, mean Dice {mean} ({span}), median {median}, worst {worst}"


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
