"""How ``enhance`` is trained: a network per modality, on pictures of the sets with the noise of the modality added."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipelines.enhance import CT_WINDOW
from pipelines.pictures import Look
from pipelines.training.denoise import Denoise
from pipelines.training.examples import Row, Truth, examples
from pipelines.training.loop import Options
from pipelines.training.recipes import Recipe, Sources

# Smaller than the pictures are, which quiets the noise that they have of their own.
LOOKS = {"mr": Look((160, 160)), "ct": Look((160, 160), window=CT_WINDOW), "us": Look((160, 160), window=(0.0, 255.0))}
POINTS = {"diameters": [5, 9, 15], "at_least": 0.95, "shares": [1.0, 0.75, 0.5, 0.25]}


def _shown(_: Row, __: Path) -> Truth:
    return Truth()


def _task(modality: str) -> Callable[[Sources, Options], Denoise]:
    def made(sources: Sources, options: Options) -> Denoise:
        return Denoise(examples(sources, LOOKS[modality], _shown), options, modality, POINTS, turn=modality != "us")

    return made


OPTIONS = Options(
    network="denoiser", batch=16, rate=2e-3, weight_decay=0.0, average=0.99, checks=8, patience=99,
    budget_seconds=300.0,
)  # fmt: skip
RECIPES = {modality: Recipe(OPTIONS, _task(modality)) for modality in LOOKS}
