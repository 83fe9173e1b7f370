"""Which frames of a series one Segmentation can hold: slices at distinct places, or one picture that lies nowhere.

Looks at headers only; builds nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from pydicom.dataset import Dataset

from pipelines.frames import Frame
from pipelines.geometry import SAME_POSITION
from pipelines.instance import text
from pipelines.series import Series


@dataclass(frozen=True, eq=False)
class Stack:
    """Frames that go into one Segmentation.

    Attributes:
        frames: Their places in ``series.frames``, and so in a mask.
        images: The instances that hold them, in the same order; one alone if it is multi-frame.
        is_flat: One picture: a finding on it is a plane, not a volume.
    """

    frames: tuple[int, ...]
    images: tuple[Dataset, ...]

    @property
    def is_flat(self) -> bool:
        return len(self.frames) == 1


def stacks(series: Series) -> list[Stack]:
    """All frames of the series, each in one stack, so that no stack has two at one place.

    highdicom refuses a Segmentation whose frames share a position, as those of every cine do: the k-th frames of all
    positions make the k-th stack. Multi-frame instances, and pictures that lie nowhere, have a stack each.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    met: Counter[tuple[object, ...]] = Counter()
    for index, frame in enumerate(series.frames):
        key = _stack_key(frame)
        if key is None:
            groups.setdefault((id(frame.instance),), []).append(index)
            continue
        met[place := (*key, _position(frame))] += 1
        groups.setdefault((*key, met[place]), []).append(index)
    return [_stack(series, indices) for indices in groups.values()]


def _stack(series: Series, indices: list[int]) -> Stack:
    instances = [series.frames[index].instance for index in indices]
    if len(instances) > 1 and instances[0] is instances[-1]:  # multi-frame: highdicom wants its frames as stored
        return Stack(tuple(sorted(indices, key=lambda index: series.frames[index].number)), (instances[0],))
    return Stack(tuple(indices), tuple(instances))


def _stack_key(frame: Frame) -> tuple[object, ...] | None:
    """Frame of reference and direction; None for what stands alone."""
    if frame.plane is None or frame.groups:
        return None
    direction = tuple(round(cosine / SAME_POSITION) for cosine in frame.plane.orientation)
    return text(frame.instance, "FrameOfReferenceUID"), direction


def _position(frame: Frame) -> tuple[int, ...]:
    return tuple(round(mm / SAME_POSITION) for mm in frame.plane.position) if frame.plane else ()
