"""The pipeline ``xc_skin``: melanoma on dermoscopic pictures of the skin.

Judges picture by picture. It outlines nothing, and what it says is not a diagnosis.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.base import Algorithm, Finding, Findings, SaliencyMap
from pipelines.classifier import AS_IT_IS, FLIPPED, MIRRORED, TURNED, Classifier, Judged
from pipelines.domain import Domain, class_findings
from pipelines.evidence import codes
from pipelines.pictures import Look
from pipelines.study import Study

CARD = Path(__file__).parent / "weights" / "xc_skin-1.1.0.json"
KIND = "mobile_classifier"
CLASSES = ("melanoma",)
LOOK = Look((224, 224), colour=True, stretch=True)  # the set was squashed, so every picture is
DOMAIN = Domain("a dermoscopic picture", frozenset({"XC", "DMS"}), frozenset({"SKIN"}), r"derm(at)?oscop|skin")


class SkinMelanoma:
    """Reads dermoscopic pictures; the networks stay warm in the instance."""

    def __init__(self, card: Path = CARD, *, device: str | None = None) -> None:
        views = (AS_IT_IS, MIRRORED, FLIPPED, TURNED)  # a mole has neither side nor top
        self._classifier = Classifier(card, LOOK, views=views, device=device)

    @property
    def device(self) -> str:
        return self._classifier.device

    @property
    def algorithm(self) -> Algorithm:
        return self._classifier.algorithm

    def warm_up(self) -> str:
        return self._classifier.warm_up()

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        return self._classifier.read(DOMAIN.series(study), self._say)

    def saliency(self, findings: Findings) -> tuple[SaliencyMap, ...]:
        """Where the networks looked on the images that show it most surely."""
        return self._classifier.saliency(findings)

    def explain(self, study: Study) -> list[tuple[str, NDArray[np.float32], str]]:
        """For each picture that would be read: SOP Instance UID, map (rows, columns) 0 to 1, class."""
        return self._classifier.explain(DOMAIN.series(study))

    def _say(self, judged: Sequence[Judged]) -> Iterable[Finding]:
        known = {"melanoma": codes.MALIGNANT_MELANOMA}
        for each in judged:
            yield from class_findings(
                each.chances, self._classifier.points, known, sop_uids=(each.sop_uid,), site=codes.SKIN
            )
