"""The shipped networks of a pipeline, loaded once and kept warm: images in, probabilities out.

Reads the card beside the weights and refuses weights that are not the ones it names. The number of threads is whoever
runs it to say; the device is the GPU where there is one.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.imaging import CANVAS, CHANNELS, stack
from pipelines.models.folding import folded, laid_out
from pipelines.models.precision import PAYS, half_pays
from pipelines.models.store import DamagedWeights, tensors_of
from pipelines.models.unet import NETWORKS


def _is_number(value: object, low: float = -math.inf, high: float = math.inf) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and low <= value <= high  # type: ignore[arg-type,operator]


def _is_share(value: object) -> bool:
    return _is_number(value, 0, 1)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


# What a card must say: each key with its rule, and the rule in words.
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (_is_text, "a name"),
    "version": (_is_text, "a version"),
    "sha256": (lambda v: isinstance(v, str) and bool(re.fullmatch("[0-9a-f]{64}", v)), "a SHA-256 in hexadecimal"),
    "networks": (
        lambda v: isinstance(v, list) and bool(v) and all(isinstance(n, str) and n in NETWORKS for n in v),
        f"a list of networks ({', '.join(NETWORKS)})",
    ),
    "threshold": (_is_share, "a number from 0 to 1"),
    "smallest_cm3": (lambda v: _is_number(v, 0), "a volume of 0 or more"),
    "smallest_share": (_is_share, "a number from 0 to 1"),
    "certainty": (lambda v: isinstance(v, list) and len(v) == 2 and all(map(_is_number, v)), "two numbers"),
    "present_from": (_is_share, "a number from 0 to 1"),
}
AGREEMENT = 0.999  # share of pixels on the same side of the threshold that half precision must keep


@dataclass(frozen=True)
class Card:
    """The machine-readable half of a model card: what must be known to use the weights.

    Attributes:
        networks: Architecture of each member; its tensors are named ``0.…``, ``1.…`` in the file.
        threshold: Probability above which a pixel is lesion, chosen on folds of train.
        smallest_cm3, smallest_share: Components below either (the second of the largest one) are dropped.
        certainty: Offset and slope of the logistic fit on the lesion score.
        present_from: Certainty from which a finding is called present.
        sha256: Of the weights file.
        digest: Of the weights and of all that the card says: another threshold is another device.
    """

    name: str
    version: str
    sha256: str
    networks: tuple[str, ...]
    threshold: float
    smallest_cm3: float
    smallest_share: float
    certainty: tuple[float, float]
    present_from: float
    digest: str

    @classmethod
    def read(cls, file: Path) -> Card:
        """
        Raises:
            DamagedWeights: If the card cannot be read or a value on it is impossible; the sentence names the key.
        """
        try:
            held = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise DamagedWeights(f"the model card {file} cannot be read: {error}") from error
        if not isinstance(held, dict):
            raise DamagedWeights(f"the model card {file} cannot be read: it holds no keys")
        for key, (is_right, what) in _RULES.items():
            if key not in held:
                raise DamagedWeights(f"the model card {file} has no {key!r}")
            if not is_right(held[key]):
                raise DamagedWeights(f"the model card {file}: {key!r} is {held[key]!r}, not {what}")
        content = json.dumps(held, sort_keys=True, separators=(",", ":"))  # however it is indented
        return cls(
            **{key: held[key] for key in _RULES if key not in ("networks", "certainty")},
            networks=tuple(held["networks"]),
            certainty=(held["certainty"][0], held["certainty"][1]),
            digest=hashlib.sha256(f"{held['sha256']}\n{content}".encode()).hexdigest(),
        )


class Ensemble:
    """Networks whose probabilities are averaged, over the image and its mirror image."""

    def __init__(self, card: Card, weights: Path, *, device: str | None = None) -> None:
        """
        Raises:
            DamagedWeights: If ``weights`` is missing, or not byte for byte the file that the card names.
        """
        try:
            digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        except OSError as error:
            raise DamagedWeights(f"the weights {weights} cannot be read: {error.strerror}") from error
        if digest != card.sha256:
            raise DamagedWeights(f"the weights {weights} are damaged: their SHA-256 is {digest}, not {card.sha256}")
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        tensors = tensors_of(weights)
        self._nets = [self._member(kind, str(place), tensors) for place, kind in enumerate(card.networks)]
        self._halves: list[nn.Module] = []
        self._threshold = card.threshold
        self._half: bool | None = True if self.device == "cuda" else None  # None: not yet probed

    def _member(self, kind: str, place: str, tensors: dict[str, Tensor]) -> nn.Module:
        net: nn.Module = NETWORKS[kind](len(CHANNELS))
        own = {name.removeprefix(f"{place}."): v for name, v in tensors.items() if name.startswith(f"{place}.")}
        try:
            net.load_state_dict(own)
        except RuntimeError as error:
            raise DamagedWeights(
                f"the weights have no network {place} of the kind {kind!r} that the card names"
            ) from error
        return laid_out(folded(net).to(self.device))

    @property
    def members(self) -> list[nn.Module]:
        """The networks, for explanation and evaluation."""
        return self._nets

    @property
    def uses_half_precision(self) -> bool:
        """Whether bfloat16 is used: on a GPU; on a CPU where a probe showed that it is faster and agrees."""
        if self._half is None:
            self._half = half_pays(self.device) and self._probe()
        return self._half

    @torch.inference_mode()
    def _probe(self) -> bool:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(4, len(CHANNELS), *CANVAS, generator=generator).to(memory_format=torch.channels_last)
        seconds, sides = {False: float("inf"), True: float("inf")}, {}
        for turn in range(6):  # the best of three each: the first warms up, and other work may come between
            half, begun = bool(turn % 2), time.perf_counter()
            sides[half] = self._members(x, half=half) > self._threshold
            seconds[half] = min(seconds[half], time.perf_counter() - begun)
        agreement = float((sides[False] == sides[True]).float().mean())
        return seconds[True] < PAYS * seconds[False] and agreement >= AGREEMENT

    def _members(self, x: Tensor, *, half: bool) -> Tensor:
        """(N, CHANNELS, rows, columns) → probabilities (N, rows, columns)."""
        if half and not self._halves:
            self._halves = [copy.deepcopy(net).bfloat16() for net in self._nets]
        nets, x = (self._halves, x.bfloat16()) if half else (self._nets, x)
        logits = [net(image)[0].float() for net in nets for image in (x, x.flip(-1))]
        unflipped = [logit.flip(-1) if place % 2 else logit for place, logit in enumerate(logits)]
        return torch.stack([logit.sigmoid() for logit in unflipped]).mean(0)[:, 0]

    @torch.inference_mode()
    def probabilities(self, images: Tensor, *, step: int = 1, batch: int = 8) -> Tensor:
        """float32 (frames, rows, columns) of images (frames, sequences, rows, columns) on the canvas.

        Args:
            step: How many slices away a neighbour lies, where slices are much thinner than those trained on.
        """
        half, out = self.uses_half_precision, []
        for places in torch.split(torch.arange(images.shape[0]), batch):
            x = stack(images, places, step=step).float().to(self.device, memory_format=torch.channels_last)
            out.append(self._members(x, half=half).cpu())
        return torch.cat(out)
