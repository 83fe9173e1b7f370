"""The one-page report: one page, whose it is, what was found, and that nobody has verified it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2
import pytest
from pydicom.dataset import Dataset

from pipelines.base import Finding, Findings
from pipelines.evidence import NotEvaluated, codes
from pipelines.evidence.check import check
from pipelines.evidence.marks import COLOURS
from pipelines.forms import Form, Kind
from pipelines.study import Study
from tests.findings import image, nothing, outlined, slices, study_of, verdict, written
from tests.peers import needs

PAGE = [Form(Kind.PDF)]


def document(outcome: Any, study: Study, out: Path) -> Dataset:
    return written(outcome, study, out, forms=PAGE)["document.dcm"]


def text_of(made: Dataset) -> str:
    pages = pypdfium2.PdfDocument(made.EncapsulatedDocument)
    assert len(pages) == 1
    return str(pages[0].get_textpage().get_text_range())


def test_the_page_says_whose_it_is_what_was_found_and_who_says_it(tmp_path: Path) -> None:
    study = study_of(slices(), tmp_path / "in")
    made = document(outlined(study.series[0], notes=("a sequence was missing",)), study, tmp_path / "out")
    said = text_of(made)
    for words in (
        "AI RESULT, NOT VERIFIED",
        "Müller, Eva",
        "1970-01-01",
        "2026-01-01",
        "mr_brain 1.0.0 (wetread)",
        "FLAIR abnormality (97% certain): Volume 41.2 ml",
        "a sequence was missing",
        "no person has verified it",
        "instance 2",
    ):
        assert words in said
    assert (made.VerificationFlag, made.BurnedInAnnotation) == ("UNVERIFIED", "YES")


def test_the_outlines_are_on_the_page(tmp_path: Path) -> None:
    study = study_of(slices(), tmp_path / "in")
    made = document(outlined(study.series[0]), study, tmp_path / "out")
    page = np.asarray(pypdfium2.PdfDocument(made.EncapsulatedDocument)[0].render(scale=2).to_pil().convert("RGB"))
    colour = [int(COLOURS[0][i : i + 2], 16) for i in (1, 3, 5)]
    assert (np.abs(page.astype(int) - colour).max(axis=-1) < 40).sum() > 1000


def test_very_many_findings_and_pictures_are_still_one_page(tmp_path: Path) -> None:
    study = study_of(slices(), tmp_path / "in")
    many = tuple(Finding(codes.LESION, True, 0.9, label=f"finding {i}") for i in range(80))
    said = text_of(document(Findings(study.series[0], many, notes=("so " * 200,)), study, tmp_path / "out"))
    assert "finding 0" in said
    assert "lines more, in the report" in said


def test_a_name_that_the_page_cannot_write_is_not_half_written(tmp_path: Path) -> None:
    images = slices(SpecificCharacterSet="ISO_IR 192", PatientName="山田^太郎", StudyDescription="МРТ")
    study = study_of(images, tmp_path / "in")
    said = text_of(document(nothing(study.series[0]), study, tmp_path / "out"))
    assert said.count("stands in the study") == 2
    assert "P1" in said


@pytest.mark.parametrize("status", ["withheld", "failed", "unsuitable"])
def test_silence_is_not_an_answer(tmp_path: Path, status: str) -> None:
    study = study_of(slices(), tmp_path / "in")
    said = text_of(document(NotEvaluated(status, "it could not be read"), study, tmp_path / "out"))
    assert "it could not be read" in said


@needs("dciodvfy")
@pytest.mark.parametrize("modality", ["MR", "CR"])
def test_dciodvfy_finds_no_error(tmp_path: Path, modality: str) -> None:
    study = study_of(slices() if modality == "MR" else [image(1, modality=modality)], tmp_path / "in")
    document(outlined(study.series[0]), study, tmp_path / "out")
    assert verdict(tmp_path / "out" / "document.dcm") == []


@pytest.mark.parametrize(
    ("keyword", "value", "words"),
    [
        ("EncapsulatedDocument", b"PK", "no PDF"),
        ("EncapsulatedDocumentLength", 3, "another length"),
        ("VerificationFlag", "VERIFIED", "not UNVERIFIED"),
        ("BurnedInAnnotation", "NO", "names the patient"),
        ("DocumentTitle", "Report", "does not say that it is not verified"),
    ],
)
def test_the_check_names_what_is_wrong(tmp_path: Path, keyword: str, value: Any, words: str) -> None:
    study = study_of(slices(), tmp_path / "in")
    made = document(nothing(study.series[0]), study, tmp_path / "out")
    assert check(made, source=study.series[0].instances) == ()
    setattr(made, keyword, value)
    assert any(words in fault for fault in check(made, source=study.series[0].instances))
