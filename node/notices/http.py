"""One HTTP exchange with a receiver, which may hang, drip, redirect or never end; and what its status means."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from node.answers import CONFLICT, DELIVERED, FEW, REFUSED, RETRY, Answer, Row
from node.errors import Unavailable
from node.notices.receiver import Receiver

LARGEST = 1 << 20  # bytes of an answer that are read; nobody who is told has more to say

# RFC 9110. A receiver that is told for the second time finds what it was told first: 409 is for the caller to judge.
TOLD_STATUS = (
    Row(200, 299, DELIVERED, ""),
    Row(300, 399, REFUSED, "the service has moved; correct the url"),
    Row(401, 401, REFUSED, "the credentials are missing, wrong or expired"),
    Row(403, 403, REFUSED, "these credentials may not do this"),
    Row(404, 404, REFUSED, "there is no such service at this address"),
    Row(408, 408, RETRY, "request timeout"),
    Row(409, 409, CONFLICT, "it says that this is there already"),
    Row(412, 412, RETRY, "it was changed by another meanwhile", FEW),
    Row(425, 425, RETRY, "too early"),
    Row(429, 429, RETRY, "too many requests"),
    Row(400, 499, REFUSED, "refused"),
    Row(500, 599, RETRY, "server error"),
    Row(0, 999, RETRY, "a status that HTTP does not know", FEW),
)


@dataclass(frozen=True)
class Reply:
    """What a receiver said."""

    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def retry_after(self) -> float | None:
        try:
            return max(0.0, float(self.headers.get("Retry-After", "")))
        except ValueError:
            return None  # a date, or nothing


class Line:
    """Asks one receiver, one exchange after the other; to be closed."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        headers = {"User-Agent": "wetread", "Accept-Encoding": "identity"}  # what is not packed cannot be a bomb
        auth = None
        if token := receiver.secret("token"):
            headers["Authorization"] = f"Bearer {token}"
        elif receiver.user:
            auth = httpx.BasicAuth(receiver.user, receiver.secret("password") or "")
        verify = receiver.ssl_context() if str(receiver.url).startswith("https") else True
        timeout = httpx.Timeout(receiver.answer_seconds, connect=min(10.0, receiver.answer_seconds))
        self._client = httpx.Client(headers=headers, auth=auth, verify=verify, timeout=timeout, trust_env=False)

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def ask(self, method: str, url: str, *, content: bytes = b"", headers: Mapping[str, str] | None = None) -> Reply:
        """One exchange.

        Raises:
            Unavailable: If there is no whole answer in time.
        """
        until = time.monotonic() + self._receiver.answer_seconds
        try:
            with self._client.stream(method, url, content=content, headers=dict(headers or {})) as response:
                body = b""
                for piece in response.iter_raw():
                    body += piece
                    if time.monotonic() > until:
                        raise httpx.ReadTimeout("it drips")
                    if len(body) > LARGEST:
                        break
                return Reply(response.status_code, response.headers, body)
        except httpx.TimeoutException as error:
            seconds = f"{self._receiver.answer_seconds:g} s"
            raise Unavailable(f"{self._receiver.where} does not answer within {seconds}") from error
        except httpx.HTTPError as error:
            raise Unavailable(f"{self._receiver.where} does not answer: {error or type(error).__name__}") from error


def judge(uid: str, reply: Reply, doing: str) -> Answer:
    """What the reply means for the message ``uid``; its own words are left out: they may name the patient."""
    row = next(row for row in TOLD_STATUS if row.first <= reply.status <= row.last)
    said = f"{doing}: {row.meaning} (HTTP {reply.status})" if row.meaning else ""
    return Answer(uid, reply.status, row.verdict, said, row.tries, reply.retry_after if row.verdict == RETRY else None)
