"""DICOM slices whose place and pixels are known: what the tests of study and reading are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def slice_of(number: int, pixels: NDArray[Any], **elements: Any) -> Dataset:
    """A valid enough CT or MR slice at z = number, 1 mm in all directions, unless ``elements`` say otherwise."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.Modality = CT, "CT"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = "1.2.3", "1.2.3.4", f"1.2.3.4.{number}"
    ds.PatientID, ds.PatientName, ds.PatientBirthDate = "P1", "Test^One", "19700101"
    ds.InstanceNumber, ds.SeriesNumber = number, 1
    ds.FrameOfReferenceUID = "1.2.3.5"
    ds.ImageOrientationPatient, ds.ImagePositionPatient = list(AXIAL), [0.0, 0.0, float(number)]
    ds.PixelSpacing, ds.SliceThickness = [1.0, 1.0], 1.0
    ds.RescaleSlope, ds.RescaleIntercept = 1, 0
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape[-2:]
    bits = pixels.dtype.itemsize * 8
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits, bits, bits - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.ndim == 3:
        ds.NumberOfFrames = len(pixels)
    raw = pixels.tobytes()
    ds.add_new(0x7FE00010, "OW" if bits > 8 else "OB", raw + b"\0" * (len(raw) % 2))
    for keyword, value in elements.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def saved(ds: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", CT)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", "1.2.3")
    ds.save_as(path, enforce_file_format=True)
    return path


def ramp(number: int, shape: tuple[int, int] = (4, 5)) -> NDArray[np.int16]:
    """Pixels that tell which slice they are of, and which pixel."""
    return (number * 100 + np.arange(shape[0] * shape[1])).reshape(shape).astype(np.int16)


def stack(folder: Path, count: int, **elements: Any) -> list[Path]:
    """``count`` slices at z = 1 … count, in files 01.dcm …"""
    return [saved(slice_of(n, ramp(n), **elements), folder / f"{n:02}.dcm") for n in range(1, count + 1)]


def enhanced(positions: list[float], slopes: list[float] | None = None) -> Dataset:
    """One multi-frame instance with a frame at each z, in the order given; frame i holds ``ramp(i + 1)``."""
    pixels = np.stack([ramp(i + 1) for i in range(len(positions))])
    ds = slice_of(1, pixels, SOPClassUID=ENHANCED_MR, Modality="MR")
    for keyword in (
        "ImageOrientationPatient",
        "ImagePositionPatient",
        "PixelSpacing",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        delattr(ds, keyword)
    shared, measures, direction = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.25], 2.0
    direction.ImageOrientationPatient = list(AXIAL)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [direction]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = [_groups(z, slopes[i] if slopes else 1.0) for i, z in enumerate(positions)]
    return ds


def _groups(z: float, slope: float) -> Dataset:
    group, place, scale = Dataset(), Dataset(), Dataset()
    place.ImagePositionPatient = [0.0, 0.0, z]
    scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = slope, 0, "US"
    group.PlanePositionSequence, group.PixelValueTransformationSequence = [place], [scale]
    return group
