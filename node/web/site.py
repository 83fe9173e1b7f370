"""What the pages are made from: the ledger, and plain values that the command line puts together. No settings here."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node.actions import Actions
from node.audit import Trail
from node.ledger import Ledger
from node.retention import Retention
from node.routing import Route
from node.triage.rules import Rule

Check = Callable[[], str | None]  # None: well; else the sentence that says what is wrong


def disk_check(folder: Path, reserve_bytes: int) -> Check:
    """A check that the disk of ``folder`` has more than ``reserve_bytes`` free."""

    def look() -> str | None:
        free = shutil.disk_usage(folder).free
        if free > reserve_bytes:
            return None
        return f"{free / 2**30:.1f} GiB free under {folder}, the reserve is {reserve_bytes / 2**30:.1f} GiB"

    return look


@dataclass(frozen=True)
class Place:
    """A destination as a page shows it, and how to ask whether it answers."""

    name: str
    where: str
    protocol: str
    is_encrypted: bool
    probe: Check


@dataclass(frozen=True)
class Model:
    """One pipeline of the settings, and the card that it goes by; ``page`` is that card as text."""

    pipeline: str
    name: str
    version: str
    origin: str
    page: str
    fault: str | None = None


@dataclass(frozen=True)
class Site:
    """
    Attributes:
        name: The node's AE title.
        parts: The processes of this machine, as ``supervisor.states`` tells them.
        folder: What the node keeps lies under it; ``reserve_bytes`` of its disk stay free.
        instance: Where the received instance with a SHA-256 lies.
        triage: Which findings move a study up the reading list.
        evidence: What the ledger's paths of evidence are relative to.
        retention: What purges, by the settings' terms; None: nothing does.
        settings: Every setting in force, secrets hidden.
    """

    ledger: Ledger
    actions: Actions
    trail: Trail
    name: str
    folder: Path
    instance: Callable[[str], Path]
    evidence: Path
    reserve_bytes: int = 0
    checks: Mapping[str, Check] = field(default_factory=dict)
    parts: Callable[[], dict[str, dict[str, Any]]] = dict
    routes: Mapping[str, Route] = field(default_factory=dict)
    places: tuple[Place, ...] = ()
    triage: tuple[Rule, ...] = ()
    models: Callable[[], list[Model]] = list
    settings: Mapping[str, Any] = field(default_factory=dict)
    retention: Retention | None = None
