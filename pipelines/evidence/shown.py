"""Images of a series as a person sees them: windowed, upright in their own grid, never inverted, 8 bits of RGB.

The window is the header's own (PS3.3 C.11.2.1.2), else from the 0.5th to the 99.5th percentile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.frames import Frame
from pipelines.instance import number, numbers, text
from pipelines.pixels import decode
from pipelines.series import Series
from pipelines.volume import stack

Window = tuple[float, float]
_DIRECTIONS = (("L", "R"), ("P", "A"), ("H", "F"))  # of the patient's axes: where they grow, where they fall


def pictures(series: Series, places: Sequence[int]) -> list[NDArray[np.uint8]]:
    """Some frames of a series, each uint8 (rows, columns, 3); an instance of many frames is decoded once.

    Raises:
        BadPixels: If they cannot be decoded.
    """
    frames = [series.frames[place] for place in places]
    found: dict[int, NDArray[np.uint8]] = {}
    groups: dict[tuple[Any, ...], list[Frame]] = {}
    for frame in frames:
        key = ("colour", id(frame.instance)) if is_coloured(frame) else (frame.instance.Rows, frame.instance.Columns)
        groups.setdefault(key, []).append(frame)
    for key, group in groups.items():
        found |= _coloured(group) if key[0] == "colour" else _grey(group)
    return [found[id(frame)] for frame in frames]


def is_coloured(frame: Frame) -> bool:
    header = frame.instance
    return (number(header, "SamplesPerPixel") or 1) > 1 or text(header, "PhotometricInterpretation") == "PALETTE COLOR"


def _coloured(group: Sequence[Frame]) -> dict[int, NDArray[np.uint8]]:
    """Of one instance."""
    whole = decode(group[0].instance)
    return {id(frame): (whole if whole.ndim == 3 else whole[frame.number - 1]).astype(np.uint8) for frame in group}


def _grey(group: Sequence[Frame]) -> dict[int, NDArray[np.uint8]]:
    """Of one size."""
    return {id(frame): windowed(frame, values) for frame, values in zip(group, stack(group), strict=True)}


def windowed(frame: Frame, values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Modality values (rows, columns) in the frame's window, as grey in RGB."""
    low, high = window(frame) or percentiles(values)
    grey = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    if is_inverted(frame):
        grey = 1 - grey
    return np.repeat(np.rint(grey * 255).astype(np.uint8)[..., None], 3, axis=2)


def is_inverted(frame: Frame) -> bool:
    return text(frame.instance, "PhotometricInterpretation") == "MONOCHROME1"


def window(frame: Frame) -> Window | None:
    """Modality values that are black and white, by the first of the header's windows; None where it has none."""
    centre, width = (_first(frame.get(keyword)) for keyword in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None or width < 1:
        return None
    return centre - width / 2, centre + width / 2


def percentiles(values: NDArray[np.float32]) -> Window:
    low, high = np.percentile(values, (0.5, 99.5))
    return float(low), float(max(high, low + 1))


def _first(value: Any) -> float | None:
    try:
        one = float(value if isinstance(value, str | float | int) else value[0])
    except (TypeError, ValueError, IndexError):
        return None
    return one if np.isfinite(one) else None


def aspect(frame: Frame) -> float:
    """Height of a pixel by its width."""
    if frame.plane is not None and frame.plane.spacing:
        return frame.plane.spacing[0] / frame.plane.spacing[1]
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
        found = numbers(frame.instance, keyword, 2)
        if found and min(found) > 0:
            return found[0] / found[1]
    return 1.0


def orientation(frame: Frame) -> tuple[str, str]:
    """Towards what in the patient rows and columns run, as Patient Orientation (0020,0020); empty where not said."""
    if frame.plane is not None:
        row, column = np.array(frame.plane.orientation).reshape(2, 3)
        return _letter(row), _letter(column)
    said = frame.instance.get("PatientOrientation")
    if isinstance(said, str) or said is None or len(said) != 2:
        return "", ""
    return str(said[0]), str(said[1])


def opposite(letters: str) -> str:
    """``R`` of ``L``; of several letters each."""
    turned = {a: b for pair in _DIRECTIONS for a, b in (pair, pair[::-1])}
    return "".join(turned.get(letter, "") for letter in letters)


def _letter(direction: NDArray[np.float64]) -> str:
    axis = int(np.abs(direction).argmax())
    return _DIRECTIONS[axis][0 if direction[axis] > 0 else 1]
