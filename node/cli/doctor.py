"""``wetread doctor``: is this machine fit? Each line says what is well, or what to do."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import click
from rich.table import Table

from node import broker, delivery, routing
from node.cli.first_day import LOOKS
from node.cli.lines import Line
from node.cli.options import destinations_of, out, own_listener, receivers_of, routes_of, settings_of, urgency_of
from node.errors import BadSettings, NodeError
from node.ledger import Ledger
from node.settings import Settings
from node.urgency import urgent


@click.command()
@click.option(
    "--file", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Try the rules on it."
)
@click.pass_context
def doctor(context: click.Context, file: Path | None) -> None:
    """Look whether this machine is fit: ports, disk, Redis, GPU, PACS, weights, rules, certificates, clock, audit.

    \b
    Example: wetread doctor --file one_image.dcm      which rule wants this image, and why not
    """
    settings = settings_of(context)
    table = Table("", "What", "Found", "What to do", title="wetread doctor", title_justify="left")
    wrong = 0
    for look in (_folder, _database, _ports, _redis, _device, _weights, _destinations, _receivers, *LOOKS):
        for line in _safely(look, settings):
            wrong += bool(line.advice)
            table.add_row("[red]✗[/]" if line.advice else "[green]✓[/]", line.what, line.found, line.advice)
    out.print(table)
    if file:
        _try_rules(settings, file)
    if wrong:
        raise NodeError(f"not all is well: {wrong} to look at")


def _safely(look: Callable[[Settings], Iterator[Line]], settings: Settings) -> Iterator[Line]:
    try:
        yield from look(settings)
    except Exception as error:  # one sick part must not hide the others
        yield Line(look.__name__.strip("_"), f"{type(error).__name__}: {error}", "see the message")


def _folder(settings: Settings) -> Iterator[Line]:
    folder = settings.node.folder
    place = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(place).free / 2**30
    enough = free > settings.node.reserve_gib + 1
    yield Line(
        "disk", f"{free:.0f} GiB free under {folder}", "" if enough else "make room, or set node.data to another disk"
    )
    writable = os.access(place, os.W_OK)
    yield Line("data folder", str(folder), "" if writable else f"{place} is not writable for this user: chown it")
    if folder.exists() and folder.stat().st_mode & 0o077:
        yield Line(
            "data folder's mode", f"{folder.stat().st_mode & 0o777:o}", f"chmod 700 {folder}: it holds patients' images"
        )


def _database(settings: Settings) -> Iterator[Line]:
    url = settings.node.database
    if url is None or url.startswith("sqlite"):
        yield Line("ledger", "SQLite, good for one machine")
        return
    ledger = Ledger(url)
    try:
        ledger.upgrade()
        ledger.overview()
        yield Line("ledger", "PostgreSQL answers, and its tables are as this version needs them")
    except Exception as error:
        yield Line("ledger", str(error).splitlines()[0], "is the server up, and node.database right?")
    finally:
        ledger.close()


def _ports(settings: Settings) -> Iterator[Line]:
    node = settings.node
    for what, port in (("DICOM port", node.dicom_port), ("web port", node.web_port)):
        try:
            family = socket.AF_INET6 if ":" in node.bind else socket.AF_INET
            socket.create_server((node.bind, port), family=family).close()
            yield Line(what, f"{node.bind}:{port} is free")
        except OSError as error:
            if what == "DICOM port" and delivery.echo(own_listener(settings.node)) is None:
                yield Line(what, f"a node answers at {node.bind}:{port}")
            elif what == "web port" and _answers(node.bind, port):
                yield Line(what, f"something answers at {node.bind}:{port}")
            elif error.errno == errno.EADDRNOTAVAIL:
                found = f"{node.bind} is no address of this machine"
                yield Line(what, found, "set node.bind to one of those that `ip address` shows")
            else:
                yield Line(what, f"{node.bind}:{port}: {error.strerror}", "stop what holds it, or set another port")


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 2).close()
    except OSError:
        return False
    return True


def _redis(settings: Settings) -> Iterator[Line]:
    if settings.node.broker:
        from redis import Redis

        try:
            address = settings.node.broker.replace("redis+socket://", "unix://")
            Redis.from_url(address, socket_timeout=3, retry=broker.ONCE).ping()
            yield Line("broker", "the named Redis answers")
        except Exception as error:
            yield Line("broker", str(error), "is the server up, and node.broker right?")
    else:
        yield Line("broker", f"embedded: {broker.server_executable()}")


def _device(settings: Settings) -> Iterator[Line]:
    try:
        import torch
    except ImportError:
        yield Line(
            "torch",
            "not installed: this machine cannot run a worker",
            "pip install 'wetread[worker]', or run work elsewhere",
        )
        return
    if torch.cuda.is_available():
        yield Line("device", f"GPU {torch.cuda.get_device_name()}, {torch.cuda.device_count()} in all")
    elif settings.worker.device.startswith("cuda"):
        yield Line(
            "device", "no GPU that torch can use", 'install the CUDA build of torch, or set worker.device = "auto"'
        )
    else:
        yield Line("device", f"CPU, {os.cpu_count()} cores")


def _weights(settings: Settings) -> Iterator[Line]:
    from pipelines import registry

    for name, line in routes_of(settings).items():
        try:
            pipeline = registry.load(line.use)
            algorithm, precision = pipeline.algorithm, registry.warm_up(pipeline)
            found = f"version {algorithm.version}, weights {algorithm.weights_digest[:12]}"
            yield Line(f"pipeline {name}", f"{found}, {precision}" if precision else found)
        except Exception as error:
            yield Line(f"pipeline {name}", str(error), "install it again, or correct pipelines." + name + ".use")
        if not line.deliver_to:
            yield Line(f"pipeline {name}", "delivers nowhere", f"name a destination in pipelines.{name}.deliver_to")


def _destinations(settings: Settings) -> Iterator[Line]:
    for name, destination in destinations_of(settings).items():
        sentence = delivery.echo(destination)
        place = destination.url or f"{destination.ae_title} at {destination.host}:{destination.port}"
        yield Line(
            f"destination {name}", sentence or f"{place} answers", "is it up, and does it know us?" if sentence else ""
        )


def _receivers(settings: Settings) -> Iterator[Line]:
    """Who is told of findings; nothing is told them, for that would be a false alarm."""
    for name, receiver in receivers_of(settings).items():
        if not receiver.on:
            yield Line(f"notify {name}", "switched off")
            continue
        try:
            for kind in ("password", "token", "secret"):
                receiver.secret(kind)
        except BadSettings as error:
            yield Line(f"notify {name}", str(error), "set it in the environment of the worker")
            continue
        url = urlsplit(receiver.url or "")
        port = receiver.port or url.port or {"https": 443, "http": 80}.get(url.scheme, 25)
        is_there = _answers(url.hostname or str(receiver.host), port)
        found = f"{receiver.where} {'answers' if is_there else 'does not answer'}"
        yield Line(f"notify {name}", found, "" if is_there else "is it up, and is the address right?")


def _try_rules(settings: Settings, file: Path) -> None:
    from pydicom import dcmread

    try:
        header = dcmread(file, stop_before_pixels=True)
    except Exception as error:
        raise NodeError(f"{file}: not DICOM: {error}") from None
    for match in routing.route([header], routes_of(settings)):
        out.print(f"{'wanted by' if match.matched else 'not wanted by'} {match.pipeline}: {match.why}", markup=False)
    said = urgent([header], urgency_of(settings))
    out.print(f"priority {said.priority}, {said.why}" if said else "no rule of urgency matches", markup=False)
