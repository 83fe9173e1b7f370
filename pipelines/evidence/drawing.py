"""Pictures with what was found burnt in: outlines in colour, which side is which, and lines of text below.

Arrays and Pillow; no DICOM is made here. The font comes with Pillow, so that the same findings make the same bytes on
every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipelines.evidence import shown
from pipelines.evidence.marks import Mark
from pipelines.evidence.wording import NOT_VERIFIED, Line
from pipelines.frames import Frame

SMALLEST, LARGEST = 512, 1024  # of the longer side; smaller pictures grow, larger ones shrink
_TEXT, _LINE, _MARGIN = 15, 21, 8
FONT = ImageFont.load_default(_TEXT)
_WARNING, _WORDS, _GROUND = "#FFB000", "#F2F2F2", "#000000"


@dataclass(frozen=True)
class Scale:
    """From pixels of the source to those of the picture: across, down."""

    across: float
    down: float

    def of(self, polygon: NDArray[np.float64]) -> list[tuple[float, float]]:
        return [(column * self.across, row * self.down) for column, row in polygon.tolist()]


def scaled(picture: NDArray[np.uint8], frame: Frame) -> tuple[Image.Image, Scale]:
    """With square pixels, and the longer side between ``SMALLEST`` and ``LARGEST``."""
    rows, columns = picture.shape[:2]
    high, wide = rows * shown.aspect(frame), float(columns)
    longest = max(high, wide)
    factor = min(max(longest, SMALLEST), LARGEST) / longest
    size = max(1, round(wide * factor)), max(1, round(high * factor))
    return Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR), Scale(size[0] / columns, size[1] / rows)


def marked(picture: NDArray[np.uint8], frame: Frame, found: Sequence[Mark]) -> Image.Image:
    """A picture with the outlines that lie on it, and letters at its edges for the patient's sides."""
    image, scale = scaled(picture, frame)
    draw = ImageDraw.Draw(image)
    for mark in found:
        draw.line(scale.of(mark.polygon), fill=mark.colour, width=2, joint="curve")
    _letter_sides(draw, image.size, frame)
    return image


def page(picture: Image.Image | None, lines: Sequence[Line], colours: dict[str, str]) -> NDArray[np.uint8]:
    """The picture, and below it that a machine says it, and the lines, each with the colour of what it names."""
    width = max(picture.width if picture else 0, SMALLEST)
    told: list[tuple[str, str, str | None]] = [(NOT_VERIFIED, _WARNING, None)]
    for line in lines:
        parts = _wrapped(line.words, width - 2 * _MARGIN - _LINE)
        told += [(part, _WORDS, colours.get(line.name or "") if part is parts[0] else None) for part in parts]
    top = picture.height if picture else 0
    result = Image.new("RGB", (width, top + len(told) * _LINE + 2 * _MARGIN), _GROUND)
    if picture:
        result.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(result)
    for place, (words, ink, square) in enumerate(told):
        y = top + _MARGIN + place * _LINE
        if square:
            draw.rectangle((_MARGIN, y + 4, _MARGIN + 11, y + 15), fill=square)
        draw.text((_MARGIN + _LINE, y), words, fill=ink, font=FONT)
    return np.asarray(result)


def _letter_sides(draw: ImageDraw.ImageDraw, size: tuple[int, int], frame: Frame) -> None:
    row, column = shown.orientation(frame)
    width, height = size
    for letters, place, anchor in (
        (shown.opposite(row), (6, height / 2), "lm"),
        (row, (width - 6, height / 2), "rm"),
        (shown.opposite(column), (width / 2, 6), "mt"),
        (column, (width / 2, height - 6), "mb"),
    ):
        draw.text(place, letters, fill=_WORDS, font=FONT, anchor=anchor, stroke_width=2, stroke_fill=_GROUND)


def _wrapped(words: str, width: float) -> list[str]:
    """In lines no longer than the width, broken at spaces; a single word that is longer stays whole."""
    lines: list[str] = []
    for word in words.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and FONT.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines or [""]
