"""``wetread adapt``: a site's own version of a classifier, from its pictures alone."""

from __future__ import annotations

import re
from pathlib import Path

import click
from rich.progress import TaskID

from node.cli.life import bar
from node.cli.options import chosen_routes, existing_folder, out, routes_of, settings_of
from node.errors import BadSettings, NodeError


@click.command()
@click.argument("pipeline")
@click.option("--data", required=True, help="Folder of DICOM studies of the site; no labels are needed.")
@click.option("--reference", required=True, help="Folder of DICOM studies as those that the model was validated on.")
@click.option("--site", required=True, help="A name for the site: letters and digits; it becomes part of the version.")
@click.option("--out", "target", required=True, type=click.Path(path_type=Path), help="Where the package goes.")
@click.pass_context
def adapt(context: click.Context, pipeline: str, data: str, reference: str, site: str, target: Path) -> None:
    """Make a site's version of a pipeline that classifies, by the statistics of its pictures.

    Nothing is put in use: `wetread evaluate` it, then `wetread models import` and `promote`. Networks that outline
    stay as they are: no remedy without labels has helped them (benchmarks/adaptation_outlines.md).

    \b
    Example: wetread adapt ct_head --data ours --reference validated --site stmary --out package
    """
    if not re.fullmatch(r"[A-Za-z0-9]{1,24}", site):
        raise BadSettings(f"--site {site}: 1 to 24 letters and digits")
    routes = chosen_routes(routes_of(settings_of(context)), (pipeline,))
    from pipelines import registry
    from pipelines.study import read_folder
    from pipelines.training import adapt as adapting

    reader = registry.load(routes[pipeline].use)
    folders = existing_folder(reference), existing_folder(data)
    try:
        with bar() as progress:
            found = []
            for folder in folders:
                task = progress.add_task(f"{folder.name}: reading", total=None)

                def show(said: str, task: TaskID = task, name: str = folder.name) -> None:
                    progress.update(task, description=f"{name}: {said}")

                studies, _ = read_folder(folder)
                found.append(adapting.features_of(reader, studies, show))
        names = (folders[0].name, folders[1].name)
        made = adapting.package(reader, found[0], found[1], name=site, of=names, out=target)
    except adapting.Unadaptable as reason:
        raise NodeError(f"{pipeline} is not adapted: {reason}") from reason
    out.print(f"{made}\nNot in use. Judge it first, then: wetread models import {made}", soft_wrap=True)
