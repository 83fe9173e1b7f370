"""Who may ask what: every request passes here first, and what no route allows is refused.

    Host → Origin → how often → who → the route's role → the route

Without accounts and identity provider whoever sits at this machine is the administrator, and nobody else is let in.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node.accounts import Accounts, Person, Role
from node.errors import Unavailable
from node.web.sessions import Allowance, Session, Sessions

COOKIE = "__Host-wetread"
API = ("/api/", "/dicom-web/")
UNNAMED = ("/health", "/metrics", "/dicom-web/")  # programs ask by any name; who may store is known by its address
SAFE = frozenset(("GET", "HEAD", "OPTIONS"))
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        b"form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
_HSTS = (b"strict-transport-security", b"max-age=31536000")
_NO_STORE = (b"cache-control", b"no-store")  # what a page shows of a patient stays out of the disk's cache

T = TypeVar("T", bound=Callable[..., Any])
_ROLES = "wetread_role"


def allowed(role: Role | None) -> Callable[[T], T]:
    """Marks a route's endpoint with the lowest role that may ask it; None: anybody, without a name."""

    def mark(endpoint: T) -> T:
        setattr(endpoint, _ROLES, role)
        return endpoint

    return mark


@dataclass(frozen=True)
class Identity:
    """Who asks. ``session``: whose token its forms carry; programs have none. ``is_local``: there are no accounts."""

    person: Person
    session: Session | None
    is_local: bool = False


@dataclass(frozen=True)
class Doors:
    """What the guard looks at.

    Attributes:
        has_provider: Whether an identity provider lets people in, too: then this machine alone is nobody.
        hosts: Names under which the server may be asked for, besides those of loopback: against DNS rebinding.
        local: The session of everybody while there are no accounts.
    """

    accounts: Accounts
    sessions: Sessions
    hosts: Sequence[str] = ()
    has_provider: bool = False
    any_request: Allowance = field(default_factory=lambda: Allowance(at_once=300, per_second=20))
    sign_ins: Allowance = field(default_factory=lambda: Allowance(at_once=10, per_second=1 / 30))
    per_account: Allowance = field(default_factory=lambda: Allowance(at_once=5, per_second=1 / 60))
    local: Session = field(default_factory=lambda: Session("this machine", 0.0, 0.0))

    def __post_init__(self) -> None:
        object.__setattr__(self, "hosts", (*LOOPBACK, *(host.lower() for host in self.hosts)))


class Refused(Exception):
    """What is answered instead; ``status`` is HTTP's."""

    def __init__(self, status: int, sentence: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status, self.headers = status, headers or {}


class Guard:
    """Wraps the application; ``routes`` are its own."""

    def __init__(self, app: ASGIApp, *, routes: Callable[[], Sequence[BaseRoute]], doors: Doors) -> None:
        self._app, self._routes, self._doors = app, routes, doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # no WebSocket is served

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                extra = [*_HEADERS] + ([_HSTS] if scope["scheme"] == "https" else [])
                if not any(name == b"cache-control" for name, _ in given):
                    extra.append(_NO_STORE)
                message["headers"] = given + extra
            await send(message)

        try:
            scope["identity"] = self._admitted(scope)
        except Refused as refused:
            await _answer(scope, refused)(scope, receive, with_headers)
        except Unavailable as error:
            await PlainTextResponse(str(error), 503)(scope, receive, with_headers)
        else:
            await self._app(scope, receive, with_headers)

    def _admitted(self, scope: Scope) -> Identity | None:
        headers = Headers(scope=scope)
        client = scope["client"][0] if scope.get("client") else ""
        role = self._role(scope)
        if scope["path"].startswith(UNNAMED):
            return None
        self._check_host(headers)
        _check_origin(scope["method"], headers)
        if wait := self._doors.any_request.take(client):
            raise Refused(429, "too many requests", headers={"retry-after": f"{wait:.0f}"})
        if role is None:
            return None if scope["path"].startswith("/static/") else self._identity(headers, client)
        identity = self._identity(headers, client)
        if identity is None:
            raise Refused(401, "sign in first", headers={"www-authenticate": "Bearer"})
        if is_program(scope["path"]) and scope["method"] not in SAFE and not identity.is_local:
            check_csrf(identity, headers.get("x-csrf-token", ""))
        if identity.person.role < role:
            may = f"this needs the role {role.word}, and {identity.person.name} has {identity.person.role.word}"
            raise Refused(403, f"{may}; an administrator can change that")
        return identity

    def _role(self, scope: Scope) -> Role | None:
        """The role that the route asks for.

        Raises:
            Refused: There is no such route, or none that says who may ask.
        """
        partial = False
        for route in self._routes():
            match, _ = route.matches(scope)
            if match is Match.FULL:
                endpoint = getattr(route, "endpoint", None)
                if endpoint is None or not hasattr(endpoint, _ROLES):
                    raise Refused(403, "nobody may ask this")
                role: Role | None = getattr(endpoint, _ROLES)
                return role
            partial = partial or match is Match.PARTIAL
        raise Refused(405, "not by this method") if partial else Refused(404, "there is no such page")

    def _check_host(self, headers: Headers) -> None:
        host = headers.get("host", "").lower()
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if name not in self._doors.hosts:
            raise Refused(400, "this server does not go by that name; web.hosts in the settings lists its names")

    def _identity(self, headers: Headers, client: str) -> Identity | None:
        accounts = self._doors.accounts
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            found = accounts.bearer(token.strip(), time.time())
            if isinstance(found, str):
                raise Refused(401, found, headers={"www-authenticate": 'Bearer error="invalid_token"'})
            return Identity(found, None)
        if not accounts.users() and not self._doors.has_provider:
            if not _is_loopback(client):
                raise Refused(403, "there are no users yet, so only this machine itself is let in: wetread users add")
            return Identity(Person(self._doors.local.user, Role.ADMINISTRATOR), self._doors.local, is_local=True)
        number = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        session = self._doors.sessions.get(number, is_live=headers.get("x-live") == "1") if number else None
        if session is None:
            return None
        person = Person(session.user, session.role) if session.role else accounts.person(session.user)
        return Identity(person, session) if person else None


def _check_origin(method: str, headers: Headers) -> None:
    """A request that changes something comes from our own pages, or from a program, which names no origin."""
    if method in SAFE:
        return
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    own = headers.get("host", "")
    if (origin is not None and urlsplit(origin).netloc != own) or site not in (None, "same-origin", "none"):
        raise Refused(403, "the request comes from another site's page")


def check_csrf(identity: Identity | None, token: str) -> None:
    """What a browser sends by itself, as a cookie, is not enough to change something.

    Raises:
        Refused: If the token is not the session's.
    """
    if identity is None or identity.session is None:
        return
    if not hmac.compare_digest(identity.session.csrf.encode(), token.encode()):
        raise Refused(403, "the form has expired; go back, load the page again, and repeat it")


def _is_loopback(client: str) -> bool:
    try:
        return ip_address(client).is_loopback
    except ValueError:
        return False


def is_program(path: str) -> bool:
    """Whether a program asks, which wants no page for an answer."""
    return path.startswith(API)


def _answer(scope: Scope, refused: Refused) -> Response:
    path = scope["path"]
    if is_program(path):
        return JSONResponse({"detail": str(refused)}, refused.status, refused.headers)
    if refused.status == 401 and scope["method"] in SAFE and "authorization" not in Headers(scope=scope):
        asked = path + (f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else "")
        return RedirectResponse(f"/sign-in?next={quote(asked, safe='')}", 303)
    return PlainTextResponse(f"{refused}\n", refused.status, refused.headers)
