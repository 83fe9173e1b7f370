"""One picture of a study with the outline of a finding, as PNG: a program of its own, which may die of an image.

    python -m node.drawing < {"files": [...], "segmentations": [...], "label": "FLAIR abnormality", "sop_uid": null}

Paths are those of one series' instances; of the slices the one is drawn where most is outlined. It writes the PNG to
standard output, or one sentence to standard error.
"""

from __future__ import annotations

import json
import resource
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.evidence.errors import InvalidEvidence
from pipelines.evidence.masks import seg_masks
from pipelines.instance import Unreadable, number, numbers, open_instance, text
from pipelines.pixels import BadPixels, decode
from pipelines.series import Series

MEMORY_BYTES, CPU_SECONDS = 4 << 30, 60
LEAST_SIDE, MOST_SIDE = 512, 2048  # pixels of the picture
COLOUR = (255, 176, 0)  # amber: on grey it is seen by the colour-blind, too

Picture = NDArray[np.uint8]


def draw(asked: dict[str, Any]) -> Picture:
    """(rows, columns, 3).

    Raises:
        Unreadable, BadPixels: One sentence each.
    """
    headers = tuple(open_instance(Path(file)) for file in asked["files"])
    series = Series(text(headers[0], "SeriesInstanceUID"), text(headers[0], "Modality"), headers)
    mask = _mask(series, asked["segmentations"], asked["label"])
    index = _index(series, mask, asked["sop_uid"])
    frame = series.frames[index]
    whole = decode(frame.instance)
    one = whole if whole.ndim == 2 or (whole.shape[-1] == 3 and whole.ndim == 3) else whole[frame.number - 1]
    grown, times = _to_size(_to_bytes(one, frame.instance))
    if mask is not None:
        outline(grown, mask[index], times)
    return grown


def _mask(series: Series, files: list[str], label: str | None) -> NDArray[np.bool_] | None:
    for file in files if label is not None else ():
        try:
            found = seg_masks(Path(file), series)
        except InvalidEvidence:
            continue  # of another series
        if label in found and found[label].any():
            return found[label]
    return None


def _index(series: Series, mask: NDArray[np.bool_] | None, sop_uid: str | None) -> int:
    if mask is not None:
        return int(mask.sum(axis=(1, 2)).argmax())
    named = [i for i, frame in enumerate(series.frames) if text(frame.instance, "SOPInstanceUID") == sop_uid]
    return named[0] if named else len(series.frames) // 2


def _to_bytes(pixels: NDArray[Any], header: Any) -> Picture:
    """What a person would see: the image's own window, else from its 0.5th to its 99.5th percentile."""
    if pixels.ndim == 3:
        return np.ascontiguousarray(pixels, np.uint8)
    values = pixels.astype(np.float32) * (number(header, "RescaleSlope") or 1.0)
    values += number(header, "RescaleIntercept") or 0.0
    centre, width = (numbers(header, keyword, 1) for keyword in ("WindowCenter", "WindowWidth"))
    if centre and width and width[0] > 1:
        low, high = centre[0] - width[0] / 2, centre[0] + width[0] / 2
    else:
        low, high = (float(each) for each in np.percentile(values, (0.5, 99.5)))
    grey = np.clip((values - low) / max(high - low, 1e-6), 0, 1) * 255
    if text(header, "PhotometricInterpretation") == "MONOCHROME1":
        grey = 255 - grey
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def _to_size(picture: Picture) -> tuple[Picture, float]:
    """Grown by a whole number of times, or thinned to each n-th pixel; and by how much."""
    longest = max(picture.shape[:2])
    if longest > MOST_SIDE:
        step = -(-longest // MOST_SIDE)
        return np.ascontiguousarray(picture[::step, ::step]), 1 / step
    times = max(1, -(-LEAST_SIDE // longest))
    return picture.repeat(times, axis=0).repeat(times, axis=1), float(times)


def outline(picture: Picture, mask: NDArray[np.bool_], times: float) -> None:
    """Draw the edge of the mask, two pixels wide, into the picture, which is ``times`` as large."""
    if times < 1:
        step = round(1 / times)
        inside = mask[::step, ::step]
    else:
        inside = mask.repeat(int(times), axis=0).repeat(int(times), axis=1)
    core = inside.copy()
    for _ in range(2):
        core[1:] &= core[:-1].copy()
        core[:-1] &= core[1:].copy()
        core[:, 1:] &= core[:, :-1].copy()
        core[:, :-1] &= core[:, 1:].copy()
    picture[inside & ~core] = COLOUR


def png(picture: Picture) -> bytes:
    """PNG (ISO/IEC 15948) of 8 bits, red, green and blue."""
    rows, columns, _ = picture.shape

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    lines = np.zeros((rows, 1 + columns * 3), np.uint8)  # each line begins with its filter: none
    lines[:, 1:] = picture.reshape(rows, -1)
    head = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    packed = zlib.compress(lines.tobytes(), 6)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def main() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        drawn = png(draw(json.load(sys.stdin)))
    except (Unreadable, BadPixels) as error:
        sys.exit(str(error))
    sys.stdout.buffer.write(drawn)


if __name__ == "__main__":
    main()
