"""The audit trail as administrators read it: who did what, newest first. That it was read is recorded, too."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from node.accounts import Role
from node.audit import log_used
from node.instance import is_uid
from node.web.guard import allowed
from node.web.site import Site
from node.web.view import actor_of, page, trouble

SHOWN = 50


def routes(site: Site) -> list[Route]:
    @allowed(Role.ADMINISTRATOR)
    def audit(request: Request) -> Response:
        before, study = request.query_params.get("before", ""), request.query_params.get("study", "")
        if (before and not (before.isdecimal() and len(before) < 16)) or (study and not is_uid(study)):
            return trouble(request, "this cannot be looked for: before is a number, study a UID", status=400)
        entries = site.trail.entries(SHOWN, before=int(before) if before else None, study_uid=study or None)
        site.trail.record(log_used(actor_of(request), f"study {study}" if study else ""))
        rows = [entry.as_json() | {"at": entry.at} for entry in entries]
        return page(request, "audit.html", rows=rows, study=study, more=rows[-1]["n"] if len(rows) == SHOWN else None)

    return [Route("/audit", audit)]
