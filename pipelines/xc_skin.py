"""The pipeline ``xc_skin``: melanoma on dermoscopic pictures of the skin.

Judges picture by picture. It outlines nothing, and what it says is not a diagnosis.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pipelines.base import Finding, Findings, SaliencyMap
from pipelines.classifier import AS_IT_IS, FLIPPED, MIRRORED, TURNED, Classifier, ClassPipeline, Judged
from pipelines.domain import Domain, class_findings
from pipelines.evidence import codes
from pipelines.pictures import Look
from pipelines.series import Series
from pipelines.study import Study

CARD = Path(__file__).parent / "weights" / "xc_skin-1.1.0.json"
KIND = "mobile_classifier"
CLASSES = ("melanoma",)
LOOK = Look((224, 224), colour=True, stretch=True)  # the set was squashed, so every picture is
DOMAIN = Domain("a dermoscopic picture", frozenset({"XC", "DMS"}), frozenset({"SKIN"}), r"derm(at)?oscop|skin")


class SkinMelanoma(ClassPipeline):
    """Reads dermoscopic pictures; the networks stay warm in the instance."""

    def __init__(self, card: Path = CARD, *, device: str | None = None) -> None:
        views = (AS_IT_IS, MIRRORED, FLIPPED, TURNED)  # a mole has neither side nor top
        super().__init__(Classifier(card, LOOK, views=views, device=device))

    def _series(self, study: Study) -> list[Series]:
        return DOMAIN.series(study)

    def saliency(self, findings: Findings) -> tuple[SaliencyMap, ...]:
        """Where the networks looked on the images that show it most surely."""
        return self._classifier.saliency(findings)

    def _say(self, judged: Sequence[Judged]) -> Iterable[Finding]:
        known = {"melanoma": codes.MALIGNANT_MELANOMA}
        for each in judged:
            yield from class_findings(
                each.chances, self._classifier.points, known, sop_uids=(each.sop_uid,), site=codes.SKIN
            )
