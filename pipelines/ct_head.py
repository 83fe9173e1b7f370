"""The pipeline ``ct_head``: intracranial haemorrhage on CT of the head without contrast, for triage.

Judges slice by slice; of a stack it says also which slice shows it most, and whether any does. It outlines nothing, and
what it says is not a diagnosis.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipelines.base import Finding, Findings, SaliencyMap, UnsuitableStudy
from pipelines.classifier import AS_IT_IS, MIRRORED, Classifier, ClassPipeline, Judged
from pipelines.domain import Domain, class_findings
from pipelines.evidence import codes
from pipelines.instance import text
from pipelines.pictures import Look
from pipelines.series import Series
from pipelines.study import Study

CARD = Path(__file__).parent / "weights" / "ct_head-1.1.0.json"
KIND = "mobile_classifier"
CLASSES = ("hemorrhage",)
LOOK = Look((192, 192), window=(0.0, 80.0))  # HU: the brain window that the set was stored with
DOMAIN = Domain(
    "a CT of the head without contrast",
    frozenset({"CT"}),
    frozenset({"HEAD", "BRAIN", "SKULL"}),
    r"head|brain|skull|crani",
)

# Contrast in vessels is as bright as blood; kernels for bone drown it in noise.
_NOT_READ = re.compile(r"bone|angio|\bcta\b|perf|(?<!w.o )(?<!without )(?<!no )contrast|\+ ?c\b", re.IGNORECASE)
_NO_AGENT = frozenset({"", "NONE", "NO", "N", "N/A", "NA"})


class HeadHaemorrhage(ClassPipeline):
    """Reads CT studies of the head; the networks stay warm in the instance."""

    def __init__(self, card: Path = CARD, *, device: str | None = None) -> None:
        super().__init__(Classifier(card, LOOK, views=(AS_IT_IS, MIRRORED), device=device))

    def _series(self, study: Study) -> list[Series]:
        return readable(study)

    def saliency(self, findings: Findings) -> tuple[SaliencyMap, ...]:
        """Where the networks looked on the images that show it most surely."""
        return self._classifier.saliency(findings)

    def _say(self, judged: Sequence[Judged]) -> Iterable[Finding]:
        """The whole stack, as sure as its surest slice; then each slice."""
        known = {"hemorrhage": codes.HEMORRHAGE}
        if len(judged) > 1:
            key = max(judged, key=lambda each: each.chances[0])
            yield from class_findings(key.chances, self._classifier.points, known, sop_uids=(), site=codes.BRAIN)
        for each in judged:
            yield from class_findings(
                each.chances, self._classifier.points, known, sop_uids=(each.sop_uid,), site=codes.BRAIN
            )


def readable(study: Study) -> list[Series]:
    """The series of the study that this pipeline reads.

    Raises:
        UnsuitableStudy: If there is none.
    """
    found = DOMAIN.series(study)
    fitting = [series for series in found if objection(series) is None]
    if not fitting:
        raise UnsuitableStudy(f"no series is {DOMAIN.what}: {objection(found[0])}")
    return fitting


def objection(series: Series) -> str | None:
    """Why a CT of the head is not read; None if it is."""
    agent = text(series.header, "ContrastBolusAgent").strip().upper()
    if agent not in _NO_AGENT:
        return "a contrast agent was given"
    if said := _NOT_READ.search(series.description):
        return f"the description says {said.group().strip()!r}"
    if series.planes and abs(float(series.planes[0].normal[2])) < 0.7071:
        return "the slices are not axial"
    return None
