"""The evidence as a radiologist sees it: OHIF in Chromium, on a real Orthanc, and the outline lies where the mask is.

OHIF is fetched by `make test` (deploy/setup/ohif.sh) where there is npm.
"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from node import delivery
from node.cli.viewer import beside
from pipelines.study import Study
from tests.findings import ALGORITHM, lesion, outlined, slices, study_of, written
from tests.peers import ROOT, Orthanc, free_port, needs, orthanc

OHIF = ROOT / ".cache" / "ohif-3.13.2" / "package" / "dist"
pytestmark = [
    needs("Orthanc", "chromium"),
    pytest.mark.skipif(not (OHIF / "index.html").exists(), reason="OHIF is not here: `make test` fetches it with npm"),
    pytest.mark.timeout(600),
]
SIZE = 64
ROWS, COLUMNS = slice(8, 24), slice(40, 60)  # of the outline: off the middle both ways, and not square
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


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    ramp = (600 + np.add.outer(np.arange(SIZE), np.arange(SIZE)) * 5).astype("<u2")
    looks = {"Rows": SIZE, "Columns": SIZE, "PixelData": ramp.tobytes(), "PixelSpacing": ["1", "1"]}
    images = slices(6, **looks, WindowCenter="900", WindowWidth="1800", SeriesDescription="RAMP")
    return study_of(images, tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def evidence(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evidence")
    mask = np.zeros((6, SIZE, SIZE), bool)
    mask[1:5, ROWS, COLUMNS] = True
    written(outlined(study.series[0], lesion(mask)), study, folder)
    return folder


@pytest.fixture(scope="module")
def pacs(study: Study, evidence: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("pacs")) as pacs:
        files = [Path(each.filename) for each in study.series[0].instances]
        receiver = delivery.Destination(
            name="PACS", protocol="dimse", ae_title=pacs.aet, host=pacs.host, port=pacs.dicom_port,
            calling_ae_title="WETREAD",
        )  # fmt: skip
        for answer in delivery.send(receiver, [delivery.outgoing(each) for each in [*files, *evidence.glob("*.dcm")]]):
            assert answer.verdict == "delivered"
        yield pacs


@pytest.fixture(scope="module")
def address(pacs: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with beside(OHIF, pacs.url, free_port(), tmp_path_factory.mktemp("viewer") / "log") as address:
        yield address


@pytest.fixture(scope="module")
def page(address: str, study: Study) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.set_default_timeout(120_000)
        # the tour of a first visit would lie over everything
        page.add_init_script("localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']))")
        page.goto(f"{address}/viewer?StudyInstanceUIDs={study.uid}")
        page.get_by_text("Confirm and hide").click()
        page.get_by_text(re.compile(r"I:\d+ \(1/6\)")).wait_for()
        yield page
        browser.close()


def _viewport(page: Any) -> NDArray[np.int32]:
    """(rows, columns, 3) of what is shown, without the line around it and the scroll bar."""
    shown = Image.open(io.BytesIO(page.locator(".cornerstone-canvas").first.screenshot())).convert("RGB")
    return np.asarray(shown, np.int32)[:, 4:-20]


def _box(mask: NDArray[np.bool_], *, least: int) -> tuple[float, float, float, float]:
    """Top, bottom, left, right of the rows and columns with so many pixels: letters and the scroll bar have fewer."""
    rows, columns = np.flatnonzero(mask.sum(1) > least), np.flatnonzero(mask.sum(0) > least)
    return rows[0], rows[-1] + 1, columns[0], columns[-1] + 1


def _place_of_the_outline(page: Any) -> list[float]:
    """Its box in shares of the picture: top, bottom, left, right."""
    pixels = _viewport(page)
    orange = pixels[..., 0] - pixels[..., 2] > 60
    assert orange.sum() > 500, "no outline is shown"
    top, bottom, left, right = _box(pixels.max(-1) > 40, least=400)
    first, last, west, east = _box(orange, least=50)
    return [(first - top) / (bottom - top), (last - top) / (bottom - top), (west - left) / (right - left),
            (east - left) / (right - left)]  # fmt: skip


def test_the_segmentation_lies_where_the_mask_is(page: Any) -> None:
    page.get_by_text(f"{ALGORITHM.name}: outlines").first.dblclick()
    page.get_by_role("button", name="Yes", exact=True).click()
    page.get_by_text(re.compile(r"I:\d+ \([2-5]/6\)")).wait_for()
    page.wait_for_timeout(5000)  # until it is drawn
    wanted = [ROWS.start / SIZE, ROWS.stop / SIZE, COLUMNS.start / SIZE, COLUMNS.stop / SIZE]
    assert _place_of_the_outline(page) == pytest.approx(wanted, abs=0.015)


def test_the_report_opens_and_shows_its_number(page: Any, address: str, study: Study) -> None:
    page.goto(f"{address}/viewer?StudyInstanceUIDs={study.uid}")
    page.get_by_text(f"{ALGORITHM.name}: ").nth(1).dblclick()
    page.get_by_text("41.2").first.wait_for()


def test_the_viewer_reads_and_nothing_else(address: str) -> None:
    assert httpx.post(f"{address}/dicom-web/studies", content=b"x").status_code == 405
    assert "root:" not in httpx.get(f"{address}/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd").text
    page = httpx.get(f"{address}/viewer")
    assert page.headers["cross-origin-embedder-policy"] == "require-corp"
    assert "<html" in page.text
