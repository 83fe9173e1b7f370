"""What it is worth to start from other weights: a network beside its twin from scratch, on shares of the patients.

    share × seed × (from scratch | from each ``init``) → as many steps each → score on one fold → curves, differences

A share is of the patients to learn from, the smaller within the larger; the fold that judges is the same, and whole.
From scratch the features learn with batch norms, where they have none: without, they hardly begin to. A run that was
done before, with the same plan, is not done again.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from statistics import stdev
from typing import Any

import torch
from safetensors import safe_open
from scipy import stats
from torch import Tensor

from pipelines.models import store
from pipelines.models.foreign import Origin
from pipelines.training.cases import fold_of
from pipelines.training.examples import Examples, group_of
from pipelines.training.frozen import drawn, features_of, fitted
from pipelines.training.loop import Options, fit
from pipelines.training.picture_tasks import Classify, Outline
from pipelines.training.pictures import pyplot
from pipelines.training.recipes import Sources, recipe

SCRATCH = "from scratch"


class BadPlan(ValueError):
    """Such a comparison cannot be made, or would say nothing."""


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Attributes:
        steps: Of every run, to the nearest whole epoch: who has fewer pictures sees them more often.
        network: Instead of the recipe's, of the same inputs and outputs.
        side: Rows of the pictures, fewer than the pipeline's own: so much sooner done.
        frozen: The features stay as they are, and the last layer alone learns (``frozen``); each seed draws its own
            patients. Only of networks that say what is there.
    """

    shares: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 150
    fold: int = 4
    network: str | None = None
    side: int | None = None
    frozen: bool = False


@dataclass(frozen=True)
class Start:
    """What a network begins with, and how the curves call it; without ``init`` at random."""

    name: str
    init: str | None = None
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Start:
        """``FILE``, ``FILE@sha256`` or ``NAME=`` before either; without a name the file's.

        Raises:
            RefusedWeights: If there is no such file.
        """
        name, equals, file = text.partition("=")
        if not equals or Path(text).is_file():
            name, file = "", text
        origin = Origin.parse(file)
        return cls(name or origin.file.stem, file, origin.digest)


@dataclass(frozen=True)
class Run:
    """One network that was trained: on how many patients and pictures, from what, and how well it does on the fold."""

    share: float
    patients: int
    pictures: int
    seed: int
    start: str
    score: float
    seconds: float


def compare(
    pipeline: str,
    data: Path,
    out: Path,
    *,
    labels: Path,
    inits: Sequence[str],
    plan: Plan,
    part: str | None = None,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> dict[str, Any]:
    """Train the twins; write ``twins.json`` and ``twins.png`` into ``out``, and return what the former holds.

    Args:
        data, labels, part: As in ``train``.
        inits: Weights that the others start from, each as ``Start.parse`` reads it.
        progress: Told how many runs of how many are done, and what comes now.

    Raises:
        BadPlan: If the pipeline does not read picture by picture, a share leaves too few of them, or weights have seen
            the fold that judges.
        NoSuchNetwork: If the plan's network cannot take the place of the recipe's.
        RefusedWeights, UnknownPipeline, NoLabels: As ``train``.
    """
    if len(plan.seeds) < 2:
        raise BadPlan("at least two seeds are needed: with one nobody can tell a difference from chance")
    chosen = recipe(pipeline, part)
    starts = (Start(SCRATCH), *map(Start.parse, inits))
    if len({start.name for start in starts}) < len(starts):
        raise BadPlan("two starts have one name: give each its own, as NAME=FILE")
    for start in starts[1:]:
        _refuse_who_saw_the_fold(start, plan.fold)
    said: Callable[[str], None] = lambda note: progress(0, 0, note)  # noqa: E731
    options = replace(
        chosen.options, fold=plan.fold, epochs=None, budget_seconds=None, checks=1, device="cpu", patience=99
    )
    task = chosen.task(Sources(data, labels, out / "cases", ("train",), said), options)
    if not isinstance(task, Classify | Outline):
        raise BadPlan(f"{pipeline} does not read picture by picture: its twins cannot be compared so")
    task = replace(
        task,
        kind=plan.network or task.kind,
        examples=task.examples.at_most(plan.side) if plan.side else task.examples,
    )
    if plan.frozen and not (isinstance(task, Classify) and hasattr(task.network(), "embed")):
        raise BadPlan(f"{task.kind} has no last layer that could learn alone")
    learn = _FrozenRuns(task, plan) if plan.frozen and isinstance(task, Classify) else None
    runs = []
    todo = [(share, seed, start) for share in plan.shares for seed in plan.seeds for start in starts]
    for place, (share, seed, start) in enumerate(todo):
        progress(place, len(todo), f"{share:.0%} of the patients, seed {seed}, {start.name}")
        runs.append(learn(share, seed, start) if learn else _run(task, options, out, plan, (share, seed, start)))
    progress(len(todo), len(todo), "done")
    pairs = [(each, starts[0]) for each in starts[1:]] + [(each, starts[1]) for each in starts[2:]]
    report = {
        "pipeline": pipeline,
        "part": part,
        "network": task.kind,
        "rows": task.examples.images.shape[2],
        "starts": {start.name: start.digest for start in starts},
        "measure": task.measure,
        "judged": {"fold": plan.fold, "pictures": len(task.judged), "patients": _patients(task.judged)},
        "plan": asdict(plan),
        "runs": [asdict(run) for run in runs],
        "differences": [
            _difference([run for run in runs if run.share == share], one.name, other.name)
            for share in plan.shares
            for one, other in pairs
        ],
    }
    text = json.dumps(report, indent=1)
    out.mkdir(parents=True, exist_ok=True)
    (out / "twins.json").write_text(text)
    _draw(runs, report, out / "twins.png")
    held: dict[str, Any] = json.loads(text)
    return held


def _refuse_who_saw_the_fold(start: Start, fold: int) -> None:
    """Weights of our own say in their header which patients they have not seen; others say nothing."""
    file = Origin.parse(str(start.init)).file
    if file.suffix != ".safetensors":
        return
    with safe_open(file, framework="pt") as held:
        facts: dict[str, str] = held.metadata() or {}
    if facts.get("fold", str(fold)) != str(fold):
        raise BadPlan(f"{file} did not leave out the fold {fold}, by which is judged: it left out {facts['fold']}")


def _run(task: Classify | Outline, options: Options, out: Path, plan: Plan, which: tuple[float, int, Start]) -> Run:
    share, seed, start = which
    settled = [plan.steps, plan.fold, task.kind, task.measure, list(task.examples.images.shape)]
    key = json.dumps([share, seed, start.name, start.digest, *settled])
    file = out / "runs" / f"{sha256(key.encode()).hexdigest()[:16]}.json"
    if file.exists():
        return Run(**json.loads(file.read_text()))
    part = within(task.examples, share, plan.fold)
    learnt = part.parted(plan.fold)[0]
    if len(learnt) < 2:
        raise BadPlan(f"{share:.0%} of the patients are {len(learnt)} pictures: too few to learn from")
    batches = math.ceil(len(learnt) / options.batch)
    options = replace(options, seed=seed, epochs=max(1, round(plan.steps / batches)))
    smaller = replace(task, examples=part, options=options)
    folder = file.with_suffix("")
    result = fit(smaller, folder, options, init=start.init)
    net = smaller.network()
    net.load_state_dict(store.tensors_of(result.weights))
    with torch.inference_mode():
        score = smaller.judge(net.eval())
    if score is None:
        raise BadPlan(f"fold {plan.fold} has nothing to judge by")
    run = Run(share, _patients(learnt), len(learnt), seed, start.name, round(score, 5), round(result.seconds, 1))
    file.write_text(json.dumps(asdict(run)))
    shutil.rmtree(folder)  # its weights are for the comparison alone
    return run


class _FrozenRuns:
    """Runs that share the features of a start; from scratch each seed has its own."""

    def __init__(self, task: Classify, plan: Plan) -> None:
        self.task, self.plan = replace(task, options=replace(task.options, fold=plan.fold)), plan
        self.learnt = task.examples.parted(plan.fold)[0]
        self.held: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}

    def __call__(self, share: float, seed: int, start: Start) -> Run:
        begun, key = time.perf_counter(), (start.name, 0 if start.init else seed)
        if key not in self.held:
            self.held[key] = features_of(self.task, start.init, seed)
        features, judged = self.held[key]
        places = drawn(self.learnt, share, seed)
        labels = self.learnt.labels[places]
        with torch.enable_grad():
            layer = fitted(features[places], labels, exclusive=self.task.exclusive)
        with torch.inference_mode():
            score = self.task.score(layer(judged))
        if score is None:
            raise BadPlan(f"fold {self.plan.fold} has nothing to judge by")
        patients = round(share * _patients(self.learnt))
        seconds = round(time.perf_counter() - begun, 1)
        return Run(share, patients, len(places), seed, start.name, round(score, 5), seconds)


def within(examples: Examples, share: float, fold: int) -> Examples:
    """The fold to judge by, and a share of the other patients, by a hash of each: more of them hold all the fewer."""
    kept = []
    for place, row in enumerate(examples.rows):
        group = group_of(row)
        chance = int.from_bytes(sha256(f"share {group}".encode()).digest()[:8], "big") / 2**64
        if fold_of(group) == fold or chance < share:
            kept.append(place)
    return examples.at(kept)


def _patients(examples: Examples) -> int:
    return len({group_of(row) for row in examples.rows})


def _difference(runs: Sequence[Run], one: str, other: str) -> dict[str, Any]:
    """How much better ``one`` is than ``other``, seed by seed, with Student's 95 % interval."""
    scores = {(run.seed, run.start): run.score for run in runs}
    seeds = sorted({run.seed for run in runs})
    each = [scores[seed, one] - scores[seed, other] for seed in seeds]
    mean, spread = sum(each) / len(each), stdev(each) / math.sqrt(len(each))
    reach = float(stats.t.ppf(0.975, len(each) - 1)) * spread
    means = [round(sum(scores[seed, start] for seed in seeds) / len(seeds), 4) for start in (one, other)]
    said: dict[str, Any] = {
        "share": runs[0].share,
        "patients": runs[0].patients,
        "pictures": runs[0].pictures,
        "seeds": len(each),
    }
    said |= {"start": one, "mean": means[0], "beside": other, "mean_beside": means[1]}
    return said | {"difference": round(mean, 4), "low": round(mean - reach, 4), "high": round(mean + reach, 4)}


def _draw(runs: Sequence[Run], report: dict[str, Any], file: Path) -> None:
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for place, start in enumerate(report["starts"]):
        colour = "tab:gray" if start == SCRATCH else f"C{place - 1}"
        own = [run for run in runs if run.start == start]
        axis.scatter([run.patients for run in own], [run.score for run in own], color=colour, s=14, alpha=0.6)
        counts = sorted({run.patients for run in own})
        means = [sum(r.score for r in own if r.patients == n) / sum(r.patients == n for r in own) for n in counts]
        axis.plot(counts, means, color=colour, marker="o", label=start)
    axis.set(
        xscale="log", xlabel="patients learnt from", ylabel=f"{report['measure']} on fold {report['plan']['fold']}"
    )
    counts = sorted({run.patients for run in runs})
    axis.set_xticks(counts, [str(count) for count in counts], minor=False)
    axis.minorticks_off()
    how = "the last layer alone" if report["plan"]["frozen"] else f"{report['plan']['steps']} steps"
    axis.set_title(f"{report['pipeline']}: {report['network']}, {how}", fontsize=10)
    axis.legend()
    figure.savefig(file, dpi=110)
    plt.close(figure)
