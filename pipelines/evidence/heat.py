"""Where a network looked, as coloured pictures: Secondary Captures for who cannot show Parametric Maps.

And for images that cannot have any, since they lie nowhere: of these a destination of maps gets pictures, too.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from pipelines.base import Findings, SaliencyMap
from pipelines.evidence import drawing, shown, wording
from pipelines.evidence.capture import Page, objects
from pipelines.evidence.header import Heading
from pipelines.evidence.maps import can_be_mapped, frames_of, parametric_map
from pipelines.evidence.told import Told
from pipelines.evidence.tracking import named
from pipelines.evidence.wording import Line
from pipelines.frames import Frame

HEADING = Heading(SecondaryCaptureImageStorage, "OT", "map-capture", 9008, "where it looked")
INSTEAD = replace(HEADING, stem="map-picture", series_number=9009)  # of a map that cannot be

# From dark to bright and from blue over red to yellow, so that it can be read in grey, too (after Smith and van der
# Walt's inferno): value, red, green, blue
_COLOURS = np.array(
    [
        (0.0, 0, 0, 4),
        (0.2, 51, 10, 95),
        (0.4, 120, 28, 109),
        (0.6, 188, 55, 84),
        (0.8, 237, 105, 37),
        (0.9, 251, 155, 6),
        (1.0, 252, 255, 164),
    ]
)
_MOST_OPAQUE = 0.65
_BAR = (10, 120)  # width and height of the scale of colours


def explanations(told: Told) -> list[Dataset]:
    """Each map of a run, as a Parametric Map, or as pictures where there can be none.

    Raises:
        BadPixels: If an image cannot be decoded.
        InvalidEvidence: If a map is off the grid of its images.
    """
    findings = told.findings
    if findings is None:
        return []
    placed = [found for found in findings.maps if can_be_mapped(frames_of(findings, found))]
    pages = [page for found in findings.maps if found not in placed for page in _pages(told, findings, found)]
    made = [parametric_map(told, findings, found, count) for count, found in enumerate(placed, start=1)]
    return [*made, *objects(pages, told, INSTEAD)]


def map_captures(told: Told) -> list[Dataset]:
    """A picture for each image of each map; raises as ``explanations``."""
    findings = told.findings
    if findings is None:
        return []
    return objects([page for found in findings.maps for page in _pages(told, findings, found)], told, HEADING)


def _pages(told: Told, findings: Findings, found: SaliencyMap) -> list[Page]:
    made = []
    frames, pictures = frames_of(findings, found), shown.pictures(findings.series, found.places)
    for frame, picture, values in zip(frames, pictures, found.values, strict=True):
        image = drawing.marked(over(picture, values), frame, ())
        _draw_scale(image)
        lines = [
            Line(wording.signature(told.stamp.algorithm)),
            Line(wording.image_name(frame)),
            Line(f"{found.method.meaning} for {found.label}: where the network looked, not where something is"),
            *_said_of(findings, found, frame),
        ]
        made.append(Page(drawing.page(image, lines, {}), frame))
    return made


def _said_of(findings: Findings, found: SaliencyMap, frame: Frame) -> list[Line]:
    uid = str(frame.instance.SOPInstanceUID)
    return wording.told_of([each for each in findings.findings if uid in each.sop_uids and named(each) == found.label])


def over(picture: NDArray[np.uint8], values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The picture (rows, columns, 3) with the values 0 to 1 (rows, columns) over it, the opaquer the higher."""
    opaque = _MOST_OPAQUE * values[..., None]
    mixed: NDArray[np.float32] = picture * (1 - opaque) + coloured(values) * opaque
    return np.rint(mixed).clip(0, 255).astype(np.uint8)


def coloured(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """(…, 3), 0 to 255."""
    channels = [np.interp(values, _COLOURS[:, 0], _COLOURS[:, channel]) for channel in (1, 2, 3)]
    return np.stack(channels, axis=-1)


def _draw_scale(image: Image.Image) -> None:
    """What the colours mean, at the lower right: 1 above, 0 below."""
    wide, high = _BAR
    values = np.repeat(np.linspace(1, 0, high, dtype=np.float32)[:, None], wide, axis=1)
    x, y = image.width - wide - 24, image.height - high - 24
    image.paste(Image.fromarray(coloured(values).astype(np.uint8)), (x, y))
    draw = ImageDraw.Draw(image)
    for words, at in (("1", y), ("0", y + high)):
        draw.text((x + wide + 4, at), words, fill="#F2F2F2", font=drawing.FONT, anchor="lm", stroke_width=2,
                  stroke_fill="#000000")  # fmt: skip
