"""Weights from elsewhere, to start a training from: read without running anything that they hold, and named as ours.

A file is safetensors, or what ``torch.save`` writes as far as ``weights_only=True`` reads it: a pickle that holds more
than tensors is refused, not opened. Names of torchvision are ours already; those of timm's MobileNetV2 and
EfficientNet-Lite, and of the latter's package ``efficientnet_lite_pytorch``, are turned into them; batch norms are
folded into the convolutions before them, or unfolded, as the network has them that is to be started.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor
from torch.nn.utils.fusion import fuse_conv_bn_weights

LEAST = 0.9  # share of the encoder's tensors that a file must give
_NESTED = ("state_dict", "model_state_dict", "model", "net", "network_weights", "state_dict_ema")
_EPS = 1e-5  # of our batch norms
_LITE_EPS = 1e-3  # of those of EfficientNet-Lite, as TensorFlow trained it


class RefusedWeights(ValueError):
    """A checkpoint that nothing is started from; the sentence says why."""


@dataclass(frozen=True)
class Origin:
    """A checkpoint file, and the SHA-256 that it must have; None: any."""

    file: Path
    sha256: str | None = None

    @classmethod
    def parse(cls, text: str) -> Origin:
        """``FILE`` or ``FILE@sha256``.

        Raises:
            RefusedWeights: If there is no such file, or what follows the ``@`` is no SHA-256.
        """
        if Path(text).is_file():
            return cls(Path(text))
        name, at, digest = text.rpartition("@")
        if not at or not Path(name).is_file():
            raise RefusedWeights(f"{name if at else text}: there is no such file to start from")
        if not re.fullmatch("[0-9a-fA-F]{64}", digest):
            raise RefusedWeights(f"{text}: after the @ stands the SHA-256 of the file, 64 hexadecimal digits")
        return cls(Path(name), digest.lower())

    @property
    def digest(self) -> str:
        """The SHA-256 that the file has."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest()


def checkpoint(origin: Origin) -> dict[str, Tensor]:
    """The tensors of a file by its own names.

    Raises:
        RefusedWeights: If it is another file than was asked for, cannot be read, or holds more than tensors.
    """
    try:
        content = origin.file.read_bytes()
    except OSError as error:
        raise RefusedWeights(f"{origin.file} cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(content).hexdigest()
    if origin.sha256 not in (None, digest):
        raise RefusedWeights(f"{origin.file} is another file: its SHA-256 is {digest}, not {origin.sha256}")
    return tensors_in(content, str(origin.file), is_safetensors=origin.file.suffix == ".safetensors")


def tensors_in(content: bytes, file: str, *, is_safetensors: bool) -> dict[str, Tensor]:
    """The tensors of a file that has been read, by its own names; ``file`` is how the sentences call it.

    Raises:
        RefusedWeights: If it is none, or holds more than tensors.
    """
    if is_safetensors:
        try:
            tensors: dict[str, Tensor] = load(content)
        except SafetensorError as error:
            raise RefusedWeights(f"{file} is no safetensors file: {str(error).splitlines()[0]}") from error
        return tensors
    try:
        held = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RefusedWeights(f"{file} is refused: {_why(error)}") from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise RefusedWeights(f"{file} is no checkpoint that torch can read") from error
    return _tensors(held, file)


def _why(error: Exception) -> str:
    named = re.search(r"(?:GLOBAL|global|Unsupported class|class) ([\w.]+)", str(error))
    what = f" ({named[1]})" if named else ""
    return f"it holds Python objects beside tensors{what}, and to load those is to run them"


def _tensors(held: object, file: str) -> dict[str, Tensor]:
    """A state dict, wherever the usual trainings put it."""
    for _ in range(3):
        if isinstance(held, Mapping) and (key := next((each for each in _NESTED if _is_dict(held.get(each))), None)):
            held = held[key]
    found = {str(name): each for name, each in held.items() if isinstance(each, Tensor)} if _is_dict(held) else {}  # type: ignore[attr-defined]
    if not found:
        raise RefusedWeights(f"{file} holds no tensors by name")
    return found


def _is_dict(held: object) -> bool:
    return isinstance(held, Mapping)


def as_ours(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under our names: of all ways to read the names, the one by which most are ``own``."""
    return max(_readings(given), key=lambda reading: sum(name in own for name in reading))


def _readings(given: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """As they are; under each prefix, as ``module.``, ``encoder.`` or the number of a member; in each dialect."""
    prefixes = dict.fromkeys(
        ".".join(name.split(".")[:depth]) + "." for depth in (1, 2, 3) for name in given if name.count(".") > depth
    )
    for prefix in ("", *prefixes):
        under = {name.removeprefix(prefix): each for name, each in given.items() if name.startswith(prefix)}
        for dialect in _DIALECTS:
            yield dialect(under)
        yield {f"features.{name}": each for name, each in under.items()}


def _timm_mobilenet(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's MobileNetV2 → torchvision's names."""
    blocks = sorted({(int(m[1]), int(m[2])) for name in given if (m := re.match(r"blocks\.(\d+)\.(\d+)\.", name))})
    renamed = {
        "conv_stem.": "features.0.0.",
        "bn1.": "features.0.1.",
        "conv_head.": f"features.{len(blocks) + 1}.0.",
        "bn2.": f"features.{len(blocks) + 1}.1.",
        "classifier.": "classifier.1.",
    }
    for place, (stage, block) in enumerate(blocks, start=1):
        start = f"blocks.{stage}.{block}."
        expands = any(name.startswith(f"{start}conv_pwl.") for name in given)
        layers = _EXPANDED if expands else _PLAIN
        renamed |= {f"{start}{theirs}.": f"features.{place}.conv.{ours}." for theirs, ours in layers.items()}
    return _renamed(given, renamed)


_PLAIN = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1", "bn2": "2"}
_EXPANDED = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "conv_pwl": "2", "bn3": "3"}


def _renamed(given: dict[str, Tensor], layers: dict[str, str]) -> dict[str, Tensor]:
    """``layers``: our name of a layer by theirs, both with the dot at the end."""
    return {layers.get(_parted(name)[0], _parted(name)[0]) + _parted(name)[1]: each for name, each in given.items()}


def _parted(name: str) -> tuple[str, str]:
    head, dot, last = name.rpartition(".")
    return head + dot, last


def _unfolded_mobilenet(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """A MobileNetV2 without batch norms → one with: the bias moves there, and in eval mode nothing changes."""
    made: dict[str, Tensor] = {}
    for name, each in given.items():
        head, last = _parted(name)
        stem, _, number = head.rstrip(".").rpartition(".")
        if last != "bias" or not name.startswith("features.") or not number.isdigit():
            made[name] = each
            continue
        norm = f"{stem}.{int(number) + 1}."
        made |= {
            f"{norm}weight": torch.ones_like(each),
            f"{norm}bias": each,
            f"{norm}running_mean": torch.zeros_like(each),
            f"{norm}running_var": torch.full_like(each, 1 - _EPS),
        }
    return made


def _lite(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """``efficientnet_lite_pytorch`` → torchvision's names, as if it had an EfficientNet-Lite."""
    blocks = len({name.split(".")[1] for name in given if name.startswith("_blocks.")})
    renamed = {
        "_conv_stem.": "features.0.0.",
        "_bn0.": "features.0.1.",
        "_conv_head.": f"features.{blocks + 1}.0.",
        "_bn1.": f"features.{blocks + 1}.1.",
    }
    for place in range(blocks):
        start = f"_blocks.{place}."
        layers = _LITE_EXPANDED if f"{start}_expand_conv.weight" in given else _LITE_PLAIN
        renamed |= {f"{start}{theirs}.": f"features.{place + 1}.conv.{ours}." for theirs, ours in layers.items()}
    return _renamed(given, renamed)


_LITE_PLAIN = {"_depthwise_conv": "0.0", "_bn1": "0.1", "_project_conv": "1", "_bn2": "2"}
_LITE_EXPANDED = {
    "_expand_conv": "0.0", "_bn0": "0.1", "_depthwise_conv": "1.0", "_bn1": "1.1", "_project_conv": "2", "_bn2": "3"
}  # fmt: skip


def _folded(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """A network of convolutions and batch norms by turns → one of convolutions alone that gives the same answers."""
    made = dict(given)
    eps = _LITE_EPS if any(each.shape[1:] == (1, 5, 5) for each in given.values()) else _EPS
    for name in [name for name in given if name.endswith(".running_var")]:
        norm = _parted(name)[0]
        stem, _, number = norm.rstrip(".").rpartition(".")
        conv = f"{stem}.{int(number) - 1}." if number.isdigit() else ""
        if f"{conv}weight" not in made or f"{norm}weight" not in made:
            continue
        mean, variance, gain, shift = (made[norm + each] for each in ("running_mean", "running_var", "weight", "bias"))
        made[f"{conv}weight"], made[f"{conv}bias"] = fuse_conv_bn_weights(
            made[f"{conv}weight"], None, mean, variance, eps, gain, shift
        )
        for last in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            made.pop(norm + last, None)
    return made


_DIALECTS: tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], ...] = (
    dict,
    _timm_mobilenet,
    _unfolded_mobilenet,
    _folded,
    lambda given: _folded(_timm_mobilenet(given)),
    lambda given: _folded(_lite(given)),
)


def refuse_strangers(own: Mapping[str, Tensor], taken: frozenset[str], given: Mapping[str, Tensor], file: Path) -> None:
    """
    Raises:
        RefusedWeights: If less than ``LEAST`` of the encoder's tensors came from the file; it lists those that did not.
            The encoder is what is named ``features.…``; a network without such is all encoder.
    """
    encoder = [name for name in own if name.startswith("features.")] or list(own)
    encoder = [name for name in encoder if not name.endswith("num_batches_tracked")]
    missing = [name for name in encoder if name not in taken]
    if len(missing) <= (1 - LEAST) * len(encoder):
        return
    shapes = {name: tuple(each.shape) for name, each in own.items()}
    said = [
        f"{name} {shapes[name]}: the file has {tuple(given[name].shape)}" if name in given else f"{name} {shapes[name]}"
        for name in missing
    ]
    raise RefusedWeights(
        f"{file} does not fit: it gives {len(encoder) - len(missing)} of the encoder's {len(encoder)} tensors, at "
        f"least {LEAST:.0%} are needed. Not given:\n  " + "\n  ".join(said)
    )
