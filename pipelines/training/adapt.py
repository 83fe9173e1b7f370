"""A site's own version of a classifier: the statistics of its features brought to those of a reference, without labels.

    studies → the pipeline itself → what reaches the last layer → mean and deviation → that layer, changed → a package

Another scanner, another protocol shifts the features that the last layer decides by. Given pictures from where the
network is known to be right and pictures of the site, the layer is changed so that the site's features mean to it what
the reference's did. Where the site's patients differ, too (more of them ill), the shift that this takes away is partly
the finding itself: the card says so, and nothing is put in use by it. Networks that outline stay as they are
(``OUTLINES``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pipelines.base import UnsuitableStudy, WithheldStudy
from pipelines.carded import Carded
from pipelines.study import Study

FEWEST = 30  # pictures of either side: fewer say little of a thousand features
TRUST = 100.0  # pictures of the site at which half of the shift is taken away
_CLOSEST, _WIDEST = 0.5, 2.0  # times that a feature's deviation may be changed


OUTLINES = (
    "leaving an institution out cost outlines nothing that could be measured, and neither greys matched to the source, "
    "the site's batch norms nor pictures changed more at random made them better (benchmarks/adaptation_outlines.md); "
    "to learn from outlines of the site is what is left: wetread train"
)


class Unadaptable(ValueError):
    """This pipeline, or these pictures, do not serve; the sentence says why."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """Of the features of so many pictures: mean and deviation, (D,) each."""

    mean: Tensor
    deviation: Tensor
    count: int

    @classmethod
    def of(cls, features: Tensor) -> Statistics:
        """Features (N, D)."""
        return cls(
            features.mean(0), features.std(0) if len(features) > 1 else torch.zeros(features.shape[1]), len(features)
        )


def aligned(weight: Tensor, bias: Tensor, reference: Statistics, site: Statistics) -> tuple[Tensor, Tensor]:
    """The last layer (classes, D), (classes,) that does to the site's features what it did to the reference's.

    By ``n / (n + TRUST)`` of the way, n the site's pictures; deviations are changed by half to twice at most.
    """
    share = site.count / (site.count + TRUST)
    ratio = ((reference.deviation + 1e-3) / (site.deviation + 1e-3)).clamp(_CLOSEST, _WIDEST)
    scale = 1 + share * (ratio - 1)
    mean = site.mean + share * (reference.mean - site.mean)  # where the site's mean comes to lie
    return weight * scale, bias + weight @ (mean - scale * site.mean)


def features_of(
    pipeline: Any, studies: Iterable[Study], progress: Callable[[str], None] = lambda _: None
) -> list[Tensor]:
    """(N, D) for each member that classifies: what reaches its last layer while the pipeline reads.

    Raises:
        Unadaptable: If the pipeline has no such networks, or reads fewer than ``FEWEST`` pictures.
    """
    nets = [net for _, net in _heads(pipeline)]
    kept: list[list[Tensor]] = [[] for _ in nets]
    for number, study in enumerate(studies, start=1):
        seen: list[list[Tensor]] = [[] for _ in nets]
        hooks = [net.head.register_forward_pre_hook(_keeping(each)) for net, each in zip(nets, seen, strict=True)]
        try:
            pipeline(study)
        except (UnsuitableStudy, WithheldStudy):
            continue
        finally:
            for hook in hooks:
                hook.remove()
        for held, each in zip(kept, seen, strict=True):
            held += each
        progress(f"{number} studies, {sum(map(len, kept[0]))} pictures")
    found = [torch.cat(each) if each else torch.zeros(0, 1) for each in kept]
    if (count := min(map(len, found))) < FEWEST:
        raise Unadaptable(f"{count} pictures were read (each mirror image counts); at least {FEWEST} are needed")
    return found


def outlines(pipeline: Any) -> bool:
    """Whether it has networks that outline."""
    held = (pipeline, *vars(pipeline).values())
    carded = (each.card for each in held if isinstance(each, Carded))
    return hasattr(pipeline, "outline") or any(each.role == "outline" for card in carded for each in card.members)


def _why_not(pipeline: Any, otherwise: str) -> str:
    return f"it outlines, and says no class: {OUTLINES}" if outlines(pipeline) else otherwise


def carded_of(pipeline: Any) -> Carded:
    """Where a pipeline keeps its networks: itself, or an attribute.

    Raises:
        Unadaptable: If it has none that come by a card.
    """
    found = next((each for each in (pipeline, *vars(pipeline).values()) if isinstance(each, Carded)), None)
    if found is None:
        raise Unadaptable(_why_not(pipeline, "it has no networks by a model card of its own"))
    return found


def _keeping(held: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def keep(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        held.append(given[0].detach().float().cpu())

    return keep


def _heads(pipeline: Any) -> Iterator[tuple[int, Any]]:
    """Place on the card, network: those whose last layer is linear, named ``head``."""
    carded = carded_of(pipeline)
    places: dict[str, int] = {}
    found = []
    for place, member in enumerate(carded.card.members):
        number = places.get(member.role, 0)
        places[member.role] = number + 1
        net = carded.networks.running(member.role)[number]
        if isinstance(getattr(net, "head", None), nn.Linear):
            found.append((place, net))
    if not found:
        raise Unadaptable(_why_not(pipeline, "no network of this pipeline decides by one linear layer"))
    yield from found


def package(
    pipeline: Any, reference: list[Tensor], site: list[Tensor], *, name: str, of: tuple[str, str], out: Path
) -> Path:
    """Write the site's version: card, weights and the page for people; the card's path.

    Args:
        name: Of the site: it becomes part of the version, as ``1.1.0+name``.
        of: The folders of reference and site, in words.

    Raises:
        Unadaptable: If there is such a version here already.
    """
    card = carded_of(pipeline).card_file
    held = json.loads(card.read_text())
    with safe_open(card.with_suffix(".safetensors"), "pt") as file:
        facts = file.metadata() or {}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # it is no dict
    apart = []
    for (place, _), theirs, ours in zip(_heads(pipeline), reference, site, strict=True):
        weight, bias = (tensors[f"{place}.head.{part}"] for part in ("weight", "bias"))
        before, now = Statistics.of(theirs), Statistics.of(ours)
        made = aligned(weight.float(), bias.float(), before, now)
        for part, tensor in zip(("weight", "bias"), made, strict=True):
            tensors[f"{place}.head.{part}"] = tensor.to(weight.dtype).contiguous()
        apart.append(float(((now.mean - before.mean) / (before.deviation + 1e-3)).abs().mean()))
    version = f"{held['version']}+{name}"
    target = out / f"{held['name']}-{version}.json"
    if target.exists():
        raise Unadaptable(f"{target} is there already: give the site another name, or another folder")
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target.with_suffix(".safetensors"), metadata=facts | {"adapted": name})
    digest = hashlib.sha256(target.with_suffix(".safetensors").read_bytes()).hexdigest()
    counts = (len(reference[0]), len(site[0]))
    about = {"from": held["version"], "from_sha256": held["sha256"], "pictures": counts[1], "reference": counts[0]}
    page = card.with_suffix(".md")
    said = _page(held, version, digest, counts, of, apart)
    said += f"Its networks that outline are as they were: {OUTLINES}.\n\n" if outlines(pipeline) else ""
    said += page.read_text() if page.is_file() else ""
    target.with_suffix(".md").write_text(said)
    target.write_text(json.dumps(held | {"version": version, "sha256": digest, "adapted": about}, indent=1) + "\n")
    return target


def _page(
    held: dict[str, Any], version: str, digest: str, counts: tuple[int, int], of: tuple[str, str], apart: list[float]
) -> str:
    shifts = ", ".join(f"{each:.2f}" for each in apart)
    return f"""# Model card: {held["name"]} {version}

A site's version of {held["name"]} {held["version"]}, made without labels. Its networks are the same but for the last
layer, which was changed so that the site's features have the mean and deviation of the reference's.

| | |
| --- | --- |
| Weights | SHA-256 `{digest}`; of {held["version"]}: `{held["sha256"]}` |
| Site | {of[1]}: {counts[1]} pictures, mirror images counted |
| Reference | {of[0]}: {counts[0]} pictures |
| Features apart before | {shifts} deviations of the reference on average, network by network |
| Share of the shift taken away | {counts[1] / (counts[1] + TRUST):.0%} |

**Nobody has measured what it is worth.** Calibration, cutoffs and the limit of strangeness are those of
{held["version"]}, and so are the figures below. Where findings are more or less frequent at the site than in the
reference, part of the finding was taken away with the shift. Judge it on labelled pictures of the site
(`wetread evaluate`) before it is promoted; `wetread models rollback` goes back.

"""
