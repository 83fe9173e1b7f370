"""A pipeline without a network, to time everything else: bone is what lies above 300 HU."""

from __future__ import annotations

from time import perf_counter

from pydicom.sr.coding import Code

from pipelines.base import Algorithm, Finding, Findings, Segment, UnsuitableStudy
from pipelines.study import Study

TISSUE = Code("85756007", "SCT", "Tissue")
BONE = Code("272673000", "SCT", "Bone")


class Bone:
    algorithm = Algorithm("bone", "1.0.0", Code("123110", "DCM", "Artificial Intelligence"), "0" * 64)

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        for series in study.series:
            if series.modality == "CT" and series.is_volume:
                started = perf_counter()
                volume = series.volume()
                loaded = perf_counter()
                segment = Segment("bone", volume > 300, TISSUE, BONE)
                stages = {"load": loaded - started}
                finding = Finding(BONE, True, label="bone", segment=segment)
                return (Findings(series, (finding,), read=(series,), stages=stages),)
        raise UnsuitableStudy("no CT volume")
