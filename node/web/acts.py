"""What the buttons do, asked once, by whoever has the role for it."""

from __future__ import annotations

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from node.web.buttons import BUTTONS, Button
from node.web.site import Site
from node.web.view import actor_of, back_to, form, say, text_of


def routes(site: Site) -> list[Route]:
    def made(button: Button) -> Route:
        def act(request: Request, filled: FormData) -> Response:
            given = {one.name: one.read(text) for one in button.fields if (text := text_of(filled, one.name).strip())}
            done = button.press(site.actions, text_of(filled, "subject"), actor_of(request), given)
            say(request, done.sentence)
            return back_to(filled)

        return form(f"/act/{button.name}", button.role, act)

    return [made(button) for button in BUTTONS.values()]
