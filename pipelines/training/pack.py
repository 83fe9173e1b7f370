"""Trained members to one shipped file with its card: the last step before a pipeline can use them.

The operating points come in from ``operate``; what the model is for and what it showed is written by hand beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipelines.imaging import CANVAS, CHANNELS, LIMIT, MARGIN, SEQUENCES
from pipelines.models.eighths import SCALE
from pipelines.models.shipped import Member

# The variance of a batch norm can be beyond 65,504, the largest number of half precision; a scale below its least.
_EXACT = ("running_mean", "running_var", SCALE)
LARGEST = 20 * 1024 * 1024  # bytes that the project ships for one pipeline


@dataclass(frozen=True)
class OperatingPoint:
    """What turns probabilities into an outline and a certainty, chosen on folds of train.

    Attributes:
        certainty: Offset and slope of the logistic fit on the lesion score.
        present_from: Certainty from which a finding is called present.
    """

    threshold: float
    smallest_cm3: float
    smallest_share: float
    certainty: tuple[float, float]
    present_from: float


def facts_of(member: Path) -> dict[str, str]:
    """What the header of a member's weights says: its network, and the fold that it left out and its seed.

    Raises:
        ValueError: If they do not say of which network they are.
    """
    with safe_open(member, framework="pt") as held:
        facts: dict[str, str] = held.metadata() or {}
    if "network" not in facts:
        raise ValueError(f"the weights {member} do not say of which network they are: they are not of `train`")
    return facts


def pack(members: Sequence[Path], card: Path, point: OperatingPoint, *, name: str, version: str) -> Path:
    """Write ``card`` (JSON) and the weights beside it; members' tensors are named ``0.…``, ``1.…``.

    Raises:
        ValueError: If they are too large together to be shipped.
    """
    tensors: dict[str, Tensor] = {}
    networks: list[str] = []
    for place, member in enumerate(members):
        networks.append(facts_of(member)["network"])
        tensors |= {f"{place}.{key}": value for key, value in load_file(member).items()}
    weights = _save(tensors, card.with_suffix(".safetensors"), name, version)
    held_by_card = {
        "name": name,
        "version": version,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "networks": networks,
        **asdict(point),
        "inputs": {
            "sequences": SEQUENCES,
            "channels": [{"sequence": SEQUENCES[s], "slices_away": away} for s, away in CHANNELS],
            "mirrored": "the last channel, left to right",
            "canvas": CANVAS,
            "margin": MARGIN,
            "normalisation": f"z-score inside the head over the volume, 1st to 99th percentile, clipped at {LIMIT}",
        },
        "threshold_from": "folds of train",
    }
    card.write_text(json.dumps(held_by_card, indent=1) + "\n")
    return weights


def pack_roles(
    members: Sequence[Member],
    tensors: dict[str, Tensor],
    points: dict[str, Any],
    card: Path,
    *,
    name: str,
    version: str,
) -> Path:
    """Write ``card`` as ``shipped.ModelCard`` reads it, and the weights beside it, in half precision where not in less.

    Args:
        tensors: Those of the first member are named ``0.…``, of the second ``1.…``.
        points: Operating points by role.

    Raises:
        ValueError: If they are too large together to be shipped.
    """
    halves = {
        key: (value.half() if value.is_floating_point() and not key.endswith(_EXACT) else value).contiguous()
        for key, value in tensors.items()
    }
    weights = _save(halves, card.with_suffix(".safetensors"), name, version)
    held = {
        "name": name,
        "version": version,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "networks": [asdict(member) for member in members],
        "points": points,
    }
    card.write_text(json.dumps(held, indent=1) + "\n")
    return card


def _save(tensors: dict[str, Tensor], weights: Path, name: str, version: str) -> Path:
    part = weights.with_suffix(".part")
    save_file(tensors, part, metadata={"model": f"{name} {version}"})
    if part.stat().st_size > LARGEST:
        raise ValueError(
            f"the weights of {name} have {part.stat().st_size} bytes; {LARGEST} is the most that is shipped"
        )
    part.chmod(0o644)  # safetensors makes it readable by its owner alone
    part.replace(weights)
    return weights
