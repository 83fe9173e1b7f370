"""The audit trail as administrators read it: who did what, newest first. That it was read is recorded, too."""

from __future__ import annotations

from typing import Any

from pydicom.uid import UID
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from node.accounts import Role
from node.audit import Entry, log_used
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
        rows = [_row(entry) for entry in entries]
        return page(request, "audit.html", rows=rows, study=study, more=rows[-1]["n"] if len(rows) == SHOWN else None)

    return [Route("/audit", audit)]


def _row(entry: Entry) -> dict[str, Any]:
    told = entry.as_json()
    what = [UID(one).name if is_uid(one) and one != entry.study_uid else one for one in told["what"] if one]
    return told | {"at": entry.at, "what": what}
