"""``wetread status``: the queue, once or live."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from node.cli.options import out, settings_of
from node.cli.parts import running_parts
from node.errors import NodeError
from node.ledger import Delivery, Job, JobState, Ledger, StudyState

STYLES = {
    **dict.fromkeys(("DONE", "DELIVERED", "settled"), "green"),
    **dict.fromkeys(("RUNNING", "SENDING", "receiving"), "cyan"),
    **dict.fromkeys(("FAILED", "QUARANTINED", "DEAD", "held"), "red"),
    **dict.fromkeys(("CANCELLED", "SUPERSEDED", "free"), "dim"),
}
BAR = 30  # characters


@contextmanager
def opened(context: click.Context) -> Iterator[Ledger]:
    """The ledger of the settings.

    Raises:
        NodeError: If this machine has none yet.
    """
    node = settings_of(context).node
    if node.database is None and not (node.folder / "ledger.sqlite").exists():
        raise NodeError(f"no ledger under {node.folder}: has a node run here? (wetread up)")
    ledger = Ledger(node.database_url)
    ledger.upgrade()
    try:
        yield ledger
    finally:
        ledger.close()


@click.command()
@click.option("--watch", is_flag=True, help="A live table, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option("--limit", default=20, show_default=True, help="How many studies.")
@click.pass_context
def status(context: click.Context, watch: bool, as_json: bool, limit: int) -> None:
    """Show the queue: studies, jobs, deliveries, workers.

    \b
    Example: wetread status --watch
    """
    settings = settings_of(context)
    with opened(context) as ledger:

        def now() -> Group:
            return picture(ledger, limit, running_parts(settings), shutil.disk_usage(settings.node.folder)[1:])

        if as_json:
            drained = {name: dataclasses.asdict(one) for name, one in ledger.drained().items()}
            said = {**_as_json(ledger, limit), "workers": running_parts(settings), "drained": drained}
            json.dump(said, sys.stdout, indent=1)
            sys.stdout.write("\n")
        elif watch:
            with Live(now(), console=out, auto_refresh=False) as live:
                while True:
                    time.sleep(1)
                    live.update(now(), refresh=True)
        else:
            out.print(now())


def styled(state: str) -> Text:
    return Text(state, style=STYLES.get(state, ""))


def picture(ledger: Ledger, limit: int, parts: dict[str, dict[str, object]], disk: tuple[int, ...] = ()) -> Group:
    """What ``status`` shows: a bar for each kind, and a row per study with its jobs and deliveries."""
    counts = ledger.overview()
    bars = Table.grid(padding=(0, 2))
    bars.add_row("workers", "", _states(parts))
    for worker in ledger.drained().values():
        bars.add_row("", "", f"{worker.worker} is drained: {worker.reason}".rstrip(": "))
    bars.add_row("studies", bar(counts.studies), _counts(counts.studies))
    bars.add_row("jobs", bar(counts.jobs), _counts(counts.jobs))
    for name, states in counts.deliveries.items():
        bars.add_row(f"to {name}", bar(states), _counts(states))
    if disk:
        used, free = disk
        bars.add_row("disk", bar({"used": used, "free": free}), f"{free / 2**30:.0f} GiB free")
    if counts.oldest_queued_at is not None:
        bars.add_row("oldest", "", f"waits {ledger.now() - counts.oldest_queued_at:.0f} s")
    table = Table("Study", "State", "Images", "Job", "Pipeline", "State", "Deliveries", "Why")
    for study in ledger.studies(limit):
        history = ledger.study(study.uid)
        head: list[str | Text] = [_short(study.uid), styled(study.state), str(study.arrived)]
        for job in history.jobs or (None,):
            sent = [one for one in history.deliveries if job and one.job_id == job.id]
            table.add_row(*head, *_job_cells(job, sent, study.reason))
            head = ["", "", ""]
    return Group(bars, table)


def bar(states: dict[str, int], width: int = BAR) -> Text:
    """The states as one bar, each in its colour and as wide as its share; what there is shows, however few."""
    total = sum(states.values())
    if not total:
        return Text("·" * width, style="dim")
    there = [(state, count) for state, count in sorted(states.items()) if count]
    widths = [max(1, round(count / total * width)) for _, count in there]
    widths[widths.index(max(widths))] += width - sum(widths)
    return Text.assemble(
        *[("█" * size, STYLES.get(state, "blue")) for (state, _), size in zip(there, widths, strict=True)]
    )


def _job_cells(job: Job | None, sent: list[Delivery], study_reason: str | None) -> list[str | Text]:
    if job is None:
        return ["", "", "", "", study_reason or ""]
    why = "; ".join(filter(None, [study_reason, job.reason, *(one.reason for one in sent)]))
    where = Text(", ").join(Text.assemble(f"{one.destination} ", styled(one.state)) for one in sent)
    return [str(job.id), job.pipeline, styled(job.state), where, why]


def _short(uid: str) -> str:
    return uid if len(uid) <= 24 else f"…{uid[-22:]}"


def _counts(states: dict[str, int]) -> str:
    return ", ".join(f"{count} {state.lower()}" for state, count in sorted(states.items())) or "none"


def _states(parts: dict[str, dict[str, object]]) -> str:
    return ", ".join(f"{name} {part['state']}" for name, part in parts.items()) or "none on this machine"


def _as_json(ledger: Ledger, limit: int) -> dict[str, object]:
    studies = []
    for entry in ledger.studies(limit):
        history = ledger.study(entry.uid)
        studies.append(
            {
                **dataclasses.asdict(entry),
                "jobs": [_plain(job) for job in history.jobs],
                "deliveries": [dataclasses.asdict(one) for one in history.deliveries],
            }
        )
    return {"overview": dataclasses.asdict(ledger.overview()), "studies": studies}


def _plain(job: Job) -> dict[str, object]:
    return {**dataclasses.asdict(job), "runs": json.loads(job.runs) if job.runs else None}


ENDED = frozenset({JobState.DONE, JobState.FAILED, JobState.QUARANTINED, JobState.CANCELLED, JobState.SUPERSEDED})
AT_REST = frozenset({StudyState.SETTLED, StudyState.UNROUTED, StudyState.HELD})
