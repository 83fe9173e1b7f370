"""The files of a MONAI bundle, a folder or a zip, read as data: two of settings and one of weights.

    configs/metadata.json · configs/inference.json (or .yaml) · models/model.safetensors (or model.pt)

Nothing in them is run: an expression (``$…``) or a macro (``%…``) is an error where its value is needed, and is not
looked at elsewhere. A reference (``@roi``) is followed. TorchScript and pickled objects are refused.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pipelines.models.foreign import RefusedWeights, tensors_in

LARGEST = 2 << 30  # bytes of one file
_REFERENCE = re.compile(r"\$?@([\w#:.]+)")
_FURTHEST = 1e6  # no setting of a network or transform is beyond
_WORD = re.compile(r"[\w .+/,:\-]{0,80}")


class RefusedBundle(RefusedWeights):
    """A bundle that is not run here; the sentence names the entry and says why."""


@dataclass(frozen=True, eq=False)
class Files:
    """What a bundle says and holds.

    Attributes:
        digest: SHA-256, in hexadecimal, of the three files.
    """

    place: Path
    metadata: dict[str, Any]
    inference: dict[str, Any]
    weights: dict[str, Tensor]
    digest: str

    def plain(self, value: Any, entry: str, depth: int = 0) -> Any:
        """A value with its references followed: numbers, words, lists and tables, and nothing that would be run.

        Raises:
            RefusedBundle: If it is, or refers to, anything else; the sentence names ``entry``.
        """
        if depth > 20:
            raise self.refused(entry, "refers to itself, or lies deeper than twenty")
        if isinstance(value, Mapping):
            return {str(key): self.plain(each, f"{entry}#{key}", depth + 1) for key, each in value.items()}
        if isinstance(value, list):
            return [self.plain(each, f"{entry}#{place}", depth + 1) for place, each in enumerate(value)]
        if isinstance(value, str) and (reference := _REFERENCE.fullmatch(value)):
            return self.plain(self.at(reference[1], entry), entry, depth + 1)
        if isinstance(value, str) and not _WORD.fullmatch(value):
            what = "an expression" if value.startswith("$") else "text that is no plain word"
            raise self.refused(entry, f"is {what} ({value[:60]!r}), and nothing of a bundle is run here")
        if isinstance(value, int | float) and not (math.isfinite(value) and abs(value) <= _FURTHEST):
            raise self.refused(entry, f"is {value}: beyond what a setting can be")
        if value is not None and not isinstance(value, bool | int | float | str):
            raise self.refused(entry, f"is of the type {type(value).__name__}, which is not read")
        return value

    def at(self, path: str, entry: str) -> Any:
        """The entry that a reference names, as ``preprocessing#transforms#1`` (or ``::`` for ``#``)."""
        found: Any = self.inference
        for part in path.replace("::", "#").split("#"):
            try:
                found = found[int(part)] if isinstance(found, list) else found[part]
            except (KeyError, IndexError, ValueError, TypeError):
                raise self.refused(entry, f"refers to @{path}, which is not there") from None
        return found

    def refused(self, entry: str, why: str) -> RefusedBundle:
        return RefusedBundle(f"{self.place.name}: {entry} {why}")


def read(place: Path) -> Files:
    """
    Raises:
        RefusedBundle: If a file is missing, cannot be read, or is not what it should be.
        RefusedWeights: If the weights hold more than tensors.
    """
    settings, weights = _contents(place)
    metadata, inference = (_table(place, name, content) for name, content in settings)
    digest = hashlib.sha256(b"\0".join([*(content for _, content in settings), weights[1]])).hexdigest()
    tensors = tensors_in(weights[1], f"{place.name}: {weights[0]}", is_safetensors=weights[0].endswith(".safetensors"))
    return Files(place, metadata, inference, tensors, digest)


_Named = tuple[str, bytes]
_INFERENCE = ("configs/inference.json", "configs/inference.yaml", "configs/inference.yml")
_WEIGHTS = ("models/model.safetensors", "models/model.pt")


def _contents(place: Path) -> tuple[list[_Named], _Named]:
    try:
        if place.is_dir():
            return _chosen(place, {name: file for name in _wanted() if (file := place / name).is_file()}, _of_file)
        with zipfile.ZipFile(place) as archive:
            infos = {info.filename: info for info in archive.infolist()}
            roots = [name.removesuffix("configs/metadata.json") for name in infos if name.endswith(_wanted()[0])]
            if len(roots) != 1:
                raise RefusedBundle(f"{place.name} holds {len(roots)} bundles (configs/metadata.json), not one")
            there = {name: info for name in _wanted() if (info := infos.get(roots[0] + name))}
            return _chosen(place, there, lambda info: _of_zip(archive, info))
    except (OSError, zipfile.BadZipFile) as error:
        raise RefusedBundle(f"{place.name} is no bundle: it is neither a folder nor a zip that can be read") from error


def _wanted() -> tuple[str, ...]:
    return ("configs/metadata.json", *_INFERENCE, *_WEIGHTS, "models/model.ts")


def _of_file(file: Path) -> bytes:
    if file.stat().st_size > LARGEST:
        raise RefusedBundle(f"{file.name} is larger than {LARGEST >> 30} GiB")
    return file.read_bytes()


def _of_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.file_size > LARGEST:
        raise RefusedBundle(f"{info.filename} is larger than {LARGEST >> 30} GiB")
    return archive.read(info)


def _chosen(place: Path, there: Mapping[str, Any], content: Any) -> tuple[list[_Named], _Named]:
    inference = next((name for name in _INFERENCE if name in there), None)
    weights = next((name for name in _WEIGHTS if name in there), None)
    if "configs/metadata.json" not in there or inference is None:
        missing = "configs/metadata.json" if inference else "configs/inference.json"
        raise RefusedBundle(f"{place.name} is no bundle: it has no {missing}")
    if weights is None:
        also = "; models/model.ts is TorchScript, a program, and is not run" if "models/model.ts" in there else ""
        raise RefusedBundle(f"{place.name} has no models/model.safetensors and no models/model.pt{also}")
    settings = [(name, content(there[name])) for name in ("configs/metadata.json", inference)]
    return settings, (weights, content(there[weights]))


def _table(place: Path, name: str, content: bytes) -> dict[str, Any]:
    try:
        held = json.loads(content) if name.endswith(".json") else _yaml(content, place, name)
    except (ValueError, UnicodeDecodeError) as error:
        raise RefusedBundle(f"{place.name}: {name} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(held, dict):
        raise RefusedBundle(f"{place.name}: {name} is no table of entries")
    return held


def _yaml(content: bytes, place: Path, name: str) -> Any:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise RefusedBundle(f"{place.name}: {name} needs PyYAML (pip install 'wetread[monai]')") from error
    try:
        return yaml.safe_load(content)  # makes numbers, words, lists and tables, and nothing else
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
