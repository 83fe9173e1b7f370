"""The first page: is all well, what is to be done, and the last 24 hours as pictures."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import psutil
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from node.accounts import Role
from node.errors import Unavailable
from node.ledger import Counts, Hours
from node.web.concerns import concerns
from node.web.guard import allowed
from node.web.site import Check, Site
from node.web.view import page
from node.web.watch import Watch

CHARTS = (  # what, its sentence, the colour of its bars
    ("received", "studies received", "in"),
    ("waiting", "jobs waiting", "wait"),
    ("running", "jobs running", "run"),
    ("delivered", "deliveries made", "out"),
    ("failed", "failed or given up", "bad"),
)
DAY = 86400.0

T = TypeVar("T")


class Remembered(Generic[T]):
    """What a question was answered a moment ago: ten browsers that look are one that asks."""

    def __init__(self, ask: Callable[[], T], *, seconds: float) -> None:
        self._ask, self._seconds = ask, seconds
        self._held: tuple[float, T] | None = None
        self._lock = threading.Lock()

    def __call__(self) -> T:
        with self._lock:
            if self._held is None or time.monotonic() - self._held[0] > self._seconds:
                self._held = (time.monotonic(), self._ask())
            return self._held[1]


@dataclass(frozen=True)
class State:
    """How the node fares, as a page or a program is told it."""

    counts: Counts
    hours: Hours
    checks: Mapping[str, str | None]
    failed_lately: int


def run_check(check: Check) -> str | None:
    try:
        return check()
    except Exception as error:  # whatever a check meets is the answer to the question that it asks
        return f"{type(error).__name__}: {error}"


def state_of(site: Site) -> State:
    ledger = site.ledger
    lately = ledger.pipeline_counts(ledger.now() - DAY)
    failed = sum(states.get(word, 0) for states in lately.values() for word in ("failed", "quarantined"))
    checks = {name: run_check(check) for name, check in site.checks.items()}
    return State(ledger.counts(), ledger.hours(), checks, failed)


def devices(parts: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The processes of this machine with the memory of each in bytes, and of its children that are no parts."""
    own = {part["pid"] for part in parts.values() if part.get("pid")}
    children: dict[int, list[psutil.Process]] = {}
    for process in psutil.process_iter() if own else ():
        try:
            children.setdefault(process.ppid(), []).append(process)
        except psutil.Error:
            continue

    def memory(process: psutil.Process) -> int:
        try:
            held = int(process.memory_info().rss)
        except psutil.Error:
            return 0
        return held + sum(memory(child) for child in children.get(process.pid, ()) if child.pid not in own)

    def held_by(pid: int | None) -> int | None:
        try:
            return None if pid is None else memory(psutil.Process(pid))
        except psutil.Error:
            return None

    return [{"name": name, **part, "memory": held_by(part.get("pid"))} for name, part in parts.items()]


def routes(site: Site, watch: Watch) -> list[Route]:
    state = Remembered(lambda: state_of(site), seconds=2.0)

    @allowed(Role.VIEWER)
    def overview(request: Request) -> Response:
        peers = {place.name: watch.heard(place.name) for place in site.places}
        try:
            found, fault = state(), None
        except Unavailable as error:  # then above all the page has to come
            found, fault = None, str(error)
        wrong = []
        if found is not None:
            wrong = concerns(
                found.counts, found.checks, peers, failed_lately=found.failed_lately, now=site.ledger.now()
            )
        disk = shutil.disk_usage(site.folder)
        return page(
            request,
            "overview.html",
            site=site,
            state=found,
            fault=fault,
            concerns=wrong,
            charts=CHARTS,
            peers=peers,
            disk=disk,
            devices=devices(site.parts()),
            ledger_now=time.time() if fault else site.ledger.now(),
        )

    return [Route("/", overview)]
