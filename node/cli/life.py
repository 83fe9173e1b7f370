"""``wetread train`` and ``wetread evaluate``: the life cycle of a model, with progress and pictures."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from node.cli.options import chosen_routes, console, existing_folder, out, routes_of, settings_of
from node.errors import BadSettings, NodeError

if TYPE_CHECKING:  # torch is loaded by the commands that need it
    from pipelines.training.loop import Progress as Step


def seconds_of(text: str) -> float:
    """``90``, ``90s``, ``30m``, ``2h`` as seconds.

    Raises:
        BadSettings: If it is none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not match:
        raise BadSettings(f"--budget {text}: a time, as 90s, 30m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def bar() -> Progress:
    """The line that shows how far a long work is."""
    return Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console)


def steps_on(line: Progress) -> Callable[[Step], None]:
    """What shows there how far a training is."""
    task = line.add_task("reading the studies", total=1.0)

    def show(now: Step) -> None:
        judged = "" if now.score is None else f", {now.score:.3f} on the fold"
        text = now.note or f"step {now.step}, loss {now.loss:.3f}{judged}, {now.seconds_left / 60:.0f} min left"
        line.update(task, completed=now.share, description=text)

    return show


@click.command()
@click.argument("pipeline")
@click.option("--data", required=True, help="Folder of DICOM studies with index.csv, as the README describes.")
@click.option("--labels", help="Folder that the mask column of index.csv is relative to; default: --data.")
@click.option("--out", "target", required=True, type=click.Path(path_type=Path), help="Where the run lies.")
@click.option("--budget", help="How long to train: 90s, 30m, 2h; default: what the recipe says.")
@click.option("--epochs", type=click.IntRange(1), help="Instead of a time: repeatable.")
@click.option("--part", help="Which of its networks, where it has several; default: the first.")
@click.option("--split", "splits", multiple=True, default=("train",), show_default=True, help="Rows to learn from.")
@click.option(
    "--fold", default="4", show_default=True, type=click.Choice([*"01234", "none"]), help="Kept apart, judged on."
)
@click.option("--init", metavar="FILE[@SHA256]", help="Weights to start from: safetensors, or a checkpoint of torch.")
@click.option("--teacher", type=click.Path(path_type=Path), help="Weights that outline pictures which nobody did.")
@click.option("--seed", default=0, show_default=True)
@click.option("--device", help="cpu, or cuda; default: a GPU where there is one.")
@click.option(
    "--hardened",
    default=0.0,
    type=click.FloatRange(0, 0.5),
    help="Learn from pictures that an attack has moved by this share of white.",
)
@click.option("--resume", is_flag=True, help="Go on where a stopped run left off.")
def train(
    pipeline: str, data: str, labels: str | None, target: Path, budget: str | None, epochs: int | None,
    part: str | None, splits: tuple[str, ...], fold: str, init: str | None, teacher: Path | None, seed: int,
    device: str | None, hardened: float, resume: bool,
) -> None:  # fmt: skip
    """Train a pipeline's network on labelled studies; resumable, with a learning curve as a picture.

    \b
    Example: wetread train mr_brain --data studies --labels set --out runs/first --fold 0 --budget 30m
    """
    from pipelines.training.train import train as train_pipeline

    if budget and epochs:
        raise BadSettings("--budget and --epochs: one of them")
    seconds = seconds_of(budget) if budget else None
    with bar() as line:
        show = steps_on(line)
        try:
            result = train_pipeline(
                pipeline,
                existing_folder(data),
                target,
                labels=existing_folder(labels or data),
                part=part,
                splits=splits,
                budget_seconds=seconds,
                epochs=epochs,
                seed=seed,
                fold=None if fold == "none" else int(fold),
                init=init,
                teacher=teacher,
                device=device,
                hardened=hardened,
                resume=resume,
                progress=show,
            )
        except ValueError as error:
            raise NodeError(str(error)) from error
    judged = "" if result.best is None else f", best {result.best:.3f} on the fold"
    out.print(f"{result.steps} steps in {result.seconds / 60:.1f} min{judged}: {result.weights}")


@click.command()
@click.argument("pipeline")
@click.option("--data", required=True, help="Folder of DICOM studies with index.csv, as the README describes.")
@click.option("--labels", help="Folder that the mask column of index.csv is relative to; default: --data.")
@click.option("--split", default="dev", show_default=True, help="Which split of index.csv.")
@click.option("--part", help="Judge only this part of the pipeline; default: all that the set can judge.")
@click.option("--prevalence", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="For predictive values.")
@click.option("--by", multiple=True, metavar="COLUMN", help="A column of index.csv to look at apart; may be repeated.")
@click.option("--out", "target", required=True, type=click.Path(path_type=Path), help="Where the report goes.")
@click.pass_context
def evaluate(
    context: click.Context, pipeline: str, data: str, labels: str | None, split: str, part: str | None,
    prevalence: float | None, by: tuple[str, ...], target: Path,
) -> None:  # fmt: skip
    """Judge a pipeline on labelled studies, through DICOM: a page with intervals, subgroups and pictures.

    \b
    Example: wetread evaluate mr_brain --data studies --labels set --split dev --out report
             wetread evaluate xc_skin --data studies --out report --prevalence 0.02 --by sex
    """
    from pipelines import registry
    from pipelines.training.evaluate import Asked
    from pipelines.training.evaluate import evaluate as evaluate_pipeline
    from pipelines.training.page import summary
    from pipelines.training.truths import columns_of, judged

    route = chosen_routes(routes_of(settings_of(context)), (pipeline,))[pipeline]
    folder, marked = existing_folder(data), existing_folder(labels or data)
    with bar() as line:
        task = line.add_task("reading the studies", total=None)

        def show(done: int, of: int) -> None:
            line.update(task, completed=done, total=of, description=f"study {done} of {of}")

        try:
            reader = registry.load(route.use)
            if pipeline == "mr_brain":  # its patients are read with sequences taken away too
                from pipelines.training.evaluate_brain import evaluate as evaluate_brain

                evaluate_brain(
                    reader, folder, split, target, labels=marked,
                    progress=lambda text: line.update(task, description=text),
                )  # fmt: skip
                said = (target / "report.md").read_text()
            else:
                parts = judged(pipeline, part, columns_of(folder))
                asked = Asked(split, prevalence, by)
                report = evaluate_pipeline(reader, parts, folder, target, labels=marked, asked=asked, progress=show)
                said = summary(report)
        except ValueError as error:
            raise NodeError(str(error)) from error
    out.print(said, markup=False, soft_wrap=True)
    out.print(f"the whole report: {target / 'report.html'}", markup=False, soft_wrap=True)


@click.command()
@click.argument("pipeline")
@click.argument("folder")
@click.option("--out", "target", required=True, type=click.Path(path_type=Path), help="Where the pictures go.")
@click.option("--labels", help="The folder of masks: FOLDER has an index.csv, and it is said how often the maps hit.")
@click.option("--split", help="Only rows of this split of index.csv.")
@click.option("--class", "wanted", help="This class only, there or not; default: those said to be there.")
@click.option(
    "--grid", default=8, show_default=True, type=click.IntRange(0, 32), help="Hide so many parts across; 0: none."
)
@click.option("--most", default=20, show_default=True, type=click.IntRange(1), help="Studies at most.")
@click.pass_context
def explain(
    context: click.Context, pipeline: str, folder: str, target: Path, labels: str | None, split: str | None,
    wanted: str | None, grid: int, most: int,
) -> None:  # fmt: skip
    """Show where a pipeline looks: per picture its own map and one by occlusion, and how often they hit what is drawn.

    \b
    Example: wetread explain ct_head /media/cd --out maps
             wetread explain us_breast studies --out maps --labels set --split dev
    """
    from node.cli.explaining import maps

    route = chosen_routes(routes_of(settings_of(context)), (pipeline,))[pipeline]
    source, marks = existing_folder(folder), existing_folder(labels) if labels else None
    with bar() as line:
        task = line.add_task("reading the studies", total=None)

        def show(done: int, of: int) -> None:
            line.update(task, completed=done, total=of, description=f"study {done} of {of}")

        try:
            said = maps(
                pipeline, route.use, source, target, labels=marks, split=split, wanted=wanted, grid=grid, most=most,
                progress=show,
            )  # fmt: skip
        except ValueError as error:
            raise NodeError(str(error)) from error
    for each in said:
        out.print(each, markup=False, soft_wrap=True)
