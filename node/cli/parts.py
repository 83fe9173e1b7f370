"""``wetread up`` and its parts, each a command of its own: ``listen``, ``work``, ``web``."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from ipaddress import ip_address

import click
from redis import Redis

from node import broker, log, supervisor
from node.audit import activity, quietly
from node.cli.options import (
    destinations_of,
    person,
    receivers_of,
    routes_of,
    settings_of,
    trail_of,
    triage_of,
    urgency_of,
)
from node.errors import Unavailable
from node.ledger import Ledger
from node.processes import on_signal
from node.settings import Settings
from node.web.site import Check, disk_check

GIB = 2**30
PARTS_FILE, WORKERS_FILE = "parts.json", "workers.json"


@contextlib.contextmanager
def stopping(settings: Settings, part: str) -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set; that the part starts and stops stands in the audit trail."""
    audited, by = quietly(trail_of(settings)), person()
    audited(activity(part, starts=True, by=by))
    stop = threading.Event()
    before = {number: signal.signal(number, on_signal(stop)) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, action in before.items():
            signal.signal(number, action)
        audited(activity(part, starts=False, by=by))


def prepared(settings: Settings) -> Ledger:
    """The data folder, for its owner only, and the ledger with its tables as this version knows them."""
    settings.node.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    ledger = Ledger(settings.node.database_url)
    ledger.upgrade()
    return ledger


def broker_url(settings: Settings) -> str:
    return settings.node.broker or broker.broker_url(settings.node.folder)


@click.command()
@click.pass_context
def up(context: click.Context) -> None:
    """Run everything that this machine needs, and restart what dies. Ctrl-C drains.

    \b
    Example: wetread --settings settings.toml up
    """
    log.to_stderr()
    settings = settings_of(context)
    routes_of(settings)  # a wrong rule stops the start here, not in a part
    urgency_of(settings)
    destinations_of(settings)
    prepared(settings).close()
    given = ["--settings", str(context.obj)] if context.obj else []
    names = ["listen", "work", "web"]
    if settings.audit.syslog is not None or settings.retention.automatic:
        names.append("tend")
    parts = [supervisor.Part(name, (sys.executable, "-m", "node", *given, name)) for name in names]
    with stopping(settings, "up") as stop, _broker_where_none_runs(settings):
        supervisor.supervise(parts, stop, state_file=settings.node.folder / PARTS_FILE)


@click.command()
@click.pass_context
def listen(context: click.Context) -> None:
    """Receive studies by C-STORE, and answer C-ECHO.

    \b
    Example: wetread listen
    """
    from node import listener
    from node.spool import Spool

    log.to_stderr()
    settings = settings_of(context)
    node = settings.node
    ledger = prepared(settings)
    spool = Spool(node.folder / "spool", reserve_bytes=int(node.reserve_gib * GIB))
    options = listener.ListenerOptions(
        ae_title=node.ae_title,
        bind=node.bind,
        port=node.dicom_port,
        peers=tuple(listener.Peer(peer.ae_title, peer.address, peer.quiet_seconds) for peer in node.peers),
        quiet_seconds=node.quiet_seconds,
        longest_wait_seconds=node.longest_wait_seconds,
        max_associations=node.max_associations,
        max_associations_per_address=node.max_associations_per_address,
        tls=listener.Tls(node.tls.certificate, node.tls.key, node.tls.client_ca) if node.tls else None,
    )
    with stopping(settings, "listen") as stop:
        listener.serve(options, spool, ledger, stop, audited=quietly(trail_of(settings)))
    ledger.close()


@click.command()
@click.pass_context
def work(context: click.Context) -> None:
    """Settle studies, run pipelines, deliver evidence.

    \b
    Example: wetread work
    """
    from node import worker

    log.to_stderr()
    settings = settings_of(context)
    node, given = settings.node, settings.worker
    prepared(settings).close()
    options = worker.WorkerOptions(
        ledger_url=node.database_url,
        broker_url=broker_url(settings),
        spool=node.folder / "spool",
        evidence=node.folder / "evidence",
        ae_title=node.ae_title,
        routes=routes_of(settings),
        destinations=destinations_of(settings),
        count_from={caller: name for caller, name in settings.count_from.items() if name},
        urgency=urgency_of(settings),
        triage=triage_of(settings),
        receivers=receivers_of(settings),
        urgent_up_to=given.urgent_up_to,
        aging_seconds=given.aging_minutes * 60,
        rest_every=given.rest_every,
        device=given.device,
        threads=given.threads,
        time_limit_seconds=given.time_limit_seconds,
        away_seconds=given.away_minutes * 60,
        memory_gib=given.memory_gib,
        deliver_threads=given.deliver_threads,
    )
    with stopping(settings, "work") as stop, _broker_where_none_runs(settings):
        worker.run(options, stop)


def _broker_where_none_runs(settings: Settings) -> contextlib.AbstractContextManager[object]:
    """The embedded Redis, unless ``up`` runs it already or the settings name another."""
    if settings.node.broker is None:
        try:
            broker.server_id(settings.node.folder)
        except Unavailable:
            return broker.embedded(settings.node.folder)
    return contextlib.nullcontext()


@click.command()
@click.pass_context
def web(context: click.Context) -> None:
    """Serve the dashboard, REST, /health and /metrics, and receive studies by STOW-RS at /dicom-web/studies.

    \b
    Example: wetread web
    """
    from node.cli.site import web_options
    from node.web.app import serve

    log.to_stderr()
    settings = settings_of(context)
    ledger = prepared(settings)
    with stopping(settings, "web") as stop:
        serve(web_options(settings, ledger, _checks(settings, ledger)), stop)
    ledger.close()


def _checks(settings: Settings, ledger: Ledger) -> dict[str, Check]:
    node = settings.node

    def ledger_answers() -> None:
        ledger.drained()  # little to ask: the page that shows it asks every few seconds

    def broker_answers() -> None:
        if node.broker is None:
            broker.server_id(node.folder)
        else:
            # Celery's name for a unix socket is not redis-py's
            address = node.broker.replace("redis+socket://", "unix://")
            Redis.from_url(address, socket_timeout=3, retry=broker.ONCE).ping()

    def listener_answers() -> None:
        bound = ip_address(node.bind)
        own = ("::1" if bound.version == 6 else "127.0.0.1") if bound.is_unspecified else node.bind
        socket.create_connection((own, node.dicom_port), 3).close()

    def worker_runs() -> str | None:
        found = {name: part["state"] for name, part in running_parts(settings).items()}
        ill = [f"{name} is {state}" for name, state in found.items() if state != "running"]
        return "; ".join(ill) or None

    def audit_can_be_read() -> None:
        trail_of(settings).entries(1)

    return {
        "audit": audit_can_be_read,
        "parts": worker_runs,
        "ledger": ledger_answers,
        "broker": broker_answers,
        "listener": listener_answers,
        "disk": disk_check(node.folder, int(node.reserve_gib * GIB)),
    }


def running_parts(settings: Settings) -> dict[str, dict[str, object]]:
    """The parts and workers that are supervised on this machine, by name."""
    folder = settings.node.folder
    return {**supervisor.states(folder / PARTS_FILE), **supervisor.states(folder / WORKERS_FILE)}
