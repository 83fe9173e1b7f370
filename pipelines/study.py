"""The way in of pipelines: DICOM files, grouped into studies and their series, with what is wrong with them said.

A bad file becomes a ``RefusedFile`` with a reason and never stops the rest. Decodes no pixels: that is ``Series``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydicom.dataset import Dataset

from pipelines.instance import MediaDirectory, Unreadable, number, open_instance, text
from pipelines.pixels import BadPixels
from pipelines.series import Series

__all__ = ["BadPixels", "RefusedFile", "Series", "Study", "read_files", "read_folder"]

_IDENTITY = {
    "PatientID": "Patient ID",
    "IssuerOfPatientID": "Issuer of Patient ID",
    "PatientName": "Patient's Name",
    "PatientBirthDate": "Patient's Birth Date",
}


@dataclass(frozen=True)
class RefusedFile:
    """A file that is not read, and the sentence why."""

    file: str
    reason: str


@dataclass(frozen=True, eq=False)
class Study:
    """The series of one study, by Series Number."""

    uid: str
    series: tuple[Series, ...]

    @property
    def header(self) -> Dataset:
        return self.series[0].header

    @cached_property
    def mixed(self) -> str | None:
        """A sentence if the instances name more than one patient; it tells no name and no number."""
        headers = [header for series in self.series for header in series.instances]
        wrong = [
            name for keyword, name in _IDENTITY.items() if len({_plain_text(each, keyword) for each in headers}) > 1
        ]
        return f"the instances of this study differ in {' and '.join(wrong)}" if wrong else None


def read_folder(folder: Path) -> tuple[tuple[Study, ...], tuple[RefusedFile, ...]]:
    """All studies below a folder. A DICOMDIR and hidden files are passed over; an empty folder gives nothing."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return read_files(path for path in paths if path.name.upper() != "DICOMDIR")


def read_files(
    paths: Iterable[Path], *, opened: Callable[[Path], Dataset] = open_instance
) -> tuple[tuple[Study, ...], tuple[RefusedFile, ...]]:
    """The studies that the files make up, by Study Instance UID, and the files that cannot be read.

    Args:
        opened: ``open_header`` takes files without whole pixels, too: to say that a study is not read, but not to read.
    """
    kept: dict[str, Dataset] = {}
    refused: list[RefusedFile] = []
    for path in map(Path, paths):
        try:
            header = opened(path)
            _refuse_another_content(header, kept)
            kept.setdefault(text(header, "SOPInstanceUID"), header)
        except MediaDirectory:
            continue
        except Unreadable as error:
            refused.append(RefusedFile(str(path), str(error)))
    return _grouped(kept.values()), tuple(refused)


def _refuse_another_content(header: Dataset, kept: dict[str, Dataset]) -> None:
    earlier = kept.get(text(header, "SOPInstanceUID"))
    if earlier is None:
        return
    first, second = (hashlib.sha256(Path(each.filename).read_bytes()).digest() for each in (earlier, header))
    if first != second:
        raise Unreadable(f"it has the SOP Instance UID of {Path(earlier.filename).name}, but other content")


def _grouped(headers: Iterable[Dataset]) -> tuple[Study, ...]:
    studies: dict[str, dict[str, list[Dataset]]] = {}
    for header in headers:
        series = studies.setdefault(text(header, "StudyInstanceUID"), {})
        series.setdefault(text(header, "SeriesInstanceUID"), []).append(header)
    return tuple(Study(uid, _all_series(series)) for uid, series in sorted(studies.items()))


def _all_series(grouped: dict[str, list[Dataset]]) -> tuple[Series, ...]:
    series = [Series(uid, text(headers[0], "Modality"), tuple(headers)) for uid, headers in grouped.items()]
    return tuple(sorted(series, key=_by_series_number))


def _by_series_number(series: Series) -> tuple[float, str]:
    found = number(series.header, "SeriesNumber")
    return float("inf") if found is None else found, series.uid


def _plain_text(header: Dataset, keyword: str) -> str:
    return text(header, keyword).rstrip("^= ")
