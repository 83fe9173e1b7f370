"""The queue and the studies as lists: filtered, searched, sorted, a page at a time, live."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from node.accounts import Role
from node.ledger import Asked, JobState, StudyState
from node.web.guard import allowed
from node.web.site import Site
from node.web.view import page, trouble

SHOWS: dict[str, tuple[str, ...]] = {  # what people ask for, and the states of jobs that it means
    "all": (),
    "waiting": (JobState.QUEUED,),
    "running": (JobState.RUNNING,),
    "done": (JobState.DONE,),
    "failed": (JobState.FAILED, JobState.QUARANTINED),
    "other": (JobState.CANCELLED, JobState.SUPERSEDED),
}
SORTS = {"newest": "newest first", "oldest": "oldest first", "urgent": "most urgent first"}


def routes(site: Site) -> list[Route]:
    @allowed(Role.VIEWER)
    def queue(request: Request) -> Response:
        query = request.query_params
        show = query.get("show", "all")
        try:
            asked = replace(
                _asked(request), states=SHOWS[show], pipeline=query.get("pipeline", "")[:64], limit=50,
                sort=query.get("sort", "urgent" if show == "waiting" else "newest"),
            )  # fmt: skip
        except (ValueError, KeyError) as error:
            return trouble(request, f"this cannot be looked for: {error}", status=400)
        rows = site.ledger.find_jobs(replace(asked, limit=51))
        return page(
            request,
            "queue.html",
            rows=rows[:50],
            asked=asked,
            show=show,
            shows=SHOWS,
            sorts=SORTS,
            pipelines=sorted(site.routes),
            turn=_turn(request, asked, more=len(rows) > 50),
            ledger_now=site.ledger.now(),
        )

    @allowed(Role.VIEWER)
    def studies(request: Request) -> Response:
        state = request.query_params.get("state", "")
        try:
            asked = replace(_asked(request), states=(StudyState(state),) if state else (), limit=51)
        except ValueError as error:
            return trouble(request, f"this cannot be looked for: {error}", status=400)
        rows = site.ledger.find_studies(asked)
        return page(
            request,
            "studies.html",
            rows=rows[:50],
            asked=asked,
            state=state,
            states=[one.value for one in StudyState],
            turn=_turn(request, asked, more=len(rows) > 50),
        )

    return [Route("/queue", queue), Route("/studies", studies)]


def _asked(request: Request) -> Asked:
    query = request.query_params
    return Asked(text=query.get("text", "").strip()[:64], first=int(query.get("first", "0")))


def _turn(request: Request, asked: Asked, *, more: bool) -> dict[str, str]:
    """The addresses of the page before and of the next one, where there are such."""
    given = dict(request.query_params)
    turn = {}
    if asked.first:
        turn["before"] = "?" + urlencode(given | {"first": str(max(asked.first - 50, 0))})
    if more:
        turn["next"] = "?" + urlencode(given | {"first": str(asked.first + 50)})
    return turn
