"""Signing in, by an account of this node or at the hospital's identity provider, and out.

A wrong name and a wrong password are answered alike, and not often. Who comes back from the provider is let in where
the same browser has begun; both ways end in the same session.
"""

from __future__ import annotations

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from node.accounts import Role
from node.audit import Actor, Trail, authenticated
from node.errors import Unavailable
from node.web.guard import COOKIE, Doors, allowed
from node.web.id_token import NotAdmitted
from node.web.provider import PENDING_SECONDS, Provider
from node.web.view import actor_of, form, identity_of, local, page, text_of

BEGUN_COOKIE = "__Host-wetread-begun"
BACK = "/sign-in/back"
NO_ACCOUNT = "no such name with that password"


def routes(doors: Doors, trail: Trail, provider: Provider | None) -> list[Route]:
    def asked(request: Request, wrong: str = "", *, status: int = 200, there: str = "/") -> Response:
        label = provider.label if provider else ""
        return page(request, "sign_in.html", next=there, wrong=wrong, provider=label, status=status)

    def entered(there: str, user: str, role: Role | None = None) -> Response:
        number, _ = doors.sessions.begin(user, role)
        answer = RedirectResponse(there, 303)
        answer.set_cookie(COOKIE, number, secure=True, httponly=True, samesite="lax", path="/")
        return answer

    @allowed(None)
    def ask(request: Request) -> Response:
        there = local(request.query_params.get("next", "/"))
        if identity_of(request) is not None:
            return RedirectResponse(there, 303)
        return asked(request, there=there)

    def sign_in(request: Request, filled: FormData) -> Response:
        name, there, client = text_of(filled, "name").strip(), local(text_of(filled, "next")), _client(request)
        if wait := max(doors.sign_ins.take(client), doors.per_account.take(name[:64])):
            return asked(request, _too_often(wait), status=429, there=there)
        person = doors.accounts.sign_in(name, text_of(filled, "password"))
        if person is None:
            trail.record(authenticated(Actor(name[:64], client, "web"), reason=NO_ACCOUNT))
            return asked(request, NO_ACCOUNT, status=403, there=there)
        trail.record(authenticated(Actor(person.name, client, "web")))
        return entered(there, person.name)

    def sign_out(request: Request, _: FormData) -> Response:
        trail.record(authenticated(actor_of(request), enters=False))
        doors.sessions.end(request.cookies.get(COOKIE, ""))
        answer = RedirectResponse("/sign-in", 303)
        answer.delete_cookie(COOKIE, secure=True, httponly=True, samesite="lax", path="/")
        return answer

    both = [Route("/sign-in", ask), form("/sign-in", None, sign_in), form("/sign-out", Role.VIEWER, sign_out)]
    if provider is None:
        return both

    @allowed(None)
    def go(request: Request) -> Response:
        there = local(request.query_params.get("next", "/"))
        if wait := doors.sign_ins.take(_client(request)):
            return asked(request, _too_often(wait), status=429, there=there)
        own = f"{request.url.scheme}://{request.headers['host']}"  # a name of ours: the guard has looked at it
        try:
            address, state = provider.begin(own + BACK, there)
        except Unavailable as error:
            return asked(request, str(error), status=503, there=there)
        answer = RedirectResponse(address, 303)
        most = int(PENDING_SECONDS)
        answer.set_cookie(BEGUN_COOKIE, state, max_age=most, secure=True, httponly=True, samesite="lax", path="/")
        return answer

    @allowed(None)
    def back(request: Request) -> Response:
        client = _client(request)
        try:
            admitted = provider.come_back(request.query_params, request.cookies.get(BEGUN_COOKIE, ""))
        except (NotAdmitted, Unavailable) as error:
            trail.record(authenticated(Actor("somebody", client, "web, identity provider"), reason=str(error)))
            answer = asked(request, str(error), status=403 if isinstance(error, NotAdmitted) else 503)
        else:
            way = f"web, {admitted.subject[:64]} at the identity provider"
            trail.record(authenticated(Actor(admitted.person.name, client, way)))
            answer = entered(admitted.there, admitted.person.name, admitted.person.role)
        answer.delete_cookie(BEGUN_COOKIE, secure=True, httponly=True, samesite="lax", path="/")
        return answer

    return [*both, Route("/sign-in/provider", go), Route(BACK, back)]


def _client(request: Request) -> str:
    return request.client.host if request.client else ""


def _too_often(wait: float) -> str:
    return f"too many tries; the next one in {wait:.0f} seconds"
