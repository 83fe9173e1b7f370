"""What it is worth to start from other weights: a network beside its twin from scratch, on shares of the patients.

    share × seed × (from scratch | from ``init``) → as many steps each → score on one fold → curves, paired differences

A share is of the patients to learn from, the smaller within the larger; the fold that judges is the same, and whole.
A run that was done before, with the same plan, is not done again.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from scipy import stats

from pipelines.models import store
from pipelines.models.foreign import Origin
from pipelines.training.cases import fold_of
from pipelines.training.examples import Examples, group_of
from pipelines.training.loop import Options, fit
from pipelines.training.picture_tasks import Classify, Outline
from pipelines.training.pictures import pyplot
from pipelines.training.recipes import Sources, recipe

SCRATCH, GIVEN = "from scratch", "from other weights"


class BadPlan(ValueError):
    """Such a comparison cannot be made, or would say nothing."""


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Attributes:
        steps: Of every run, to the nearest whole epoch: who has fewer pictures sees them more often.
        network: Instead of the recipe's, of the same inputs and outputs: one that can learn from scratch.
    """

    shares: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 150
    fold: int = 4
    network: str | None = None


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
    init: str,
    plan: Plan,
    part: str | None = None,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> dict[str, Any]:
    """Train the twins; write ``twins.json`` and ``twins.png`` into ``out``, and return what the former holds.

    Args:
        data, labels, part: As in ``train``.
        init: Weights that one of each two starts from: a file, or ``FILE@sha256``.
        progress: Told how many runs of how many are done, and what comes now.

    Raises:
        BadPlan: If the pipeline does not read picture by picture, or a share leaves too few of them.
        RefusedWeights, UnknownPipeline, NoLabels: As ``train``.
    """
    if len(plan.seeds) < 2:
        raise BadPlan("at least two seeds are needed: with one nobody can tell a difference from chance")
    chosen = recipe(pipeline, part)
    said: Callable[[str], None] = lambda note: progress(0, 0, note)  # noqa: E731
    options = replace(
        chosen.options, fold=plan.fold, epochs=None, budget_seconds=None, checks=1, device="cpu", patience=99
    )
    task = chosen.task(Sources(data, labels, out / "cases", ("train",), said), options)
    if not isinstance(task, Classify | Outline):
        raise BadPlan(f"{pipeline} does not read picture by picture: its twins cannot be compared so")
    if plan.network:
        task = replace(task, kind=plan.network)
    digest = Origin.parse(init).digest
    runs = []
    todo = list(_todo(plan))
    for place, (share, seed, start) in enumerate(todo):
        progress(place, len(todo), f"{share:.0%} of the patients, seed {seed}, {start}")
        runs.append(_run(task, options, out, plan, (share, seed, start), init if start == GIVEN else None, digest))
    progress(len(todo), len(todo), "done")
    report = {
        "pipeline": pipeline,
        "part": part,
        "network": task.kind,
        "init_sha256": digest,
        "measure": task.measure,
        "judged": {"fold": plan.fold, "pictures": len(task.judged), "patients": _patients(task.judged)},
        "plan": asdict(plan),
        "runs": [asdict(run) for run in runs],
        "differences": [_difference([run for run in runs if run.share == share], share) for share in plan.shares],
    }
    text = json.dumps(report, indent=1)
    (out / "twins.json").write_text(text)
    _draw(runs, report, out / "twins.png")
    held: dict[str, Any] = json.loads(text)
    return held


def _todo(plan: Plan) -> Iterator[tuple[float, int, str]]:
    for share in plan.shares:
        for seed in plan.seeds:
            for start in (SCRATCH, GIVEN):
                yield share, seed, start


def _run(
    task: Classify | Outline,
    options: Options,
    out: Path,
    plan: Plan,
    which: tuple[float, int, str],
    init: str | None,
    digest: str,
) -> Run:
    share, seed, start = which
    key = json.dumps([*which, plan.steps, plan.fold, task.kind, digest, task.measure, len(task.examples)])
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
    result = fit(smaller, folder, options, init=init)
    net = smaller.network().eval()
    net.load_state_dict(store.tensors_of(result.weights))
    with torch.inference_mode():
        score = smaller.judge(net)
    if score is None:
        raise BadPlan(f"fold {plan.fold} has nothing to judge by")
    run = Run(share, _patients(learnt), len(learnt), seed, start, round(score, 5), round(result.seconds, 1))
    file.write_text(json.dumps(asdict(run)))
    shutil.rmtree(folder)  # its weights are for the comparison alone
    return run


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


def _difference(runs: Sequence[Run], share: float) -> dict[str, Any]:
    """How much better those that start from other weights are, seed by seed, with Student's 95 % interval."""
    scores = {(run.seed, run.start): run.score for run in runs}
    each = [scores[seed, GIVEN] - scores[seed, SCRATCH] for seed in sorted({run.seed for run in runs})]
    mean, spread = sum(each) / len(each), stats.tstd(each) / math.sqrt(len(each))
    reach = float(stats.t.ppf(0.975, len(each) - 1)) * float(spread)
    means = {start: sum(run.score for run in runs if run.start == start) / len(each) for start in (SCRATCH, GIVEN)}
    said = {"share": share, "patients": runs[0].patients, "pictures": runs[0].pictures, "seeds": len(each), **means}
    return said | {"difference": round(mean, 4), "low": round(mean - reach, 4), "high": round(mean + reach, 4)}


def _draw(runs: Sequence[Run], report: dict[str, Any], file: Path) -> None:
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for start, colour in ((SCRATCH, "tab:gray"), (GIVEN, "tab:blue")):
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
    axis.set_title(f"{report['pipeline']}: {report['network']}, {report['plan']['steps']} steps", fontsize=10)
    axis.legend()
    figure.savefig(file, dpi=110)
    plt.close(figure)
