"""/health and /metrics: is the node alive, and can it keep and carry what is sent to it? And STOW-RS in (stow.py).

It reads the ledger and the disk; it loads no torch and knows no patient. ``/health`` answers 200 when all is well and
503 with the reasons when something is not; ``/health/live`` answers 200 as long as the process runs.
"""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse

from node.errors import Unavailable
from node.stow import Stow
from node.web import stow as stow_rs

Check = Callable[[], str | None]  # None: well; else the sentence that says what is wrong


@dataclass(frozen=True)
class WebOptions:
    """Where to listen, what ``/health`` looks at (a name and a check each), and the counts that ``/metrics`` shows."""

    bind: str
    port: int
    checks: dict[str, Check]
    counts: Callable[[], dict[str, dict[str, int]]]  # {"studies": {"settled": 3}, "jobs": {...}, "deliveries": {...}}
    stow: Stow | None = None  # what stores what comes by STOW-RS; None: nothing comes so


def disk_check(folder: Path, reserve_bytes: int) -> Check:
    """A check that the disk of ``folder`` has more than ``reserve_bytes`` free."""

    def look() -> str | None:
        free = shutil.disk_usage(folder).free
        if free > reserve_bytes:
            return None
        return f"{free / 2**30:.1f} GiB free under {folder}, the reserve is {reserve_bytes / 2**30:.1f} GiB"

    return look


def make_app(options: WebOptions) -> FastAPI:
    app = FastAPI(title="wetread", docs_url=None, redoc_url=None)
    if options.stow is not None:
        app.router.routes.extend(stow_rs.routes(options.stow))

    @app.get("/health/live")
    def live() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/health")
    def health() -> JSONResponse:
        found = {name: _run(check) for name, check in options.checks.items()}
        wrong = {name: sentence for name, sentence in found.items() if sentence}
        body = {"status": "failing" if wrong else "ready", "checks": {n: s or "ok" for n, s in found.items()}}
        return JSONResponse(body, status_code=503 if wrong else 200)

    @app.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> str:
        lines = []
        for thing, states in options.counts().items():
            lines.append(f"# HELP wetread_{thing} {thing.capitalize()} in the ledger by state.")
            lines.append(f"# TYPE wetread_{thing} gauge")
            lines += [f'wetread_{thing}{{state="{state}"}} {count}' for state, count in sorted(states.items())]
        return "\n".join([*lines, ""])

    return app


def _run(check: Check) -> str | None:
    try:
        return check()
    except Exception as error:  # whatever a check meets is the answer to the question that it asks
        return f"{type(error).__name__}: {error}"


def serve(options: WebOptions, stop: threading.Event) -> None:
    """Serve until ``stop`` is set.

    Raises:
        Unavailable: If the port is taken.
    """
    family = socket.AF_INET6 if ":" in options.bind else socket.AF_INET
    try:
        door = socket.create_server((options.bind, options.port), family=family)
    except OSError as error:
        raise Unavailable(f"web port {options.bind}:{options.port}: {error.strerror}") from error
    server = uvicorn.Server(uvicorn.Config(make_app(options), log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, name="web", daemon=True)
    thread.start()
    while thread.is_alive() and not stop.wait(0.2):
        pass
    server.should_exit = True
    thread.join(10)
