"""What several commands share: the settings in force as plain values, and the console to talk on."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

import click
from rich.console import Console

from node import settings as settings_file
from node.audit import Actor, Source, Trail
from node.delivery import Destination
from node.errors import BadSettings
from node.ledger import Mode
from node.notices.receiver import Receiver
from node.routing import Route
from node.settings import Node, Settings
from node.triage.rules import Rule
from node.urgency import Urgency

# Progress and logs go to standard error: standard output holds the result alone.
console = Console(stderr=True, highlight=False)
out = Console(highlight=False)


def settings_of(context: click.Context) -> Settings:
    """The settings that the command line names.

    Raises:
        BadSettings: One sentence per mistake.
    """
    return settings_file.load(context.obj)[0]


def trail_of(settings: Settings) -> Trail:
    """The audit trail of this machine."""
    return Trail(settings.node.folder / "audit", Source(settings.node.ae_title, socket.gethostname()))


def person() -> Actor:
    """Who sits at the command line: the account, and the one behind it where sudo tells."""
    try:
        account = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        account = str(os.geteuid())
    behind = os.environ.get("SUDO_USER")
    return Actor(f"{behind} as {account}" if behind else account, socket.gethostname(), "command line")


def models_of(settings: Settings) -> Path:
    """Where the versions of models that this site has imported lie, and which are in use."""
    return settings.node.folder / "models"


def routes_of(settings: Settings) -> dict[str, Route]:
    """The routing rules, checked: an unknown DICOM keyword is an error that names it.

    Where somebody has promoted a version of a model, the pipelines are told where that is written.
    """
    models = models_of(settings)
    told = f"@{models}" if (models / "active.json").exists() else ""
    return {
        name: Route(
            name=name,
            use=line.use + (f"@{line.card}" if line.card else told),
            when=line.when,
            deliver_to=line.deliver_to,
            priority=line.priority,
            automatic=line.automatic,
        )
        for name, line in settings.pipelines.items()
    }


def usual_modes(settings: Settings) -> dict[str, Mode]:
    """What the settings say of each pipeline, unless a person switches it."""
    return {name: Mode.ON if line.automatic else Mode.OFF for name, line in settings.pipelines.items()}


def urgency_of(settings: Settings) -> dict[str, Urgency]:
    """The rules that make a study urgent, checked as those of routing are."""
    return {name: Urgency(name, line.when, line.priority) for name, line in settings.urgency.items()}


def triage_of(settings: Settings) -> tuple[Rule, ...]:
    """The rules that are switched on; whom they tell that is switched off is not told."""
    is_on = {name for name, line in settings.notify.items() if line.on}
    return tuple(
        Rule(
            name=name,
            pipeline=line.pipeline,
            findings=(line.finding,) if isinstance(line.finding, str) else line.finding,
            at_least=line.at_least,
            priority=line.priority,
            notify=tuple(told for told in line.notify if told in is_on),
        )
        for name, line in settings.triage.items()
        if line.on
    )


def receivers_of(settings: Settings) -> dict[str, Receiver]:
    """Who is told of findings, by name; by mail without the patient's, unless the settings ask for it."""
    return {
        name: Receiver(
            **{"name": name} | dict(line) | {"names": line.protocol != "smtp" if line.names is None else line.names}
        )
        for name, line in settings.notify.items()
    }


def destinations_of(settings: Settings) -> dict[str, Destination]:
    """The destinations by name; the node calls itself by its own AE title unless they say otherwise."""
    own = settings.node.ae_title
    return {
        name: Destination(
            **{"name": name}
            | dict(line)
            | {"calling_ae_title": line.calling_ae_title or own, "evidence": line.evidence.wanted}
        )
        for name, line in settings.destinations.items()
    }


def own_listener(
    node: Node,
    *,
    ae_title: str | None = None,
    host: str | None = None,
    port: int | None = None,
    calling: str | None = None,
) -> Destination:
    """This node's listener as a destination: reached and called as its own settings ask for, unless told otherwise."""
    bound = ip_address(node.bind)
    here = ("::1" if bound.version == 6 else "127.0.0.1") if bound.is_unspecified else node.bind
    known = [peer.ae_title for peer in node.peers if ip_address(here) in peer.address]
    tls = node.tls if host is None else None
    return Destination(
        name="node",
        protocol="dimse",
        ae_title=ae_title or node.ae_title,
        host=host or here,
        port=port or node.dicom_port,
        calling_ae_title=calling or next(iter(known), "WETREAD-SEND"),
        tls="required" if tls else "off",
        tls_ca=(tls.client_ca or tls.certificate) if tls else None,
        tls_certificate=tls.certificate if tls else None,
        tls_key=tls.key if tls else None,
    )


def chosen_routes(routes: Mapping[str, Route], names: tuple[str, ...]) -> dict[str, Route]:
    """The routes that ``--pipeline`` names; all of them where it names none."""
    for name in names:
        if name not in routes:
            raise BadSettings(f"{name}: no such pipeline; in the settings: {', '.join(routes) or 'none'}")
    return {name: routes[name] for name in names} if names else dict(routes)


def existing_folder(text: str) -> Path:
    folder = Path(text)
    if not folder.is_dir():
        raise BadSettings(f"{folder}: no such folder")
    return folder
