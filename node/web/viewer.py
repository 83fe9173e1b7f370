"""OHIF for people who want to look: its built files and a PACS's DICOMweb, both from one origin, on loopback.

It passes reading on (GET) and nothing else; it keeps nothing, and knows no user: beyond this machine a site puts its
own viewer there (deploy/).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# SharedArrayBuffer, which OHIF's decoders use, needs the first two (HTML standard, cross-origin isolation).
_HEADERS = (
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-embedder-policy", b"require-corp"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
_PASSED_ON = ("content-type", "content-length", "content-encoding")


def make_viewer(ohif: Path, config: Path, pacs: str) -> Starlette:
    """
    Args:
        ohif: The built files of OHIF (``dist`` of the npm package @ohif/app), made for ``/``.
        config: Its app-config.js, which asks for DICOMweb at ``/dicom-web``.
        pacs: Where ``/dicom-web`` is passed on to, as ``http://127.0.0.1:8042``.
    """
    client = httpx.AsyncClient(base_url=pacs, timeout=120)

    async def dicomweb(request: Request) -> Response:
        asked = client.build_request(
            "GET",
            request.url.path,
            params=request.query_params,
            headers={"accept": request.headers.get("accept", "*/*"), "host": request.headers.get("host", "")},
        )
        try:
            answer = await client.send(asked, stream=True)
        except httpx.HTTPError as error:
            return Response(f"the PACS at {pacs} does not answer: {type(error).__name__}", 502)
        headers = {name: answer.headers[name] for name in _PASSED_ON if name in answer.headers}
        return StreamingResponse(_body(answer), answer.status_code, headers)

    async def app_config(_: Request) -> Response:
        return FileResponse(config, media_type="text/javascript")

    return Starlette(
        routes=[
            Route("/dicom-web/{path:path}", dicomweb, methods=["GET"]),
            Route("/app-config.js", app_config),
            Mount("/", _OnePage(directory=ohif, html=True)),
        ],
        middleware=[Middleware(_Isolated)],
    )


async def _body(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in answer.aiter_raw():
            yield piece
    finally:
        await answer.aclose()


class _OnePage(StaticFiles):
    """Files as they are; whatever is no file is a place inside the application, so its one page."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        try:
            return await super().get_response(path, scope)
        except HTTPException as error:
            if error.status_code != 404 or Path(path).suffix:
                raise
            return await super().get_response("index.html", scope)


class _Isolated:
    """Adds the headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        await self._app(scope, receive, with_headers)


def serve_viewer(ohif: Path, config: Path, pacs: str, *, port: int) -> None:
    """Until the process is told to stop.

    Raises:
        OSError: If the port is taken.
    """
    server = uvicorn.Server(
        uvicorn.Config(make_viewer(ohif, config, pacs), host="127.0.0.1", port=port, log_level="warning")
    )
    asyncio.run(server.serve())
