"""The order in which studies should be read, and why: what findings have raised first, then as urgent as it came."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from node.accounts import Role
from node.ledger import Asked, Job, JobState, StudyEntry, StudyState
from node.triage.rules import Rule, present, raised, said_of
from node.web.guard import allowed
from node.web.site import Site
from node.web.view import page

LOOKED_AT = 100  # the studies that came last
ORDINARY = 5


@dataclass(frozen=True)
class Place:
    """A study in the order.

    Attributes:
        priority: 0 the most urgent to 9.
        found: What is above its operating point, in words.
        otherwise: What is said where nothing was found.
    """

    study: StudyEntry
    priority: int
    is_raised: bool
    found: tuple[str, ...]
    otherwise: str
    why: str


def in_order(studies: Sequence[StudyEntry], jobs: dict[str, list[Job]], rules: Sequence[Rule]) -> list[Place]:
    """The most urgent first; of the equally urgent the one that waits longest. Held studies are nobody's to read."""
    placed = [_placed(study, jobs[study.uid], rules) for study in studies if study.state != StudyState.HELD]
    return sorted(placed, key=lambda one: (one.priority, one.study.last_arrival))


def _placed(study: StudyEntry, jobs: Sequence[Job], rules: Sequence[Rule]) -> Place:
    jobs = [job for job in jobs if not job.shadow]  # nobody is told what those say, and they move nothing
    read = [(job, json.loads(job.runs)) for job in jobs if job.runs]
    said = [one for _, runs in read for one in said_of(present(runs))]
    found = tuple(one.sentence for one in said)
    is_open = any(job.state in (JobState.QUEUED, JobState.RUNNING) for job in jobs)
    has_answer = any(run["status"] == "read" for _, runs in read for run in runs)
    otherwise = "not read yet" if is_open else "nothing" if has_answer else "not evaluated"
    lifts = [lift for job, runs in read if (lift := raised(rules, job.pipeline, runs))]
    first = min(lifts, key=lambda lift: lift.priority, default=None)
    urgent = min((job.priority for job in jobs), default=ORDINARY)
    if first is not None and first.priority <= urgent:
        return Place(study, first.priority, True, found, otherwise, first.why)
    job = min(jobs, key=lambda one: one.priority, default=None)
    if job is None:
        why = study.reason or "no pipeline reads it; in the order of arrival"
        return Place(study, ORDINARY, False, found, otherwise, why)
    says = f"{'no rule of triage moves it' if found else otherwise}; {job.why}"
    return Place(study, urgent, False, found, otherwise, says)


def reading_order(site: Site) -> list[Place]:
    """The studies that came last, in the order in which they should be read."""
    studies = site.ledger.find_studies(Asked(limit=LOOKED_AT))
    return in_order(studies, site.ledger.jobs_of([one.uid for one in studies]), site.triage)


def routes(site: Site) -> list[Route]:
    @allowed(Role.VIEWER)
    def triage(request: Request) -> Response:
        order = reading_order(site)
        return page(request, "order.html", order=order, rules=site.triage, ledger_now=site.ledger.now())

    return [Route("/triage", triage)]
