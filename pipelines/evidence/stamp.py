"""What every object of a run carries: UIDs from the job, the time of the analysis, who made it, whose it is.

No clock and no chance: the same job and the same findings make the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydicom.dataset import Dataset

from pipelines.base import Algorithm, derived_uid
from pipelines.evidence import equipment
from pipelines.evidence.source import Source

_TIME = "%H%M%S.%f"


@dataclass(frozen=True, eq=False)
class Stamp:
    """One run of one pipeline over one study.

    Attributes:
        job: What the UIDs derive from.
        started: When the analysis began.
    """

    source: Source
    algorithm: Algorithm
    job: str
    started: datetime

    def uid(self, *parts: object) -> str:
        return derived_uid(self.job, *parts)

    def put_on(self, result: Dataset) -> None:
        """Complete an object that highdicom has built, and take its clock and its random UIDs out of it."""
        self.source.hand_over(result)
        date, time = self.started.strftime("%Y%m%d"), self.started.strftime(_TIME)
        result.InstanceCreationDate = result.SeriesDate = result.ContentDate = date
        result.InstanceCreationTime = result.SeriesTime = result.ContentTime = time
        if "SyntheticData" in self.source.header:
            result.SyntheticData = self.source.header.SyntheticData
        organization = self.uid("dimension organization", result.SOPInstanceUID)
        for keyword in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
            for item in result.get(keyword, []):
                item.DimensionOrganizationUID = organization
        equipment.sign(result, self.source, self.algorithm, self.started)
        self.source.mark(result, self.started)
