"""Pictures of a training and of an evaluation: the learning curve, and the cases that went worst. PNG files only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice for the gallery: the picture, what a person drew, what we drew, and a caption."""

    picture: NDArray[np.float32]
    truth: NDArray[np.bool_]
    ours: NDArray[np.bool_]
    caption: str


def learning_curve(curve: Path, out: Path, *, measure: str = "mean volume Dice") -> None:
    """Loss and the score on the fold over minutes, from the ``curve.json`` of a run."""
    points = json.loads(curve.read_text()) if curve.exists() else []
    plt = pyplot()
    figure, left = plt.subplots(figsize=(7, 4), layout="constrained")
    minutes = [point["seconds"] / 60 for point in points]
    left.plot(minutes, [point["loss"] for point in points], color="tab:gray", label="training loss")
    left.set(xlabel="minutes", ylabel="loss")
    judged = [(point["seconds"] / 60, point["score"]) for point in points if point["score"] is not None]
    if judged:
        right = left.twinx()
        right.plot(*zip(*judged, strict=True), color="tab:blue", marker="o", label=f"{measure} on the fold")
        right.set(ylabel=measure, ylim=(0, 1))
    figure.legend(loc="lower right", bbox_to_anchor=(0.9, 0.15))
    figure.savefig(out, dpi=110)
    plt.close(figure)


def gallery(slices: Sequence[Slice], out: Path) -> None:
    """The slices side by side: a person's outline green, ours red."""
    plt = pyplot()
    columns = min(4, max(1, len(slices)))
    rows = -(-max(1, len(slices)) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3 * columns, 3.3 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, each in zip(axes.flat, slices, strict=False):
        axis.imshow(each.picture, cmap="gray", vmax=float(np.percentile(each.picture, 99.7)))
        for mask, colour in ((each.truth, "lime"), (each.ours, "red")):
            if mask.any():
                axis.contour(mask, levels=[0.5], colors=colour, linewidths=1)
        axis.set_title(each.caption, fontsize=8)
    figure.suptitle("green: reference; red: ours", fontsize=9)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def pyplot() -> Any:
    """matplotlib is needed only here, and only for training and evaluation (extra ``train``)."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt
