"""``wetread send`` and ``wetread read``: what one does with a folder of DICOM files."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from node import delivery, routing, sendable
from node.audit import Transfer, classes_of, imported, quietly, unrecorded
from node.cli.options import (
    chosen_routes,
    console,
    existing_folder,
    out,
    own_listener,
    person,
    routes_of,
    settings_of,
    trail_of,
)
from node.errors import NodeError, Refusal
from node.instance import head_of
from pipelines.forms import DEFAULT, ENCODINGS, PRESETS, Form, on_disk

if TYPE_CHECKING:
    from pipelines.base import Pipeline
    from pipelines.priors import Prior
    from pipelines.run import Run
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
@click.option("--calling", help="Our AE title; default: the first peer's that may send from here, else WETREAD-SEND.")
@click.pass_context
def send(
    context: click.Context, folder: str, host: str | None, port: int | None, called: str | None, calling: str | None
) -> None:
    """Send a folder of DICOM files to the node by C-STORE, and say what was refused and why.

    \b
    Example: wetread send /media/cd --host 10.1.2.3 --port 11112 --called WETREAD
    """
    settings = settings_of(context)
    node = settings.node
    files = sorted(path for path in existing_folder(folder).rglob("*") if path.is_file() and path.name != "DICOMDIR")
    if not files:
        raise NodeError(f"{folder}: the folder is empty")
    peer = own_listener(node, ae_title=called, host=host, port=port, calling=calling)
    refused: dict[Path, str] = {}
    with tempfile.TemporaryDirectory() as scratch, progress("Sending") as bar:
        task = bar.add_task("", total=len(files))
        groups = sendable.by_study(files, Path(scratch), refused)
        bar.advance(task, len(refused))
        audited = quietly(trail_of(settings)) if host is None and node.folder.exists() else unrecorded
        for objects in groups:
            audited(imported(_of(objects), by=person(), source=folder))
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


def _of(objects: Sequence[sendable.Sendable]) -> Transfer:
    """Files of one study, as the audit trail names them."""
    patient_id = ""
    with contextlib.suppress(OSError, Refusal):
        patient_id = head_of(objects[0].outgoing.path).patient_id
    classes = classes_of([item.outgoing.sop_class for item in objects])
    return Transfer(objects[0].outgoing.study_uid, patient_id, classes)


@click.command()
@click.argument("folder")
@click.option("--out", "target", required=True, type=click.Path(path_type=Path), help="Where the evidence goes.")
@click.option("--pipeline", "names", multiple=True, help="Only this pipeline, whatever the rules say; may be repeated.")
@click.option(
    "--preset",
    default=DEFAULT,
    show_default=True,
    type=click.Choice(list(PRESETS)),
    help="For which kind of destination.",
)
@click.option(
    "--segmentation",
    type=click.Choice(ENCODINGS),
    help="How outlines are encoded; FRACTIONAL: as probabilities. Default: as the preset has it, but BINARY for ohif.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.pass_context
def read(
    context: click.Context,
    folder: str,
    target: Path,
    names: tuple[str, ...],
    preset: str,
    segmentation: str | None,
    as_json: bool,
) -> None:
    """Run the pipelines on a folder of DICOM files and write the evidence to OUT: no node, no network.

    \b
    Example: wetread read /media/cd --out findings --pipeline mr_brain --json
    """
    from pipelines import study as studies  # loads numpy; the pipelines load torch

    routes = chosen_routes(routes_of(settings_of(context)), names)
    source = existing_folder(folder).resolve()
    own = target.resolve()  # what an earlier run left below it is no input
    files = [path for path in sorted(source.rglob("*")) if path.is_file() and own not in path.parents]
    found, refused = studies.read_files(path for path in files if not path.name.startswith("."))
    if not found and not refused:
        raise NodeError(f"{folder}: no DICOM file in this folder")
    target.mkdir(parents=True, exist_ok=True)
    said: dict[str, Answer] = {}
    wanted = replace(PRESETS[preset], segmentation=segmentation) if segmentation else on_disk(PRESETS[preset])
    readings = Readings(routes, forced=bool(names), target=target, forms=wanted.forms)
    with progress("Reading") as bar:
        task = bar.add_task("", total=len(found))
        for study in sorted(found, key=_study_time):  # the earlier first, for what changed since
            said[study.uid] = readings.of(study)
            bar.advance(task)
    answers = [said[study.uid] for study in found]
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


@dataclass
class Readings:
    """What pipelines say of studies; each is loaded once, and one that cannot be is a failed run that says why."""

    routes: dict[str, routing.Route]
    forced: bool
    target: Path
    forms: frozenset[Form]
    _loaded: dict[str, Pipeline | str] = field(default_factory=dict)
    _read: dict[str, list[Prior]] = field(default_factory=dict)  # by pipeline: what later studies are compared with

    def of(self, study: Study) -> Answer:
        matches = routing.route([series.header for series in study.series], self.routes)
        wanted = [match.pipeline for match in matches if self.forced or match.matched]
        return study, matches, [run for name in wanted for run in self._runs(study, name)]

    def _runs(self, study: Study, name: str) -> Sequence[Run]:
        from pipelines import reading
        from pipelines.priors import prior_of
        from pipelines.run import Run

        pipeline = self._pipeline(name)
        if isinstance(pipeline, str):
            return [Run(name, "unknown", "failed", reason=pipeline)]
        job = reading.job_key(study, pipeline)
        before = self._read.setdefault(name, [])
        runs = reading.read(
            study, pipeline, name=name, out=self.target / study.uid, job=job, forms=self.forms, priors=before
        )
        if hasattr(pipeline, "since"):
            before += filter(None, (prior_of(run.as_json(), list(run.objects)) for run in runs))
        return runs

    def _pipeline(self, name: str) -> Pipeline | str:
        from pipelines import registry
        from pipelines.instance import one_sentence

        if name not in self._loaded:
            try:
                self._loaded[name] = registry.load(self.routes[name].use)
            except Exception as error:  # whatever a pipeline meets while it loads, the other studies are read
                self._loaded[name] = one_sentence(error)
        return self._loaded[name]


def _study_time(study: Study) -> tuple[str, str]:
    from pipelines.priors import when

    return when(study.header) or ("", "")


def _as_json(study: Study, matches: list[routing.Match], runs: list[Run]) -> dict[str, object]:
    rules = [{"pipeline": match.pipeline, "matched": match.matched, "why": match.why} for match in matches]
    return {"study_uid": study.uid, "runs": [run.as_json() for run in runs], "rules": rules}


def _refused(refused: tuple[RefusedFile, ...]) -> list[dict[str, str]]:
    return [{"file": item.file, "reason": item.reason} for item in refused]


def _show(answers: list[Answer], refused: tuple[RefusedFile, ...], target: Path) -> None:
    table = Table("Study", "Pipeline", "Result", "Seconds", title=f"Evidence in {target}", title_justify="left")
    for study, _, runs in answers:
        shown = study.uid if len(study.uid) < 24 else f"…{study.uid[-22:]}"
        for run in runs:
            table.add_row(shown, f"{run.pipeline} {run.version}", sentence(run), f"{run.seconds:.1f}")
        if not runs:
            table.add_row(shown, "none", "no rule wants it", "")
    out.print(table)
    for study, matches, _ in answers:
        for match in matches:
            verdict = "wants" if match.matched else "does not want"
            console.print(f"{match.pipeline} {verdict} {study.uid}: {match.why}", markup=False, soft_wrap=True)
    for item in refused:
        console.print(f"refused {item.file}: {item.reason}", markup=False, soft_wrap=True)


def sentence(run: Run) -> str:
    """What a run says, in one sentence for a person; volumes in ml."""
    from pipelines.evidence.wording import quantity

    if run.status != "read":
        return f"{run.status}: {run.reason}"
    said = []
    for finding in run.findings:
        numbers = ", ".join(map(quantity, finding.measurements))
        certainty = "" if finding.certainty is None else f" ({finding.certainty:.0%})"
        name = finding.label or finding.code.meaning
        said.append(
            f"{name}{certainty}{': ' + numbers if numbers else ''}" if finding.present else f"no {name}{certainty}"
        )
    return "; ".join([*said, *run.notes])
