"""Series, masks and findings whose answer is known: what the tests of evidence are made of."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    MRImageStorage,
    UltrasoundImageStorage,
    VLPhotographicImageStorage,
)
from scipy.ndimage import gaussian_filter

from pipelines import evidence
from pipelines.base import Algorithm, Finding, Findings, Measurement, Segment
from pipelines.evidence import codes
from pipelines.forms import PRESETS, USUAL, Wanted
from pipelines.probability import Probability, held, in_steps
from pipelines.study import Series, Study, read_folder

STARTED = datetime(2026, 1, 2, 3, 4, 5)
ALGORITHM = Algorithm("mr_brain", "1.0.0", codes.ARTIFICIAL_INTELLIGENCE, "ab" * 32)
SOP_CLASSES = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "CR": ComputedRadiographyImageStorage,
    "DX": DigitalXRayImageStorageForPresentation,
    "US": UltrasoundImageStorage,
    "XC": VLPhotographicImageStorage,
}
FORMS = {  # report and Segmentation alone
    "ohif": USUAL,
    "viewer": PRESETS["ohif"].forms,
    "air": Wanted("references").forms,
    "fractional": Wanted(segmentation="FRACTIONAL").forms,
    "labelmap": Wanted(segmentation="LABELMAP").forms,
}
# direction of rows and of columns, step from slice to slice
AXIAL = ((1, 0, 0), (0, 1, 0), (0, 0, 3.0))
REVERSED = ((1, 0, 0), (0, 1, 0), (0, 0, -3.0))
SAGITTAL = ((0, 1, 0), (0, 0, -1), (2.5, 0, 0))
OBLIQUE = ((0.8, 0.6, 0), (-0.36, 0.48, -0.8), (-1.44, 1.92, 1.8))  # 3 mm along the normal
TILTED = ((1, 0, 0), (0, 1, 0), (0, 0.5, 3.0))  # a CT gantry: the step is not along the normal
GEOMETRIES = {"axial": AXIAL, "reversed": REVERSED, "sagittal": SAGITTAL, "oblique": OBLIQUE, "tilted": TILTED}


def image(number: int, *, modality: str = "MR", shape: tuple[int, int] = (20, 24), **elements: Any) -> Dataset:
    """One image with a patient and a study, which lies nowhere; ``None`` takes an element away."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID, ds.Modality = SOP_CLASSES[modality], modality
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = "1.2.3", "1.2.3.4", f"1.2.3.4.{number}"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Müller^Eva", "P1", "19700101", "F"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20260101", "120000", "S1", "A1"
    ds.ReferringPhysicianName, ds.Manufacturer, ds.StudyDescription = "", "Maker", "Brain"
    ds.InstanceNumber, ds.SeriesNumber, ds.ImageType = number, 1, ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = np.full(shape, number, "<u2").tobytes()
    for keyword, value in elements.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def slices(
    count: int = 6, *, geometry: Any = AXIAL, modality: str = "MR", shape: tuple[int, int] = (20, 24), **elements: Any
) -> list[Dataset]:
    """A stack of images that lie where the geometry says."""
    row, column, step = (np.array(each, float) for each in geometry)
    made = []
    for number in range(count):
        position = np.array([-10.0, -12.0, 5.0]) + number * step
        ds = image(number + 1, modality=modality, shape=shape)
        ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = "1.2.3.9", ""
        ds.ImagePositionPatient = [f"{each:.6g}" for each in position]
        ds.ImageOrientationPatient = [f"{each:.6g}" for each in (*row, *column)]
        ds.PixelSpacing, ds.SliceThickness = ["0.8", "0.7"], "3"
        for keyword, value in elements.items():
            if value is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)
        made.append(ds)
    return made


def saved(images: Sequence[Dataset], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, ds in enumerate(images):
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.save_as(folder / f"{number:03}.dcm", enforce_file_format=True)
    return folder


def study_of(images: Sequence[Dataset], folder: Path) -> Study:
    """The images as they come back from disk."""
    studies, refused = read_folder(saved(images, folder))
    assert not refused
    (study,) = studies
    return study


def blob(series: Series, seed: int = 0) -> NDArray[np.bool_]:
    """A mask that no turn, flip or shift leaves as it is; its first and last frames are empty."""
    shape = (len(series.frames), int(series.header.Rows), int(series.header.Columns))
    mask = np.zeros(shape, np.bool_)
    inner = slice(1, -1) if shape[0] > 2 else slice(None)
    mask[inner, 3:9, 5:8] = True
    mask[inner, 3:5, 5:17] = True
    mask[inner, 14 + seed, 20] = True
    if shape[0] > 2:
        mask[2, 12:15, 2:6] = True
    return mask


def lesion(
    mask: NDArray[np.bool_], label: str = "FLAIR abnormality", probability: Probability | None = None
) -> Segment:
    return Segment(label, mask, codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE, codes.LESION, probability)


def blurred(mask: NDArray[np.bool_], threshold: float = 0.45) -> Probability:
    """A probability that falls off from the mask over every frame, with noise on it."""
    noise = np.random.default_rng(0).normal(0, 0.1, mask.shape)
    chances = np.clip(gaussian_filter(mask.astype(np.float32), 2) + noise, 0, 1).astype(np.float32)
    return Probability(held(in_steps(chances), mask, threshold), threshold)


def outlined(series: Series, *segments: Segment, **more: Any) -> Findings:
    """A finding for each segment, with its volume."""
    volume = Measurement(codes.VOLUME, 41.2, codes.CUBIC_CENTIMETER)
    found = tuple(
        Finding(codes.LESION, True, 0.97, segment=each, site=codes.BRAIN, measurements=(volume,))
        for each in (segments or (lesion(blob(series)),))
    )
    return Findings(series, found, read=(series,), **more)


def nothing(series: Series, **more: Any) -> Findings:
    absent = Finding(codes.LESION, False, 0.03, label="FLAIR abnormality", site=codes.BRAIN)
    return Findings(series, (absent,), read=(series,), **more)


def written(outcome: Any, study: Study, out: Path, **more: Any) -> dict[str, Dataset]:
    """The evidence as it lies on disk, by file name."""
    options = {"algorithm": ALGORITHM, "job": "job 1", "started": STARTED} | more
    options["forms"] = more.get("forms", FORMS[options.pop("preset", "ohif")])
    paths = evidence.write(outcome, study=study, out=out, **options)
    return {path.name: dcmread(path) for path in paths}


def verdict(path: Path) -> list[str]:
    """The lines of dciodvfy that say Error; it is of 2022 and does not know Synthetic Data (0008,001C)."""
    told = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False).stderr
    return [line for line in told.splitlines() if line.startswith("Error") and "(0x0008,0x001c)" not in line]
