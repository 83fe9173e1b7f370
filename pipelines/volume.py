"""Frames to one array of modality values: decoded, rescaled, padding set aside.

Knows no geometry: the frames are stacked in the order they are given in. MONOCHROME1 is not inverted, that is for
display.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut

from pipelines.frames import Frame
from pipelines.instance import is_damaged, number
from pipelines.pixels import MAX_SAMPLES, BadPixels, decode, frame_count

_LARGEST_FACTOR = 1e30  # beyond, 32 bits of pixel times factor leave float32


def stack(frames: Sequence[Frame]) -> NDArray[np.float32]:
    """The frames in the order given, rescaled to modality values, shape (frames, rows, columns).

    Raises:
        BadPixels: If a frame is in colour, has another size than the first, or cannot be decoded.
    """
    first = frames[0].instance
    shape = (len(frames), int(number(first, "Rows") or 0), int(number(first, "Columns") or 0))
    if prod(shape) > MAX_SAMPLES:
        raise BadPixels(f"{shape[0]} frames of {shape[2]} x {shape[1]} pixels are more than is read at once")
    volume = np.empty(shape, np.float32)
    has_padding = any("PixelPaddingValue" in frame.instance for frame in frames)
    padding = np.zeros(shape, bool) if has_padding else None
    if coloured := [frame for frame in frames if number(frame.instance, "SamplesPerPixel") not in (1, None)]:
        raise BadPixels(f"{coloured[0].title}: it is in colour, so it has no modality values")
    for frame, place, stored in _decoded_once(frames):
        if stored.shape != shape[1:]:  # a colour palette, too, makes three samples
            raise BadPixels(f"{frame.title}: it has no {shape[2]} x {shape[1]} grey pixels")
        if padding is not None:
            padding[place] = _is_padding(frame.instance, stored)
        _put(volume[place], stored, frame)
    if padding is not None:
        _set_aside(volume, padding)
    return volume


def _decoded_once(frames: Sequence[Frame]) -> Iterator[tuple[Frame, int, NDArray[Any]]]:
    """(frame, its place, its stored pixels), instance by instance, so that many frames are one decoding."""
    places: dict[int, list[int]] = {}
    for place, frame in enumerate(frames):
        places.setdefault(id(frame.instance), []).append(place)
    for group in places.values():
        instance = frames[group[0]].instance
        array = decode(instance)
        for place in group:
            yield frames[place], place, array[frames[place].number - 1] if frame_count(instance) > 1 else array


def _put(picture: NDArray[np.float32], stored: NDArray[Any], frame: Frame) -> None:
    """Stored values to modality values (PS3.3 C.11.1; per frame C.7.6.16.2.9)."""
    if "ModalityLUTSequence" in frame.instance:  # has no slope beside it
        picture[:] = apply_modality_lut(stored, frame.instance)
        return
    slope, intercept = _factor(frame, "RescaleSlope", 1.0), _factor(frame, "RescaleIntercept", 0.0)
    if slope == 0:
        raise BadPixels(f"{frame.title}: its Rescale Slope is 0")
    picture[:] = stored
    if slope != 1:
        picture *= np.float32(slope)
    if intercept:
        picture += np.float32(intercept)


def _factor(frame: Frame, keyword: str, absent: float) -> float:
    found = frame.get(keyword)
    if found is None and is_damaged(frame.instance, keyword):
        raise BadPixels(f"{frame.title}: its {keyword} is damaged")
    try:
        factor = absent if found is None else float(found)
    except (TypeError, ValueError) as error:
        raise BadPixels(f"{frame.title}: its {keyword} is no number") from error
    if not abs(factor) < _LARGEST_FACTOR:
        raise BadPixels(f"{frame.title}: its {keyword} is {factor}")
    return factor


def _is_padding(header: Dataset, stored: NDArray[Any]) -> NDArray[np.bool_]:
    low = _padding_value(header, "PixelPaddingValue")
    if low is None:
        return np.zeros(stored.shape, bool)
    high = _padding_value(header, "PixelPaddingRangeLimit")
    low, high = sorted((low, low if high is None else high))
    return (stored >= low) & (stored <= high)


def _padding_value(header: Dataset, keyword: str) -> float | None:
    """The value, with its sign: files write -2000 of signed pixels as 63536 (US instead of SS)."""
    found = number(header, keyword)
    is_signed = number(header, "PixelRepresentation") == 1
    return found - 65536 if found is not None and is_signed and found > 32767 else found


def _set_aside(volume: NDArray[np.float32], padding: NDArray[np.bool_]) -> None:
    """Padding takes the nearest value that a pixel of the image has, in place; all padding stays as it is."""
    slices = [(volume[i], ~padding[i]) for i in range(len(volume)) if not padding[i].all()]
    if not slices or not padding.any():
        return
    low = min(picture.min(where=image, initial=np.inf) for picture, image in slices)
    high = max(picture.max(where=image, initial=-np.inf) for picture, image in slices)
    for picture, mask in zip(volume, padding, strict=True):
        picture[mask] = np.clip(picture[mask], low, high)
