"""Presentation States (PS3.3 A.33.1, A.33.2): outlines and words over the source's own images, for who shows no SR.

Grayscale or Color, as the images are; one object for the images of a series that have one Modality LUT, since a
presentation state says it once for all (C.11.1). The window is the images' own, for without one they would be shown
from black to white of all that can be stored. Only images on which something was found are named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from PIL.ImageCms import ImageCmsProfile, createProfile
from pydicom.dataset import Dataset
from pydicom.uid import ColorSoftcopyPresentationStateStorage, GrayscaleSoftcopyPresentationStateStorage

from pipelines.base import Findings
from pipelines.evidence import shown, wording
from pipelines.evidence.header import Heading, begun
from pipelines.evidence.marks import Mark, colours, marks
from pipelines.evidence.regions import MOST_POINTS, reference
from pipelines.evidence.told import Told
from pipelines.frames import Frame
from pipelines.instance import items, number, text
from pipelines.volume import stack

GREY = Heading(GrayscaleSoftcopyPresentationStateStorage, "PR", "presentation", 9003, "outlines to show")
COLOUR = Heading(ColorSoftcopyPresentationStateStorage, "PR", "presentation", 9003, "outlines to show")
LAYER = "AI_NOT_VERIFIED"
_MOST_LINES = 6  # of text on an image
_SQUARE = 1  # nominal, PS3.3 C.10.4


def presentation_states(told: Told) -> list[Dataset]:
    """None where nothing was found, or nothing that lies on an image.

    Raises:
        BadPixels: If an image has no window and cannot be decoded, so that its grey values stay unknown.
    """
    findings = told.findings
    if findings is None:
        return []
    found = marks(findings)
    places = sorted({mark.place for mark in found} | set(_judged(findings)))
    groups: dict[tuple[str, ...], list[int]] = {}
    for place in places:
        groups.setdefault(_modality_lut(findings.series.frames[place]), []).append(place)
    return [_state(told, findings, found, group, count) for count, group in enumerate(groups.values(), start=1)]


def _judged(findings: Findings) -> Iterator[int]:
    """The places of images that something without an outline was found on; of the whole series it is no image's."""
    uids = {uid for each in findings.findings if each.present and not each.segment for uid in each.sop_uids}
    for place, frame in enumerate(findings.series.frames):
        if text(frame.instance, "SOPInstanceUID") in uids:
            yield place


def _modality_lut(frame: Frame) -> tuple[str, ...]:
    """What makes stored values modality values; frames that differ in it cannot share a presentation state."""
    if shown.is_coloured(frame):
        return ("colour", str(frame.instance.Rows), str(frame.instance.Columns))
    if "ModalityLUTSequence" in frame.instance:
        return ("LUT", text(frame.instance, "SOPInstanceUID"))
    values = [str(frame.get(each) or "") for each in ("RescaleSlope", "RescaleIntercept", "RescaleType")]
    return (*values, text(frame.instance, "PhotometricInterpretation"))


def _state(told: Told, findings: Findings, found: Sequence[Mark], places: Sequence[int], count: int) -> Dataset:
    frames = [findings.series.frames[place] for place in places]
    is_coloured = shown.is_coloured(frames[0])
    made = begun(told, COLOUR if is_coloured else GREY, count)
    made.Laterality = text(frames[0].instance, "Laterality")  # Type 2C
    made.ContentLabel, made.ContentDescription = "AI_FINDINGS", wording.NOT_VERIFIED
    made.ContentCreatorName = told.stamp.algorithm.name
    made.PresentationCreationDate = told.stamp.started.strftime("%Y%m%d")
    made.PresentationCreationTime = told.stamp.started.strftime("%H%M%S")
    made.ReferencedSeriesSequence = [_series(frames)]
    made.DisplayedAreaSelectionSequence = list(_areas(frames))
    made.GraphicAnnotationSequence = list(_annotations(told, findings, found, places))
    made.GraphicLayerSequence = [_layer()]
    if is_coloured:
        made.ICCProfile = ImageCmsProfile(createProfile("sRGB")).tobytes()
        made.ICCProfile += b"\0" * (len(made.ICCProfile) % 2)
    else:
        _put_grey(made, frames)
    told.stamp.put_on(made)
    return made


def _series(frames: Sequence[Frame]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = frames[0].instance.SeriesInstanceUID
    item.ReferencedImageSequence = _references(frames)
    return item


def _references(frames: Sequence[Frame]) -> list[Dataset]:
    """One item per instance; of a multi-frame instance the frames."""
    by_instance: dict[int, list[Frame]] = {}
    for frame in frames:
        by_instance.setdefault(id(frame.instance), []).append(frame)
    found = []
    for group in by_instance.values():
        item = reference(group[0])
        if "ReferencedFrameNumber" in item:
            item.ReferencedFrameNumber = [frame.number for frame in group]
        found.append(item)
    return found


def _areas(frames: Sequence[Frame]) -> Iterator[Dataset]:
    """Displayed Area (PS3.3 C.10.4): the whole of each image, fitted to the screen, its pixels in proportion."""
    for group in _alike(frames, lambda f: (f.instance.Rows, f.instance.Columns, round(shown.aspect(f), 6))):
        frame = group[0]
        area = Dataset()
        area.ReferencedImageSequence = _references(group)
        area.DisplayedAreaTopLeftHandCorner = [1, 1]
        area.DisplayedAreaBottomRightHandCorner = [int(frame.instance.Columns), int(frame.instance.Rows)]
        area.PresentationSizeMode = "SCALE TO FIT"
        if frame.plane is not None and frame.plane.spacing:
            area.PresentationPixelSpacing = [f"{each:.8g}" for each in frame.plane.spacing]
        else:
            area.PresentationPixelAspectRatio = _ratio(shown.aspect(frame))
        yield area


def _ratio(aspect: float) -> list[int]:
    return [_SQUARE, _SQUARE] if abs(aspect - 1) < 1e-6 else [round(aspect * 10000), 10000]


def _alike(frames: Sequence[Frame], key: object) -> Iterator[list[Frame]]:
    groups: dict[object, list[Frame]] = {}
    for frame in frames:
        groups.setdefault(key(frame), []).append(frame)  # type: ignore[operator]
    yield from groups.values()


def _layer() -> Dataset:
    layer = Dataset()
    layer.GraphicLayer, layer.GraphicLayerOrder = LAYER, 1
    layer.GraphicLayerRecommendedDisplayGrayscaleValue = 0xFFFF
    layer.GraphicLayerDescription = wording.NOT_VERIFIED
    return layer


def _annotations(told: Told, findings: Findings, found: Sequence[Mark], places: Sequence[int]) -> Iterator[Dataset]:
    """One item per image: its outlines, and in the top left corner who says what, in the colours of SEG and SR."""
    looks = colours(findings)
    by_place: dict[int, list[Mark]] = {}
    for mark in found:
        by_place.setdefault(mark.place, []).append(mark)
    for place in places:
        frame, here = findings.series.frames[place], by_place.get(place, [])
        item = Dataset()
        item.ReferencedImageSequence = [reference(frame)]
        item.GraphicLayer = LAYER
        item.TextObjectSequence = [_text(_words(told, findings, frame, here))]
        if here:
            item.GraphicObjectSequence = [
                _graphic(piece, looks[mark.name]) for mark in here for piece in _pieces(mark.polygon)
            ]
        yield item


def _words(told: Told, findings: Findings, frame: Frame, here: Sequence[Mark]) -> str:
    uid, names = text(frame.instance, "SOPInstanceUID"), {mark.name for mark in here}
    of_image = [each for each in findings.findings if each.present and uid in each.sop_uids and not each.box]
    outlined = [line for line in wording.told(findings) if line.name in names]
    lines = [line.words for line in [*outlined, *wording.told_of([f for f in of_image if not f.segment])]]
    lines = list(dict.fromkeys(lines))[:_MOST_LINES]
    return "\r\n".join([wording.NOT_VERIFIED, wording.signature(told.stamp.algorithm), *lines])


def _text(words: str) -> Dataset:
    """In the corner of the screen, beside the image, that it may not hide what it speaks of."""
    item = Dataset()
    item.BoundingBoxAnnotationUnits = "DISPLAY"
    item.UnformattedTextValue = words
    item.BoundingBoxTopLeftHandCorner, item.BoundingBoxBottomRightHandCorner = [0.01, 0.01], [0.6, 0.2]
    item.BoundingBoxTextHorizontalJustification = "LEFT"
    return item


def _graphic(points: NDArray[np.float64], colour: str) -> Dataset:
    item = Dataset()
    item.GraphicAnnotationUnits, item.GraphicDimensions = "PIXEL", 2
    item.NumberOfGraphicPoints = len(points)
    item.GraphicData = points.astype(np.float32).ravel().tolist()
    item.GraphicType, item.GraphicFilled = "POLYLINE", "N"
    style = Dataset()
    style.PatternOnColorCIELabValue = _cielab(colour)
    style.PatternOnOpacity, style.LineThickness, style.LineDashingStyle = 1.0, 1.0, "SOLID"
    style.ShadowStyle, style.ShadowOffsetX, style.ShadowOffsetY = "OFF", 0.0, 0.0
    style.ShadowColorCIELabValue, style.ShadowOpacity = [0, 0x8080, 0x8080], 0.0
    item.LineStyleSequence = [style]
    return item


def _cielab(colour: str) -> list[int]:
    return list(hd.color.CIELabColor.from_string(colour).value)


def _pieces(polygon: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """A polygon too long for one graphic as polylines that follow one another."""
    for start in range(0, max(len(polygon) - 1, 1), MOST_POINTS - 1):
        yield polygon[start : start + MOST_POINTS]


def _put_grey(made: Dataset, frames: Sequence[Frame]) -> None:
    """Modality LUT as the images have it, their windows, and which end is bright (PS3.3 C.11.1, C.11.8, C.11.6)."""
    first = frames[0]
    if "ModalityLUTSequence" in first.instance:
        made.ModalityLUTSequence = first.instance.ModalityLUTSequence
    elif (slope := first.get("RescaleSlope")) is not None:
        made.RescaleSlope, made.RescaleIntercept = slope, first.get("RescaleIntercept") or 0
        made.RescaleType = first.get("RescaleType") or "US"  # unspecified
    windows = {id(frame): shown.window(frame) or shown.percentiles(stack([frame])[0]) for frame in frames}
    made.SoftcopyVOILUTSequence = []
    for group in _alike(frames, lambda frame: windows[id(frame)]):
        low, high = windows[id(group[0])]
        item = Dataset()
        item.ReferencedImageSequence = _references(group)
        item.WindowCenter, item.WindowWidth = f"{(low + high) / 2:.8g}", f"{high - low:.8g}"
        made.SoftcopyVOILUTSequence.append(item)
    made.PresentationLUTShape = "INVERSE" if shown.is_inverted(first) else "IDENTITY"


def presentation_faults(made: Dataset) -> Iterable[str]:
    """What is wrong with a presentation state of ours."""
    named = {
        (text(image, "ReferencedSOPInstanceUID"), str(image.get("ReferencedFrameNumber", "")))
        for series in items(made, "ReferencedSeriesSequence")
        for image in items(series, "ReferencedImageSequence")
    }
    known = {uid for uid, _ in named}
    for annotation in items(made, "GraphicAnnotationSequence"):
        if {text(image, "ReferencedSOPInstanceUID") for image in items(annotation, "ReferencedImageSequence")} - known:
            yield "an annotation lies on an image that the presentation state does not name"
        words = [text(each, "UnformattedTextValue") for each in items(annotation, "TextObjectSequence")]
        if not any(wording.NOT_VERIFIED in each for each in words):
            yield f"an annotation does not say {wording.NOT_VERIFIED!r}"
        for graphic in items(annotation, "GraphicObjectSequence"):
            if len(graphic.get("GraphicData") or ()) != 2 * (number(graphic, "NumberOfGraphicPoints") or 0):
                yield "a graphic has another number of points than it says"
    if not items(made, "GraphicAnnotationSequence"):
        yield "nothing is annotated"
