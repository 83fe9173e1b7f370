"""A MONAI bundle as a network with its way in and its way out, put together by MONAI from tables of what is known here.

    image → preprocessing → inferer (whole, or by sliding windows) → network → postprocessing → the image's own grid

The code that runs is MONAI's own; of the bundle come names that stand in the tables, plain arguments and tensors. What
else a bundle brings along (handlers, datasets, evaluators, scripts) is not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import monai.inferers
import monai.networks.nets
import monai.transforms
import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from pipelines.models import bundle_files
from pipelines.models.bundle_files import Files, RefusedBundle
from pipelines.models.bundle_tables import (
    AFTER,
    BEFORE,
    CLASSIFYING,
    OUTLINING,
    SLIDING,
    UNHEARD,
    WIDEST,
    arguments,
    known,
    numbers,
    target,
)

LARGEST = 300_000_000  # parameters


@dataclass(frozen=True, eq=False)
class Step:
    """A transform as MONAI made it; ``name`` is without the d of a dictionary."""

    name: str
    arguments: dict[str, Any]
    made: Any


@dataclass(frozen=True, eq=False)
class Bundle:
    """What a bundle does to one image.

    Attributes:
        labels: Channel or value → what it shows; without the background.
        modality: Of DICOM, as the bundle's metadata says it.
        dims: 3 for volumes, 2 for pictures.
        channels: Of the image: 1, or 3 for colour pictures.
        outlines: Whether it outlines; else it says which class an image is of.
        exclusive: Whether the values of the answer are one number per voxel, not one channel per label.
    """

    name: str
    version: str
    digest: str
    modality: str
    dims: int
    channels: int
    outlines: bool
    exclusive: bool
    labels: dict[int, str]
    network: Any
    before: Any
    infer: Any
    after: tuple[Step, ...]

    @classmethod
    def read(cls, place: Path) -> Bundle:
        """
        Raises:
            RefusedWeights: If it cannot be read, or asks for what is not run here; the sentence names the entry.
        """
        files = bundle_files.read(place)
        outlines, said, network = _network(files)
        dims = int(said.get("spatial_dims", 3))
        before = monai.transforms.Compose([each.made for each in _transforms(files, "preprocessing", BEFORE, "image")])
        steps = _transforms(files, "postprocessing", AFTER, "pred", before)
        discrete = next((each.arguments for each in steps if each.name == "AsDiscrete"), None)
        if outlines and discrete is None:
            raise files.refused("postprocessing", "has no AsDiscreted, so nothing says where an outline ends")
        if not outlines and not any(each.name == "Activations" for each in steps):
            raise files.refused("postprocessing", "has no Activationsd, so nothing says what a number of a class means")
        exclusive = bool(discrete and discrete.get("argmax") and discrete.get("to_onehot") is None)
        return cls(
            name=_word(files, "name"),
            version=_word(files, "version"),
            digest=files.digest,
            modality=_modality(files),
            dims=dims,
            channels=int(said["in_channels"]),
            outlines=outlines,
            exclusive=exclusive,
            labels=_labels(files, int(said["out_channels"])),
            network=network,
            before=before,
            infer=_inferer(files),
            after=tuple(steps),
        )  # fmt: skip

    def outline(self, values: NDArray[np.float32], affine: NDArray[np.float64]) -> dict[str, NDArray[np.bool_]]:
        """A mask for each label, on the grid of ``values``.

        Args:
            values: (channels, x, y) or (channels, x, y, z), modality values.
            affine: (4, 4), voxels to mm in the RAS frame, as NIfTI has it.
        """
        data = self._answered(values, affine)
        for each in self.after:
            data = each.made(data)
        if not any(each.name == "Invert" for each in self.after):
            data = _back(self.before, nearest=True)(data)
        answer = data["pred"].as_tensor().cpu().float().numpy()  # (1 or channels, x, y[, z])
        if answer.shape[1:] != values.shape[1:]:
            raise RefusedBundle(f"{self.name} gives {answer.shape[1:]} voxels for an image of {values.shape[1:]}")
        if self.exclusive:
            return {label: np.rint(answer[0]) == value for value, label in self.labels.items()}
        return {label: answer[value] > 0.5 for value, label in self.labels.items()}

    def chances(self, values: NDArray[np.float32], affine: NDArray[np.float64]) -> dict[str, float]:
        """How sure it is of each class, 0 to 1."""
        data = self._answered(values, affine)
        for each in self.after:
            data = each.made(data) if each.name == "Activations" else data
        return {label: float(data["pred"].flatten()[value]) for value, label in self.labels.items()}

    @torch.no_grad()
    def _answered(self, values: NDArray[np.float32], affine: NDArray[np.float64]) -> dict[str, Any]:
        data = self.before({"image": MetaTensor(torch.from_numpy(values.copy()), affine=torch.from_numpy(affine))})
        return {**data, "pred": self.infer(data["image"][None], self.network)[0]}


def _network(files: Files) -> tuple[bool, dict[str, Any], Any]:
    """Whether it outlines, its arguments, and the network with the bundle's weights."""
    entry = next(
        (name for name in ("network_def", "network", "net") if isinstance(files.inference.get(name), dict)), None
    )
    if entry is None:
        raise files.refused("network_def", "is missing: no entry of configs/inference says which network it is")
    name = target(files, files.inference.get(entry), entry, "monai.networks.nets")
    allowed = (OUTLINING | CLASSIFYING).get(name)
    if allowed is None:
        known = ", ".join([*OUTLINING, *CLASSIFYING])
        raise files.refused(entry, f"is the network {name}, which is not known here; known are {known}")
    said = arguments(files, files.inference[entry], entry, allowed)
    if missing := [each for each in ("in_channels", "out_channels") if not isinstance(said.get(each), int)]:
        raise files.refused(entry, f"has no {missing[0]} that is a whole number")
    if said["in_channels"] not in ((1, 3) if said.get("spatial_dims", 3) == 2 else (1,)):
        raise files.refused(f"{entry}#in_channels", f"is {said['in_channels']}: one image goes in here, of one series")
    build = getattr(monai.networks.nets, name)
    size = sum(each.numel() for each in files.weights.values())
    if size > LARGEST:
        raise files.refused("the weights", f"have {size:,} numbers; at most {LARGEST:,} are run here")
    if any(each > WIDEST for each in numbers(said)):
        raise files.refused(entry, f"has an argument beyond {WIDEST}")
    try:
        network = build(**said).eval()
    except Exception as error:  # whatever MONAI finds wrong with arguments
        raise files.refused(entry, f"does not make a {name}: {str(error).splitlines()[0][:200]}") from error
    own = network.state_dict()
    wrong = [each for each in own if each not in files.weights or files.weights[each].shape != own[each].shape]
    wrong += [each for each in files.weights if each not in own]
    if wrong:
        raise files.refused("the weights", f"do not fit this {name}: {', '.join(wrong[:5])} ({len(wrong)} in all)")
    network.load_state_dict(files.weights)
    return name in OUTLINING, said, network


def _transforms(files: Files, entry: str, table: Mapping[str, str | None], key: str, before: Any = None) -> list[Step]:
    """One after the other; what is done already is left out."""
    held = files.inference.get(entry)
    if not isinstance(held, dict) or target(files, held, entry, "monai.transforms") != "Compose":
        raise files.refused(entry, "is no Compose of transforms")
    made: list[Step] = []
    for place, each in enumerate(held.get("transforms", [])):
        where = f"{entry}#transforms#{place}"
        each = files.at(each[1:], where) if isinstance(each, str) and each.startswith("@") else each
        if not isinstance(each, dict):
            raise files.refused(where, "is no transform of MONAI by name, and no other program is run here")
        if each.get("_disabled_") is True:
            continue
        full = target(files, each, where, "monai.transforms")
        name = next((full.removesuffix(end) for end in ("Dict", "d", "D") if full.endswith(end)), "")
        if name not in table:
            raise files.refused(where, f"is the transform {full}, which is not known here; known are {known(table)}")
        keys = files.plain(each.get("keys", key), f"{where}#keys")
        if key not in ([keys] if isinstance(keys, str) else keys):
            raise files.refused(f"{where}#keys", f"is {keys}, and only {key} is there")
        allowed = table[name]
        if allowed is not None:
            heard = {each_key: value for each_key, value in each.items() if each_key not in UNHEARD.split()}
            said = arguments(files, heard, where, allowed)
            made.append(Step(name, said, _transform(files, where, full, said, key, before)))
    return made


def _transform(files: Files, where: str, full: str, said: dict[str, Any], key: str, before: Any) -> Any:
    if full.startswith("Invert"):
        return _back(before, nearest=bool(said.get("nearest_interp", True)))
    extra = {"source_key": key} if full.startswith("CropForeground") else {}
    try:
        return getattr(monai.transforms, full)(keys=key, **extra, **said)
    except Exception as error:  # whatever MONAI finds wrong with arguments
        raise files.refused(where, f"does not make a {full}: {str(error).splitlines()[0][:200]}") from error


def _back(before: Any, *, nearest: bool) -> Any:
    return monai.transforms.Invertd(
        keys="pred", transform=before, orig_keys="image", nearest_interp=nearest, to_tensor=True
    )


def _inferer(files: Files) -> Any:
    held = files.inference.get("inferer")
    if held is None:
        return monai.inferers.SimpleInferer()
    if not isinstance(held, dict):
        raise files.refused("inferer", "is no inferer of MONAI by name")
    name = target(files, held, "inferer", "monai.inferers")
    if name == "SimpleInferer":
        return monai.inferers.SimpleInferer()
    if name != "SlidingWindowInferer":
        raise files.refused("inferer", f"is {name}; known are SimpleInferer, SlidingWindowInferer")
    heard = {key: value for key, value in held.items() if key not in ("sw_device", "device", "progress", "cpu_thresh")}
    said = arguments(files, heard, "inferer", SLIDING)
    overlap = said.get("overlap", 0.25)
    if not all(0 <= each <= 0.9 for each in (overlap if isinstance(overlap, list) else [overlap])):
        raise files.refused("inferer#overlap", f"is {overlap}, not a share of a window from 0 to 0.9")
    try:
        return monai.inferers.SlidingWindowInferer(**said)
    except Exception as error:
        raise files.refused("inferer", f"does not make a {name}: {str(error).splitlines()[0][:200]}") from error


def _word(files: Files, key: str) -> str:
    value = files.metadata.get(key)
    if not isinstance(value, str) or not value.strip():
        raise files.refused(f"configs/metadata.json#{key}", "is missing")
    return value.strip()


def _format(files: Files, which: str, name: str) -> dict[str, Any]:
    try:
        found = files.metadata["network_data_format"][which][name]
        return dict(found)
    except (KeyError, TypeError, ValueError):
        entry = f"configs/metadata.json#network_data_format#{which}#{name}"
        raise files.refused(entry, "is missing: it says what goes in and what comes out") from None


_MODALITIES = {"MRI": "MR", "XRAY": "CR", "X-RAY": "CR", "ULTRASOUND": "US", "PET": "PT"}


def _modality(files: Files) -> str:
    said = str(_format(files, "inputs", "image").get("modality", "")).upper()
    if not said.isascii() or not 2 <= len(said) <= 16:
        entry = "configs/metadata.json#network_data_format#inputs#image#modality"
        raise files.refused(entry, "is missing: as CT or MR")
    return _MODALITIES.get(said, said)


def _labels(files: Files, channels: int) -> dict[int, str]:
    entry = "configs/metadata.json#network_data_format#outputs#pred#channel_def"
    said = _format(files, "outputs", "pred").get("channel_def")
    try:
        found = {int(key): str(value).strip() for key, value in dict(said or {}).items()}
    except (TypeError, ValueError):
        found = {}
    found = {key: value for key, value in found.items() if value.lower() != "background"}
    if not found or not all(0 <= key < channels and 0 < len(value) <= 64 for key, value in found.items()):
        raise files.refused(entry, f"does not say what channels 0 to {channels - 1} show, in 1 to 64 characters each")
    return found
