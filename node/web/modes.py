"""How each pipeline is switched: by a person, or as the settings say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from node.ledger import Mode, Switched
from node.routing import Route


@dataclass(frozen=True)
class Way:
    """``since``: when a person switched it so, ``reason`` why; None: it is as the settings say."""

    mode: Mode
    since: float | None = None
    reason: str = ""


def modes_of(routes: Mapping[str, Route], switched: Mapping[str, Switched]) -> dict[str, Way]:
    """Per pipeline of the settings."""
    return {
        name: Way(by.mode, by.since, by.reason)
        if (by := switched.get(name))
        else Way(Mode.ON if route.automatic else Mode.OFF)
        for name, route in routes.items()
    }
