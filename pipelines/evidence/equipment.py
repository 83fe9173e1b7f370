"""Who made the evidence, said the same way in every object: a pipeline's algorithm as a device.

Manufacturer, name, version and Device UID stand in Contributing Equipment, in the observer context of a report
(TID 1004), in its groups (TID 4019) and in each segment (0062,0007); ``check.py`` compares them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import highdicom as hd
from pydicom.dataset import Dataset

from pipelines.base import Algorithm
from pipelines.evidence import codes, content
from pipelines.evidence.source import EQUIPMENT, Source
from pipelines.instance import text

SERIAL_DIGITS = 16  # of the weights' digest


def contributing(algorithm: Algorithm, started: datetime) -> Dataset:
    """Item of the Contributing Equipment Sequence (0018,A001); highdicom's own has no Device UID."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [content.coded(codes.PROCESSING_EQUIPMENT)]
    item.Manufacturer = algorithm.manufacturer
    item.ManufacturerModelName = algorithm.name
    item.SoftwareVersions = algorithm.version
    item.DeviceSerialNumber = serial_number(algorithm)
    item.DeviceUID = algorithm.device_uid
    item.ContributionDateTime = started.strftime("%Y%m%d%H%M%S")
    item.ContributionDescription = "Analysis of the source images by software; not verified by a person"
    return item


def sign(result: Dataset, source: Source, algorithm: Algorithm, started: datetime) -> None:
    """Name the camera that took the images, as the source names it, and the algorithm beside it."""
    result.ContributingEquipmentSequence = [*_camera(source), contributing(algorithm, started)]


def _camera(source: Source) -> list[Dataset]:
    if not text(source.header, "Manufacturer"):
        return []  # Type 1 in an item
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [content.coded(codes.ACQUISITION_EQUIPMENT)]
    for keyword in EQUIPMENT:
        if keyword in source.header:
            item[keyword] = source.header[keyword]
    item.ContributionDescription = "Acquisition of the source images"
    return [item]


def serial_number(algorithm: Algorithm) -> str:
    """Device Serial Number is Type 1 in a Segmentation: the beginning of the weights' digest."""
    return algorithm.weights_digest[:SERIAL_DIGITS]


def general(algorithm: Algorithm) -> dict[str, str]:
    """The General Equipment module, as highdicom's constructors want it."""
    return {
        "manufacturer": algorithm.manufacturer,
        "manufacturer_model_name": algorithm.name,
        "software_versions": algorithm.version,
        "device_serial_number": serial_number(algorithm),
    }


def in_segment(algorithm: Algorithm) -> Any:
    """Segmentation Algorithm Identification Sequence (0062,0007)."""
    return hd.AlgorithmIdentificationSequence(
        name=algorithm.name, family=algorithm.family, version=algorithm.version, source=algorithm.manufacturer
    )


def in_group(algorithm: Algorithm) -> Iterable[Dataset]:
    """Algorithm Identification (TID 4019)."""
    yield content.words(codes.ALGORITHM_NAME, algorithm.name, content.MODIFIES)
    yield content.words(codes.ALGORITHM_VERSION, algorithm.version, content.MODIFIES)
    yield content.words(codes.ALGORITHM_MANUFACTURER, algorithm.manufacturer, content.MODIFIES)
    yield content.code(codes.ALGORITHM_FAMILY, algorithm.family, content.MODIFIES)


def as_observer(algorithm: Algorithm) -> Iterable[Dataset]:
    """Observation Context (TID 1001) with a device alone: no person has looked (TID 1004)."""
    yield content.code(codes.OBSERVER_TYPE, codes.DEVICE, content.OBSERVATION)
    yield content.uid(codes.DEVICE_OBSERVER_UID, algorithm.device_uid, content.OBSERVATION)
    for name, value in (
        (codes.DEVICE_OBSERVER_NAME, algorithm.name),
        (codes.DEVICE_OBSERVER_MANUFACTURER, algorithm.manufacturer),
        (codes.DEVICE_OBSERVER_MODEL, algorithm.name),
        (codes.DEVICE_OBSERVER_SERIAL_NUMBER, serial_number(algorithm)),
    ):
        yield content.words(name, value, content.OBSERVATION)
