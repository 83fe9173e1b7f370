"""The pipeline ``mr_brain_type``: glioma, meningioma or pituitary tumour, on slices of a T1 after contrast.

Judges slice by slice, and says of each which of the three it shows, or none. It is made for slices that a tumour is
known to be on; it outlines nothing, and what it says is not a diagnosis.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pipelines import mr_sequences
from pipelines.base import Finding, UnsuitableStudy
from pipelines.classifier import AS_IT_IS, MIRRORED, Classifier, ClassPipeline, Judged
from pipelines.domain import Domain, class_findings
from pipelines.evidence import codes
from pipelines.pictures import Look
from pipelines.series import Series
from pipelines.study import Study

CARD = Path(__file__).parent / "weights" / "mr_brain_type-1.1.0.json"
KIND = "mobile_classifier"
CLASSES = ("glioma", "meningioma", "pituitary", "no tumor")
CODES = {
    "glioma": codes.GLIOMA,
    "meningioma": codes.INTRACRANIAL_MENINGIOMA,
    "pituitary": codes.PITUITARY_ADENOMA,
}
ANY = "any of these tumors"  # said in place of "no tumor": the rest of the brain was not judged, so it is not "normal"
LOOK = Look((192, 192))
DOMAIN = Domain(
    "a T1 of the brain after contrast",
    frozenset({"MR"}),
    frozenset({"HEAD", "BRAIN", "SKULL"}),
    r"brain|head|skull|crani|cerebr|neuro|sella|pituitar|hypophys",
)


class BrainTumourType(ClassPipeline):
    """Reads brain MR studies; the networks stay warm in the instance."""

    def __init__(self, card: Path = CARD, *, device: str | None = None) -> None:
        super().__init__(Classifier(card, LOOK, views=(AS_IT_IS, MIRRORED), device=device))

    def _series(self, study: Study) -> list[Series]:
        return readable(study)

    def _say(self, judged: Sequence[Judged]) -> Iterable[Finding]:
        points = self._classifier.points
        kinds = points | {"classes": points["classes"][:3]}
        for each in judged:
            yield from class_findings(each.chances[:3], kinds, CODES, sop_uids=(each.sop_uid,), site=codes.BRAIN)
            without = each.chances[3]
            yield Finding(
                codes.NEOPLASM,
                present=without < points["cutoffs"]["no tumor"],
                certainty=min(max(1 - without, 0.0), 1.0),
                sop_uids=(each.sop_uid,),
                label=ANY,
                site=codes.BRAIN,
            )


def readable(study: Study) -> list[Series]:
    """The series of the study that are T1 after contrast, by acquisition and description.

    Raises:
        UnsuitableStudy: If there is none.
    """
    found = [each for each in DOMAIN.series(study) if mr_sequences.role(each) == mr_sequences.T1_POST]
    if not found:
        raise UnsuitableStudy(f"no series is {DOMAIN.what} among {mr_sequences.description_of(study)}")
    return found
