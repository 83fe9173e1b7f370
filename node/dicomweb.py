"""A DICOMweb server as a client sees it: STOW-RS, QIDO-RS, WADO-RS (PS3.18 chapter 10), over httpx.

Objects are streamed from and to files, byte for byte. Neither the environment's proxies nor ~/.netrc are used, and no
redirect is followed: evidence goes to the address in settings.toml or nowhere. Credentials are never logged.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from node.answers import RETRY, Answer, judge_http
from node.destinations import Destination, Outgoing
from node.errors import NodeError, Unavailable
from node.multipart import FileParts, Truncated, boundary_of, read_parts
from node.stored import Stored, value_of

BATCH_BYTES = 64 * 1024 * 1024  # one request holds so much at most, or one object
LONGEST_ANSWER = 16 * 1024 * 1024
PAGE = 200  # matches per QIDO-RS request
TOO_LARGE = 413

SOP_INSTANCE_UID, STUDY_INSTANCE_UID, RELATED_INSTANCES = "00080018", "0020000D", "00201208"


def store(destination: Destination, objects: Sequence[Outgoing]) -> Iterator[Answer]:
    """Send the objects by STOW-RS, in one request or several; one answer each."""
    present = [one for one in objects if one.path.is_file()]
    for one in objects:
        if one not in present:
            yield Answer(one.sop_uid, None, RETRY, f"{one.path.name} is not there to be sent")
    if not present:
        return
    try:
        client = _client(destination)
    except NodeError as error:  # a credential or a certificate is not there; it can be mended
        yield from (Answer(one.sop_uid, None, RETRY, str(error)) for one in present)
        return
    with client:
        for batch in _batches(present):
            yield from _post(client, destination, batch)


def verify(destination: Destination, objects: Sequence[Outgoing]) -> set[str] | None:
    """The SOP Instance UIDs of these objects that QIDO-RS finds; None if the server cannot say."""
    held: set[Any] = set()
    try:
        with _client(destination) as client:
            for one in objects:
                path, key = f"studies/{one.study_uid}/instances", {"SOPInstanceUID": one.sop_uid}
                held.update(value_of(match, SOP_INSTANCE_UID) for match in _get_json(client, destination, path, key))
    except (NodeError, AttributeError, TypeError):  # the last two: matches that are not DICOM JSON
        return None
    return held & {one.sop_uid for one in objects}


def count(destination: Destination, study_uid: str) -> int | None:
    """Number of Study Related Instances (0020,1208) as QIDO-RS tells it (PS3.18 Table 10.6.3-3); None if it does not.

    Raises:
        NodeError: If the server cannot be asked.
    """
    keys = {"StudyInstanceUID": study_uid, "includefield": RELATED_INSTANCES}
    with _client(destination) as client:
        found = _get_json(client, destination, "studies", keys)
    try:
        told = [
            value_of(match, RELATED_INSTANCES) for match in found if value_of(match, STUDY_INSTANCE_UID) == study_uid
        ]
        return max((int(each) for each in told if each is not None), default=None)
    except (AttributeError, TypeError, ValueError):  # matches that are not DICOM JSON
        return None


def echo(destination: Destination) -> str | None:
    """None if the server answers a QIDO-RS search, else one sentence that says why not."""
    try:
        with _client(destination) as client:
            _get_json(client, destination, "studies", {"limit": "1"})
    except NodeError as error:
        return str(error)
    return None


def search(destination: Destination, path: str, **keys: str) -> Iterator[dict[str, Any]]:
    """QIDO-RS: the matches for ``keys`` at ``studies``, ``studies/{uid}/series`` and so on, page by page.

    Raises:
        Unavailable: If the server does not answer now.
        NodeError: If it refuses.
    """
    with _client(destination) as client:
        offset, before = 0, None
        while True:
            page = _get_json(client, destination, path, {**keys, "limit": str(PAGE), "offset": str(offset)})
            if page == before:  # a server that does not know offset gives the same page for ever
                return
            yield from page
            if len(page) < PAGE:
                return
            offset, before = offset + PAGE, page


def retrieve(
    destination: Destination, into: Path, study_uid: str, series_uid: str | None = None, sop_uid: str | None = None
) -> Iterator[Path]:
    """WADO-RS: the instances of a study, a series, or one, each as a file in ``into``, in the syntax it is kept in.

    Raises:
        Unavailable: If the server does not answer, or stops in the middle; the files that were whole remain.
        NodeError: If it refuses.
    """
    path = f"studies/{study_uid}"
    path += f"/series/{series_uid}" if series_uid else ""
    path += f"/instances/{sop_uid}" if sop_uid else ""
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    with _client(destination) as client:
        try:
            with client.stream("GET", path, headers={"Accept": accept}) as response:
                _must_be_ok(response, destination)
                boundary = boundary_of(response.headers.get("Content-Type", ""))
                for number, (_, body) in enumerate(read_parts(response.iter_bytes(), boundary), start=1):
                    yield _keep(body, into / f"{number:06d}.dcm")  # a name of ours: a UID could be a path
        except (httpx.HTTPError, Truncated) as error:
            raise Unavailable(_sentence(error, destination)) from error


def _keep(pieces: Iterator[bytes], path: Path) -> Path:
    partial = path.with_suffix(".part")
    try:
        with partial.open("wb") as file:
            file.writelines(pieces)
        return partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def _client(destination: Destination) -> httpx.Client:
    headers = {"User-Agent": "wetread", "Accept-Encoding": "identity"}  # what is not packed cannot be a bomb
    auth = None
    if token := destination.secret("token"):
        headers["Authorization"] = f"Bearer {token}"
    elif destination.user is not None:
        auth = httpx.BasicAuth(destination.user, destination.secret("password") or "")
    url = str(destination.url).rstrip("/") + "/"
    return httpx.Client(
        base_url=url,
        auth=auth,
        headers=headers,
        verify=destination.ssl_context() if url.startswith("https:") else False,
        timeout=httpx.Timeout(destination.dimse_seconds, connect=destination.connect_seconds),
        follow_redirects=False,
        trust_env=False,
    )


def _batches(objects: Sequence[Outgoing]) -> Iterator[list[Outgoing]]:
    batch: list[Outgoing] = []
    size = 0
    for one in objects:
        length = one.path.stat().st_size
        if batch and size + length > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += length
    if batch:
        yield batch


def _post(client: httpx.Client, destination: Destination, batch: list[Outgoing]) -> Iterator[Answer]:
    boundary = f"wetread-{uuid4().hex}"
    try:
        parts = FileParts([one.path for one in batch], content_type="application/dicom", boundary=boundary)
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Content-Length": str(parts.length),
            "Accept": "application/dicom+json, application/dicom+xml;q=0.5",
        }
        with client.stream("POST", "studies", content=iter(parts), headers=headers) as response:
            body = _body(response, destination)
    except (httpx.HTTPError, OSError, Unavailable) as error:
        yield from (Answer(one.sop_uid, None, RETRY, _sentence(error, destination)) for one in batch)
        return
    if response.status_code == TOO_LARGE and len(batch) > 1:
        for one in batch:
            yield from _post(client, destination, [one])
        return
    said, wait = Stored.of(body, response.headers.get("Content-Type", "")), _retry_after(response)
    for one in batch:
        answer = said.answer(one.sop_uid, response.status_code)
        yield replace(answer, retry_after=wait) if answer.verdict == RETRY else answer


def _get_json(
    client: httpx.Client, destination: Destination, path: str, params: dict[str, str]
) -> list[dict[str, Any]]:
    try:
        with client.stream("GET", path, params=params, headers={"Accept": "application/dicom+json"}) as response:
            _must_be_ok(response, destination)
            found = json.loads(_body(response, destination) or b"[]")
    except httpx.HTTPError as error:
        raise Unavailable(_sentence(error, destination)) from error
    except ValueError as error:
        raise NodeError(f"{destination.where} answers a search with something that is not JSON") from error
    if not isinstance(found, list):
        raise NodeError(f"{destination.where} answers a search with something that is not a list of matches")
    return found


def _must_be_ok(response: httpx.Response, destination: Destination) -> None:
    if response.is_success:
        return
    answer = judge_http("", response.status_code)
    kind = Unavailable if answer.verdict == RETRY else NodeError
    raise kind(f"{destination.where}: {answer.comment}")


def _body(response: httpx.Response, destination: Destination) -> bytes:
    """The whole answer, within a length and a time: httpx counts the seconds of each read only."""
    deadline = time.monotonic() + destination.dimse_seconds
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > LONGEST_ANSWER:
            raise Unavailable(f"{destination.where} gives an answer of more than {LONGEST_ANSWER} bytes")
        if time.monotonic() > deadline:
            raise Unavailable(f"{destination.where} does not finish its answer")
    return bytes(body)


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds, from either form of Retry-After (RFC 9110 10.2.3)."""
    said = response.headers.get("Retry-After", "").strip()
    if said.isdigit():
        return float(said)
    try:
        return max(0.0, (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _sentence(error: Exception, destination: Destination) -> str:
    if isinstance(error, NodeError):
        return str(error)
    if isinstance(error, httpx.ConnectTimeout):
        return f"{destination.where} does not answer: no connection within {destination.connect_seconds:.0f} s"
    if isinstance(error, httpx.TimeoutException):
        return f"{destination.where} did not answer within {destination.dimse_seconds:.0f} s"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return destination.unreachable(cause)
        cause = cause.__cause__ or cause.__context__
    return f"{destination.where} breaks off: {error}"
