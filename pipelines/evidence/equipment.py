"""Who made the evidence, said the same way in every object: a pipeline's algorithm as a device.

Manufacturer, name, version and Device UID stand in Contributing Equipment, in the observer context of a report
(TID 1004), in its groups (TID 4019) and in each segment (0062,0007); ``check.py`` compares them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import highdicom as hd
from pydicom.dataset import Dataset

from pipelines.base import Algorithm
from pipelines.evidence import codes
from pipelines.evidence.content import coded
from pipelines.evidence.source import EQUIPMENT, Source
from pipelines.instance import text

SERIAL_DIGITS = 16  # of the weights' digest


def contributing(algorithm: Algorithm, started: datetime) -> Dataset:
    """Item of the Contributing Equipment Sequence (0018,A001); highdicom's own has no Device UID."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [coded(codes.PROCESSING_EQUIPMENT)]
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
    item.PurposeOfReferenceCodeSequence = [coded(codes.ACQUISITION_EQUIPMENT)]
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


def in_group(algorithm: Algorithm) -> Any:
    """Algorithm Identification (TID 4019)."""
    return hd.sr.AlgorithmIdentification(
        name=algorithm.name,
        version=algorithm.version,
        family=algorithm.family,
        manufacturer=algorithm.manufacturer,
    )


def as_observer(algorithm: Algorithm) -> Any:
    """Observation Context (TID 1001) with a device alone: no person has looked (TID 1004)."""
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=algorithm.device_uid,
        name=algorithm.name,
        manufacturer_name=algorithm.manufacturer,
        model_name=algorithm.name,
        serial_number=serial_number(algorithm),
    )
    context = hd.sr.ObserverContext(observer_type=codes.DEVICE, observer_identifying_attributes=device)
    return hd.sr.ObservationContext(observer_device_context=context)
