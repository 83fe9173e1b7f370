"""Pictures of what was found: one per outline, drawn by a program of its own (node/drawing.py), and kept in memory."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from node.accounts import Role
from node.errors import NotNow, Unavailable, Unknown
from node.instance import is_uid
from node.ledger import Job
from node.web.guard import allowed
from node.web.site import Site

MOST = 6  # pictures of a job
AT_ONCE = 2  # programs that draw
KEPT = 64  # pictures
SECONDS = 60.0
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")


@dataclass(frozen=True)
class Shot:
    """What a picture is to show: an outline of a series, or the one image that a finding names."""

    caption: str
    series_uid: str
    label: str | None
    sop_uid: str | None


def shots(job: Job) -> list[Shot]:
    """One per outline that is there; without any, the image of the surest finding."""
    found: dict[tuple[str, str], Shot] = {}
    bare: list[tuple[float, Shot]] = []
    for run in json.loads(job.runs) if job.runs else []:
        series = run.get("series_uid") or ""
        for one in run.get("findings") or ():
            said = f"{one['code'][2]}{_sure(one)}"
            if one.get("segment") and one["present"]:
                found.setdefault(
                    (series, one["segment"]), Shot(f"{one['segment']}{_sure(one)}", series, one["segment"], None)
                )
            elif one["sop_uids"]:
                sure = (one["certainty"] or 0.0) + (1.0 if one["present"] else 0.0)
                bare.append((sure, Shot(said, series, None, one["sop_uids"][0])))
    return list(found.values())[:MOST] or [shot for _, shot in sorted(bare, key=lambda pair: -pair[0])[:1]]


def _sure(finding: Mapping[str, Any]) -> str:
    return "" if finding["certainty"] is None else f", {finding['certainty']:.0%}"


class Drawer:
    def __init__(self, site: Site) -> None:
        self._site = site
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._places = threading.Semaphore(AT_ONCE)

    def picture(self, job: Job, number: int) -> bytes:
        """
        Raises:
            Unknown: The job has no such picture.
            NotNow: It cannot be drawn; the sentence says why.
            Unavailable: Too many are being drawn.
        """
        key = (job.key, number)
        if key in self._kept:
            return self._kept[key]
        asked = shots(job)
        if number >= len(asked):
            raise Unknown(f"job {job.id} has {len(asked)} pictures")
        if not self._places.acquire(timeout=SECONDS):
            raise Unavailable("other pictures are being drawn; try again")
        try:
            drawn = self._drawn(job, asked[number])
        finally:
            self._places.release()
        self._kept[key] = drawn
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return drawn

    def _drawn(self, job: Job, shot: Shot) -> bytes:
        ledger, site = self._site.ledger, self._site
        files = [
            str(site.instance(one.sha256))
            for one in ledger.instances(job.study_uid)
            if one.series_uid == shot.series_uid
        ]
        if not files:
            raise NotNow("the images of this series are not here any more")
        evidence = [str(site.evidence / one.path) for one in ledger.evidence(job.key) if one.sop_class in SEGMENTATIONS]
        given = {"files": files, "segmentations": evidence, "label": shot.label, "sop_uid": shot.sop_uid}
        command = [sys.executable, "-m", "node.drawing"]
        try:
            done = subprocess.run(command, input=json.dumps(given).encode(), capture_output=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise NotNow(f"to draw it took longer than {SECONDS:.0f} s") from None
        if done.returncode != 0 or not done.stdout.startswith(b"\x89PNG"):
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise NotNow(f"it cannot be drawn: {said[-1][:200] if said else done.returncode}")
        return done.stdout


def routes(site: Site) -> list[Route]:
    drawer = Drawer(site)

    @allowed(Role.VIEWER)
    def picture(request: Request) -> Response:
        uid, job_id, number = (request.path_params[name] for name in ("uid", "job", "number"))
        job = site.ledger.job(job_id)
        if not is_uid(uid) or job.study_uid != uid:
            raise Unknown(f"study {uid[:70]} has no job {job_id}")
        try:
            return Response(drawer.picture(job, number), media_type="image/png")
        except NotNow as error:
            return PlainTextResponse(f"{error}\n", 409)

    return [Route("/studies/{uid}/pictures/{job:int}/{number:int}.png", picture)]
