"""A pipeline from settings alone: a MONAI bundle, a folder or a zip, read as data by ``models.bundle``.

    [pipelines.spleen]
    use = "pipelines.monai_bundle:MonaiBundle"
    card = "spleen_ct_segmentation"      # or spleen_ct_segmentation.zip
    when = { Modality = "CT", BodyPartExamined = "ABDOMEN" }

Needs MONAI (``pip install 'wetread[monai]'``). It outlines on the series' own grid and measures each outline's volume,
or says which class an image is of. It knows no operating points but the bundle's, and withholds nothing by itself.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.sr.codedict import codes as dictionary
from pydicom.sr.coding import Code

from pipelines.base import Algorithm, Finding, Findings, Measurement, Segment, UnsuitableStudy, WithheldStudy
from pipelines.domain import Domain
from pipelines.evidence import codes
from pipelines.instance import text
from pipelines.models.bundle import Bundle
from pipelines.models.store import DamagedWeights
from pipelines.pictures import by_size, pictures
from pipelines.pixels import BadPixels
from pipelines.series import Series
from pipelines.study import Study

UNMEASURED = "a MONAI bundle from elsewhere: nobody has measured here what it is worth"
_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's LPS frame to that of NIfTI
_TUMOUR = re.compile(r"tumou?r|neoplasm|cancer|metastas|carcinoma", re.IGNORECASE)
_LESION = re.compile(r"lesion|nodule|edema|oedema|necro|enhanc|infarct", re.IGNORECASE)


class MonaiBundle:
    """Reads every series of the bundle's modality: volumes as a whole, pictures one by one."""

    def __init__(self, card: Path | None = None) -> None:
        """
        Raises:
            DamagedWeights: If no bundle is named.
            RefusedWeights: If it asks for what is not run here; the sentence names the entry.
        """
        if card is None:
            raise DamagedWeights('which bundle? write card = "FOLDER" or "FILE.zip" into the pipeline\'s table')
        self._bundle = Bundle.read(card)
        self._codes = {label: _code_of(label) for label in self._bundle.labels.values()}
        what = f"an image of {self._bundle.modality}"
        modalities = {"CR", "DX"} if self._bundle.modality == "CR" else {self._bundle.modality}
        self._domain = Domain(what, frozenset(modalities), smallest=16)

    @property
    def algorithm(self) -> Algorithm:
        held = self._bundle
        return Algorithm(held.name[:64], held.version[:64], codes.ARTIFICIAL_INTELLIGENCE, held.digest, "MONAI bundle")

    def warm_up(self) -> str:
        return "single precision, by MONAI"

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        candidates = self._domain.series(study)
        if self._bundle.dims == 2:
            candidates = [part for each in candidates for part in by_size(each)]
        else:
            candidates = [each for each in candidates if each.is_volume and len(each.frames) > 1]
            if not candidates:
                raise UnsuitableStudy("no series is a volume of parallel slices, which is what this bundle reads")
        return tuple(self._read(series) for series in candidates)

    def _read(self, series: Series) -> Findings:
        begun = time.perf_counter()
        try:
            images = [_volume(series)] if self._bundle.dims == 3 else _pictures(series, self._bundle.channels)
        except BadPixels as reason:
            raise WithheldStudy(f"the pictures cannot be read: {reason}") from reason
        loaded = time.perf_counter()
        found = self._outlined(series, images) if self._bundle.outlines else self._classified(series, images)
        stages = {"load": loaded - begun, "network": time.perf_counter() - loaded}
        return Findings(series, tuple(found), (series,), (UNMEASURED, *series.faults), stages=stages)

    def _outlined(self, series: Series, images: list[_Image]) -> list[Finding]:
        answers = [self._bundle.outline(values, affine) for values, affine in images]
        found = []
        for label in self._bundle.labels.values():
            masks = [_as_frames(answer[label]) for answer in answers]
            found.append(_outline(label, self._codes[label], np.concatenate(masks), series))
        return found

    def _classified(self, series: Series, images: list[_Image]) -> list[Finding]:
        whole = tuple(text(each, "SOPInstanceUID") for each in series.instances)
        found = []
        for place, (values, affine) in enumerate(images):
            frame = text(series.frames[place].instance, "SOPInstanceUID")
            for label, chance in self._bundle.chances(values, affine).items():
                certainty = min(max(chance, 0.0), 1.0)
                uids = whole if len(images) == 1 else (frame,)
                found.append(Finding(self._codes[label], certainty >= 0.5, certainty, sop_uids=uids, label=label))
        return found


_Image = tuple[NDArray[np.float32], NDArray[np.float64]]


def _volume(series: Series) -> _Image:
    """((1, x, y, z), voxels to mm in RAS), as a NIfTI file of the series would be read."""
    if series.affine is None:
        raise WithheldStudy(f"the slices are not one even grid: {'; '.join(series.faults) or 'they say too little'}")
    values = np.ascontiguousarray(series.volume().transpose(2, 1, 0))[None]
    return values, _RAS @ series.affine[:, [2, 1, 0, 3]]


def _pictures(series: Series, channels: int) -> list[_Image]:
    """((channels, x, y), mm), as MONAI reads a picture file: the columns first."""
    found = []
    for picture, frame in zip(pictures(series), series.frames, strict=True):
        pixels = picture.pixels.astype(np.float32)
        if (pixels.ndim == 3) != (channels == 3):
            raise WithheldStudy(f"the pictures are {'in colour' if pixels.ndim == 3 else 'grey'}, others are read")
        down, along = frame.plane.spacing if frame.plane and frame.plane.spacing else (1.0, 1.0)
        values = pixels.transpose(2, 1, 0) if channels == 3 else pixels.T[None]
        found.append((np.ascontiguousarray(values), np.diag([along, down, 1.0, 1.0])))
    return found


def _as_frames(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(x, y[, z]) → (frames, rows, columns)."""
    return np.ascontiguousarray(mask.T if mask.ndim == 3 else mask.T[None])


def _outline(label: str, code: Code, mask: NDArray[np.bool_], series: Series) -> Finding:
    uids = [text(frame.instance, "SOPInstanceUID") for frame in series.frames]
    drawn: NDArray[np.bool_] = np.any(mask, axis=(1, 2))
    if not drawn.any():
        return Finding(code, present=False, label=label, sop_uids=tuple(dict.fromkeys(uids)))
    abnormal = code in (codes.NEOPLASM, codes.LESION)
    category = codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE if abnormal else codes.ANATOMICAL_STRUCTURE
    measured: tuple[Measurement, ...] = ()
    if series.is_volume and series.spacing is not None and len(mask) > 1:
        volume = float(mask.sum() * np.prod(series.spacing)) / 1000
        measured = (Measurement(codes.VOLUME, volume, codes.CUBIC_CENTIMETER),)
    return Finding(
        code,
        present=True,
        label=label,
        sop_uids=tuple(dict.fromkeys(uid for uid, is_drawn in zip(uids, drawn, strict=True) if is_drawn)),
        segment=Segment(label, mask, category, code),
        measurements=measured,
    )  # fmt: skip


def _code_of(label: str) -> Code:
    """What pydicom's dictionary of SNOMED CT calls by this very name; else what kind of thing the name speaks of."""
    keyword = "".join(word.capitalize() for word in re.split(r"[\W_]+", label))
    found = getattr(dictionary.SCT, keyword, None) if keyword else None
    if isinstance(found, Code) and found.scheme_designator == "SCT":
        return codes.declared(found.value, "SCT", found.meaning, "PS3.16")
    if _TUMOUR.search(label):
        return codes.NEOPLASM
    return codes.LESION if _LESION.search(label) else codes.ANATOMICAL_STRUCTURE
