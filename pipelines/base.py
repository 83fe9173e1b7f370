"""What a pipeline is and what it says: findings, segments, measurements, in the standard's own words.

Nothing here reads a file, holds a tensor or knows a network. ``Pipeline`` is a Protocol: any class with its two
members, in one file, named in ``settings.toml``.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from pydicom.sr.coding import Code

from pipelines.probability import Probability

if TYPE_CHECKING:
    from pipelines.study import Series, Study

_NAMESPACE = uuid.UUID("5a2c8f1e-0d0b-5f7e-9a57-77657472ea64")


class UnsuitableStudy(Exception):
    """No series of the study is one that the pipeline reads. A result, not a fault."""


class WithheldStudy(Exception):
    """The pipeline reads such studies, but this one is outside what it was validated for. A result, not a fault."""


def derived_uid(*parts: object) -> str:
    """A UID that is always the same for the same parts: 2.25 and a UUID of version 5 (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, chr(31).join(map(str, parts))).int}"


@dataclass(frozen=True)
class Algorithm:
    """Who says it: the values that SR (TID 4019) and SEG (0062,0007) repeat.

    Attributes:
        name: Algorithm Name (111001), the pipeline's own: ``mr_brain``.
        version: Algorithm Version (111003), as ``1.0.0``.
        family: From CID 7162, as ``Code("123110", "DCM", "Artificial Intelligence")``.
        weights_digest: SHA-256, in hexadecimal, of the weights and of whatever else decides (operating points); the
            Device UID derives from it, so that retraining changes it.
    """

    name: str
    version: str
    family: Code
    weights_digest: str
    manufacturer: str = "wetread"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.weights_digest):
            raise ValueError(f"weights_digest is {self.weights_digest!r}, not a SHA-256 in hexadecimal")

    @property
    def device_uid(self) -> str:
        return derived_uid("device", self.name, self.weights_digest)


@dataclass(frozen=True)
class Earlier:
    """The report on an earlier study of the same patient.

    Attributes:
        date: Study Date, eight digits.
    """

    study_uid: str
    series_uid: str
    sop_uid: str
    date: str


@dataclass(frozen=True)
class Measurement:
    """A number with a name and a unit (PS3.16 TID 300).

    Attributes:
        within: Its uncertainty, ± in its own unit, of 95 of 100; None: not known.
        against: The earlier reading that it is a change since.

    Raises:
        ValueError: If ``value`` is not finite; DICOM has no way to write it.
    """

    name: Code
    value: float
    unit: Code  # CID 82, that is to say UCUM
    within: float | None = None
    against: Earlier | None = None

    def __post_init__(self) -> None:
        if not isfinite(self.value):
            raise ValueError(f"{self.name.meaning} is {self.value}, not a finite number")


@dataclass(frozen=True, eq=False)
class Segment:
    """A region of the image (Segment Description Macro, PS3.3 Table C.8.20-4).

    Attributes:
        label: What a reader sees beside the outline, at most 64 characters.
        mask: ``bool``, shape ``(frames, rows, columns)``: pixel for pixel the grid of the
            series that it was drawn on. Whoever resampled to predict resamples back.
        category, property_type: From CID 7150 and CID 7151, as ``codes.SCT.Nodule``.
        probability: Of each pixel of the mask's grid, held to it by ``probability.held``; None where none is known.
    """

    label: str
    mask: NDArray[np.bool_]
    category: Code
    property_type: Code
    probability: Probability | None = None

    def __post_init__(self) -> None:
        if not 0 < len(self.label) <= 64:
            raise ValueError(f"a segment label has 1 to 64 characters, not {len(self.label)}")
        if self.mask.dtype != np.bool_ or self.mask.ndim != 3:
            raise ValueError(f"a mask is bool (frames, rows, columns), not {self.mask.dtype} {self.mask.shape}")
        if self.probability is not None and self.probability.steps.shape != self.mask.shape:
            raise ValueError(f"a probability of {self.probability.steps.shape} beside a mask of {self.mask.shape}")


@dataclass(frozen=True, eq=False)
class Finding:
    """One thing that was looked for, and whether it is there.

    Attributes:
        code: What it is, from ``pipelines.evidence.codes``.
        certainty: 0 to 1, calibrated; None where the pipeline has none to give.
        present: Above the operating point.
        sop_uids: The instances that it was judged on; empty: the whole series.
        segment: Its outline, when present and the pipeline outlines.
        box: ``(x, y, width, height)`` in pixels of the source image, for a detection.
        site: Anatomic site, as ``codes.SCT.Brain``.
        side: Of the site, right or left (CID 244), from patient coordinates; None: there is no telling, or but one.
    """

    code: Code
    present: bool
    certainty: float | None = None
    sop_uids: tuple[str, ...] = ()
    label: str | None = None
    segment: Segment | None = None
    box: tuple[float, float, float, float] | None = None
    measurements: tuple[Measurement, ...] = ()
    site: Code | None = None
    side: Code | None = None

    def __post_init__(self) -> None:
        if self.certainty is not None and not 0.0 <= self.certainty <= 1.0:
            raise ValueError(f"the certainty of {self.code.meaning} is {self.certainty}, not between 0 and 1")
        if self.segment is not None and not self.present:
            raise ValueError(f"{self.code.meaning} is not present, so it has no segment")
        if self.side is not None and self.site is None:
            raise ValueError(f"{self.code.meaning} has a side, but no site that has it")


@dataclass(frozen=True, eq=False)
class DerivedSeries:
    """A series made of another, picture for picture, to be looked at beside it (PS3.3 C.7.6.1.1.2).

    Attributes:
        pixels: float32 (frames, rows, columns), modality values, on the grid of ``series``.
        description: Series Description, at most 64 characters.
        derivation: From CID 7203, as smoothing.
        words: Derivation Description: what was done, with its numbers.
    """

    series: Series
    pixels: NDArray[np.float32]
    description: str
    derivation: Code
    words: str

    def __post_init__(self) -> None:
        if not 0 < len(self.description) <= 64:
            raise ValueError(f"a series description has 1 to 64 characters, not {len(self.description)}")
        if self.pixels.ndim != 3 or len(self.pixels) != len(self.series.frames):
            raise ValueError(f"{len(self.series.frames)} frames cannot have pixels of {self.pixels.shape}")


@dataclass(frozen=True, eq=False)
class SaliencyMap:
    """Where a network looked when it said something of some images.

    Attributes:
        label: What it speaks for, as the finding is labelled; at most 64 characters.
        method: From CID 217, as Class activation (130402, DCM).
        places: Of the images, in ``series.frames`` of the findings that have it.
        values: float32 (len(places), rows, columns), 0 to 1: relative to the spot that speaks most.
    """

    label: str
    method: Code
    places: tuple[int, ...]
    values: NDArray[np.float32]

    def __post_init__(self) -> None:
        if not 0 < len(self.label) <= 64:
            raise ValueError(f"the label of a map has 1 to 64 characters, not {len(self.label)}")
        if self.values.ndim != 3 or len(self.values) != len(self.places) or not self.places:
            raise ValueError(f"{len(self.places)} images cannot have maps of {self.values.shape}")
        if not (self.values.min() >= 0 and self.values.max() <= 1):
            raise ValueError("the values of a map are between 0 and 1")


@dataclass(frozen=True, eq=False)
class Findings:
    """What one pipeline says of one series, or of one group of series that it fused.

    Attributes:
        series: The series that masks and boxes lie on.
        read: Every series that was read, ``series`` among them.
        notes: Sentences that a reader must know: a sequence that was missing, slices that were doubled.
        stages: Seconds per stage, as ``{"load": 0.4, "network": 1.5}``.
        derived: Series that were made of those read.
        maps: Where the network looked, when that was asked for.
    """

    series: Series
    findings: tuple[Finding, ...]
    read: tuple[Series, ...] = ()
    notes: tuple[str, ...] = ()
    device: str = "cpu"
    stages: dict[str, float] = field(default_factory=dict)
    derived: tuple[DerivedSeries, ...] = ()
    maps: tuple[SaliencyMap, ...] = ()


class Pipeline(Protocol):
    """Any class with these two members: one file, named in ``settings.toml``, no base class.

    It may have three more. ``warm_up() -> str``: called once before the first study, it says how the pipeline computes.
    ``since(findings, volumes, earlier) -> Findings``: with what changed since an earlier study, by its volumes in cm³.
    ``saliency(findings) -> tuple[SaliencyMap, ...]``: where it looked; called only where a destination takes maps.
    """

    @property
    def algorithm(self) -> Algorithm: ...

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        """Read the study: one Findings per series, or group of series, that the pipeline reads.

        Raises:
            UnsuitableStudy: If it holds nothing that this pipeline reads.
            WithheldStudy: If it holds it, but outside what the pipeline was validated for.
        """
