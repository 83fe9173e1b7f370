"""The training loop, from the first batch to the averaged weights; killed at any moment, it goes on where it was.

The learning rate follows the share of the budget that is spent (of seconds, or of epochs), so it is zero at the end of
a run that spends all of it, and not of one that is killed or stops early. What is kept is the mean of two: the averaged
weights at the best check on the fold, and those at the last check. What is learnt is a ``Task``: here are no pictures,
no labels and no loss.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pipelines.models import store
from pipelines.models.folding import laid_out
from pipelines.models.foreign import Origin
from pipelines.models.norms import normed, plain
from pipelines.models.precision import half_pays
from pipelines.training.attack import attacked
from pipelines.training.placing import keep_freed, moved


class OtherRun(ValueError):
    """The checkpoint to go on from is of a run with other options."""


class Task(Protocol):
    """What is learnt, and from what.

    Attributes:
        measure: What ``judge`` gives, in words: "mean volume Dice".
        facts: What the header of the weights says beside network, fold and seed; text alone.
    """

    @property
    def measure(self) -> str: ...

    @property
    def facts(self) -> dict[str, str]: ...

    @property
    def batches(self) -> int:
        """Of an epoch."""

    def network(self) -> nn.Module:
        """Untrained, and the same after the same ``torch.manual_seed``."""

    def draw(self, step: int) -> tuple[Tensor, Any]:
        """A batch for the network, and its truth; from ``step`` and the run's seed alone."""

    def loss(self, outputs: Any, truth: Any) -> Tensor:
        """Of what the network made of the batch."""

    def judge(self, net: nn.Module) -> float | None:
        """How good the network is on the pictures kept apart, more is better; None where none were."""


@dataclass(frozen=True)
class Options:
    """What a run is.

    Two runs with equal options and pictures give equal weights only where ``epochs`` is the budget, on one machine with
    one number of threads.
    """

    network: str = "squeeze"
    batch: int = 16
    rate: float = 2e-3
    encoder_rate: float = 5e-4  # of parameters that come from ``init``
    warm_up: float = 0.03  # share of the budget
    weight_decay: float = 0.02
    average: float = 0.998  # decay of the moving average of the weights
    checks: int = 20  # how often the fold is judged
    patience: int = 8  # checks without a better Dice before the run ends early
    budget_seconds: float | None = 3000.0
    epochs: int | None = None
    seed: int = 0
    fold: int | None = 4
    device: str = "cpu"  # that the network is on; "cuda": a GPU
    hardened: float = 0.0  # how far an attack may move each value of a batch before it is learnt from


@dataclass(frozen=True)
class Progress:
    """Where a run stands, for whoever watches."""

    step: int
    share: float  # of the budget, 0 to 1
    loss: float
    score: float | None  # on the fold, of the averaged weights
    seconds_left: float
    note: str = ""


@dataclass(frozen=True)
class TrainResult:
    """What came of a run."""

    weights: Path  # the mean of the averaged weights at the best check and at the last
    best: float | None  # score on the fold, of the averaged weights at the best check: not of that mean
    steps: int
    seconds: float


_KEPT = ("step", "seconds", "best", "checked", "since_best", "curve", "given", "init_sha256")


@dataclass
class _State:
    """All that a checkpoint holds."""

    net: nn.Module
    averaged: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    best: float | None = None
    checked: int = 0  # the last check that was made
    since_best: int = 0
    curve: list[dict[str, float | None]] = field(default_factory=list)
    given: list[str] = field(default_factory=list)  # parameters that other weights gave: they have a rate of their own
    init_sha256: str = ""  # of those weights

    def save(self, file: Path) -> None:
        part = file.with_suffix(".part")
        held = {
            "net": self.net.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **{name: getattr(self, name) for name in _KEPT},
        }
        torch.save(held, part)
        part.replace(file)

    def load(self, held: dict[str, Any]) -> None:
        for name in ("net", "averaged", "optimizer"):
            getattr(self, name).load_state_dict(held.pop(name))
        for name, value in held.items():
            setattr(self, name, value)


def fit(
    task: Task,
    out: Path,
    options: Options,
    *,
    init: Path | str | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
) -> TrainResult:
    """Learn a task; write ``weights.safetensors`` and ``curve.json`` into ``out``.

    Raises:
        OtherRun: If the checkpoint to resume is of a run with another network, fold, seed or batch.
        RefusedWeights: If ``init`` cannot be started from.
    """
    keep_freed()
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, weights, best = out / "checkpoint.pt", out / "weights.safetensors", out / "best.safetensors"
    goes_on = resume and checkpoint.exists()
    if goes_on:
        _refuse_another(out / "options.json", options)
    else:
        checkpoint.unlink(missing_ok=True)  # or a later resume would take it for one of this run
    (out / "options.json").write_text(json.dumps(asdict(options), indent=1))
    held: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True) if goes_on else {}
    state = _start(task, options, init, held)
    if goes_on:
        state.load(held)
    total = options.epochs * task.batches if options.epochs else None
    facts = _facts(options) | task.facts | ({"init_sha256": state.init_sha256} if state.init_sha256 else {})
    begun, before = time.monotonic(), state.seconds
    losses: list[float] = []
    while (share := _share(state, options, total)) < 1.0:
        _set_rate(state.optimizer, share, options)
        losses.append(_one_step(state, task, options))
        state.seconds = before + time.monotonic() - begun
        if state.step % 25 == 0:
            left = state.seconds / max(share, 1e-6) * (1 - share)
            progress(Progress(state.step, share, sum(losses[-100:]) / len(losses[-100:]), None, left))
        share = _share(state, options, total)
        if (check := int(share * options.checks)) > state.checked:
            state.checked = check
            score = _check(state, task, facts, best)
            store.save(plain(mean_of(best, state.averaged)), weights, facts)
            mean_loss = sum(losses) / len(losses)
            losses = []
            state.curve.append({"step": state.step, "seconds": state.seconds, "loss": mean_loss, "score": score})
            (out / "curve.json").write_text(json.dumps(state.curve, indent=1))
            state.save(checkpoint)
            progress(Progress(state.step, min(1.0, share), mean_loss, score, state.seconds / share * (1 - share)))
            if score is not None and state.since_best >= options.patience:
                break
    return TrainResult(weights, state.best, state.step, state.seconds)


def _refuse_another(file: Path, options: Options) -> None:
    """The budget may be extended on the way; what is learnt, and by whom it is judged, may not change."""
    held = json.loads(file.read_text()) if file.exists() else {}
    for name in ("network", "fold", "seed", "batch"):
        if name not in held or held[name] != getattr(options, name):
            raise OtherRun(
                f"the checkpoint in {file.parent} is of a run with {name} {held.get(name, 'unknown')}, "
                f"not {getattr(options, name)}: it cannot go on from there"
            )


def _facts(options: Options) -> dict[str, str]:
    """What the weights' own header says: ``ship`` must know which patients a member has not seen."""
    fold = "none" if options.fold is None else str(options.fold)
    said = {"network": options.network, "fold": fold, "seed": str(options.seed)}
    return said | ({"hardened": str(options.hardened)} if options.hardened else {})


def mean_of(best: Path, last: nn.Module) -> nn.Module:
    """A network half way between weights on disk and ``last``: flatter, so steadier on new patients (Izmailov 2018)."""
    mean, earlier = copy.deepcopy(last), store.tensors_of(best)
    with torch.no_grad():
        for name, value in mean.state_dict().items():
            if value.is_floating_point():
                value.add_(earlier[name].to(value.device)).div_(2)
    return mean


def _start(task: Task, options: Options, init: Path | str | None, held: dict[str, Any]) -> _State:
    """``held``: the checkpoint that is gone on from, if there is one; then ``init`` has no say any more.

    From scratch the features learn with batch norms, where they have none: without, they hardly begin to.
    """
    torch.manual_seed(options.seed)
    net = task.network()
    if any(".norm." in name for name in held["net"]) if held else init is None:
        normed(net)
    given: Collection[str] | None = held.get("given")
    digest = ""
    if given is None:
        given = store.initialise(net, init) if init else frozenset()
        digest = Origin.parse(str(init)).digest if init else ""
    laid_out(net.to(options.device))
    groups = [
        {"params": [p for name, p in net.named_parameters() if (name in given) == known], "scale": scale}
        for known, scale in ((False, 1.0), (True, options.encoder_rate / options.rate))
    ]
    optimizer = torch.optim.AdamW(
        [g for g in groups if g["params"]], lr=options.rate, weight_decay=options.weight_decay
    )
    return _State(net, copy.deepcopy(net).eval(), optimizer, given=sorted(given), init_sha256=digest)


def _share(state: _State, options: Options, total: int | None) -> float:
    if total is not None:
        return state.step / total
    return state.seconds / (options.budget_seconds or 1.0)


def _set_rate(optimizer: torch.optim.Optimizer, share: float, options: Options) -> None:
    """Linear warm-up, then half a cosine to zero."""
    rate = options.rate * min(1.0, (share + 1e-3) / options.warm_up) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def _one_step(state: _State, task: Task, options: Options) -> float:
    images, truth = moved(task.draw(state.step), options.device)
    state.net.train()
    torch.manual_seed(options.seed * 1_000_003 + state.step)  # dropout, the same after a resume

    def lost(batch: Tensor) -> Tensor:
        with torch.autocast(options.device.split(":")[0], torch.bfloat16, enabled=half_pays(options.device)):
            outputs = state.net(batch)
        return task.loss(outputs, truth)

    if options.hardened:  # one step from a random start does nearly what many do (Wong et al. 2020)
        images = attacked(
            images, lost, bound=options.hardened, inside=(float(images.min()), float(images.max())), steps=1
        )
    loss = lost(images)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.net.parameters(), 1.0)
    state.optimizer.step()
    state.step += 1
    decay = min(options.average, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        mean, now = list(state.averaged.state_dict().values()), list(state.net.state_dict().values())
        pairs = [(a, b) for a, b in zip(mean, now, strict=True) if a.is_floating_point()]
        torch._foreach_lerp_([a for a, _ in pairs], [b for _, b in pairs], 1 - decay)
        for a, b in zip(mean, now, strict=True):
            if not a.is_floating_point():
                a.copy_(b)
    return float(loss.detach())


def _check(state: _State, task: Task, facts: dict[str, str], best: Path) -> float | None:
    """Judge the averaged weights and keep them when they are the best; where nothing was kept apart, always."""
    score = task.judge(state.averaged)
    if score is None or state.best is None or score > state.best:
        store.save(state.averaged, best, facts)
        state.best, state.since_best = score, 0
    else:
        state.since_best += 1
    return score
