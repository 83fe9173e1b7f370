"""The shipped networks of a pipeline, by role: loaded once, checked against their card, kept warm.

A pipeline may have several networks, as one that classifies and one that outlines; of each there may be several
members, trained without different folds, whose probabilities are averaged. The card is data: which networks with which
arguments, the digest of their tensors, and the operating points that the pipeline goes by. Tensors in, tensors out.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.models.folding import folded, laid_out
from pipelines.models.kinds import KINDS
from pipelines.models.precision import half_pays
from pipelines.models.store import DamagedWeights, tensors_of


@dataclass(frozen=True)
class Member:
    """One network of a file; its tensors are named ``0.…``, ``1.…`` by its place on the card."""

    role: str
    kind: str
    args: dict[str, Any]


@dataclass(frozen=True)
class ModelCard:
    """The machine-readable half of a model card.

    Attributes:
        points: Operating points and whatever else the pipeline decides by, by role.
        digest: Of the weights and of all that the card says: another threshold is another device.
    """

    name: str
    version: str
    sha256: str
    members: tuple[Member, ...]
    points: dict[str, Any]
    digest: str

    @classmethod
    def read(cls, file: Path) -> ModelCard:
        """
        Raises:
            DamagedWeights: If the card cannot be read or lacks something; the sentence names it.
        """
        try:
            held = json.loads(file.read_text())
            members = tuple(Member(each["role"], each["kind"], dict(each["args"])) for each in held["networks"])
            name, version, sha256, points = held["name"], held["version"], held["sha256"], dict(held["points"])
        except (OSError, ValueError) as error:
            raise DamagedWeights(f"the model card {file} cannot be read: {error}") from error
        except (KeyError, TypeError) as error:
            raise DamagedWeights(f"the model card {file} lacks {error}, or has it in another form") from error
        if unknown := [each.kind for each in members if each.kind not in KINDS]:
            raise DamagedWeights(f"the model card {file} names the network {unknown[0]!r}; known: {', '.join(KINDS)}")
        if not re.fullmatch("[0-9a-f]{64}", str(sha256)):
            raise DamagedWeights(f"the model card {file}: 'sha256' is {sha256!r}, not a SHA-256 in hexadecimal")
        content = json.dumps(held, sort_keys=True, separators=(",", ":"))  # however it is indented
        digest = hashlib.sha256(f"{sha256}\n{content}".encode()).hexdigest()
        return cls(str(name), str(version), sha256, members, points, digest)


class Networks:
    """All networks of one card."""

    def __init__(self, card: ModelCard, weights: Path, *, device: str | None = None) -> None:
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
        self.card, self.weights = card, weights
        self._nets: dict[str, list[nn.Module]] = {}
        self._halves: dict[str, list[nn.Module]] = {}
        self._beside = tensors
        for place, member in enumerate(card.members):
            self._nets.setdefault(member.role, []).append(self._made(member, f"{place}.", tensors))

    def _made(self, member: Member, prefix: str, tensors: dict[str, Tensor]) -> nn.Module:
        net: nn.Module = KINDS[member.kind](**member.args)
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        try:
            net.load_state_dict(own)
        except RuntimeError as error:
            raise DamagedWeights(f"the weights have no network {prefix}… of the kind {member.kind!r}") from error
        return laid_out(folded(net).to(self.device))

    def members(self, role: str) -> list[nn.Module]:
        """The networks of a role, for explanation and evaluation."""
        return self._nets[role]

    def running(self, role: str) -> list[nn.Module]:
        """Those that ``logits`` asks: in half precision where that pays, weights and all, for nothing is then cast."""
        if not half_pays(self.device) or any(getattr(net, "reads_exactly", False) for net in self._nets[role]):
            return self._nets[role]
        if role not in self._halves:
            self._halves[role] = [copy.deepcopy(net).bfloat16() for net in self._nets[role]]
        return self._halves[role]

    def beside(self, role: str) -> dict[str, Tensor]:
        """Tensors of the file that belong to a role but to no network, as those of ``certainty.familiar``."""
        start = f"{role}."
        return {name.removeprefix(start): each for name, each in self._beside.items() if name.startswith(start)}

    @torch.inference_mode()
    def logits(self, role: str, images: Tensor, *, batch: int = 16) -> Tensor:
        """float32 (members, N, …) of images (N, channels, …): what each member makes of them."""
        return self.outputs(role, images, batch=batch)[0]

    @torch.inference_mode()
    def outputs(self, role: str, images: Tensor, *, batch: int = 16) -> list[Tensor]:
        """The same of networks that give more than logits, as those that say where: a tensor for each thing given."""
        nets = self.running(role)
        out: list[list[Tensor]] = []
        kind = next(nets[0].parameters()).dtype
        is_cast = kind == torch.float32 and half_pays(self.device)
        for part in torch.split(images, batch):
            x = part.to(self.device, kind)
            with torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=is_cast):
                each = [net(x) for net in nets]
            given = zip(*([one] if isinstance(one, Tensor) else one for one in each), strict=True)
            out.append([torch.stack([one.float() for one in of_members]).cpu() for of_members in given])
        return [torch.cat(parts, dim=1) for parts in zip(*out, strict=True)]


def finest(outputs: Tensor | list[Tensor]) -> Tensor:
    """The outlining networks give a list, finest first."""
    return outputs if isinstance(outputs, Tensor) else outputs[0]
