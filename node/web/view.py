"""Templates: every value is escaped, and every page knows who asks and what it may do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from node.accounts import Role
from node.audit import Actor
from node.errors import NodeError
from node.web import advice, words
from node.web.buttons import BUTTONS
from node.web.charts import bars
from node.web.guard import Identity, Refused, allowed, check_csrf, is_program

FOLDER = Path(__file__).parent
PAGES = (
    ("/", "Overview"),
    ("/triage", "Reading order"),
    ("/queue", "Queue"),
    ("/studies", "Studies"),
    ("/workers", "Workers"),
    ("/pipelines", "Pipelines"),
    ("/destinations", "Destinations"),
    ("/rules", "Rules"),
    ("/audit", "Audit"),
    ("/settings", "Settings"),
)


def pretty(value: Any) -> str:
    """A value of the settings as TOML would have it, nearly."""
    if isinstance(value, dict):
        return ", ".join(f"{key} = {_inner(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return f"[{', '.join(_inner(one) for one in value)}]"
    if value is None or isinstance(value, bool):
        return {None: "–", True: "true", False: "false"}[value]
    return str(value)


def _inner(value: Any) -> str:
    return f"{{ {pretty(value)} }}" if isinstance(value, dict) else pretty(value)


_templates = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=select_autoescape(default=True, default_for_string=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {
    "seconds": words.seconds,
    "size": words.size,
    "short": words.short,
    "number_of": words.number_of,
    "pretty": pretty,
    "advice": advice.advice,
}
_templates.globals |= {"pages": PAGES, "buttons": BUTTONS, "Role": Role, "bars": bars}


def identity_of(request: Request) -> Identity | None:
    found: Identity | None = request.scope.get("identity")
    return found


def actor_of(request: Request) -> Actor:
    """Who asks, as the audit trail names it."""
    identity = identity_of(request)
    client = request.client.host if request.client else ""
    way = "REST" if is_program(request.url.path) else "web"
    return Actor(identity.person.name if identity else "nobody", client, way)


def say(request: Request, sentence: str) -> None:
    """Show it once, on the next page."""
    identity = identity_of(request)
    if identity is not None and identity.session is not None:
        identity.session.said.append(sentence)


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
    identity = identity_of(request)
    now = time.time()
    session = identity.session if identity else None
    said: list[str] = []
    if session is not None and request.headers.get("x-live") != "1":
        said, session.said = session.said, []
    text = _templates.get_template(template).render(
        **values,
        identity=identity,
        csrf=session.csrf if session else "",
        said=said,
        here=request.url.path,
        back=str(request.url.path) + (f"?{request.url.query}" if request.url.query else ""),
        now=now,
        destinations=request.app.state.destinations,
        moment=lambda value: words.moment(value, now),
    )
    return HTMLResponse(text, status)


def trouble(request: Request, sentence: str, *, status: int) -> Response:
    came_from = urlsplit(request.headers.get("referer", ""))
    back = local(came_from.path + (f"?{came_from.query}" if came_from.query else ""))
    return page(request, "trouble.html", status=status, sentence=sentence, todo=advice.advice(sentence), return_to=back)


def form(path: str, role: Role | None, act: Callable[[Request, FormData], Response], *, longest: int = 65536) -> Route:
    """A route that a form of ours is sent to: its token is checked before anything is done.

    Args:
        longest: Bytes of the request that are read at most.
    """

    @allowed(role)
    async def endpoint(request: Request) -> Response:
        if int(request.headers.get("content-length") or longest + 1) > longest:
            return PlainTextResponse("the form is too large\n", 413)
        async with request.form(max_files=1, max_fields=20, max_part_size=longest) as filled:
            try:
                check_csrf(identity_of(request), text_of(filled, "csrf"))
                return await run_in_threadpool(act, request, filled)
            except Refused as refused:
                return trouble(request, str(refused), status=refused.status)
            except NodeError as error:
                return trouble(request, str(error), status=409)

    return Route(path, endpoint, methods=["POST"])


def text_of(filled: FormData, name: str) -> str:
    value = filled.get(name)
    return value if isinstance(value, str) else ""


def back_to(filled: FormData) -> RedirectResponse:
    """To the page where the form stood; never to another site."""
    return RedirectResponse(local(text_of(filled, "back")), 303)


def local(path: str) -> str:
    """The path if it is one of ours, else the overview."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() else "/"
