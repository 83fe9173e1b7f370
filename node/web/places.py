"""What the node consists of: its processes and devices, its pipelines, where evidence goes, and its settings."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from node.accounts import Role
from node.ledger import DeliveryState
from node.web.guard import allowed
from node.web.modes import modes_of
from node.web.overview import DAY, Remembered, devices
from node.web.site import Site
from node.web.view import page, trouble
from node.web.watch import Watch

HOUR = 3600.0
_OWNER = re.compile(r"(.+)-\d+-([\w:]+)-[0-9a-f]+")  # host-pid-device-random, as a worker signs its claims


def gpus() -> list[dict[str, str]]:
    """What nvidia-smi says of each GPU; none where there is no such program."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    asked = ("index", "name", "memory.used", "memory.total", "utilization.gpu", "temperature.gpu")
    command = [program, f"--query-gpu={','.join(asked)}", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [
        dict(zip(asked, map(str.strip, line.split(",")), strict=True)) for line in told.splitlines() if line.strip()
    ]


def throughput(done: dict[str, tuple[int, float]]) -> dict[str, tuple[int, float]]:
    """Per worker, as host/device, how many jobs it has ended, and the seconds that one took on average."""
    found: dict[str, tuple[int, float]] = {}
    for owner, (count, seconds) in done.items():
        name = _OWNER.fullmatch(owner)
        worker = f"{name[1]}/{name[2]}" if name else owner
        before, took = found.get(worker, (0, 0.0))
        found[worker] = (before + count, took + seconds)
    return {worker: (count, took / count) for worker, (count, took) in sorted(found.items())}


def routes(site: Site, watch: Watch) -> list[Route]:
    cards = Remembered(gpus, seconds=5.0)

    @allowed(Role.VIEWER)
    def workers(request: Request) -> Response:
        drained = site.ledger.drained()
        done = throughput(site.ledger.done_by(site.ledger.now() - HOUR))
        here = [name.removeprefix("analyze ") for name in site.parts() if name.startswith(("analyze ", "deliver"))]
        named = {*(f"{socket.gethostname()}/{name}" for name in here), *done, *drained}
        return page(
            request, "workers.html", parts=devices(site.parts()), gpus=cards(), drained=drained, done=done,
            workers=sorted(named),
        )  # fmt: skip

    @allowed(Role.VIEWER)
    def pipelines(request: Request) -> Response:
        counts = site.ledger.pipeline_counts(site.ledger.now() - DAY)
        models = {model.pipeline: model for model in site.models()}
        modes = modes_of(site.routes, site.ledger.switched())
        return page(request, "pipelines.html", routes=site.routes, models=models, counts=counts, modes=modes)

    @allowed(Role.VIEWER)
    def card(request: Request) -> Response:
        name = request.path_params["name"]
        found = next((model for model in site.models() if model.pipeline == name and model.page), None)
        if found is None:
            return trouble(request, f"there is no card of a pipeline {name[:64]!r}", status=404)
        return page(request, "card.html", model=found)

    @allowed(Role.VIEWER)
    def destinations(request: Request) -> Response:
        counts = site.ledger.delivery_counts()
        known = {place.name for place in site.places}
        rows: list[dict[str, Any]] = []
        for place in site.places:
            took, said = site.ledger.last_of_destination(place.name)
            states = counts.get(place.name, {})
            rows.append(
                {"place": place, "states": states, "took": took, "said": said, "heard": watch.heard(place.name)}
            )
        ill = site.ledger.find_deliveries((DeliveryState.DEAD,))
        others = {name: states for name, states in counts.items() if name not in known}
        return page(request, "destinations.html", rows=rows, ill=ill, others=others)

    @allowed(Role.ADMINISTRATOR)
    def settings(request: Request) -> Response:
        return page(request, "settings.html", settings=site.settings)

    return [
        Route("/workers", workers),
        Route("/pipelines", pipelines),
        Route("/pipelines/{name}", card),
        Route("/destinations", destinations),
        Route("/settings", settings),
    ]
