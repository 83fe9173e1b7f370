"""Which series a pipeline of pictures reads, by their headers, and what it says of each class that it knows.

What does not fit is unsuitable, and the sentence says why; what a network has to say is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.sr.coding import Code

from pipelines.base import Finding, UnsuitableStudy
from pipelines.instance import number, text
from pipelines.series import Series
from pipelines.study import Study

_NOT_AS_ACQUIRED = ("LOCALIZER", "SCOUT", "DERIVED")  # values of Image Type that are no pictures to be read


@dataclass(frozen=True)
class Domain:
    """What a pipeline reads.

    Attributes:
        what: For the sentence: "a CT of the head".
        modalities: Of Modality.
        parts: Of Body Part Examined, in capitals.
        words: A pattern that the Series or Study Description must match where there is no Body Part Examined; empty:
            such a series is read.
        smallest: Rows and columns at least.
    """

    what: str
    modalities: frozenset[str]
    parts: frozenset[str] = frozenset()
    words: str = ""
    smallest: int = 32

    def series(self, study: Study) -> list[Series]:
        """All series of the study that are of this domain.

        Raises:
            UnsuitableStudy: If there is none; the sentence says what speaks against the last one that was looked at.
        """
        objections = {series.uid: self.objection(series) for series in study.series}
        found = [series for series in study.series if objections[series.uid] is None]
        if not found:
            said = list(dict.fromkeys(reason for reason in objections.values() if reason))
            raise UnsuitableStudy(f"no series is {self.what}: {'; '.join(said[:3])}")
        return found

    def objection(self, series: Series) -> str | None:
        """Why a series is not read; None if it is."""
        part = text(series.header, "BodyPartExamined").upper()
        told = f"{series.description} {text(series.header, 'StudyDescription')}"
        kind = [str(value).upper() for value in series.get("ImageType") or ()]
        sizes = [number(each, keyword) or 0 for each in series.instances for keyword in ("Rows", "Columns")]
        checks = (
            (series.modality not in self.modalities, f"the modality is {series.modality or 'not said'}"),
            (not series.is_image, "a series holds no pictures"),
            (bool(part and self.parts) and part not in self.parts, f"the body part is {part}"),
            (
                not part and bool(self.words) and not re.search(self.words, told, re.IGNORECASE),
                "neither body part nor description says what is shown",
            ),
            (bool(set(kind) & set(_NOT_AS_ACQUIRED)), f"the images are {'/'.join(kind)}, not as acquired"),
            (min(sizes, default=0) < self.smallest, f"the pictures are smaller than {self.smallest} pixels"),
        )
        return next((reason for is_so, reason in checks if is_so), None)


def class_findings(
    chances: Sequence[float],
    points: Mapping[str, Any],
    codes: Mapping[str, Code],
    *,
    sop_uids: tuple[str, ...],
    site: Code | None = None,
) -> list[Finding]:
    """Every class that the pipeline knows, as a finding: there from its cutoff on.

    Args:
        chances: A probability per class, in the order of ``points["classes"]``.
        codes: Class → code; the class is the label that people read.
    """
    return [
        Finding(
            codes[name],
            present=chance >= points["cutoffs"][name],
            certainty=min(max(float(chance), 0.0), 1.0),
            sop_uids=sop_uids,
            label=name,
            site=site,
        )
        for name, chance in zip(points["classes"], chances, strict=True)
    ]  # fmt: skip
