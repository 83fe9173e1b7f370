"""A pipeline without a network, to time everything else: the body is what lies above -300 HU."""

from __future__ import annotations

from time import perf_counter

from pipelines.base import Algorithm, Finding, Findings, Segment, UnsuitableStudy
from pipelines.evidence.codes import ARTIFICIAL_INTELLIGENCE, TISSUE
from pipelines.study import Study


class Body:
    algorithm = Algorithm("body", "1.0.0", ARTIFICIAL_INTELLIGENCE, "0" * 64)

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        for series in study.series:
            if series.modality == "CT" and series.is_volume:
                started = perf_counter()
                volume = series.volume()
                loaded = perf_counter()
                segment = Segment("body", volume > -300, TISSUE, TISSUE)
                stages = {"load": loaded - started}
                finding = Finding(TISSUE, True, label="body", segment=segment)
                return (Findings(series, (finding,), read=(series,), stages=stages),)
        raise UnsuitableStudy("no CT volume")
