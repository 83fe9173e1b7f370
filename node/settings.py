"""settings.toml → one frozen Settings, or a sentence that names the key, its value and what is allowed.

It reads the file and checks it; it opens no port, touches no disk beyond the file, and nobody but ``cli`` imports it:
everyone else is handed plain values.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from node.errors import BadSettings
from node.settings_evidence import EvidenceLine
from node.settings_keeping import AuditTable, Retention, Syslog
from node.settings_tables import Destination, ListenerTls, Node, Peer, PipelineLine, Settings, Worker
from node.settings_triage import NotifyLine, TriageLine, UrgencyLine
from node.settings_web import Oidc, Web

__all__ = ["Destination", "Node", "Peer", "PipelineLine", "Settings", "Worker", "load", "parse"]

VARIABLE = "WETREAD_SETTINGS"
_PATHS = {"data", "certificate", "key", "client_ca", "ca", "tls_ca", "tls_certificate", "tls_key", "card"}


def load(path: Path | None = None) -> tuple[Settings, str]:
    """The settings and their source: ``path``, else $WETREAD_SETTINGS, else ./settings.toml, else the defaults.

    Raises:
        BadSettings: One sentence per mistake; exit status 2.
    """
    named = path or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    file = named or Path("settings.toml")
    if not file.is_file():
        if named:
            raise BadSettings(f"{file}: no such file")
        return Settings(), "the shipped defaults"
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
        return parse(_beside(file.absolute().parent, tables), str(file)), str(file)
    except tomllib.TOMLDecodeError as error:
        raise BadSettings(f"{file}: not TOML: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"{file}: cannot be read: {error}") from error


def _beside(folder: Path, tables: dict[str, Any]) -> dict[str, Any]:
    """The tables with their relative paths resolved: a path is meant from the settings file, wherever one stands."""
    node = tables.setdefault("node", {})
    if not isinstance(node, dict):
        return tables
    node.setdefault("data", "data")
    homes = [
        node,
        node.get("tls"),
        dict(tables.get("audit") or {}).get("syslog"),
        tables.get("web"),
        dict(tables.get("web") or {}).get("oidc"),
        *(line for name in ("destinations", "notify", "pipelines") for line in dict(tables.get(name) or {}).values()),
    ]
    for home in (one for one in homes if isinstance(one, dict)):
        for key in _PATHS & home.keys():
            if isinstance(home[key], str):
                home[key] = str(folder / Path(home[key]).expanduser())
    return tables


def parse(tables: dict[str, Any], source: str) -> Settings:
    """Settings from the tables of a TOML file; ``source`` stands at the head of each sentence."""
    try:
        return Settings.model_validate(tables)
    except ValidationError as error:
        raise BadSettings("\n".join(_sentences(error, source))) from None


def _sentences(error: ValidationError, source: str) -> Iterator[str]:
    for fault in error.errors():
        place = [str(part) for part in fault["loc"]]
        key = ".".join(place)
        if fault["type"] == "extra_forbidden":
            near = difflib.get_close_matches(place[-1], _keys(place[:-1]), n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; allowed: {', '.join(sorted(_keys(place[:-1])))}"
            yield f"{source}: {key}: no such setting{hint}"
            continue
        what = fault["msg"].removeprefix("Value error, ")
        value = fault["input"]
        shown = f" is {value!r}" if isinstance(value, str | int | float | bool) and "password" not in key else ""
        yield f"{source}: {key}{shown}: {what}" if key else f"{source}: {what}"


def _keys(place: list[str]) -> list[str]:
    """The keys that are allowed in the table at ``place``."""
    match place:
        case []:
            table: type[BaseModel] = Settings
        case ["node"]:
            table = Node
        case ["node", "peers", *_]:
            table = Peer
        case ["node", "tls"]:
            table = ListenerTls
        case ["worker"]:
            table = Worker
        case ["web"]:
            table = Web
        case ["web", "oidc", *_]:
            table = Oidc
        case ["destinations", _, "evidence", *_]:
            table = EvidenceLine
        case ["destinations", *_]:
            table = Destination
        case ["audit"]:
            table = AuditTable
        case ["audit", "syslog"]:
            table = Syslog
        case ["retention"]:
            table = Retention
        case ["urgency", *_]:
            table = UrgencyLine
        case ["triage", *_]:
            table = TriageLine
        case ["notify", *_]:
            table = NotifyLine
        case _:
            table = PipelineLine
    return list(table.model_fields)
