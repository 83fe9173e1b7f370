"""``wetread twins``: what it is worth to start from other weights, with curves of label efficiency."""

from __future__ import annotations

from pathlib import Path

import click

from node.cli.life import bar
from node.cli.options import existing_folder, out
from node.errors import NodeError


@click.command()
@click.argument("pipeline")
@click.option("--data", required=True, help="Folder of DICOM studies with index.csv, as the README describes.")
@click.option("--labels", help="Folder that the mask column of index.csv is relative to; default: --data.")
@click.option(
    "--init",
    "inits",
    required=True,
    multiple=True,
    metavar="[NAME=]FILE[@SHA256]",
    help="Weights that a twin starts from; may be repeated: the later are also compared with the first.",
)
@click.option("--out", "target", required=True, type=click.Path(path_type=Path), help="Where curves and figures go.")
@click.option("--part", help="Which of its networks, where it has several; default: the first.")
@click.option("--network", help="Instead of the recipe's, as squeeze_classifier.")
@click.option("--side", type=click.IntRange(32), help="Rows of the pictures, fewer than the pipeline's: sooner done.")
@click.option(
    "--share",
    "shares",
    multiple=True,
    type=click.FloatRange(0, 1, min_open=True),
    default=(0.1, 0.25, 0.5, 1.0),
    show_default=True,
    help="Of the patients to learn from; may be repeated.",
)
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(2), help="How many twins of each.")
@click.option("--steps", default=150, show_default=True, type=click.IntRange(1), help="Of each run.")
@click.option("--frozen", is_flag=True, help="The last layer alone learns: minutes instead of hours.")
@click.option("--fold", default=4, show_default=True, type=click.IntRange(0, 4), help="Kept apart, and judged on.")
def twins(
    pipeline: str, data: str, labels: str | None, inits: tuple[str, ...], target: Path, part: str | None,
    network: str | None, side: int | None, shares: tuple[float, ...], seeds: int, steps: int, fold: int,
    frozen: bool,
) -> None:  # fmt: skip
    """Train a network from other weights and its twin from scratch, on growing shares of the patients, and compare.

    What is done already is not done again: a stopped comparison goes on with the same command.

    \b
    Example: wetread twins xc_skin --data studies --init ImageNet=mobilenet_v2.safetensors --side 96 --out twins
    """
    from pipelines.training.twins import Plan, compare

    plan = Plan(tuple(sorted(set(shares))), tuple(range(seeds)), steps, fold, network, side, frozen)
    with bar() as line:
        task = line.add_task("reading the studies", total=None)

        def show(done: int, of: int, what: str) -> None:
            line.update(task, completed=done, total=of or None, description=what)

        try:
            report = compare(
                pipeline, existing_folder(data), target, labels=existing_folder(labels or data), inits=inits,
                plan=plan, part=part, progress=show,
            )  # fmt: skip
        except ValueError as error:
            raise NodeError(str(error)) from error
    for row in report["differences"]:
        means = f"{row['mean']:.3f} {row['start']}, {row['mean_beside']:.3f} {row['beside']}"
        interval = f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f}, {row['seeds']} seeds)"
        who = f"{row['share']:4.0%} of the patients ({row['patients']})"
        out.print(f"{who}: {report['measure']} {means}; difference {interval}", markup=False, soft_wrap=True)
    out.print(f"the curves: {target / 'twins.png'}", markup=False, soft_wrap=True)
