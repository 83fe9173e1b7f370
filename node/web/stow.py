"""STOW-RS in: POST to /dicom-web/studies and /dicom-web/studies/{study} (PS3.18 10.5). HTTP alone; node/stow.py stores.

The body is read as it comes, and not before it is clear that its sender may store and that there is room.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from node import log
from node.errors import Unavailable
from node.instance import is_uid
from node.multipart import Truncated, boundary_of
from node.stow import Stow
from node.web.guard import allowed

AT_ONCE = 16  # requests; each keeps a thread
SILENT_SECONDS = 60.0  # a sender that brings nothing for so long is cut off
RETRY_SECONDS = 30

_events = log.get("stow")
Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]


def routes(stow: Stow) -> list[Route]:
    endpoint = storing(stow)
    paths = ("/dicom-web/studies", "/dicom-web/studies/{study}")
    return [Route(path, endpoint, methods=["POST"]) for path in paths]


def storing(stow: Stow) -> Endpoint:
    """The endpoint."""
    places = anyio.CapacityLimiter(AT_ONCE)

    @allowed(None)  # whose address is that of a peer may store, and no other
    async def store(request: Request) -> Response:
        address = request.client.host if request.client else ""
        sender = stow.options.sender(address)
        if sender is None:
            stow.refuse(address)
            return _refusal(403, f"{address} is none of the peers that may send; node.peers in the settings lists them")
        study_uid = request.path_params.get("study")
        if study_uid is not None and not is_uid(study_uid):
            return _refusal(400, "the study of the address is no UID")
        content_type = request.headers.get("content-type", "")
        if objection := _objection(content_type, request.headers.get("content-encoding", "")):
            return _refusal(415, objection)
        is_xml = _wants_xml(request.headers.get("accept", ""))
        if is_xml is None:
            return _refusal(406, "the answer is application/dicom+json or application/dicom+xml")
        if stow.is_full() or places.borrowed_tokens >= AT_ONCE:
            return _refusal(503, "there is no room now; come back later", retry=True)
        try:
            boundary = boundary_of(content_type)
            response = await anyio.to_thread.run_sync(
                lambda: stow.store(_pulled(request), boundary, sender=sender, address=address, study_uid=study_uid),
                limiter=places,
            )
        except Truncated as fault:
            return _refusal(400, f"the body is no multipart of DICOM files: {fault}")
        except TimeoutError:
            return _refusal(408, f"nothing came for {SILENT_SECONDS:.0f} s")
        except Unavailable as fault:
            return _refusal(503, str(fault), retry=True)
        except ClientDisconnect:
            _events.warning("line is dead", caller=sender.ae_title, address=address)
            return _refusal(400, "the line was cut")
        headers = {"retry-after": str(RETRY_SECONDS)} if response.status == 503 else None
        if is_xml:
            return Response(response.as_xml(), response.status, headers, "application/dicom+xml")
        return Response(json.dumps(response.as_json()), response.status, headers, "application/dicom+json")

    return store


def _pulled(request: Request) -> Iterator[bytes]:
    """The body, pulled from a thread: the sender is not read faster than the disk takes it."""
    stream = request.stream()

    async def following() -> bytes | None:
        with anyio.fail_after(SILENT_SECONDS):
            return await anext(stream, None)

    while (chunk := anyio.from_thread.run(following)) is not None:
        if chunk:
            yield chunk


def _objection(content_type: str, encoding: str) -> str:
    """Why the body is not one that is taken; empty if it is."""
    if encoding.lower() not in ("", "identity"):
        return f"a body in {encoding[:30]}: what inflates is not taken"
    kind, _, parameters = content_type.partition(";")
    if kind.strip().lower() != "multipart/related":
        return "the body is to be multipart/related with parts of application/dicom"
    related = [one.partition("=")[2].strip(' "') for one in parameters.split(";") if one.strip().startswith("type=")]
    if related and related[0].lower() != "application/dicom":
        return f"parts of {related[0][:60]} are not taken, only application/dicom"
    return ""


def _wants_xml(accept: str) -> bool | None:
    """Whether XML is asked for; None where neither it nor JSON would do."""
    kinds = [one.partition(";")[0].strip().lower() for one in accept.split(",") if one.strip()]
    if not kinds or {"*/*", "application/*", "application/dicom+json", "application/json"} & set(kinds):
        return False
    return True if {"application/dicom+xml", "application/xml", "text/xml"} & set(kinds) else None


def _refusal(status: int, sentence: str, *, retry: bool = False) -> Response:
    return JSONResponse({"detail": sentence}, status, {"retry-after": str(RETRY_SECONDS)} if retry else None)
