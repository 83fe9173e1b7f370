"""``wetread triage simulate``: what reading by triage would do to the waits of a site, before it is switched on."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
from rich.table import Table

from node.cli.options import out, settings_of
from node.errors import BadSettings, NodeError
from node.ledger import Ledger
from node.triage.picture import draw, spoken
from node.triage.simulate import GROUPS, Arrivals, Assumed, Measured, as_they_came, at_rate
from node.triage.simulate import simulate as simulated

FEWEST = 20  # arrivals: of fewer nothing can be said
SHARE = click.FloatRange(0, 1)


@click.group()
def triage() -> None:
    """Order by findings: what it would do to the waits.

    \b
    Example: wetread triage simulate ct_head --report report/report.json --prevalence 0.08 --readers 2
    """


@triage.command()
@click.argument("pipeline")
@click.option("--report", type=click.Path(path_type=Path), help="report.json of `wetread evaluate`: what was measured.")
@click.option("--finding", help="Which class of the report; default: its first.")
@click.option("--sensitivity", type=SHARE, help="In place of the report's; taken to be exact.")
@click.option("--specificity", type=SHARE)
@click.option("--prevalence", type=SHARE, help="Share of the site's studies; default: the report's, of a set.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Studies an hour, in place of the ledger's own.")
@click.option("--days", default=28.0, show_default=True, type=click.FloatRange(0, min_open=True), help="How many.")
@click.option("--readers", default=1, show_default=True, type=click.IntRange(1))
@click.option("--reading-minutes", default=8.0, show_default=True, type=click.FloatRange(0, min_open=True))
@click.option("--model-minutes", type=click.FloatRange(0), help="Until a flag is known; default: the ledger's median.")
@click.option("--replications", default=100, show_default=True, type=click.IntRange(10))
@click.option("--seed", default=0, show_default=True)
@click.option("--out", "target", type=click.Path(path_type=Path), help="Folder for triage.json and triage.png.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output, in place of the table.")
@click.pass_context
def simulate(
    context: click.Context, pipeline: str, report: Path | None, finding: str | None, sensitivity: float | None,
    specificity: float | None, prevalence: float | None, rate: float | None, days: float, readers: int,
    reading_minutes: float, model_minutes: float | None, replications: int, seed: int, target: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Replay the site's arrivals, or cases at a rate, through a reading list with triage and one without.

    \b
    Example: wetread triage simulate ct_head --report report/report.json --prevalence 0.08 --readers 2 --out sim
             wetread triage simulate ct_head --rate 12 --sensitivity 0.9 --specificity 0.85 --prevalence 0.05
    """
    measured = _measured(report, finding)
    for name, given in (("sensitivity", sensitivity), ("specificity", specificity)):
        if given is not None:
            measured[name] = Measured(given)
    if prevalence is not None:
        measured["prevalence"] = prevalence
    missing = [f"--{name}" for name in ("sensitivity", "specificity", "prevalence") if measured.get(name) is None]
    if missing:
        raise BadSettings(f"{' and '.join(missing)}: not given, and no --report says it")
    arrivals, own_minutes = (at_rate(rate, days), 0.0) if rate else _of_site(context, pipeline, days)
    minutes = own_minutes if model_minutes is None else model_minutes
    assumed = Assumed(**measured, readers=readers, reading_minutes=reading_minutes, model_minutes=minutes)
    try:
        result = simulated(assumed, arrivals, replications=replications, seed=seed)
    except ValueError as error:
        raise NodeError(f"nothing to simulate: {error}") from error
    if target is not None:
        _keep(result, target, pipeline)
    if as_json:
        json.dump(result, sys.stdout, indent=1)
        sys.stdout.write("\n")
        return
    _show(result, pipeline)
    if target is not None:
        out.print(f"the same as {target / 'triage.json'} and {target / 'triage.png'}", markup=False, soft_wrap=True)


def _measured(report: Path | None, finding: str | None) -> dict[str, Any]:
    """Sensitivity, specificity and prevalence of one class of a report."""
    if report is None:
        return {}
    try:
        classes = {each["name"]: each for each in json.loads(report.read_text())["classes"]}
        each = classes[finding] if finding else next(iter(classes.values()))
        there, n = int(each["positives"]), int(each["n"])
        return {
            "sensitivity": Measured(float(each["sensitivity"]["value"]), there),
            "specificity": Measured(float(each["specificity"]["value"]), n - there),
            "prevalence": there / n,
        }
    except (OSError, KeyError, TypeError, ValueError, StopIteration) as error:
        wanted = f" of {finding}" if finding else ""
        raise BadSettings(f"--report {report}: no sensitivity and specificity{wanted} in it") from error


def _of_site(context: click.Context, pipeline: str, days: float) -> tuple[Arrivals, float]:
    """The last ``days`` days of the ledger, and after how many minutes the pipeline has read a study, by its median."""
    node = settings_of(context).node
    if node.database is None and not (node.folder / "ledger.sqlite").exists():
        raise NodeError(f"no ledger under {node.folder} to replay: has a node run here? Or give --rate")
    ledger = Ledger(node.database_url)
    ledger.upgrade()
    try:
        came = ledger.came(pipeline, since=time.time() - days * 86400)
    finally:
        ledger.close()
    if len(came) < FEWEST:
        raise NodeError(
            f"the ledger has {len(came)} studies of the last {days:g} days that {pipeline} reads; "
            f"{FEWEST} are needed, or give --rate"
        )
    read_after = [one.read_after for one in came if one.read_after is not None]
    return as_they_came(np.array([one.at for one in came])), median(read_after) / 60 if read_after else 0.0


def _keep(result: dict[str, Any], target: Path, pipeline: str) -> None:
    target.mkdir(parents=True, exist_ok=True)
    (target / "triage.json").write_text(json.dumps(result, indent=1) + "\n")
    said = result["assumed"]
    title = (
        f"{pipeline}, sensitivity {said['sensitivity']['value']:.2f}, specificity {said['specificity']['value']:.2f}, "
        f"prevalence {said['prevalence']:.2f}: {said['arrivals']}; {said['readers']} reader(s), "
        f"busy {result['busy']:.0%} of the time"
    )
    try:
        draw(result, target / "triage.png", title=title)
    except ImportError as error:
        raise NodeError("the picture needs matplotlib (pip install wetread[train]); triage.json is written") from error


def _show(result: dict[str, Any], pipeline: str) -> None:
    assumed = result["assumed"]
    out.print(
        f"{pipeline}: {assumed['arrivals']}; {assumed['readers']} reader(s), {assumed['reading_minutes']:g} min each, "
        f"busy {result['busy']:.0%} of the time; a flag is known after {assumed['model_minutes']:.1f} min",
        soft_wrap=True,
    )
    for name in ("sensitivity", "specificity"):
        n = f" (measured on {assumed[name]['n']})" if assumed[name]["n"] else ""
        out.print(f"  {name} {assumed[name]['value']:.3f}{n}")
    out.print(f"  prevalence {assumed['prevalence']:.3f}")
    table = Table("mean wait, minutes", "without", "with triage", "change", "95th percentile", "with triage")
    for group in GROUPS:
        each = result["minutes"][group]
        table.add_row(
            group, *(spoken(each[key]) for key in ("mean_without", "mean_with", "change", "p95_without", "p95_with"))
        )
    out.print(table)
    out.print(
        f"in brackets: 95 % of {result['replications']} replications of {assumed['days']:.3g} days", soft_wrap=True
    )
    if exact := result["closed_form"]:
        out.print(
            f"closed form, flags known at once: {exact['without']:.1f} without; with triage {exact['positives']:.1f} "
            f"for positives, {exact['negatives']:.1f} for negatives",
            soft_wrap=True,
        )
    if result["busy"] >= 1:
        out.print("the readers cannot keep up with these arrivals: waits grow to the end of the replay")
