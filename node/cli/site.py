"""The settings as plain values for the web server: what its pages show, and who is let in."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from ipaddress import ip_address
from typing import Any

from node import delivery, log
from node.accounts import ACCOUNTS_FILE, Accounts, Role
from node.actions import Actions
from node.audit import Trail, quietly
from node.cli.options import destinations_of, models_of, routes_of, trail_of, triage_of, usual_modes
from node.destinations import trusting
from node.errors import BadSettings
from node.ledger import Ledger
from node.settings import Node, PipelineLine, Settings
from node.settings_web import Oidc
from node.spool import Spool
from node.stow import Sender, Stow, StowOptions
from node.web.app import WebOptions
from node.web.id_token import Rules
from node.web.provider import Provider, ProviderOptions
from node.web.site import Check, Model, Place, Site

GIB = 2**30
SECRET = ("password", "token", "key", "broker", "database")  # what a setting's name holds that is not shown
HIDDEN = "hidden"

_events = log.get("web")


def web_options(settings: Settings, ledger: Ledger, checks: dict[str, Check]) -> WebOptions:
    from node.cli.keeping import retention_of, terms_of
    from node.cli.parts import running_parts

    node, given = settings.node, settings.web
    accounts = Accounts(node.folder / ACCOUNTS_FILE)
    trail = trail_of(settings)
    spool = Spool(node.folder / "spool", reserve_bytes=int(node.reserve_gib * GIB))
    site = Site(
        ledger=ledger,
        actions=Actions(
            ledger,
            trail,
            destinations=[*settings.destinations, *settings.notify],
            path=spool.path,
            pipelines=usual_modes(settings),
        ),
        trail=trail,
        name=node.ae_title,
        folder=node.folder,
        instance=spool.path,
        evidence=node.folder / "evidence",
        reserve_bytes=int(node.reserve_gib * GIB),
        checks=checks,
        parts=lambda: running_parts(settings),
        routes=routes_of(settings),
        places=tuple(
            Place(one.name, one.where, one.protocol, _is_encrypted(one), partial(delivery.echo, one))
            for one in destinations_of(settings).values()
        ),
        triage=triage_of(settings),
        models=_models(settings),
        retention=retention_of(settings, ledger, terms_of(settings)),
        settings=shown(settings.model_dump(mode="json")),
    )
    return WebOptions(
        bind=where(settings, has_users=bool(accounts.users()) or given.oidc is not None),
        port=node.web_port,
        site=site,
        accounts=accounts,
        provider=Provider(provider_options(given.oidc)) if given.oidc else None,
        stow=_stow(node, spool, ledger, trail),
        hosts=given.hosts,
        idle_seconds=given.idle_minutes * 60,
        certificate=given.certificate,
        key=given.key,
    )


def provider_options(given: Oidc, *, needs_secret: bool = True) -> ProviderOptions:
    """What the settings say of the identity provider.

    Raises:
        BadSettings: If the secret that they name is not set, or a file cannot be used.
    """
    secret = os.environ.get(given.secret_variable) if given.secret_variable else None
    if given.secret_variable and not secret and needs_secret:
        raise BadSettings(f"web.oidc.secret_variable names {given.secret_variable}, which is not set")
    # A group of several roles has the highest; the roles stand in rising order.
    roles = {group: role for role in Role for group in given.roles.get(role.word, ())}  # type: ignore[call-overload]
    rules = Rules(given.issuer, given.client_id, roles, given.claim, given.name_claim, given.clock_seconds)
    return ProviderOptions(rules, secret, given.scopes, given.label, trusting("web.oidc", given.ca, None, None))


def _stow(node: Node, spool: Spool, ledger: Ledger, trail: Trail) -> Stow:
    options = StowOptions(
        own=node.ae_title,
        senders=tuple(Sender(peer.ae_title, peer.address, peer.quiet_seconds) for peer in node.peers),
        quiet_seconds=node.quiet_seconds,
        longest_wait_seconds=node.longest_wait_seconds,
    )
    return Stow(options, spool, ledger, audited=quietly(trail))


def where(settings: Settings, *, has_users: bool) -> str:
    """The address to listen on: beyond loopback only with users, and with TLS, which their cookies need."""
    wanted = settings.web.bind or settings.node.bind
    if ip_address(wanted).is_loopback:
        return wanted
    if not has_users or settings.web.certificate is None:
        lacks = "no users (wetread users add, or web.oidc)" if not has_users else "no certificate (web.certificate)"
        _events.warning("the web server listens on loopback only", reason=f"there are {lacks}", address=wanted)
        return "127.0.0.1"
    return wanted


def _is_encrypted(destination: delivery.Destination) -> bool:
    return destination.tls == "required" or (destination.url or "").startswith("https:")


def shown(table: Any, name: str = "") -> Any:
    """The settings as a page shows them: what may be a secret is hidden; names of environment variables are none."""
    if isinstance(table, dict):
        return {key: shown(value, key) for key, value in table.items()}
    if isinstance(table, list):
        return [shown(value, name) for value in table]
    is_secret = any(word in name for word in SECRET) and not name.endswith("_variable")
    return HIDDEN if is_secret and table is not None else table


def _models(settings: Settings) -> Callable[[], list[Model]]:
    from pipelines.models.installed import Installed, ModelFault, Models
    from pipelines.registry import is_bundle

    installed = Models(models_of(settings))

    def model(name: str, line: PipelineLine, known: Mapping[str, Installed | None]) -> Model:
        # A pipeline of ours and its model have one name; to ask it would load torch.
        own = line.use.partition(":")[0].rpartition(".")[2]
        if not line.card and own not in known:
            return Model(name, line.use, "", "a package of its own", "")
        if line.card and is_bundle(line.card):
            return Model(name, line.card.name, "", "a MONAI bundle", "")
        each = Installed.read(line.card) if line.card else known[own] or installed.get(own)
        text = each.card.with_suffix(".md")
        page = (text if text.is_file() else each.card).read_text()
        return Model(name, each.name, each.version, "shipped" if each.is_shipped else "this site", page)

    def look() -> list[Model]:
        try:
            known = installed.in_force()
        except ModelFault as error:
            return [Model(name, line.use, "", "", "", fault=str(error)) for name, line in settings.pipelines.items()]
        found = []
        for name, line in settings.pipelines.items():
            try:
                found.append(model(name, line, known))
            except (ModelFault, OSError) as error:
                found.append(Model(name, line.use, "", "", "", fault=str(error)))
        return found

    return look
