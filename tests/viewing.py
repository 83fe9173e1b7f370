"""OHIF in a headless Chromium: opens a study, loads what lies beside the images, and says what is where on the screen.

What a mask or an outline should cover is computed from the objects on disk; what it does cover is read from pixels.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from scipy.ndimage import maximum_filter

from tests.peers import ROOT

OHIF = ROOT / ".cache" / "ohif-3.13.2" / "package" / "dist"
needs_ohif = pytest.mark.skipif(
    not (OHIF / "index.html").exists(), reason="OHIF is not here: `make test` fetches it with npm"
)
FLAGS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 180_000  # ms
PAUSE = 500  # ms
TITLES = '[data-cy="study-browser-thumbnail-no-image"]'  # of the objects that are no images
PICTURES = '[data-cy="study-browser-thumbnail"]'  # of the series that are
SLACK = 3  # pixels of the screen that an edge may lie off, beside half a pixel of the image: a line is two wide
_SHOWN = 6  # of 255: a pixel that differs more with an overlay than without is of the overlay

# of the first viewport: which image it shows, and where three corners of it lie on the canvas
_PLACE = """() => {
  const viewport = cornerstone.getEnabledElements()[0].viewport, id = viewport.getCurrentImageId();
  const instance = cornerstone.metaData.get('instance', id);
  const at = (x, y) => viewport.worldToCanvas(cornerstone.utilities.imageToWorldCoords(id, [x, y]));
  return {sop: instance.SOPInstanceUID, frame: Number(cornerstone.metaData.get('frameNumber', id) || 1),
          origin: at(0, 0), right: at(instance.Columns, 0), below: at(0, instance.Rows)};
}"""
_SET_VISIBLE = """visible => {
  const {segmentation} = cornerstoneTools, id = cornerstone.getEnabledElements()[0].viewport.id;
  for (const each of segmentation.state.getSegmentationRepresentations(id))
    segmentation.config.visibility.setSegmentationRepresentationVisibility(
      id, {segmentationId: each.segmentationId, type: each.type}, visible);
}"""
_BOX = """() => {
  const box = document.querySelector('.cornerstone-canvas')?.getBoundingClientRect();
  const [x, y] = [Math.floor(box?.left), Math.floor(box?.top)];
  return box?.width > 0 && {x, y, width: Math.ceil(box.right) - x, height: Math.ceil(box.bottom) - y};
}"""
_SEGMENTATIONS = "() => cornerstoneTools.segmentation.state.getSegmentations().length"
_LINES = """() => [...document.querySelectorAll('svg.svg-layer text')].map(each => {
  const box = each.getBoundingClientRect(), all = document.querySelector('.cornerstone-canvas').getBoundingClientRect();
  return {words: [...each.querySelectorAll('tspan')].map(part => part.textContent).join('\\n') || each.textContent,
          inside: box.left >= all.left && box.right <= all.right && box.top >= all.top && box.bottom <= all.bottom};
})"""
_OUTLINES = """() => [...document.querySelectorAll('svg.svg-layer polyline, svg.svg-layer path')].map(
  each => (each.getAttribute('points') || '').trim().split(/[ ,]+/).map(Number))"""


@dataclass(frozen=True)
class Place:
    """Which frame a viewport shows, and where the corners of it lie: (x, y) on the canvas."""

    sop: str
    frame: int
    origin: NDArray[np.float64]
    right: NDArray[np.float64]
    below: NDArray[np.float64]

    def slack(self, columns: int) -> int:
        """What an edge may lie off, in pixels of the screen."""
        return SLACK + int(np.linalg.norm(self.right - self.origin) / columns / 2)

    def on_canvas(self, picture: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
        """A picture (rows, columns) of the frame as it lies on a canvas (rows, columns); 0 beside it."""
        y, x = np.mgrid[: shape[0], : shape[1]]
        axes = np.stack([self.right - self.origin, self.below - self.origin], axis=1)
        share = np.linalg.inv(axes) @ (np.stack([x.ravel() + 0.5, y.ravel() + 0.5]) - self.origin[:, None])
        column = np.floor(share[0] * picture.shape[1]).astype(int)
        row = np.floor(share[1] * picture.shape[0]).astype(int)
        inside = (column >= 0) & (column < picture.shape[1]) & (row >= 0) & (row < picture.shape[0])
        found = np.zeros(shape[0] * shape[1], picture.dtype)
        found[inside] = picture[row[inside], column[inside]]
        return found.reshape(shape)


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A Chromium without a window, drawing in software; its pages share what was fetched and compiled."""
    from playwright import sync_api as playwright

    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        yield chromium.new_context(viewport={"width": 1280, "height": 860})
        chromium.close()


@contextlib.contextmanager
def opened(chromium: Any, address: str, study_uid: str) -> Iterator[Any]:
    """The study in a page of its own, once its first image is there."""
    page = chromium.new_page()
    page.set_default_timeout(PATIENCE)
    # the tour of a first visit would lie over everything
    page.add_init_script("localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']))")
    page.goto(f"{address}/viewer?StudyInstanceUIDs={study_uid}")
    page.get_by_text("Confirm and hide").click()
    page.get_by_text(re.compile(r"\d+/\d+\)?$")).first.wait_for()
    try:
        yield page
    finally:
        page.close()


def load(page: Any, modality: str, which: int = 0) -> None:
    """Open the object of this modality as a reader does, by a double click on its title."""
    from playwright.sync_api import TimeoutError as TookTooLong

    title = page.locator(TITLES).filter(has_text=re.compile(f"^{modality}")).nth(which)
    for is_last in (False, False, False, True):  # on a busy machine two clicks may come too far apart to be one
        seconds = None if is_last else 30_000
        try:
            title.dblclick(timeout=seconds)
            if modality == "SEG":
                page.get_by_role("button", name="Yes", exact=True).click(timeout=seconds)
                page.wait_for_function(f"({_SEGMENTATIONS})() > 0")
            elif modality == "SR":
                page.wait_for_function(f"({_LINES})().length > 0", timeout=seconds)
            break
        except TookTooLong:
            if is_last:
                raise
    at_rest(page)


def at_rest(page: Any, other: NDArray[np.int32] | None = None) -> NDArray[np.int32]:
    """What the first viewport shows once it no longer changes; and no longer is ``other``, if that is given.

    A picture that stays as ``other`` is given up on after a while, and is returned.
    """
    before = canvas(page)
    for _ in range(PATIENCE // PAUSE):
        page.wait_for_timeout(PAUSE)
        now = canvas(page)
        if np.array_equal(now, before) and (other is None or not np.array_equal(now, other)):
            break
        before = now
    return before


def place(page: Any) -> Place:
    found = page.evaluate(_PLACE)
    corners = (np.array(found[name], np.float64) for name in ("origin", "right", "below"))
    return Place(str(found["sop"]), int(found["frame"]), *corners)


def canvas(page: Any) -> NDArray[np.int32]:
    """(rows, columns, 3) of what the first viewport shows, overlays and letters with it."""
    # of the page, and cut out: OHIF may put another canvas in the place of this one at any moment
    box = page.wait_for_function(_BOX).json_value()
    return np.asarray(Image.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB"), np.int32)


def overlay(page: Any) -> NDArray[np.bool_]:
    """(rows, columns): the pixels that the segments colour, found by hiding them."""
    with_it = at_rest(page)
    page.evaluate(_SET_VISIBLE, False)
    without = at_rest(page, other=with_it)
    page.evaluate(_SET_VISIBLE, True)
    found: NDArray[np.bool_] = np.abs(with_it - without).max(-1) > _SHOWN
    return found


def lines(page: Any) -> list[tuple[str, bool]]:
    """What the loaded report writes over the image, each with whether all of it lies within the viewport."""
    return [(each["words"], each["inside"]) for each in page.evaluate(_LINES)]


def outlines(page: Any) -> list[NDArray[np.float64]]:
    """The lines that the loaded report draws: (points, 2), as (x, y) on the canvas."""
    return [np.array(each, np.float64).reshape(-1, 2) for each in page.evaluate(_OUTLINES) if len(each) > 3]


def along(outline: NDArray[np.float64], mask: NDArray[np.bool_], where: Place) -> float:
    """Of the corners of an outline on the canvas, the share that lies on the mask or its edge.

    Args:
        mask: (rows, columns) of the image that lies at ``where``.
    """
    x, y = np.rint(outline).astype(int).T
    shape = (max(int(y.max()) + 1, 1), max(int(x.max()) + 1, 1))
    near = maximum_filter(where.on_canvas(mask, shape), 2 * where.slack(mask.shape[1]) + 1)
    inside = (x >= 0) & (y >= 0)
    return float(np.where(inside, near[y * inside, x * inside], False).mean())


def drawn(segmentation: Path, sop: str) -> NDArray[np.bool_]:
    """(rows, columns): what a Segmentation on disk has on one source image, all segments together."""
    ds = dcmread(segmentation)
    found = np.zeros((ds.Rows, ds.Columns), bool)
    frames = ds.pixel_array.reshape(-1, ds.Rows, ds.Columns)
    for pixels, groups in zip(frames, ds.PerFrameFunctionalGroupsSequence, strict=True):
        source = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        found |= (pixels > 0) & (source == sop)
    return found


def agreement(shown: NDArray[np.bool_], mask: NDArray[np.bool_], where: Place) -> tuple[float, float]:
    """Of what is shown, the share that is in the mask; of the mask, the share that is shown.

    Args:
        shown: (rows, columns) of the canvas.
        mask: (rows, columns) of the image that lies at ``where``.
    """
    wanted = where.on_canvas(mask, (shown.shape[0], shown.shape[1]))
    if not shown.any() or not wanted.any():
        return 0.0, 0.0
    width = 2 * where.slack(mask.shape[1]) + 1
    return (
        float(maximum_filter(wanted, width)[shown].mean()),
        float(maximum_filter(shown, width)[wanted].mean()),
    )
