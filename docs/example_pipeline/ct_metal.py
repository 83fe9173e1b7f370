"""A pipeline of another package: outlines metal in a CT, which is brighter than any bone.

pip install ./docs/example_pipeline
[pipelines.ct_metal]                     # in settings.toml
use = "ct_metal"
when = { Modality = "CT" }
"""

import hashlib
from pathlib import Path

from pipelines.base import Algorithm, Finding, Findings, Measurement, Segment, UnsuitableStudy
from pipelines.evidence import codes

IMPLANT = codes.declared("40388003", "SCT", "Implant", "CID 7151")
OBJECT = codes.declared("260787004", "SCT", "Physical object", "CID 7150")
METAL_FROM = 2500.0  # HU; the densest bone has about 2000


class Metal:
    """One Findings per CT series that lies in space; no weights, so its own source is what decides."""

    algorithm = Algorithm(
        "ct_metal", "0.1.0", codes.ARTIFICIAL_INTELLIGENCE, hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    )

    def __call__(self, study):
        found = [each for each in study.series if each.modality == "CT" and each.is_volume and each.spacing]
        if not found:
            raise UnsuitableStudy("no series is a CT whose slices lie in space")
        return tuple(self._read(series) for series in found)

    def _read(self, series):
        mask = series.volume() > METAL_FROM  # HU, bool (frames, rows, columns)
        if not mask.any():
            return Findings(series, (Finding(IMPLANT, present=False, label="metal"),), (series,))
        across, down, along = series.spacing
        volume = Measurement(codes.VOLUME, float(mask.sum()) * across * down * along / 1000, codes.CUBIC_CENTIMETER)
        outline = Segment("metal", mask, OBJECT, IMPLANT)
        return Findings(
            series, (Finding(IMPLANT, present=True, label="metal", segment=outline, measurements=(volume,)),), (series,)
        )
