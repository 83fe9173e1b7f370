"""The head that every object begins with which highdicom does not build: what it is, of which study, made by whom."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from pipelines.evidence import equipment, wording
from pipelines.evidence.told import Told


@dataclass(frozen=True)
class Heading:
    """What the objects of one kind have in common.

    Attributes:
        stem: What their UIDs derive from, beside the job.
        series_number: Behind the series of the scanner.
        title: A few words for the Series Description.
    """

    sop_class: str
    modality: str
    stem: str
    series_number: int
    title: str


def begun(told: Told, heading: Heading, count: int = 1) -> Dataset:
    """The ``count``-th object of its series; ``told.stamp.put_on`` completes it."""
    stamp = told.stamp
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = heading.sop_class, stamp.uid(heading.stem, count)
    made.StudyInstanceUID = told.read[0].header.StudyInstanceUID
    made.SeriesInstanceUID = stamp.uid(f"{heading.stem} series")
    made.Modality, made.SeriesNumber, made.InstanceNumber = heading.modality, heading.series_number, count
    made.SeriesDescription = wording.series_title(heading.title, stamp.algorithm)
    for keyword, value in equipment.general(stamp.algorithm).items():
        setattr(made, "".join(word.capitalize() for word in keyword.split("_")), value)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made
