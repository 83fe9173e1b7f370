"""Images to DICOM files as a scanner would send them, every one marked by Synthetic Data (0008,001C).

It makes no pixels. UIDs derive from what is described, so the same study is the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

from pipelines.base import derived_uid
from pipelines.synthetic.fields import Grid, Point
from pipelines.synthetic.signal import Sequence

DATE, TIME = "20260101", "120000"  # not a clock's: the same seed makes the same bytes


@dataclass(frozen=True)
class Examination:
    """What all instances of a study share; ``key`` is what its UIDs derive from."""

    key: str
    patient: str
    modality: str
    body_part: str
    sop_class: UID

    @property
    def study_uid(self) -> str:
        return derived_uid("synthetic", self.key)

    def uid(self, *parts: object) -> str:
        return derived_uid("synthetic", self.key, *parts)


def brain_examination(key: str, patient: str) -> Examination:
    return Examination(key, patient, "MR", "BRAIN", MRImageStorage)


def abdomen_examination(key: str, patient: str) -> Examination:
    return Examination(key, patient, "CT", "ABDOMEN", CTImageStorage)


def header(examination: Examination, *, series: int, number: int, description: str) -> Dataset:
    """Patient, study, series and equipment of one instance."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = examination.sop_class
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = examination.uid(description, number)
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SyntheticData = "YES"
    ds.PatientName = f"SYNTHETIC^{examination.patient}"
    ds.PatientID = examination.patient
    ds.PatientBirthDate = ds.PatientSex = ""
    ds.StudyInstanceUID = examination.study_uid
    ds.SeriesInstanceUID = examination.uid(description)
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = examination.uid("frame of reference"), ""
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = DATE
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = TIME
    ds.StudyID = "1"
    ds.AccessionNumber = hashlib.sha256(examination.key.encode()).hexdigest()[:12].upper()
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = f"SYNTHETIC {examination.modality} {examination.body_part}"
    ds.SeriesDescription = f"SYNTHETIC {description}"
    ds.Modality, ds.BodyPartExamined = examination.modality, examination.body_part
    ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = series, series, number
    ds.Manufacturer, ds.ManufacturerModelName, ds.StationName = "wetread", "synthetic study", "SYNTHETIC"
    ds.PatientPosition = "HFS"
    return ds


def place(ds: Dataset, position: Point, *, pixel_mm: float, slice_mm: float) -> None:
    """Image Plane module: an axial slice."""
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [f"{v:.6g}" for v in position]
    ds.PixelSpacing = [f"{pixel_mm:.6g}"] * 2
    ds.SliceThickness = ds.SpacingBetweenSlices = f"{slice_mm:.6g}"
    if ds.Modality == "CT":
        del ds.SpacingBetweenSlices  # not of the CT Image module
    ds.SliceLocation = f"{position[2]:.6g}"


def fill(ds: Dataset, image: NDArray[np.uint16]) -> None:
    """Image Pixel module: 12 of 16 bits, not compressed."""
    ds.Rows, ds.Columns = image.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = image.astype("<u2").tobytes()


def mr_series(
    examination: Examination, sequence: Sequence, images: NDArray[np.uint16], grid: Grid, *, number: int
) -> Iterable[Dataset]:
    """The instances of one sequence (MR Image module, PS3.3 C.8.3.1)."""
    low, high = np.percentile(images, (5, 99.5))
    for index, image in enumerate(images):
        ds = header(examination, series=number, number=index + 1, description=sequence.name)
        place(ds, grid.position(index), pixel_mm=grid.spacing[1], slice_mm=grid.spacing[0])
        ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
        ds.ScanningSequence = ["SE", "IR"] if sequence.inversion else "SE"
        ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "NONE", "", "2D"
        ds.RepetitionTime, ds.EchoTime = f"{sequence.repetition:g}", f"{sequence.echo:g}"
        ds.EchoTrainLength, ds.MagneticFieldStrength, ds.NumberOfAverages = 1, "1.5", "1"
        if sequence.inversion:
            ds.InversionTime = f"{sequence.inversion:g}"
        if sequence.agent:
            ds.ContrastBolusAgent = sequence.agent
        ds.WindowCenter, ds.WindowWidth = f"{(low + high) / 2:.0f}", f"{max(high - low, 1):.0f}"
        fill(ds, image)
        yield ds


def save(instances: Iterable[Dataset], folder: Path) -> list[Path]:
    """Write ``folder/<number>.dcm``."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for ds in instances:
        file = folder / f"{ds.InstanceNumber:04d}.dcm"
        ds.save_as(file, enforce_file_format=True)
        files.append(file)
    return files
