"""The evidence as a radiologist sees it: OHIF in Chromium, on a real Orthanc, and the outline lies where the mask is.

Every pipeline on real studies: benchmarks/viewer.py. OHIF is fetched by `make test` (deploy/setup/ohif.sh)
where there is npm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from node import delivery
from node.cli.viewer import beside
from pipelines.study import Study
from tests import viewing
from tests.findings import image, lesion, outlined, slices, study_of, written
from tests.peers import Orthanc, free_port, needs, orthanc
from tests.viewing import OHIF, needs_ohif
from tests.waiting import until

pytestmark = [
    needs("Orthanc", "chromium"),
    needs_ohif,
    pytest.mark.timeout(900),
]
CASES = ("in space", "no size")


@dataclass(frozen=True)
class Shown:
    """A study in the PACS, and its evidence on disk."""

    study: Study
    evidence: Path

    @property
    def ramp(self) -> NDArray[np.float64]:
        header = self.study.series[0].header
        return np.add.outer(np.arange(header.Rows), np.arange(header.Columns)) + 100.0


def _images(name: str) -> list[Dataset]:
    """A ramp, so that no turn or flip leaves it as it is."""
    rows, columns = {"in space": (64, 64), "no size": (96, 130)}[name]
    ramp = (600 + np.add.outer(np.arange(rows), np.arange(columns)) * 5).astype("<u2")
    looks: dict[str, Any] = {"PixelData": ramp.tobytes(), "WindowCenter": "900", "WindowWidth": "1800"}
    looks |= {"SeriesDescription": "RAMP", "Rows": rows, "Columns": columns}
    uid = f"1.2.3.{CASES.index(name) + 10}"
    looks |= {"StudyInstanceUID": uid, "SeriesInstanceUID": f"{uid}.1"}
    is_placed = name != "no size"  # an ultrasound picture has no place in space either
    made = slices(9, PixelSpacing=["1", "1"], **looks) if is_placed else [image(1, modality="US", **looks)]
    for number, each in enumerate(made, start=1):
        each.SOPInstanceUID = f"{uid}.1.{number}"
    return made


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shown]:
    found = {}
    for name in CASES:
        study = study_of(_images(name), tmp_path_factory.mktemp("images"))
        series, evidence = study.series[0], tmp_path_factory.mktemp("evidence")
        mask = np.zeros((len(series.frames), series.header.Rows, series.header.Columns), bool)
        some = mask[1:8] if len(mask) > 1 else mask
        some[:, 8:24, 18:30] = True  # off the middle both ways, and not square
        written(outlined(series, lesion(mask)), study, evidence, job=f"job {name}")
        found[name] = Shown(study, evidence)
    return found


@pytest.fixture(scope="module")
def pacs(shown: dict[str, Shown], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("pacs")) as pacs:
        receiver = delivery.Destination(
            name="PACS", protocol="dimse", ae_title=pacs.aet, host=pacs.host, port=pacs.dicom_port,
            calling_ae_title="WETREAD",
        )  # fmt: skip
        for each in shown.values():
            files = [Path(image.filename) for image in each.study.series[0].instances]
            objects = [delivery.outgoing(path) for path in [*files, *each.evidence.glob("*.dcm")]]
            for answer in delivery.send(receiver, objects):
                assert answer.verdict == "delivered"
        yield pacs


@pytest.fixture(scope="module")
def address(pacs: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with beside(OHIF, pacs.url, free_port(), tmp_path_factory.mktemp("viewer") / "log") as address:
        yield address


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    pytest.importorskip("playwright.sync_api")
    with viewing.browser() as chromium:
        yield chromium


def test_the_segmentation_lies_where_the_mask_is(shown: dict[str, Shown], address: str, chromium: Any) -> None:
    case = shown["in space"]
    with viewing.opened(chromium, address, case.study.uid) as page:
        viewing.load(page, "SEG")

        def lies_there() -> bool:
            where, overlay, pixels = viewing.place(page), viewing.overlay(page), viewing.canvas(page)
            picture = where.on_canvas(case.ramp, overlay.shape)
            bare = (picture > 0) & ~overlay
            mask = viewing.drawn(case.evidence / "seg.dcm", where.sop)
            return bool(
                np.corrcoef(picture[bare], pixels[bare].mean(-1))[0, 1] > 0.8  # letters lie over it
                and min(viewing.agreement(overlay, mask, where)) > 0.98
            )

        until(lies_there, what="the image is drawn, and the segment where its mask is")


@pytest.mark.parametrize("name", CASES)
def test_the_report_opens_and_shows_its_number_and_its_outline(
    name: str, shown: dict[str, Shown], address: str, chromium: Any
) -> None:
    case = shown[name]
    with viewing.opened(chromium, address, case.study.uid) as page:
        viewing.load(page, "SR")

        def is_readable() -> bool:
            (words, is_inside), *_ = viewing.lines(page)
            return "41.2" in words and is_inside

        def lies_there() -> bool:
            where, pixels, outlines = viewing.place(page), viewing.canvas(page), viewing.outlines(page)
            if pixels.std() <= 10 or not outlines:  # nothing is drawn yet
                return False
            mask = where.on_canvas(viewing.drawn(case.evidence / "seg.dcm", where.sop), pixels.shape[:2])
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box, slack = [*outlines[0].min(0), *outlines[0].max(0)], where.slack(case.ramp.shape[1])
            return bool(box == pytest.approx([columns[0], rows[0], columns[-1], rows[-1]], abs=slack))

        until(is_readable, what="the number can be read")
        until(lies_there, what="the outline is drawn round the mask")


def test_the_viewer_reads_and_nothing_else(address: str) -> None:
    assert httpx.post(f"{address}/dicom-web/studies", content=b"x").status_code == 405
    assert "root:" not in httpx.get(f"{address}/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd").text
    page = httpx.get(f"{address}/viewer")
    assert page.headers["cross-origin-embedder-policy"] == "require-corp"
    assert "<html" in page.text
