"""A series: instances in geometric order, as one volume with its place in the patient and its faults said.

Nothing is invented: what the headers do not say is None. Pixels are read from the files when they are asked for; a
file must stay where it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pipelines import geometry
from pipelines.frames import Frame, frames_of, sorted_frames
from pipelines.instance import number, text
from pipelines.pixels import BadPixels, decode, has_pixels
from pipelines.volume import stack

# Kept with their series, but no pictures of a patient that a pipeline may read (PS3.4 Table B.5-1): Segmentation,
# Label Map Segmentation, Parametric Map, RT Dose; the rest has no pixels.
_DERIVED_GRIDS = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.66.4",
        "1.2.840.10008.5.1.4.1.1.66.7",
        "1.2.840.10008.5.1.4.1.1.30",
        "1.2.840.10008.5.1.4.1.1.481.2",
    }
)


@dataclass(frozen=True, eq=False)
class Series:
    """The instances of one series, in geometric order whatever order they are given in.

    Attributes:
        instances: Headers, along the slice normal; by Instance Number where there is no geometry.
    """

    uid: str
    modality: str
    instances: tuple[Dataset, ...]

    def __post_init__(self) -> None:
        if not self.instances:
            raise ValueError(f"series {self.uid} has no instances")
        by_number = sorted(self.instances, key=_by_number)
        frames = sorted_frames([frame for header in by_number for frame in frames_of(header)])
        first_frame = {id(frame.instance): place for place, frame in reversed(list(enumerate(frames)))}
        object.__setattr__(self, "instances", tuple(sorted(by_number, key=lambda each: first_frame[id(each)])))
        object.__setattr__(self, "_frames", frames)

    @property
    def frames(self) -> tuple[Frame, ...]:
        """Every frame of every instance, in geometric order: the order of ``volume()`` and of masks."""
        return self._frames  # type: ignore[attr-defined,no-any-return]

    @property
    def header(self) -> Dataset:
        return self.instances[0]

    @property
    def description(self) -> str:
        return text(self.header, "SeriesDescription")

    @property
    def frame_of_reference(self) -> str | None:
        return text(self.header, "FrameOfReferenceUID") or None

    @property
    def is_inverted(self) -> bool:
        """Whether low values are bright (MONOCHROME1); ``volume`` leaves them as they are."""
        return text(self.header, "PhotometricInterpretation") == "MONOCHROME1"

    @cached_property
    def is_image(self) -> bool:
        """Whether every instance is a picture, not a report, an outline or a dose."""
        return all(
            has_pixels(each) and number(each, "Rows") and text(each, "SOPClassUID") not in _DERIVED_GRIDS
            for each in self.instances
        )

    @cached_property
    def planes(self) -> tuple[geometry.Plane, ...] | None:
        """Where each of ``frames`` lies; None unless all say so and are parallel."""
        planes = tuple(frame.plane for frame in self.frames if frame.plane is not None)
        return planes if self.is_image and len(planes) == len(self.frames) and geometry.is_parallel(planes) else None

    @cached_property
    def is_volume(self) -> bool:
        """Whether the frames are grey slices of one grid size and orientation at distinct positions."""
        is_grey = all(number(each, "SamplesPerPixel") in (1, None) for each in self.instances)
        return is_grey and self.planes is not None and geometry.are_distinct(self.planes) and len(self._grids) == 1

    @cached_property
    def _grids(self) -> set[tuple[Any, ...]]:
        spacings = {frame.plane.spacing for frame in self.frames if frame.plane is not None}
        return {(number(h, "Rows"), number(h, "Columns"), s) for h in self.instances for s in spacings or {None}}

    def get(self, keyword: str) -> Any:
        """The value of an element as the first frame has it, wherever it stands; None where it is nowhere."""
        return self.frames[0].get(keyword)

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """mm (between slices along the normal, between rows, between columns); None where any is not said."""
        if not self.planes or self.planes[0].spacing is None:
            return None
        between = geometry.slice_distance(self.planes) or self._single_slice_step
        return (between, *self.planes[0].spacing) if between else None

    @property
    def affine(self) -> NDArray[np.float64] | None:
        """(frame, row, column, 1) to mm in the patient's LPS frame; None unless the frames are one even grid."""
        return geometry.affine(self.planes, self._single_slice_step) if self.planes else None

    @property
    def _single_slice_step(self) -> float | None:
        for keyword in ("SpacingBetweenSlices", "SliceThickness"):
            try:
                step = float(self.get(keyword))
            except (TypeError, ValueError):
                continue
            if 0 < step < float("inf"):
                return step
        return None

    @cached_property
    def faults(self) -> tuple[str, ...]:
        """What a reader must know of the geometry, in sentences; empty where all is well or there is none."""
        if not self.is_image:
            return ()
        said = [sentence for is_so, sentence in self._mixtures() if is_so]
        if self.planes:
            said += geometry.faults(self.planes, [frame.name for frame in self.frames])
        return tuple(said)

    def _mixtures(self) -> Iterable[tuple[bool, str]]:
        planes = [frame.plane for frame in self.frames if frame.plane is not None]
        references = {text(each, "FrameOfReferenceUID") for each in self.instances}
        sizes = {(number(each, "Rows"), number(each, "Columns")) for each in self.instances}
        nowhere = len(self.frames) - len(planes)
        yield 0 < nowhere < len(self.frames), f"{nowhere} of {len(self.frames)} slices do not say where they lie"
        yield bool(planes) and not geometry.is_parallel(planes), "the slices have several orientations"
        yield len(sizes) > 1, f"the slices have {len(sizes)} sizes"
        yield len({plane.spacing for plane in planes}) > 1, "the slices have several pixel spacings"
        yield len(references) > 1, f"the slices have {len(references)} frames of reference"
        has_scale = "ModalityLUTSequence" in self.header or self.get("RescaleSlope") is not None
        yield (
            self.modality == "CT" and not has_scale,
            "the slices have no Rescale Slope, so perhaps no Hounsfield units",
        )
        yield len({text(each, "Modality") for each in self.instances}) > 1, "the slices have several modalities"

    def pixels(self, index: int) -> NDArray[Any]:
        """One instance as stored: (rows, columns), (frames, rows, columns), or RGB uint8 (…, 3).

        Raises:
            BadPixels: If they cannot be had, in one sentence.
        """
        return decode(self.instances[index])

    def volume(self) -> NDArray[np.float32]:
        """Every frame in the order of ``frames``, shape (frames, rows, columns), in modality values (HU for CT).

        Pixels that carry the Pixel Padding Value get the nearest value that an image pixel has: they lie outside
        of what was reconstructed, and -2000 or 32767 would spoil every statistic (PS3.3 C.7.5.1.1.2).

        Raises:
            BadPixels: If the frames are in colour, differ in size, or cannot be decoded.
        """
        if not self.is_image:
            raise BadPixels(f"series {self.uid} ({self.modality or 'no modality'}) holds no pictures")
        sizes = {(number(each, "Rows"), number(each, "Columns")) for each in self.instances}
        if len(sizes) > 1:
            raise BadPixels(f"the slices have {len(sizes)} sizes, so they make no volume")
        return stack(self.frames)


def _by_number(header: Dataset) -> tuple[float, float, str]:
    """Instance Number, then time, then UID: an order that is always the same."""
    found = (number(header, keyword) for keyword in ("InstanceNumber", "TriggerTime"))
    count, time = (float("inf") if each is None else each for each in found)
    return count, time, text(header, "SOPInstanceUID")
