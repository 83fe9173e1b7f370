"""The drawings of a report, each as a piece of HTML that needs no other file: SVG curves, PNG pictures.

What matplotlib draws in ``INK`` takes the colour of the text around it, so that a report may be light or dark.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pipelines.training.judge import Drawn

INK, FAINT = "#010203", "#8a8f98"
OURS, TRUTH = "#e8590c", "#2b8a3e"  # what was said; what is so
BLUE = "#3b82c4"


def roc(points: Sequence[tuple[float, float]], point: tuple[float, float] | None) -> str:
    """The curve, and on it where the pipeline works: (1 - specificity, sensitivity)."""
    figure, axis = _figure()
    axis.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--")
    axis.plot(*zip(*points, strict=True), color=BLUE, linewidth=1.8)
    if point:
        axis.plot(*point, "o", color=OURS, markersize=7, label="operating point")
        axis.legend(frameon=False, loc="lower right")
    axis.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title="ROC")
    return _svg(figure)


def calibration(bins: Sequence[dict[str, Any]]) -> str:
    figure, axis = _figure()
    axis.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--")
    axis.plot([b["said"] for b in bins], [b["share"] for b in bins], "o-", color=BLUE, linewidth=1.5, markersize=5)
    axis.set(xlabel="certainty that was said", ylabel="share that has it", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axis.set_title("Calibration")
    return _svg(figure)


def distribution(values: Sequence[float], *, label: str = "Dice") -> str:
    figure, axis = _figure()
    axis.hist(values, bins=20, range=(0, 1), color=BLUE)
    axis.axvline(float(np.mean(values)), color=OURS, linewidth=1.5, label="mean")
    axis.legend(frameon=False, loc="upper left")
    axis.set(xlabel=label, ylabel="pictures", xlim=(0, 1), title=f"{label}, all pictures")
    return _svg(figure)


def bland_altman(held: dict[str, Any]) -> str:
    figure, axis = _figure()
    axis.scatter(*zip(*held["points"], strict=True), s=14, color=BLUE, alpha=0.7, linewidths=0)
    for value, style in ((held["mean"], "-"), *((limit, "--") for limit in held["limits"])):
        axis.axhline(value, color=OURS, linewidth=1.2, linestyle=style)
    unit = UNITS.get(held["unit"], held["unit"])
    axis.set(xlabel=f"mean of both, {unit}", ylabel=f"ours less the reference, {unit}", title="Bland–Altman")
    return _svg(figure)


UNITS = {"mm2": "mm²", "cm3": "ml", "count": "objects"}


def side_by_side(drawn: Drawn, *, with_outlines: bool) -> str:
    """The picture; where there are outlines, beside each other the reference's and ours."""
    if not with_outlines:
        return _png(_colour(drawn.picture))
    both = [_outlined(drawn.picture, drawn.truth, TRUTH), _outlined(drawn.picture, drawn.ours, OURS)]
    gap = np.zeros((both[0].shape[0], 4, 3), np.uint8)
    return _png(np.concatenate((both[0], gap, both[1]), axis=1))


def _outlined(picture: NDArray[np.uint8], mask: NDArray[np.bool_], colour: str) -> NDArray[np.uint8]:
    shown = _colour(picture)
    scale = shown.shape[0] // picture.shape[0]
    large = mask.repeat(scale, 0).repeat(scale, 1)
    edge = large & ~ndimage.binary_erosion(large, iterations=max(1, scale))
    shown[edge] = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return shown


def _colour(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(rows, columns, 3); small ones enlarged pixel by pixel."""
    scale = max(1, 200 // max(picture.shape[:2]))
    large = picture.repeat(scale, 0).repeat(scale, 1)
    return large.copy() if large.ndim == 3 else np.repeat(large[..., None], 3, axis=2)


def _png(picture: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


def _figure() -> tuple[Any, Any]:
    """matplotlib is needed only here, and only for evaluation (extra ``train``)."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    own = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    look = dict.fromkeys(own, INK) | {"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}
    plt.rcParams.update(look | {"axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "wetread"})
    figure, axis = plt.subplots(figsize=(3.5, 3.2), layout="constrained")
    return figure, axis


def _svg(figure: Any) -> str:
    from matplotlib import pyplot as plt

    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    drawn = file.getvalue()
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    return drawn.replace(INK, "currentColor")
