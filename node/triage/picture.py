"""The picture of a simulation: how many still wait after so many minutes, with triage and without. A PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WITHOUT, WITH = "#8a8f98", {"positives": "#e8590c", "negatives": "#3b82c4"}


def draw(report: dict[str, Any], path: Path, *, title: str) -> None:
    """Write the picture to ``path``.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    curves = report["curves"]
    after = curves["after_minutes"]
    figure = Figure(figsize=(10, 4.6), dpi=150, layout="constrained")
    figure.suptitle(title, fontsize=11)
    for axis, group in zip(figure.subplots(1, 2, sharey=True), ("positives", "negatives"), strict=True):
        for key, colour in (("without", WITHOUT), ("with", WITH[group])):
            band = curves.get(group, {}).get(key)
            if band is None:
                continue
            mean = report["minutes"][group][f"mean_{key}"]
            label = f"{key} triage: mean {spoken(mean)} min"
            axis.plot(after, [100 * each for each in band["mean"]], color=colour, linewidth=2, label=label)
            low, high = ([100 * each for each in band[end]] for end in ("low", "high"))
            axis.fill_between(after, low, high, color=colour, alpha=0.18, linewidth=0)
        last = next((x for x, left in zip(after, _left(curves, group), strict=True) if left < 0.005), after[-1])
        axis.set(xlim=(0, last), ylim=(0, None), xlabel="minutes since arrival", title=f"{group} that still wait")
        axis.legend(frameon=False, fontsize=9, loc="upper right")
        axis.spines[["top", "right"]].set_visible(False)
        axis.yaxis.set_major_formatter("{x:.0f} %")
        axis.grid(alpha=0.25)
    figure.savefig(path)


def spoken(each: dict[str, Any]) -> str:
    """``4.2 (3.1 to 5.5)``; an en dash where there is no case of the kind."""
    if each["value"] is None:
        return "–"
    low, high = each["interval"]
    return f"{each['value']:.1f} ({low:.1f} to {high:.1f})"


def _left(curves: dict[str, Any], group: str) -> list[float]:
    """The largest share that waits at each point, of all bands of the group."""
    highs = [band["high"] for band in curves.get(group, {}).values()]
    return [max(each) for each in zip(*highs, strict=True)] if highs else [0.0] * len(curves["after_minutes"])
