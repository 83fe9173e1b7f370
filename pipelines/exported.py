"""A pipeline from settings alone: a graph of ``torch.export`` that says which classes a picture shows, and its card.

    [pipelines.ours]
    use = "pipelines.exported:Exported"
    card = "ours-1.0.0.json"     # beside it ours-1.0.0.pt2, made for one picture: (1, channels, rows, columns)
    when = { Modality = ["CR", "DX"], BodyPartExamined = "CHEST" }

Both files are data: nothing that they hold is run but the operations that ``models.graph`` knows. The card::

    {"name": "ours", "version": "1.0.0", "sha256": "…",
     "reads": {"what": "a chest radiograph", "modalities": ["CR", "DX"], "parts": ["CHEST"]},
     "look": {"canvas": [224, 224], "colour": true, "mean": [0.485, 0.456, 0.406], "deviation": [0.229, 0.224, 0.225]},
     "classes": [{"label": "opacity", "code": ["…", "SCT", "…"], "cutoff": 0.5}], "exclusive": false}

``look`` is as ``pictures.Look``, and what the network is then scaled by; ``exclusive``: softmax, else sigmoid.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import torch
from pydicom.sr.coding import Code

from pipelines.base import Algorithm, Findings, WithheldStudy
from pipelines.domain import Domain, class_findings
from pipelines.evidence import codes
from pipelines.models.graph import Graph
from pipelines.models.store import DamagedWeights
from pipelines.pictures import Look, pictures
from pipelines.pixels import BadPixels
from pipelines.study import Study


class Exported:
    """Reads single pictures and stacks picture by picture; a run for each series."""

    def __init__(self, card: Path | None = None) -> None:
        """
        Raises:
            DamagedWeights: If the card cannot be read or lacks something, or the graph is not the one that it names.
            RefusedWeights: If the graph holds what is not run here.
        """
        if card is None:
            raise DamagedWeights('which card? write card = "ours-1.0.0.json" into the pipeline\'s table')
        try:
            content = card.read_bytes()
            held = json.loads(content)
            self._name, self._version, sha256 = str(held["name"]), str(held["version"]), held["sha256"]
            self._domain, self._look = _domain(held["reads"]), _look(held["look"])
            self._scale = _scale(held["look"], self._look.channels)
            self._classes, self._points = _classes(held["classes"])
            self._exclusive = bool(held.get("exclusive", False))
        except OSError as error:
            raise DamagedWeights(f"the model card {card} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedWeights(f"the model card {card} lacks {error}, or has it in another form") from error
        graph = card.with_suffix(".pt2")
        digest = hashlib.sha256(graph.read_bytes()).hexdigest() if graph.is_file() else "none, for it is not there"
        if digest != sha256:
            raise DamagedWeights(f"the SHA-256 of {graph} is {digest}, not {sha256}")
        self._graph = Graph(graph)
        self._digest = hashlib.sha256(content).hexdigest()  # the card names the graph by its digest

    @property
    def algorithm(self) -> Algorithm:
        return Algorithm(self._name, self._version, codes.ARTIFICIAL_INTELLIGENCE, self._digest)

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        runs = []
        for series in self._domain.series(study):
            begun = time.perf_counter()
            try:
                found = [
                    finding
                    for picture in pictures(series)
                    for finding in class_findings(
                        self._chances(self._look.at(picture.pixels).image), self._points, self._classes,
                        sop_uids=(picture.sop_uid,),
                    )
                ]  # fmt: skip
            except BadPixels as reason:
                raise WithheldStudy(f"a picture cannot be read: {reason}") from reason
            stages = {"network": time.perf_counter() - begun}
            runs.append(Findings(series, tuple(found), (series,), stages=stages))
        return tuple(runs)

    def _chances(self, image: torch.Tensor) -> list[float]:
        mean, deviation = self._scale
        logits = self._graph(((image - mean) / deviation)[None])[0].float()
        if logits.shape != (len(self._classes),):
            raise WithheldStudy(f"the graph gives {tuple(logits.shape)}, not one number for each class of the card")
        chances: list[float] = (logits.softmax(0) if self._exclusive else logits.sigmoid()).tolist()
        return chances


def _domain(held: dict[str, Any]) -> Domain:
    parts = frozenset(str(each).upper() for each in held.get("parts", ()))
    return Domain(str(held["what"]), frozenset(held["modalities"]), parts, str(held.get("words", "")))


def _look(held: dict[str, Any]) -> Look:
    rows, columns = (int(each) for each in held["canvas"])
    window = tuple(float(each) for each in held["window"]) if held.get("window") else None
    if window is not None and len(window) != 2:
        raise ValueError("'window': two values")
    return Look((rows, columns), bool(held.get("colour", False)), window, bool(held.get("stretch", False)))


def _scale(held: dict[str, Any], channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    mean, deviation = held.get("mean", [0.0] * channels), held.get("deviation", [1.0] * channels)
    if len(mean) != channels or len(deviation) != channels or not all(deviation):
        raise ValueError(f"'mean' and 'deviation': {channels} numbers each")
    return torch.tensor(mean).view(-1, 1, 1), torch.tensor(deviation).view(-1, 1, 1)


def _classes(held: list[dict[str, Any]]) -> tuple[dict[str, Code], dict[str, Any]]:
    found = {}
    for each in held:
        value, scheme, meaning = (str(part) for part in each["code"])
        found[str(each["label"])] = codes.declared(value, scheme, meaning, "TID 1501")
    cutoffs = {str(each["label"]): float(each["cutoff"]) for each in held}
    return found, {"classes": list(found), "cutoffs": cutoffs}
