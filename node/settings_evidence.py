"""What settings.toml says of the evidence that a destination takes: ``evidence`` of ``[destinations.NAME]``."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from pipelines.forms import PRESETS, Wanted

Preset = Literal["ohif", "orthanc", "air", "legacy", "planning"]


class EvidenceLine(BaseModel):
    """What a destination takes: a preset of ``pipelines.forms``, and what differs from it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    preset: Preset = "ohif"
    report: str | None = None
    segmentation: str | None = None
    derived_series: bool | None = None
    key_objects: bool | None = None
    presentation_state: bool | None = None
    secondary_capture: bool | None = None
    parametric_map: bool | None = None
    map_capture: bool | None = None
    rt_structure_set: bool | None = None
    pdf: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: object) -> object:
        return {"preset": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _is_consistent(self) -> EvidenceLine:
        _ = self.wanted
        return self

    @property
    def wanted(self) -> Wanted:
        switches = self.model_dump(exclude={"preset"}, exclude_none=True)
        return replace(PRESETS[self.preset], **switches)
