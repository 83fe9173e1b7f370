"""``wetread pipelines``: which pipelines are on, off or in shadow, and switching them."""

from __future__ import annotations

import json
import sys
import time

import click
from rich.table import Table

from node.actions import MODES
from node.cli.acts import acting, json_option, said
from node.cli.options import out, person, routes_of, settings_of
from node.cli.queue import opened
from node.web.modes import modes_of
from node.web.words import moment


@click.group()
def pipelines() -> None:
    """List the pipelines of the settings, and switch them on, off, or to shadow.

    \b
    Example: wetread pipelines list
             wetread pipelines switch ct_head shadow --reason "new scanner"
    """


@pipelines.command("list")
@json_option
@click.pass_context
def list_pipelines(context: click.Context, as_json: bool) -> None:
    """Show how each pipeline is switched, by whom, and what became of its jobs of the last 24 hours.

    \b
    Example: wetread pipelines list
    """
    routes, now = routes_of(settings_of(context)), time.time()
    with opened(context) as ledger:
        modes = modes_of(routes, ledger.switched())
        counts = ledger.pipeline_counts(ledger.now() - 86400)
    if as_json:
        rows = [
            {"name": name, "mode": way.mode, "since": way.since, "reason": way.reason, "jobs": counts.get(name, {})}
            for name, way in modes.items()
        ]
        json.dump(rows, sys.stdout)
        sys.stdout.write("\n")
        return
    table = Table("Pipeline", "Is", "Since", "Why", "Last 24 hours")
    for name, way in modes.items():
        by = "the settings" if way.since is None else moment(way.since, now)
        jobs = ", ".join(f"{count} {word}" for word, count in sorted(counts.get(name, {}).items()))
        table.add_row(name, way.mode, by, way.reason, jobs)
    out.print(table)


@pipelines.command()
@click.argument("pipeline")
@click.argument("mode", type=click.Choice(MODES))
@click.option("--reason", default="", help="Why; it stands beside the pipeline.")
@json_option
@click.pass_context
def switch(context: click.Context, pipeline: str, mode: str, reason: str, as_json: bool) -> None:
    """Switch a pipeline on, off or to shadow, or back to what the settings say; no restart is needed.

    In shadow it reads, and its results are shown on the study's page, but nothing is sent and no study is moved up.
    What waits for a pipeline that is switched off is cancelled; `wetread retry` has it read once it is on again.

    \b
    Example: wetread pipelines switch ct_head shadow
    """
    with acting(context) as actions:
        said(actions.switch(pipeline, mode, by=person(), reason=reason), as_json)
