"""The web server: /health and /metrics for whoever watches, the dashboard for people, REST for programs, STOW-RS in.

``/health`` answers 200 when all is well and 503 with the reasons when something is not; ``/health/live`` answers 200
as long as the process runs. It loads no torch. Every route says who may ask it (guard.py).
"""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from node.accounts import Accounts
from node.errors import NodeError, Unavailable, Unknown
from node.stow import Stow
from node.web import acts, order, overview, pictures, places, queue, rules, sign_in, study, trail
from node.web import stow as stow_rs
from node.web.api import add_api
from node.web.guard import Doors, Guard, allowed, is_program
from node.web.metrics import told
from node.web.overview import run_check
from node.web.provider import Provider
from node.web.sessions import Sessions
from node.web.site import Site
from node.web.view import trouble
from node.web.watch import Watch

STATIC = {path.name: path for path in (Path(__file__).parent / "static").iterdir()}
STATUS: dict[type[NodeError], int] = {Unavailable: 503, Unknown: 404}
KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class WebOptions:
    """Where to listen, what is shown, and who is let in.

    Attributes:
        provider: The identity provider that lets people in beside the accounts; None: there is none.
        stow: What stores what comes by STOW-RS; None: nothing comes so.
        hosts: Names that the server goes by, besides those of loopback.
        idle_seconds: After which a session ends.
        certificate, key: PEM files, for HTTPS.
    """

    bind: str
    port: int
    site: Site
    accounts: Accounts
    provider: Provider | None = None
    stow: Stow | None = None
    hosts: tuple[str, ...] = ()
    idle_seconds: float = 900.0
    certificate: Path | None = None
    key: Path | None = None


def make_app(options: WebOptions, watch: Watch, *, doors: Doors | None = None) -> ASGIApp:
    site = options.site
    app = FastAPI(title="wetread", docs_url=None, redoc_url=None, openapi_url=None)
    doors = doors or Doors(
        options.accounts,
        Sessions(idle_seconds=options.idle_seconds),
        (options.bind, *options.hosts),
        has_provider=options.provider is not None,
    )

    @app.exception_handler(NodeError)
    def refused(request: Request, error: Exception) -> Response:
        status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 409)
        if is_program(request.url.path):
            return JSONResponse({"detail": str(error)}, status)
        return trouble(request, str(error), status=status)

    app.router.routes.extend(
        [
            *_watched(site, watch),
            *sign_in.routes(doors, site.trail, options.provider),
            *overview.routes(site, watch),
            *queue.routes(site),
            *study.routes(site),
            *pictures.routes(site),
            *order.routes(site),
            *rules.routes(site),
            *places.routes(site, watch),
            *trail.routes(site),
            *acts.routes(site),
            *(stow_rs.routes(options.stow) if options.stow else ()),
        ]
    )
    app.state.destinations = tuple(place.name for place in site.places)
    add_api(app, site, watch)
    return Guard(app, routes=lambda: app.router.routes, doors=doors)


def _watched(site: Site, watch: Watch) -> list[Route]:
    @allowed(None)
    def live(_: Request) -> Response:
        return JSONResponse({"status": "live"})

    @allowed(None)
    def health(_: Request) -> Response:
        found = {name: run_check(check) for name, check in site.checks.items()}
        wrong = any(found.values())
        body = {"status": "failing" if wrong else "ready", "checks": {n: s or "ok" for n, s in found.items()}}
        return JSONResponse(body, status_code=503 if wrong else 200)

    @allowed(None)
    def metrics(_: Request) -> Response:
        return PlainTextResponse(told(site, watch), media_type="text/plain; version=0.0.4")

    @allowed(None)
    def static(request: Request) -> Response:
        path = STATIC.get(request.path_params["name"])
        if path is None:
            return PlainTextResponse("there is no such file\n", 404)
        return FileResponse(path, media_type=KINDS[path.suffix], headers={"cache-control": "public, max-age=300"})

    return [
        Route("/health/live", live),
        Route("/health", health),
        Route("/metrics", metrics),
        Route("/static/{name}", static),
    ]


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
    watch = Watch(options.site.places)
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(options, watch),
            log_config=None,
            access_log=False,
            server_header=False,
            ssl_certfile=options.certificate,
            ssl_keyfile=options.key,
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, name="web", daemon=True)
    thread.start()
    while thread.is_alive() and not stop.wait(0.2):
        pass
    server.should_exit = True
    thread.join(10)
    watch.close()
