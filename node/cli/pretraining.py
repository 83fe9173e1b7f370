"""``wetread pretrain``: weights to start from, out of studies without labels."""

from __future__ import annotations

from pathlib import Path

import click

from node.cli.life import bar, seconds_of, steps_on
from node.cli.options import existing_folder, out
from node.errors import BadSettings, NodeError


@click.command()
@click.argument("pipeline")
@click.option(
    "--data",
    "folders",
    required=True,
    multiple=True,
    help="Folder of DICOM studies, with or without index.csv; may be repeated.",
)
@click.option("--out", "target", required=True, type=click.Path(path_type=Path), help="Where the run lies.")
@click.option("--budget", help="How long to learn: 90s, 30m, 2h; default: 30m.")
@click.option("--epochs", type=click.IntRange(1), help="Instead of a time: repeatable.")
@click.option("--part", help="Which of its networks, where it has several; default: the first.")
@click.option("--network", help="Instead of the recipe's, as squeeze_classifier.")
@click.option("--init", metavar="FILE[@SHA256]", help="Weights to start from, as ImageNet's; default: from scratch.")
@click.option("--side", type=click.IntRange(32), help="Rows of the pictures, fewer than the pipeline's: sooner done.")
@click.option("--split", "splits", multiple=True, default=("train",), show_default=True, help="Rows of an index.csv.")
@click.option(
    "--fold", default="4", show_default=True, type=click.Choice([*"01234", "none"]), help="Kept apart, judged on."
)
@click.option("--seed", default=0, show_default=True)
@click.option("--device", help="cpu, or cuda; default: a GPU where there is one.")
@click.option("--resume", is_flag=True, help="Go on where a stopped run left off.")
def pretrain(
    pipeline: str, folders: tuple[str, ...], target: Path, budget: str | None, epochs: int | None, part: str | None,
    network: str | None, init: str | None, side: int | None, splits: tuple[str, ...], fold: str, seed: int,
    device: str | None, resume: bool,
) -> None:  # fmt: skip
    """Teach a network's features on studies without labels: weights for `wetread train --init`.

    A network that says what is there learns to know a picture again; one that outlines, to restore what is hidden.
    Of clips and other objects of several frames the middle one is seen. Whether it helps, `wetread twins` says.

    \b
    Example: wetread pretrain us_breast --data studies --data clips --init mobilenet_v2.safetensors --out runs/prepared
             wetread train us_breast --data studies --init runs/prepared/pretrained.safetensors --out runs/first
    """
    from pipelines.training.pretrain import pretrain as pretrain_pipeline

    if budget and epochs:
        raise BadSettings("--budget and --epochs: one of them")
    seconds = seconds_of(budget) if budget else None
    with bar() as line:
        show = steps_on(line)
        try:
            made = pretrain_pipeline(
                pipeline,
                [existing_folder(each) for each in folders],
                target,
                part=part,
                network=network,
                init=init,
                budget_seconds=seconds,
                epochs=epochs,
                side=side,
                seed=seed,
                fold=None if fold == "none" else int(fold),
                splits=splits,
                resume=resume,
                device=device,
                progress=show,
            )
        except ValueError as error:
            raise NodeError(str(error)) from error
    judged = "" if made.score is None else f"; {made.measure}: {made.score:.3f} on the fold"
    said = f"{made.pictures} pictures, {made.steps} steps in {made.seconds / 60:.1f} min{judged}"
    out.print(f"{said}\n{made.weights}", markup=False, soft_wrap=True)
