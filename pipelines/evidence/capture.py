"""Secondary Captures (PS3.3 A.8.1): pictures with the findings burnt in, for a PACS that takes neither SEG nor SR.

One object of one frame per image, RGB, the simplest class there is: what the oldest PACS takes and every viewer shows.
No name of the patient is burnt in. A run that found nothing, or did not read, has one picture that says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from pipelines.base import Algorithm, Findings
from pipelines.evidence import codes, content, drawing, shown, wording
from pipelines.evidence.header import Heading, begun
from pipelines.evidence.marks import colours, marks, telling
from pipelines.evidence.regions import reference
from pipelines.evidence.segments import merged
from pipelines.evidence.stamp import Stamp
from pipelines.evidence.told import NOT_EVALUATED, NotEvaluated, Told
from pipelines.evidence.wording import Line
from pipelines.frames import Frame
from pipelines.instance import items, number, text

HEADING = Heading(SecondaryCaptureImageStorage, "OT", "capture", 9004, "summary")
MOST = 12  # pictures of one run
_DESCRIBED_BY_NOBODY = frozenset({"CT", "MR"})  # whose pixels have no writing on them unless the header says so


@dataclass(frozen=True, eq=False)
class Page:
    """One picture: uint8 (rows, columns, 3), and the image that it was made of; None where there is none."""

    pixels: NDArray[np.uint8]
    frame: Frame | None


def captures(told: Told) -> list[Dataset]:
    """The images that tell most, each with what is marked on it and what was found; or why there are no findings.

    Raises:
        BadPixels: If an image cannot be decoded.
    """
    outcome, algorithm = told.outcome, told.stamp.algorithm
    if isinstance(outcome, NotEvaluated):
        why = f"{NOT_EVALUATED[outcome.status][1]}: {outcome.reason}"
        made = [Page(drawing.page(None, [Line(wording.signature(algorithm)), Line(why)], {}), None)]
    else:
        made = pages(outcome, algorithm)
    return objects(made, told, HEADING)


def pages(findings: Findings, algorithm: Algorithm) -> list[Page]:
    found, looks = marks(findings), colours(findings)
    places = telling(findings, found, most=MOST)
    head, notes = Line(wording.signature(algorithm)), list(map(Line, findings.notes))
    outlined = {segment.label for segment in merged(findings)}
    made = []
    for place, picture in zip(places, shown.pictures(findings.series, places), strict=True):
        frame = findings.series.frames[place]
        on_it = [mark for mark in found if mark.place == place]
        image = drawing.marked(picture, frame, on_it)
        elsewhere = looks.keys() - outlined - {mark.name for mark in on_it}  # of boxes, which lie on one image each
        told = [line for line in wording.told(findings) if line.name not in elsewhere]
        here = [Line(f"This image: {line.words}") for line in wording.told_of_image(findings, frame)]
        lines = [head, Line(wording.image_name(frame)), *here, *told, *notes]
        made.append(Page(drawing.page(image, lines, looks), frame))
    return made


def objects(made: Sequence[Page], told: Told, heading: Heading) -> list[Dataset]:
    """The objects of one series, one per page."""
    return [_object(page, begun(told, heading, count), told.stamp) for count, page in enumerate(made, start=1)]


def _object(page: Page, made: Dataset, stamp: Stamp) -> Dataset:
    made.ConversionType = "SYN"
    made.ImageType = ["DERIVED", "SECONDARY"]
    made.DerivationDescription = f"Findings of {wording.signature(stamp.algorithm)} burnt in; not verified"
    made.BurnedInAnnotation = "NO"
    made.PatientOrientation = made.Laterality = None  # Type 2C: empty where nobody says
    if page.frame:
        _say_of_source(made, page.frame)
    _put_pixels(made, page.pixels)
    stamp.put_on(made)
    return made


def _say_of_source(made: Dataset, frame: Frame) -> None:
    source = frame.instance
    item = reference(frame)
    item.PurposeOfReferenceCodeSequence = [content.coded(codes.SOURCE_IMAGE_FOR_PROCESSING)]
    made.SourceImageSequence = [item]
    if all(directions := shown.orientation(frame)):
        made.PatientOrientation = list(directions)
    made.Laterality = text(source, "ImageLaterality") or text(source, "Laterality")
    said = text(source, "BurnedInAnnotation")
    may_be = text(source, "Modality") not in _DESCRIBED_BY_NOBODY
    made.BurnedInAnnotation = said if said in ("YES", "NO") else ("YES" if may_be else "NO")
    for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if text(source, "LossyImageCompression") == "01" and keyword in source:
            made[keyword] = source[keyword]


def _put_pixels(made: Dataset, pixels: NDArray[np.uint8]) -> None:
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "RGB", 0
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    raw = pixels.tobytes()
    made.PixelData = raw + b"\0" * (len(raw) % 2)
    made["PixelData"].VR = "OB"


def capture_faults(made: Dataset) -> Iterable[str]:
    """What is wrong with a picture of findings."""
    if [str(each) for each in made.get("ImageType") or ()] != ["DERIVED", "SECONDARY"]:
        yield "Image Type is not DERIVED and SECONDARY"
    if len(items(made, "SourceImageSequence")) > 1:
        yield "it names several source images"
    if text(made, "PhotometricInterpretation") != "RGB":
        yield "it is not in colour"
    rows, columns = (int(number(made, each) or 0) for each in ("Rows", "Columns"))
    expected, held = rows * columns * 3, len(made.get("PixelData") or b"")
    if held != expected + expected % 2 or not held:
        yield f"it has {held} bytes of pixels, not {expected}"
