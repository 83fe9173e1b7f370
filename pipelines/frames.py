"""The frames of instances: which there are, where each lies, which values hold for it, and their geometric order.

A single-frame instance is one frame; an enhanced multi-frame instance has functional groups that place each of its
frames. Looks at headers only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from pipelines import geometry
from pipelines.instance import items, numbers, text, value
from pipelines.pixels import frame_count

# The functional group macros of what is asked for each frame (PS3.3 C.7.6.16.2); others are searched for.
_MACROS = dict.fromkeys(("RescaleSlope", "RescaleIntercept"), ("PixelValueTransformationSequence",))


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a series: a whole instance, or one frame of a multi-frame instance.

    Attributes:
        instance: The instance that holds it.
        number: Its frame number in there, from 1.
        groups: The functional groups that speak of it, its own before the shared (PS3.3 C.7.6.16).
        plane: Where it lies; None where the header does not say, or says nonsense.
    """

    instance: Dataset
    number: int
    groups: tuple[Dataset, ...]
    plane: geometry.Plane | None

    @property
    def name(self) -> str:
        """What a person calls it: the instance number, or the frame number."""
        return f"frame {self.number}" if self.groups else text(self.instance, "InstanceNumber") or "an unnumbered slice"

    @property
    def title(self) -> str:
        """The name with what it is the name of."""
        return self.name if self.groups else f"instance {self.name}"

    def get(self, keyword: str) -> Any:
        """The value that holds for this frame: of its own group, of the shared, of the instance; None if nowhere."""
        for group in self.groups:
            for macro in _MACROS.get(keyword) or group.dir():
                for item in items(group, macro):
                    if (found := value(item, keyword)) is not None:
                        return found
        return value(self.instance, keyword)


def sorted_frames(frames: list[Frame]) -> tuple[Frame, ...]:
    """Along the slice normal; as they are given where they are not parallel or do not say where they lie."""
    planes = [frame.plane for frame in frames if frame.plane is not None]
    if len(planes) < len(frames) or not geometry.is_parallel(planes):
        return tuple(frames)
    # rounded, so that slices at one position keep the order of time that they came in
    heights = np.round(geometry.heights(planes) / geometry.SAME_POSITION)
    return tuple(frames[i] for i in np.argsort(heights, kind="stable"))


def frames_of(header: Dataset) -> list[Frame]:
    """The frames of one instance, in their own order."""
    own = items(header, "PerFrameFunctionalGroupsSequence")
    if not own:
        plane = _plane(header, header, header) if frame_count(header) == 1 else None
        return [Frame(header, i + 1, (), plane) for i in range(frame_count(header))]
    shared = items(header, "SharedFunctionalGroupsSequence")[:1]
    frames = []
    for i in range(frame_count(header)):
        groups = (*own[i : i + 1], *shared)
        macros = [
            next((found[0] for group in groups if (found := items(group, keyword))), Dataset())
            for keyword in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
        ]
        frames.append(Frame(header, i + 1, groups, _plane(*macros)))
    return frames


def _plane(place: Dataset, direction: Dataset, measures: Dataset) -> geometry.Plane | None:
    position, orientation = numbers(place, "ImagePositionPatient", 3), numbers(direction, "ImageOrientationPatient", 6)
    if position is None or orientation is None:
        return None
    spacing = numbers(measures, "PixelSpacing", 2)
    is_positive = spacing is not None and min(spacing) > 0
    plane = geometry.Plane(position, orientation, (spacing[0], spacing[1]) if spacing and is_positive else None)
    return plane if plane.is_sound else None
