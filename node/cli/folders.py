"""``wetread send`` and ``wetread read``: what one does with a folder of DICOM files."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from node import delivery, routing, sendable
from node.cli.options import chosen_routes, console, existing_folder, out, routes_of, settings_of
from node.errors import NodeError

if TYPE_CHECKING:
    from pipelines.reading import Run
    from pipelines.study import RefusedFile, Study


def progress(what: str) -> Progress:
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    return Progress(*columns, console=console, transient=not console.is_terminal)


@click.command()
@click.argument("folder")
@click.option("--host", help="Where to; default: the node of the settings.")
@click.option("--port", type=int, help="Its DICOM port.")
@click.option("--called", help="Its AE title.")
@click.option("--calling", default="WETREAD-SEND", show_default=True, help="Our AE title.")
@click.pass_context
def send(
    context: click.Context, folder: str, host: str | None, port: int | None, called: str | None, calling: str
) -> None:
    """Send a folder of DICOM files to the node by C-STORE, and say what was refused and why.

    \b
    Example: wetread send /media/cd --host 10.1.2.3 --port 11112 --called WETREAD
    """
    node = settings_of(context).node
    files = sorted(path for path in existing_folder(folder).rglob("*") if path.is_file() and path.name != "DICOMDIR")
    if not files:
        raise NodeError(f"{folder}: the folder is empty")
    peer = delivery.Destination(
        name="node",
        protocol="dimse",
        ae_title=called or node.ae_title,
        host=host or node.bind,
        port=port or node.dicom_port,
        calling_ae_title=calling,
        tls="required" if node.tls and not host else "off",
    )
    refused: dict[Path, str] = {}
    with tempfile.TemporaryDirectory() as scratch, progress("Sending") as bar:
        task = bar.add_task("", total=len(files))
        groups = sendable.by_study(files, Path(scratch), refused)
        bar.advance(task, len(refused))
        for objects in groups:
            sources = {item.sop_uid: item.source for item in objects}
            for answer in delivery.send(peer, [item.outgoing for item in objects]):
                bar.advance(task)
                if answer.verdict not in ("delivered", "warning"):
                    refused[sources[answer.sop_uid]] = answer.comment or f"status {answer.status}"
    for path, reason in sorted(refused.items()):
        console.print(f"refused {path}: {reason}", markup=False, soft_wrap=True)
    out.print(f"{len(files) - len(refused)} of {len(files)} files sent to {peer.ae_title} at {peer.host}:{peer.port}")
    if refused:
        raise NodeError(f"{len(refused)} of {len(files)} files were refused")


@click.command()
@click.argument("folder")
@click.option("--out", "target", required=True, type=click.Path(path_type=Path), help="Where the evidence goes.")
@click.option("--pipeline", "names", multiple=True, help="Only this pipeline, whatever the rules say; may be repeated.")
@click.option("--preset", default=None, type=click.Choice(["ohif", "air"]), help="How the SR shows regions.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.pass_context
def read(
    context: click.Context, folder: str, target: Path, names: tuple[str, ...], preset: str | None, as_json: bool
) -> None:
    """Run the pipelines on a folder of DICOM files and write the evidence to OUT: no node, no network.

    \b
    Example: wetread read /media/cd --out findings --pipeline mr_brain --json
    """
    from pipelines import study as studies  # loads numpy; the pipelines load torch

    routes = chosen_routes(routes_of(settings_of(context)), names)
    found, refused = studies.read_folder(existing_folder(folder))
    if not found and not refused:
        raise NodeError(f"{folder}: no DICOM file in this folder")
    target.mkdir(parents=True, exist_ok=True)
    answers = []
    with progress("Reading") as bar:
        task = bar.add_task("", total=len(found))
        for study in found:
            answers.append(_read_study(study, routes, bool(names), target, preset))
            bar.advance(task)
    if as_json:
        json.dump(
            {"studies": [_as_json(*answer) for answer in answers], "refused": _refused(refused)}, sys.stdout, indent=1
        )
        sys.stdout.write("\n")
    else:
        _show(answers, refused, target)
    failed = sum(run.status == "failed" for _, _, runs in answers for run in runs)
    if failed or not found:
        raise NodeError(
            f"{failed} runs failed" if failed else f"{folder}: none of the {len(refused)} files can be read"
        )


Answer = tuple["Study", list[routing.Match], list["Run"]]


def _read_study(
    study: Study, routes: dict[str, routing.Route], forced: bool, target: Path, preset: str | None
) -> Answer:
    from pipelines import reading, registry

    matches = routing.route([series.header for series in study.series], routes)
    runs: list[Run] = []
    for match in matches:
        if forced or match.matched:
            route = routes[match.pipeline]
            pipeline = registry.load(route.use)
            job = reading.job_key(study, pipeline)
            runs += reading.read(
                study, pipeline, name=route.name, out=target / study.uid, job=job, preset=preset or route.preset
            )
    return study, matches, runs


def _as_json(study: Study, matches: list[routing.Match], runs: list[Run]) -> dict[str, object]:
    rules = [{"pipeline": match.pipeline, "matched": match.matched, "why": match.why} for match in matches]
    return {"study_uid": study.uid, "runs": [run.as_json() for run in runs], "rules": rules}


def _refused(refused: tuple[RefusedFile, ...]) -> list[dict[str, str]]:
    return [{"file": item.file, "reason": item.reason} for item in refused]


def _show(answers: list[Answer], refused: tuple[RefusedFile, ...], target: Path) -> None:
    table = Table("Study", "Pipeline", "Result", "Seconds", title=f"Evidence in {target}", title_justify="left")
    for study, matches, runs in answers:
        shown = study.uid if len(study.uid) < 24 else f"…{study.uid[-22:]}"
        for run in runs:
            table.add_row(shown, f"{run.pipeline} {run.version}", sentence(run), f"{run.seconds:.1f}")
        if not runs:
            table.add_row(shown, "none", "; ".join(f"{match.pipeline}: {match.why}" for match in matches), "")
    out.print(table)
    for item in refused:
        console.print(f"refused {item.file}: {item.reason}", markup=False, soft_wrap=True)


def sentence(run: Run) -> str:
    """What a run says, in one sentence for a person; volumes in ml."""
    if run.status != "read":
        return f"{run.status}: {run.reason}"
    said = []
    for finding in run.findings:
        numbers = ", ".join(
            f"{m.value:.1f} {'ml' if m.unit.value == 'cm3' else m.unit.value}" for m in finding.measurements
        )
        certainty = "" if finding.certainty is None else f" ({finding.certainty:.0%})"
        name = finding.label or finding.code.meaning
        said.append(
            f"{name}{certainty}{': ' + numbers if numbers else ''}" if finding.present else f"no {name}{certainty}"
        )
    return "; ".join([*said, *run.notes])
