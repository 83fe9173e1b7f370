"""``wetread purge`` and ``wetread tend``: what is kept for how long, and the audit messages to their collector."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import replace

import click
from rich.table import Table

from node import log
from node.audit import Actor
from node.audit.syslog import Collector, Forwarder
from node.cli.acts import json_option
from node.cli.options import out, person, settings_of, trail_of
from node.cli.parts import GIB, prepared, stopping
from node.cli.queue import opened
from node.errors import NodeError
from node.ledger import Ledger
from node.retention import Retention, Terms, Toll
from node.settings import Settings
from node.spool import Spool

PURGE_SECONDS = 3600.0
_events = log.get("tend")


def terms_of(settings: Settings) -> Terms:
    given = settings.retention
    return Terms(given.images_days, given.evidence_days, given.unrouted_days, given.audit_days)


def retention_of(settings: Settings, ledger: Ledger, terms: Terms) -> Retention:
    node = settings.node
    spool = Spool(node.folder / "spool", reserve_bytes=int(node.reserve_gib * GIB))
    return Retention(
        ledger, spool, evidence=node.folder / "evidence", trail=trail_of(settings), terms=terms, told=settings.notify
    )


@click.command()
@click.option("--yes", is_flag=True, help="Delete it. Without, it is only shown.")
@click.option("--images-days", type=click.FloatRange(min=0), help="In place of the settings'; 0: keep for ever.")
@click.option("--evidence-days", type=click.FloatRange(min=0), help="The same for evidence.")
@click.option("--unrouted-days", type=click.FloatRange(min=0), help="The same for studies that no rule wanted.")
@click.option("--audit-days", type=click.FloatRange(min=0), help="The same for audit records.")
@json_option
@click.pass_context
def purge(
    context: click.Context,
    yes: bool,
    images_days: float | None,
    evidence_days: float | None,
    unrouted_days: float | None,
    audit_days: float | None,
    as_json: bool,
) -> None:
    """Show what is older than it has to be kept and safely delivered; delete it with --yes.

    \b
    Example: wetread purge
    Example: wetread purge --images-days 3 --yes
    """
    settings = settings_of(context)
    days = {"images": images_days, "evidence": evidence_days, "unrouted": unrouted_days, "audit": audit_days}
    given = {name: value for name, value in days.items() if value is not None}
    with opened(context) as ledger:
        retention = retention_of(settings, ledger, replace(terms_of(settings), **given))
        toll = retention.purge(person()) if yes else retention.plan()
    if as_json:
        json.dump({"deleted": yes, **toll.as_json()}, sys.stdout)
        sys.stdout.write("\n")
    else:
        _show(toll, "deleted" if yes else "would be deleted")


def _show(toll: Toll, what: str) -> None:
    table = Table("", what)
    table.add_row("images", f"{toll.images} of {toll.studies} studies, {toll.image_bytes / GIB:.2f} GiB")
    table.add_row("evidence", f"{toll.evidence} objects of {toll.jobs} jobs")
    table.add_row("audit records", str(toll.audit_records))
    out.print(table)
    for reason, count in toll.staying.items():
        out.print(f"{count} studies are old enough and stay: {reason}", markup=False)


@click.command()
@click.pass_context
def tend(context: click.Context) -> None:
    """Send audit messages to their collector, and delete what need not be kept, as the settings say.

    `wetread up` runs it where there is something to do.

    \b
    Example: wetread tend
    """
    log.to_stderr()
    settings = settings_of(context)
    if settings.audit.syslog is None and not settings.retention.automatic:
        raise NodeError("nothing to do: neither audit.syslog nor retention.automatic is set")
    forwarder = _forwarder(settings)
    ledger = prepared(settings)
    with stopping(settings, "tend") as stop:
        sender = threading.Thread(target=forwarder.run, args=(stop,), name="syslog") if forwarder else None
        if sender:
            sender.start()
        while settings.retention.automatic and not stop.is_set():
            try:
                retention_of(settings, ledger, terms_of(settings)).purge(Actor("retention", way="wetread"))
            except NodeError as error:
                _events.error("nothing is deleted", reason=str(error))
            stop.wait(PURGE_SECONDS)
        while not stop.wait(1.0):
            pass
        if sender:
            sender.join(10)
    ledger.close()


def _forwarder(settings: Settings) -> Forwarder | None:
    given = settings.audit.syslog
    if given is None:
        return None
    return Forwarder(trail_of(settings), Collector(given.host, given.port, given.ca, given.certificate, given.key))
