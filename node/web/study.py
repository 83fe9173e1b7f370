"""One study: whose it is, each step with its time, what was found, the evidence, and what went wrong in plain words."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from node.accounts import Role
from node.audit import Act, accessed
from node.errors import Unknown
from node.instance import is_uid
from node.ledger import Instance, Ledger, StudyHistory
from node.web.findings import findings
from node.web.guard import allowed
from node.web.pictures import shots
from node.web.site import Site
from node.web.timeline import steps
from node.web.view import actor_of, page, trouble
from pipelines.instance import Unreadable, open_header, text

SHOWN = (  # what a person tells a study by
    ("PatientName", "Patient"),
    ("PatientID", "Patient ID"),
    ("PatientBirthDate", "Born"),
    ("PatientSex", "Sex"),
    ("AccessionNumber", "Accession"),
    ("StudyDate", "Study date"),
    ("StudyDescription", "Study"),
    ("BodyPartExamined", "Body part"),
)
OBJECTS = {
    "1.2.840.10008.5.1.4.1.1.66.4": "Segmentation",
    "1.2.840.10008.5.1.4.1.1.88.33": "Report (Comprehensive SR)",
    "1.2.840.10008.5.1.4.1.1.88.34": "Report (Comprehensive 3D SR)",
    "1.2.840.10008.5.1.4.1.1.88.22": "Report (Enhanced SR)",
}


def routes(site: Site) -> list[Route]:
    @allowed(Role.VIEWER)
    def study(request: Request) -> Response:
        uid = request.path_params["uid"]
        if not is_uid(uid):
            return trouble(request, "that is no Study Instance UID", status=404)
        try:
            history = site.ledger.study(uid)
        except Unknown as error:
            return trouble(request, str(error), status=404)
        if request.headers.get("x-live") != "1":  # one look is one record, however long it lasts
            site.trail.record(accessed(site.actions.transfer(uid), Act.READ, by=actor_of(request)))
        found = steps(history)
        ledger_now = site.ledger.now()
        return page(
            request,
            "study.html",
            history=history,
            study=history.study,
            patient=patient(site, history),
            steps=found,
            scale=_scale(found, ledger_now),
            shots={job.id: shots(job) for job in history.jobs},
            findings={job.id: findings(job) for job in history.jobs},
            objects=OBJECTS,
            ledger_now=ledger_now,
            is_live=history.study.state == "receiving" or any(step.ends is None for step in found),
        )

    return [Route("/studies/{uid}", study)]


def patient(site: Site, history: StudyHistory) -> dict[str, str]:
    """What the first image says of the patient and the study: it stands in no table of the ledger."""
    first = first_instance(site.ledger, history.study.uid)
    if first is None:
        return {}
    try:
        header = open_header(site.instance(first.sha256))
    except Unreadable as error:
        return {"Patient": f"the first image cannot be read: {error}"}
    told = ((label, _readable(keyword, text(header, keyword))) for keyword, label in SHOWN)
    return {label: value for label, value in told if value}


def first_instance(ledger: Ledger, study_uid: str) -> Instance | None:
    return next(iter(ledger.instances(study_uid)), None)


def _readable(keyword: str, value: str) -> str:
    if keyword.endswith("Name"):
        family, _, given = value.split("=")[0].partition("^")
        return ", ".join(part for part in (family, " ".join(given.split("^")).strip()) if part)
    if keyword.endswith("Date") and len(value) == 8 and value.isdecimal():
        return f"{value[:4]}-{value[4:6]}-{value[6:]}"
    return value


def _scale(found: list[Any], now: float) -> list[tuple[float, float]]:
    """Per step where its bar begins and how wide it is, in percent of the whole time; late steps keep their place."""
    if not found:
        return []
    begins = min(step.begins for step in found)
    whole = max(max((now if step.ends is None else step.ends) for step in found) - begins, 0.001)
    return [
        (min((step.begins - begins) / whole * 100, 99.0), max(min(step.took(now) / whole * 100, 100.0), 0.6))
        for step in found
    ]
