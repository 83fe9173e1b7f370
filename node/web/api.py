"""REST at /api/v1: what the pages show and what their buttons do, for programs; described at /api/v1/openapi.json.

A program shows a token (``Authorization: Bearer wt_…``); its role is the token's. Times are seconds since the epoch.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field, create_model

from node.accounts import Role
from node.audit import log_used
from node.errors import NotNow
from node.ledger import Asked, Job, JobState, StudyState
from node.retention import Retention
from node.web.buttons import BUTTONS, PLURAL, Button
from node.web.guard import allowed
from node.web.modes import modes_of
from node.web.order import reading_order
from node.web.overview import devices, state_of
from node.web.site import Site
from node.web.view import actor_of
from node.web.watch import Watch

PREFIX = "/api/v1"
Uid = Annotated[str, Path(max_length=64, pattern=r"^[0-9]+(\.[0-9]+)*$", examples=["1.2.840.10008.1"])]
Number = Annotated[int, Path(ge=1, le=2**53)]
Pipeline = Annotated[str, Path(max_length=64, pattern=r"^[^/\s]+$", examples=["mr_brain"])]
Worker = Annotated[str, Path(max_length=255, pattern=r"^[^/\s]+/[^/\s]+$", examples=["ct-node/cuda:0"])]
First = Annotated[int, Query(ge=0, le=10_000_000, description="How many to pass over")]
Limit = Annotated[int, Query(ge=1, le=200)]
Text = Annotated[
    str,
    Query(
        max_length=64,
        pattern="^[0-9.]*$",
        description="The beginning or end of a Study Instance UID, or a job's number",
    ),
]
StudyAsked = Annotated[str | None, Query(max_length=64, pattern=r"^[0-9]+(\.[0-9]+)*$")]
EventAsked = Annotated[str | None, Query(max_length=64, description='As "User Authentication"')]
Before = Annotated[int | None, Query(ge=1, le=2**53)]
Against = Annotated[
    str | None, Query(pattern="^[0-9]{1,15}:[0-9a-f]{64}$", description="A head that was noted down: N:DIGEST")
]
Sort = Annotated[str, Query(pattern="^(newest|oldest|urgent)$")]

_LIMITS: dict[type, dict[str, Any]] = {str: {"max_length": 200}, int: {"ge": 0, "le": 9}}


class Fault(BaseModel):
    """Why not, in one sentence."""

    detail: str


class Done(BaseModel):
    """What was done, in one sentence; ``changed`` is false where it was so already."""

    done: str
    changed: bool


class PurgeGiven(BaseModel):
    """``yes``: what would be deleted has been looked at."""

    model_config = ConfigDict(extra="forbid")
    yes: Literal[True]


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Fault, "description": "The body is not JSON"},
    401: {"model": Fault, "description": "No token, or one that is not accepted"},
    403: {"model": Fault, "description": "The role does not suffice"},
    409: {"model": Fault, "description": "It cannot be done now; the sentence says why"},
    404: {"model": Fault, "description": "There is no such thing"},
    429: {"model": Fault, "description": "Too many requests"},
    503: {"model": Fault, "description": "The ledger does not answer"},
}


def plain(value: Any) -> Any:
    """An entry of the ledger as JSON has it; a job's runs as contract.md has them."""
    made = dataclasses.asdict(value)
    if isinstance(value, Job):
        made["runs"] = json.loads(value.runs) if value.runs else None
    return made


def add_api(app: FastAPI, site: Site, watch: Watch) -> None:
    router = APIRouter(prefix=PREFIX, responses=REFUSALS)
    ledger = site.ledger

    @router.get("/overview", tags=["node"])
    @allowed(Role.VIEWER)
    def overview() -> dict[str, Any]:
        """Counts per state, the last 24 hours, what the checks say, and whether the peers answer."""
        state = state_of(site)
        heard = {place.name: watch.heard(place.name) for place in site.places}
        return {
            "counts": plain(state.counts),
            "hours": plain(state.hours),
            "checks": state.checks,
            "failed_lately": state.failed_lately,
            "peers": {name: dataclasses.asdict(one) if one else None for name, one in heard.items()},
        }

    @router.get("/jobs", tags=["queue"])
    @allowed(Role.VIEWER)
    def jobs(
        state: Annotated[list[JobState] | None, Query()] = None,
        pipeline: Annotated[str, Query(max_length=64, pattern=r"^[^\x00-\x1f]*$")] = "",
        text: Text = "",
        sort: Sort = "newest",
        first: First = 0,
        limit: Limit = 50,
    ) -> list[dict[str, Any]]:
        """The jobs of the queue, with their deliveries."""
        asked = Asked(tuple(state or ()), pipeline, text, sort, first, limit)
        rows = ledger.find_jobs(asked)
        return [
            {**plain(row.job), "caller": row.caller, "deliveries": [plain(one) for one in row.deliveries]}
            for row in rows
        ]

    @router.get("/jobs/{job}", tags=["queue"])
    @allowed(Role.VIEWER)
    def job(job: Number) -> dict[str, Any]:
        """One job."""
        found: dict[str, Any] = plain(ledger.job(job))
        return found

    @router.get("/studies", tags=["studies"])
    @allowed(Role.VIEWER)
    def studies(
        state: Annotated[list[StudyState] | None, Query()] = None, text: Text = "", first: First = 0, limit: Limit = 50
    ) -> list[dict[str, Any]]:
        """The studies, those that something came for last at the head."""
        asked = Asked(tuple(state or ()), text=text, first=first, limit=limit)
        return [plain(one) for one in ledger.find_studies(asked)]

    @router.get("/studies/{study}", tags=["studies"])
    @allowed(Role.VIEWER)
    def study(study: Uid) -> dict[str, Any]:
        """Everything that the ledger holds of one study; no patient's name stands in it."""
        history = ledger.study(study)
        return {**plain(history), "jobs": [plain(one) for one in history.jobs]}

    @router.get("/deliveries/{delivery}", tags=["queue"])
    @allowed(Role.VIEWER)
    def delivery(delivery: Number) -> dict[str, Any]:
        """One delivery."""
        found: dict[str, Any] = plain(ledger.delivery(delivery))
        return found

    @router.get("/destinations", tags=["node"])
    @allowed(Role.VIEWER)
    def destinations() -> list[dict[str, Any]]:
        """Where evidence goes, how many deliveries are in which state, and whether the peer answers."""
        counts = ledger.delivery_counts()
        return [
            {
                "name": place.name, "where": place.where,
                "protocol": place.protocol, "is_encrypted": place.is_encrypted,
                "deliveries": counts.get(place.name, {}),
                "heard": dataclasses.asdict(heard) if (heard := watch.heard(place.name)) else None,
            }
            for place in site.places
        ]  # fmt: skip

    @router.get("/workers", tags=["node"])
    @allowed(Role.VIEWER)
    def workers() -> list[dict[str, Any]]:
        """The processes of this machine, with the bytes of memory that each holds."""
        return devices(site.parts())

    @router.get("/pipelines", tags=["node"])
    @allowed(Role.VIEWER)
    def pipelines() -> list[dict[str, Any]]:
        """The pipelines of the settings, whether each is on, off or in shadow, and the model that it goes by."""
        models = {model.pipeline: model for model in site.models()}
        modes = modes_of(site.routes, ledger.switched())
        return [
            {
                "name": name, "use": route.use, "when": route.when, "deliver_to": route.deliver_to,
                "priority": route.priority, "mode": modes[name].mode, "switched_since": modes[name].since,
                "model": dataclasses.asdict(models[name]) | {"page": None} if name in models else None,
            }
            for name, route in site.routes.items()
        ]  # fmt: skip

    @router.get("/triage", tags=["studies"])
    @allowed(Role.VIEWER)
    def triage() -> list[dict[str, Any]]:
        """The studies that came last, in the order in which they should be read, and why."""
        return [dataclasses.asdict(one) for one in reading_order(site)]

    @router.get("/drained", tags=["node"])
    @allowed(Role.VIEWER)
    def drained() -> list[dict[str, Any]]:
        """The workers of all machines that were told to take nothing more, and why."""
        return [dataclasses.asdict(one) for one in ledger.drained().values()]

    @router.get("/audit", tags=["audit"])
    @allowed(Role.ADMINISTRATOR)
    def audit(
        request: Request, study: StudyAsked = None, event: EventAsked = None, before: Before = None, limit: Limit = 50
    ) -> list[dict[str, Any]]:
        """Who did what, the newest first; older ones come with ``before`` the last ``n``. The look is recorded, too."""
        entries = site.trail.entries(limit, before=before, study_uid=study, event=event)
        site.trail.record(log_used(actor_of(request), f"study {study}" if study else event or ""))
        return [entry.as_json() for entry in entries]

    @router.get("/audit/verification", tags=["audit"])
    @allowed(Role.ADMINISTRATOR)
    def verification(against: Against = None) -> dict[str, Any]:
        """Whether every record is as it was written; ``broken`` is the number of the first that is not."""
        return dataclasses.asdict(site.trail.verify(against))

    @router.get("/purge", tags=["keeping"])
    @allowed(Role.ADMINISTRATOR)
    def plan() -> dict[str, Any]:
        """What a purge would delete now, by ``[retention]``, and why some stays; nothing is changed."""
        return {"deleted": False, **_retention(site).plan().as_json()}

    @router.post("/purge", tags=["keeping"])
    @allowed(Role.ADMINISTRATOR)
    def purge(request: Request, given: PurgeGiven) -> dict[str, Any]:
        """Delete what ``GET /purge`` says."""
        return {"deleted": given.yes, **_retention(site).purge(actor_of(request)).as_json()}

    @router.get("/settings", tags=["node"])
    @allowed(Role.ADMINISTRATOR)
    def settings() -> dict[str, Any]:
        """Every setting in force; secrets are hidden."""
        return dict(site.settings)

    for button in BUTTONS.values():
        _add_action(router, site, button)

    @router.get("/openapi.json", include_in_schema=False)
    @allowed(Role.VIEWER)
    def openapi() -> dict[str, Any]:
        described = app.openapi()
        described["components"].setdefault("securitySchemes", {})["token"] = {"type": "http", "scheme": "bearer"}
        described["security"] = [{"token": []}]
        return described

    for route in router.routes:  # not included as a whole: the guard looks at each route by itself
        app.router.routes.append(route)


def _retention(site: Site) -> Retention:
    if site.retention is None:
        raise NotNow("nothing is kept here that could be purged")
    return site.retention


def _add_action(router: APIRouter, site: Site, button: Button) -> None:
    wanted: dict[str, Any] = {
        one.name: (Annotated[type(one.usual), Field(description=one.label, **_LIMITS[type(one.usual)])], one.usual)
        for one in button.fields
    }
    body = create_model(f"{button.name.title()}Given", __config__=ConfigDict(extra="forbid"), **wanted)

    def act(request: Request, subject: Any, given: Any = None) -> Done:
        said = given.model_dump() if given else {}
        done = button.press(site.actions, str(subject), actor_of(request), said)
        return Done(done=done.sentence, changed=done.changed)

    act.__name__, act.__doc__ = button.name, button.question.format("SUBJECT")
    kinds = {"study": Uid, "job": Number, "worker": Worker, "pipeline": Pipeline}
    act.__annotations__ |= {"subject": kinds[button.subject], "given": body | None, "request": Request}
    slot = "{subject:path}" if button.subject == "worker" else "{subject}"
    router.add_api_route(
        f"/{PLURAL[button.subject]}/{slot}/{button.name}",
        allowed(button.role)(act),
        methods=["POST"],
        response_model=Done,
        tags=["actions"],
    )
