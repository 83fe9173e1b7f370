"""What an administrator does at the command line: one line said, or one JSON object, and a record in the trail."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from node.actions import Actions, Done
from node.cli.options import out, person, settings_of, trail_of, usual_modes
from node.cli.queue import opened
from node.errors import NotNow
from node.ledger import JobState
from node.spool import object_path


@contextmanager
def acting(context: click.Context) -> Iterator[Actions]:
    settings = settings_of(context)
    spool = settings.node.folder / "spool"
    with opened(context) as ledger:
        yield Actions(
            ledger,
            trail_of(settings),
            destinations=[*settings.destinations, *settings.notify],
            path=lambda sha256: object_path(spool, sha256),
            pipelines=usual_modes(settings),
        )


def said(done: Done, as_json: bool) -> None:
    if as_json:
        json.dump(done.as_json(), sys.stdout)
        sys.stdout.write("\n")
    else:
        out.print(done.sentence, markup=False, soft_wrap=True)


json_option: Callable[..., Callable[..., object]] = click.option(
    "--json", "as_json", is_flag=True, help="One JSON object on standard output."
)


@click.command()
@click.argument("job", type=int)
@json_option
@click.pass_context
def retry(context: click.Context, job: int, as_json: bool) -> None:
    """Queue a job that failed once more, or send again what could not be delivered.

    \b
    Example: wetread retry 17
    """
    with acting(context) as actions:
        said(actions.retry(job, by=person()), as_json)


@click.command()
@click.argument("job", type=int)
@json_option
@click.pass_context
def cancel(context: click.Context, job: int, as_json: bool) -> None:
    """Cancel a job that waits or runs.

    \b
    Example: wetread cancel 17
    """
    with acting(context) as actions:
        said(actions.cancel(job, by=person()), as_json)


@click.command()
@click.argument("job", type=int)
@click.option("--reason", default="", help="Why; it stands beside the job.")
@json_option
@click.pass_context
def quarantine(context: click.Context, job: int, reason: str, as_json: bool) -> None:
    """Set a job apart, until somebody retries it.

    \b
    Example: wetread quarantine 17 --reason "takes the whole memory"
    """
    with acting(context) as actions:
        said(actions.quarantine(job, by=person(), reason=reason), as_json)


@click.command()
@click.argument("which")
@click.argument("number", type=click.IntRange(0, 9), metavar="0-9")
@json_option
@click.pass_context
def priority(context: click.Context, which: str, number: int, as_json: bool) -> None:
    """Change the priority of a job, or of all that is still to do for a study: 0 is the most urgent.

    \b
    Example: wetread priority 17 0
    Example: wetread priority 1.2.840.1 0
    """
    with opened(context) as ledger:
        if which.isdecimal():
            jobs = [int(which)]
        else:
            waiting = (JobState.QUEUED, JobState.RUNNING)
            jobs = [job.id for job in ledger.study(which).jobs if job.state in waiting]
            if not jobs:
                raise NotNow(f"study {which}: nothing of it is waiting to be read")
    with acting(context) as actions:
        for job in jobs:
            said(actions.prioritize(job, number, by=person()), as_json)


@click.command()
@click.argument("job", type=int)
@click.argument("destination")
@json_option
@click.pass_context
def resend(context: click.Context, job: int, destination: str, as_json: bool) -> None:
    """Send all evidence of a job to a destination, whether or not it went there before.

    \b
    Example: wetread resend 17 ARCHIVE
    """
    with acting(context) as actions:
        said(actions.send_again(job, destination, by=person()), as_json)


@click.command()
@click.argument("study")
@click.option("--reason", default="held by the administrator", show_default=True)
@json_option
@click.pass_context
def hold(context: click.Context, study: str, reason: str, as_json: bool) -> None:
    """Hold a study: nothing of it is read or sent until it is released.

    \b
    Example: wetread hold 1.2.840.1 --reason "wrong patient?"
    """
    with acting(context) as actions:
        said(actions.hold(study, by=person(), reason=reason), as_json)


@click.command()
@click.argument("study")
@json_option
@click.pass_context
def release(context: click.Context, study: str, as_json: bool) -> None:
    """Release a study that is held, or route one again that no rule wanted.

    \b
    Example: wetread release 1.2.840.1
    """
    with acting(context) as actions:
        said(actions.release(study, by=person()), as_json)


@click.command()
@click.argument("worker")
@click.option("--reason", default="", help="Why; it stands beside the worker.")
@json_option
@click.pass_context
def drain(context: click.Context, worker: str, reason: str, as_json: bool) -> None:
    """Have a worker end what it does and take nothing more, until `wetread resume`.

    WORKER is host/device, or the device of this machine: cpu, cuda:0, deliver.

    \b
    Example: wetread drain cuda:0 --reason "new driver"
    """
    with acting(context) as actions:
        said(actions.drain(_of_this_machine(worker), by=person(), reason=reason), as_json)


@click.command()
@click.argument("worker")
@json_option
@click.pass_context
def resume(context: click.Context, worker: str, as_json: bool) -> None:
    """Let a drained worker take work again.

    \b
    Example: wetread resume cuda:0
    """
    with acting(context) as actions:
        said(actions.resume(_of_this_machine(worker), by=person()), as_json)


def _of_this_machine(worker: str) -> str:
    return worker if "/" in worker else f"{socket.gethostname()}/{worker}"
