"""Signing in and out. A wrong name and a wrong password are answered alike, and not often."""

from __future__ import annotations

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from node.accounts import Role
from node.audit import Actor, Trail, authenticated
from node.web.guard import COOKIE, Doors, allowed
from node.web.view import actor_of, form, identity_of, local, page, text_of


def routes(doors: Doors, trail: Trail) -> list[Route]:
    @allowed(None)
    def ask(request: Request) -> Response:
        if identity_of(request) is not None:
            return RedirectResponse(local(request.query_params.get("next", "/")), 303)
        return page(request, "sign_in.html", next=local(request.query_params.get("next", "/")), wrong="")

    def sign_in(request: Request, filled: FormData) -> Response:
        name, there = text_of(filled, "name").strip(), local(text_of(filled, "next"))
        client = request.client.host if request.client else ""
        wait = max(doors.sign_ins.take(client), doors.per_account.take(name[:64]))
        if wait:
            wrong = f"too many tries; the next one in {wait:.0f} seconds"
            return page(request, "sign_in.html", next=there, wrong=wrong, status=429)
        person = doors.accounts.sign_in(name, text_of(filled, "password"))
        if person is None:
            trail.record(authenticated(Actor(name[:64], client, "web"), reason="no such name with that password"))
            return page(request, "sign_in.html", next=there, wrong="no such name with that password", status=403)
        trail.record(authenticated(Actor(person.name, client, "web")))
        number, _ = doors.sessions.begin(person.name)
        answer = RedirectResponse(there, 303)
        answer.set_cookie(COOKIE, number, secure=True, httponly=True, samesite="lax", path="/")
        return answer

    def sign_out(request: Request, _: FormData) -> Response:
        trail.record(authenticated(actor_of(request), enters=False))
        doors.sessions.end(request.cookies.get(COOKIE, ""))
        answer = RedirectResponse("/sign-in", 303)
        answer.delete_cookie(COOKIE, secure=True, httponly=True, samesite="lax", path="/")
        return answer

    return [Route("/sign-in", ask), form("/sign-in", None, sign_in), form("/sign-out", Role.VIEWER, sign_out)]
