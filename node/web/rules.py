"""Try the routing rules on a file: which match, and of those that do not, which condition fails and why.

The file is looked at and forgotten; what it says of the patient is quoted to nobody.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from node import routing
from node.accounts import Role
from node.errors import NodeError
from node.web.guard import allowed
from node.web.modes import modes_of
from node.web.site import Site
from node.web.view import form, page
from pipelines.instance import Unreadable, open_header, text, value

LONGEST_FILE = 64 << 20  # bytes
SHOWN = (
    "Modality",
    "BodyPartExamined",
    "StudyDescription",
    "SeriesDescription",
    "ImageType",
    "StationName",
    "SliceThickness",
)


def routes(site: Site) -> list[Route]:
    @allowed(Role.VIEWER)
    def rules(request: Request) -> Response:
        modes = modes_of(site.routes, site.ledger.switched())
        return page(request, "rules.html", rules=site.routes, modes=modes, matches=None, shows={}, name="")

    def tried(request: Request, filled: FormData) -> Response:
        sent = filled.get("file")
        if not isinstance(sent, UploadFile) or not sent.size:
            raise NodeError("no file came; choose or drop one of the study's DICOM files")
        with tempfile.NamedTemporaryFile(suffix=".dcm") as kept:
            while piece := sent.file.read(1 << 20):
                kept.write(piece)
            kept.flush()
            try:
                header = open_header(Path(kept.name))
            except Unreadable as error:
                raise NodeError(f"this file cannot be read: {error}") from error
            switched = site.ledger.switched()
            matches = routing.route([header], site.routes, {name: one.mode for name, one in switched.items()})
            shows = {keyword: _shown(header, keyword) for keyword in SHOWN}
        return page(
            request,
            "rules.html",
            rules=site.routes,
            modes=modes_of(site.routes, switched),
            matches=sorted(matches, key=lambda one: not one.matched),
            shows=shows,
            name=Path(sent.filename or "").name[:80],
        )

    return [Route("/rules", rules), form("/rules", Role.VIEWER, tried, longest=LONGEST_FILE)]


def _shown(header: Dataset, keyword: str) -> str:
    found = value(header, keyword)
    return ", ".join(map(str, found)) if isinstance(found, MultiValue) else text(header, keyword)
