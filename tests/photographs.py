"""Photographs as DICOM, whose content is known: what the tests of pipelines of colour pictures are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    OphthalmicPhotography8BitImageStorage,
    VLMicroscopicImageStorage,
    VLSlideCoordinatesMicroscopicImageStorage,
)

from pipelines.study import Study, read_folder

SOP_CLASSES = {
    "GM": VLMicroscopicImageStorage,
    "SM": VLSlideCoordinatesMicroscopicImageStorage,
    "OP": OphthalmicPhotography8BitImageStorage,
}


def photograph(pixels: NDArray[np.uint8], modality: str, number: int = 1, **elements: Any) -> Dataset:
    """RGB (rows, columns, 3), or grey (rows, columns); ``elements`` set or, where None, take away."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.Modality = SOP_CLASSES.get(modality, VLMicroscopicImageStorage), modality
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = "1.2.3", "1.2.3.4", f"1.2.3.4.{number}"
    ds.PatientID, ds.PatientName, ds.PatientBirthDate, ds.PatientSex = "P1", "Test^One", "", ""
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.StudyID = "20260101", "120000", "", "1"
    ds.ReferringPhysicianName, ds.Manufacturer = "", "Test"
    ds.ImageType, ds.InstanceNumber, ds.SeriesNumber = ["ORIGINAL", "PRIMARY"], number, 1
    ds.PatientOrientation = None
    colour = pixels.ndim == 3
    ds.SamplesPerPixel, ds.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        ds.PlanarConfiguration = 0
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    raw = pixels.astype(np.uint8).tobytes()
    ds.add_new(0x7FE00010, "OB", raw + b"\0" * (len(raw) % 2))
    for keyword, value in elements.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def study_of(folder: Path, *photographs: Dataset) -> Study:
    """Written to disk and read again."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, ds in enumerate(photographs):
        ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = (
            ds.SOPClassUID,
            ds.SOPInstanceUID,
        )
        ds.save_as(folder / f"{place}.dcm", enforce_file_format=True)
    (study,), refused = read_folder(folder)
    assert not refused
    return study


def discs(
    places: list[tuple[int, int, int]], shape: tuple[int, int] = (256, 256), *, seed: int = 0
) -> NDArray[np.uint8]:
    """Fluorescence: (row, column, radius) of bright discs on black, RGB, with the blur and noise of a camera."""
    rng, (y, x) = np.random.default_rng(seed), np.ogrid[: shape[0], : shape[1]]
    image = np.full(shape, 8.0)
    for row, column, radius in places:
        image += 120 / (1 + np.exp(np.hypot(y - row, x - column) - radius))
    grey = np.clip(image + rng.normal(0, 2, shape), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def eye(size: int = 600, *, vessels: bool = True) -> NDArray[np.uint8]:
    """A reddish disc on black with a bright optic disc, and darker lines that run from it."""
    y, x = np.mgrid[:size, :size].astype(float)
    rng, middle, radius = np.random.default_rng(1), size / 2, 0.47 * size
    inside = np.hypot(y - middle, x - middle) < radius
    shade = 1 - 0.3 * (np.hypot(y - middle, x - middle) / radius) ** 2
    image = np.stack([190 * shade, 90 * shade, 45 * shade], -1)
    disc = np.exp(-(((y - middle) ** 2 + (x - 0.7 * size) ** 2) / (0.06 * size) ** 2))
    image += disc[..., None] * np.array([50.0, 90.0, 50.0])
    for run in np.linspace(-1.2, 1.2, 5) if vessels else ():
        line = middle + run * 0.35 * size * np.sin(np.clip((0.7 * size - x) / (0.6 * size), -1, 1) * 1.4)
        dark = np.exp(-(((y - line) / 3.0) ** 2)) * (np.abs(x - 0.45 * size) < 0.33 * size)
        image -= dark[..., None] * np.array([45.0, 45.0, 15.0])
    image += rng.normal(0, 3, image.shape)
    image[~inside] = 2
    return np.clip(image, 0, 255).astype(np.uint8)
