"""A run on one page of A4, as PDF: whose study, who says it, what was found with its numbers, and where.

Words and pictures in, bytes out; the same words and pictures make the same bytes. Its font comes with ReportLab and has
the Latin letters alone: a name in others is not half written, but said to stand in the study.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import reportlab
from PIL import Image
from reportlab import rl_config
from reportlab.lib.colors import HexColor
from reportlab.lib.utils import ImageReader, simpleSplit
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from pipelines.evidence.wording import NOT_VERIFIED, Line

_FONTS = Path(reportlab.__file__).parent / "fonts"
_PLAIN, _BOLD = "Vera", "VeraBd"
_WIDTH, _HEIGHT = 595.28, 841.89  # of A4 in points, 1/72 inch, as everything below
_MARGIN, _SIZE, _LEADING = 42.0, 9.0, 13.0
_WARNING, _INK, _FAINT = HexColor("#B34700"), HexColor("#111111"), HexColor("#666666")
_GAP, _SMALL, _BELOW = 10.0, 7.0, 18.0  # between pictures; the size of what stands below them, and its room
MOST_PICTURES = 6
_MOST_LINES = 24  # of findings and notes together


@dataclass(frozen=True, eq=False)
class Plate:
    """A picture with what was found, and what stands below it."""

    image: Image.Image
    words: str


@dataclass(frozen=True, eq=False)
class Sheet:
    """What stands on the page.

    Attributes:
        title: At its head, and in the document's own title.
        whose: Of patient, study and algorithm: name and value.
        lines: What was found, then what a reader must know.
        colours: By the name of what is marked.
        foot: In small letters at the end.
    """

    title: str
    whose: Sequence[tuple[str, str]]
    lines: Sequence[Line]
    colours: dict[str, str]
    plates: Sequence[Plate]
    foot: str


def printed(sheet: Sheet) -> bytes:
    """The PDF."""
    for name in (_PLAIN, _BOLD):
        pdfmetrics.registerFont(TTFont(name, str(_FONTS / f"{name}.ttf")))
    rl_config.useA85 = 0  # bytes as they are: as ASCII they take a quarter more, and four times as long
    file = BytesIO()
    canvas = Canvas(file, pagesize=(_WIDTH, _HEIGHT), invariant=1)
    canvas.setTitle(sheet.title)
    canvas.setCreator("wetread")
    y = _head(canvas, sheet.title)
    y = _whose(canvas, sheet.whose, y)
    y = _told(canvas, sheet, y)
    _plates(canvas, sheet.plates[:MOST_PICTURES], y)
    _foot(canvas, sheet.foot)
    canvas.save()
    return file.getvalue()


def writable(words: str) -> bool:
    """Whether the page's font has all the letters."""
    if _PLAIN not in pdfmetrics.getRegisteredFontNames():
        pdfmetrics.registerFont(TTFont(_PLAIN, str(_FONTS / f"{_PLAIN}.ttf")))
    known: dict[int, int] = pdfmetrics.getFont(_PLAIN).face.charToGlyph
    return all(ord(letter) in known for letter in words)


def _head(canvas: Canvas, title: str) -> float:
    y = _HEIGHT - _MARGIN
    canvas.setFillColor(_WARNING)
    canvas.rect(_MARGIN, y - 8, _WIDTH - 2 * _MARGIN, 24, stroke=0, fill=1)
    canvas.setFillColor(HexColor("#FFFFFF"))
    canvas.setFont(_BOLD, 12)
    canvas.drawString(_MARGIN + 8, y, NOT_VERIFIED)
    canvas.setFillColor(_INK)
    canvas.drawString(_MARGIN, y - 30, title)
    return y - 50


def _whose(canvas: Canvas, whose: Sequence[tuple[str, str]], y: float) -> float:
    """In two columns."""
    half = (_WIDTH - 2 * _MARGIN) / 2
    for place, (name, value) in enumerate(whose):
        x, row = _MARGIN + (place % 2) * half, y - (place // 2) * _LEADING
        canvas.setFillColor(_FAINT)
        canvas.setFont(_PLAIN, _SIZE)
        canvas.drawString(x, row, name)
        canvas.setFillColor(_INK)
        canvas.drawString(x + 78, row, _fitting(value, half - 84, _SIZE))
    return y - ((len(whose) + 1) // 2) * _LEADING - 6


def _fitting(words: str, width: float, size: float) -> str:
    if pdfmetrics.stringWidth(words, _PLAIN, size) <= width:
        return words
    while words and pdfmetrics.stringWidth(f"{words}…", _PLAIN, size) > width:
        words = words[:-1]
    return f"{words}…"


def _told(canvas: Canvas, sheet: Sheet, y: float) -> float:
    canvas.line(_MARGIN, y, _WIDTH - _MARGIN, y)
    y -= _LEADING + 3
    wrapped = [
        (part, line.name if part is parts[0] else None)
        for line in sheet.lines
        for parts in [simpleSplit(line.words, _PLAIN, _SIZE, _WIDTH - 2 * _MARGIN - 16)]
        for part in parts
    ]
    if len(wrapped) > _MOST_LINES:
        left_out = len(wrapped) - _MOST_LINES + 1
        wrapped = [*wrapped[: _MOST_LINES - 1], (f"and {left_out} lines more, in the report", None)]
    for words, name in wrapped:
        if name in sheet.colours:
            canvas.setFillColor(HexColor(sheet.colours[name or ""]))
            canvas.rect(_MARGIN, y, 8, 8, stroke=0, fill=1)
        canvas.setFillColor(_INK)
        canvas.setFont(_PLAIN, _SIZE)
        canvas.drawString(_MARGIN + 16, y, words)
        y -= _LEADING
    return y


def _plates(canvas: Canvas, plates: Sequence[Plate], y: float) -> None:
    """In as many columns as make them largest on the rest of the page."""
    if not plates:
        return
    width, height = _WIDTH - 2 * _MARGIN, y - _MARGIN - 16
    columns = max(range(1, len(plates) + 1), key=lambda count: _factor(plates, count, width, height))
    factor = _factor(plates, columns, width, height)
    wide = (width - (columns - 1) * _GAP) / columns
    for start in range(0, len(plates), columns):
        row = plates[start : start + columns]
        high = max(plate.image.height for plate in row) * factor
        for place, plate in enumerate(row):
            x, size = _MARGIN + place * (wide + _GAP), (plate.image.width * factor, plate.image.height * factor)
            canvas.drawImage(ImageReader(plate.image), x, y - size[1], *size)
            canvas.setFillColor(_FAINT)
            canvas.setFont(_PLAIN, _SMALL)
            canvas.drawString(x, y - high - 9, _fitting(plate.words, wide, _SMALL))
        y -= high + _BELOW


def _factor(plates: Sequence[Plate], columns: int, width: float, height: float) -> float:
    """Points per pixel with so many columns."""
    rows = -(-len(plates) // columns)
    wide = (width - (columns - 1) * _GAP) / columns / max(plate.image.width for plate in plates)
    high = (height / rows - _BELOW) / max(plate.image.height for plate in plates)
    return min(wide, high)


def _foot(canvas: Canvas, words: str) -> None:
    canvas.setFillColor(_FAINT)
    canvas.setFont(_PLAIN, _SMALL)
    for place, part in enumerate(simpleSplit(words, _PLAIN, _SMALL, _WIDTH - 2 * _MARGIN)):
        canvas.drawString(_MARGIN, _MARGIN - 4 - place * 9, part)
