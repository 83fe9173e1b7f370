"""Every kind of object, in every form, of every pipeline: programs of others find no error in any of them."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom import dcmread
from pydicom.dataset import Dataset

from node import delivery
from node.cli.viewer import beside
from node.destinations import Destination
from pipelines import synthetic
from pipelines.evidence.masks import seg_masks
from pipelines.evidence.objects import BUILDERS
from pipelines.forms import ENCODINGS, REGIONS, Form, Kind
from pipelines.reading import read
from pipelines.registry import load
from pipelines.series import Series
from pipelines.study import Study, read_folder
from tests import viewing
from tests.findings import outlined, saved, slices, study_of, verdict, written
from tests.peers import ROOT, SHARED, Orthanc, free_port, needs, orthanc
from tests.photographs import discs, eye, photograph
from tests.photographs import study_of as photographs_of
from tests.test_enhance import demanding, speckle
from tests.test_evidence_sr import outcomes
from tests.validators import dumped, needs_pixelmed, template_faults
from tests.wrapped import wrapped

EVERY_KIND = {
    *map(Form, BUILDERS),
    *(Form(Kind.SEGMENTATION, encoding=each) for each in ENCODINGS),
    *(Form(Kind.REPORT, regions, "BINARY") for regions in REGIONS),
}
UNKNOWN = Form(Kind.SEGMENTATION, encoding="LABELMAP")  # to programs of 2022: highdicom reads these in other tests
BOX = 5  # points of a line that is no outline, but a box or a mark beside words
DOCUMENTS = (Kind.REPORT, Kind.KEY_OBJECTS)
SHOWN = {  # by OHIF, of what is made here
    Form(Kind.SEGMENTATION, encoding="ALIGNED"),
    Form(Kind.REPORT, "regions", "BINARY"),
    Form(Kind.DERIVED_SERIES),
}


@dataclass(frozen=True)
class Real:
    """A study of the project's data, where a synthetic one would be withheld."""

    name: str
    limit: int = 1

    def __call__(self, folder: Path) -> Study:
        return wrapped(self.name, folder, limit=self.limit).studies[0]


def brain(folder: Path) -> Study:
    lesion = synthetic.Lesion((34.0, -12.0, 26.0), (21.0, 25.0, 19.0))
    synthetic.brain_mr(folder, seed=5, lesion=lesion, slices=14, matrix=128)
    return read_folder(folder)[0][0]


def breast(folder: Path) -> Study:
    image = speckle()
    image.update(uids("1.2.5"))
    return read_folder(saved([image], folder))[0][0]


def uids(study: str) -> dict[str, str]:
    """So that one archive can hold them all."""
    return {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1", "SOPInstanceUID": f"{study}.1.1"}


STUDIES: dict[str, Callable[[Path], Study]] = {
    "ct_chest:LungTumour": Real("ct_lung_tumour_patches"),
    "ct_head:HeadHaemorrhage": Real("head_ct_haemorrhage"),
    "dx_chest:Chest": Real("cxr_lung_masks"),
    "enhance:Enhance": breast,
    "gm_cells:Cells": lambda folder: photographs_of(folder, photograph(discs([(60, 60, 14), (120, 150, 20)]), "GM")),
    "mr_brain:BrainTumour": brain,
    "mr_brain_type:BrainTumourType": Real("brain_mri_tumour"),
    "mr_heart:HeartCine": Real("cine_mr_lv", 8),
    "mr_hippocampus:Hippocampus": Real("hippocampus_mri"),
    "op_retina:Retina": lambda folder: photographs_of(folder, photograph(eye(), "OP", **uids("1.2.4"))),
    "us_breast:BreastUltrasound": Real("breast_us"),
    "xc_skin:SkinMelanoma": Real("skin_isic2017"),
}
OUTLINING = [use for use in STUDIES if not use.startswith(("ct_head", "enhance", "mr_brain_type", "xc_skin"))]
HERE = [use for use, study in STUDIES.items() if not isinstance(study, Real) or (SHARED / "data" / study.name).exists()]
_AWAY = pytest.mark.skip(reason="not here: ../shared/data")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def evidence_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[Path, Form]]:
    """What a pipeline leaves of a study that it reads, in every form; each pipeline reads once."""

    @functools.cache
    def made(use: str) -> dict[Path, Form]:
        folder = tmp_path_factory.mktemp(use.split(":")[0])
        study = STUDIES[use](folder / "in")
        line = f"{use}@{demanding(folder, 0.0)}" if use.startswith("enhance") else use
        runs = read(study, load(f"pipelines.{line}"), name="out", out=folder, job=f"job {use}", forms=EVERY_KIND)
        assert [run.reason for run in runs if run.status != "read"] == []
        return {path: form for run in runs for path, form in run.objects.items()}

    return made


def test_no_pipeline_is_left_out() -> None:
    shipped = tomllib.loads((ROOT / "settings.toml").read_text())["pipelines"]
    assert {f"pipelines.{use}" for use in STUDIES} == {each["use"] for each in shipped.values()}


@needs("dciodvfy", "dsrdump")
@pytest.mark.parametrize("use", [pytest.param(use, marks=() if use in HERE else _AWAY) for use in STUDIES])
def test_dciodvfy_and_dsrdump_find_no_error(evidence_of: Callable[[str], dict[Path, Form]], use: str) -> None:
    made = evidence_of(use)
    known = set(verdict(next(iter(made)).parents[1] / "in" / "000.dcm")) if use.startswith("enhance") else set()
    for path, form in made.items():
        of_source = known if form.kind == Kind.DERIVED_SERIES else set()  # what the image lacked its copy lacks
        assert form == UNKNOWN or set(verdict(path)) <= of_source, path.name
        assert form.kind not in DOCUMENTS or dumped(path) == [], path.name


@pytest.mark.parametrize("use", [pytest.param(use, marks=() if use in HERE else _AWAY) for use in OUTLINING])
def test_probabilities_above_their_threshold_are_the_outline(
    evidence_of: Callable[[str], dict[Path, Form]], use: str
) -> None:
    made = evidence_of(use)
    masks, likely = (
        [path for path, form in made.items() if form.encoding == each and form.kind == Kind.SEGMENTATION]
        for each in ("BINARY", "FRACTIONAL")
    )
    assert len(masks) == len(likely) > 0
    (study,), _ = read_folder(next(iter(made)).parents[1] / "in")
    for binary, fractional in zip(masks, likely, strict=True):
        held = dcmread(fractional)
        assert held.SegmentationFractionalType == "PROBABILITY"
        assert len(np.unique(held.pixel_array)) > 20
        series = next(each for each in study.series if is_on(each, held))
        outlines, again = seg_masks(binary, series), seg_masks(fractional, series)
        assert outlines.keys() == again.keys()
        assert all(np.array_equal(again[label], mask) for label, mask in outlines.items())


def is_on(series: Series, segmentation: Dataset) -> bool:
    return bool(segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID == series.uid)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("archive")) as archive:
        yield archive


@pytest.fixture(scope="module")
def viewer(archive: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with beside(viewing.OHIF, archive.url, free_port(), tmp_path_factory.mktemp("viewer") / "log") as address:
        yield address


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    pytest.importorskip("playwright.sync_api")
    with viewing.browser() as chromium:
        yield chromium


@needs("Orthanc", "chromium")
@viewing.needs_ohif
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("use", [pytest.param(use, marks=() if use in HERE else _AWAY) for use in STUDIES])
def test_ohif_shows_what_it_says_where_it_lies(
    evidence_of: Callable[[str], dict[Path, Form]], archive: Orthanc, viewer: str, chromium: Any, use: str
) -> None:
    made = {path: form for path, form in evidence_of(use).items() if form in SHOWN}
    outlines = [path for path, form in made.items() if form.kind == Kind.SEGMENTATION]
    study_uid = dcmread(next(iter(made)), specific_tags=["StudyInstanceUID"]).StudyInstanceUID
    images = [path for path in (next(iter(made)).parents[1] / "in").rglob("*.dcm") if is_of(path, study_uid)]
    receiver = Destination("PACS", "dimse", ae_title=archive.aet, host=archive.host, port=archive.dicom_port)
    answers = list(delivery.send(receiver, [delivery.outgoing(path) for path in (*images, *made)]))
    assert {answer.verdict for answer in answers} == {"delivered"}
    with viewing.opened(chromium, viewer, study_uid) as page:
        if outlines:
            viewing.load(page, "SEG")
            coloured, where = viewing.overlay(page), viewing.place(page)
            masks = [viewing.drawn(path, where.sop) for path in outlines]
            assert max(min(viewing.agreement(coloured, mask, where)) for mask in masks) > 0.95
        viewing.load(page, "SR")
        words, where, pixels = viewing.lines(page), viewing.place(page), viewing.canvas(page)
        lines = [each for each in viewing.outlines(page) if len(each) > BOX]
    assert any(is_readable for said, is_readable in words if said)
    assert pixels.std() > 10, "the viewport is empty"
    masks = [viewing.drawn(path, where.sop) for path in outlines]
    assert bool(lines) == bool(outlines)
    for line in lines:
        assert max(viewing.along(line, mask, where) for mask in masks) > 0.95


def is_of(path: Path, study_uid: str) -> bool:
    return bool(dcmread(path, specific_tags=["StudyInstanceUID"]).StudyInstanceUID == study_uid)


@needs_pixelmed()
@pytest.mark.timeout(1800)  # one or two seconds for each document, on a machine that has nothing else to do
def test_every_report_keeps_to_its_templates(evidence_of: Callable[[str], dict[Path, Form]], tmp_path: Path) -> None:
    """Of every pipeline, and of every outcome, as PixelMed's DicomSRValidator knows TID 1500 and TID 2010."""
    referring = [
        path
        for use in HERE
        for path, form in evidence_of(use).items()
        if form.kind == Kind.KEY_OBJECTS or form.regions == "references"
    ]
    study = study_of(slices(3), tmp_path / "in")
    documents = [*referring, tmp_path / "found-ohif" / "sr.dcm"]
    written(outlined(study.series[0]), study, tmp_path / "found-ohif")
    for name, outcome in outcomes(study.series[0]).items():
        written(outcome, study, tmp_path / name, preset="air")
        documents.append(tmp_path / name / "sr.dcm")
    wrong = dcmread(documents[-1])
    wrong.ContentSequence[0].RelationshipType = "CONTAINS"  # it does not say, though, what is missing
    wrong.save_as(tmp_path / "wrong.dcm")
    found = template_faults([*documents, tmp_path / "wrong.dcm"])
    assert "Incorrect relationship" in " ".join(found.pop(str(tmp_path / "wrong.dcm")))
    assert {path: said for path, said in found.items() if said} == {}
    assert len(found) == len(documents)
