"""What a peer's answer means for an object that was sent: two tables, and when to try again.

Pure: no network, no clock, no randomness that is not an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

DELIVERED, WARNING, RETRY, REFUSED, CONFLICT = "delivered", "warning", "retry", "refused", "conflict"
ACCEPTED = frozenset((DELIVERED, WARNING))

FEW = 5  # tries for an answer that may be a passing fault or may be for ever

FIRST_PAUSE, LONGEST_PAUSE = 10.0, 1800.0  # seconds
GIVE_UP_AFTER = 72 * 3600.0  # seconds: a PACS may be away for a long weekend


@dataclass(frozen=True)
class Answer:
    """What became of one object.

    Attributes:
        status: DIMSE Status (0000,0900), or the HTTP status or Failure Reason (0008,1197) of a STOW-RS response;
            None if there was no answer.
        verdict: ``delivered``; ``warning``: kept, with a remark; ``retry``: unknown or passing, send the same object
            again; ``refused``: only a person can help; ``conflict``: the peer holds another object of this UID.
        comment: One sentence for the person who has to do something about it.
        tries: How often to try at most; None: as long as ``next_try`` says.
        retry_after: Seconds that the peer asked for.
    """

    sop_uid: str
    status: int | None
    verdict: str
    comment: str = ""
    tries: int | None = None
    retry_after: float | None = None

    @property
    def is_accepted(self) -> bool:
        return self.verdict in ACCEPTED


class Row(NamedTuple):
    """Statuses from ``first`` to ``last``, both included."""

    first: int
    last: int
    verdict: str
    meaning: str
    tries: int | None = None


# PS3.4 Table B.2-1 and GG.4-1, PS3.7 Annex C; the first row that holds decides.
STORE_STATUS = (
    Row(0x0000, 0x0000, DELIVERED, ""),
    Row(0xB000, 0xB000, WARNING, "coercion of data elements"),
    Row(0xB006, 0xB006, WARNING, "elements discarded"),
    Row(0xB007, 0xB007, WARNING, "data set does not match SOP class"),
    Row(0x0001, 0x0001, WARNING, "a warning without details"),  # Warning class, PS3.7 C.3, also the three below
    Row(0x0107, 0x0107, WARNING, "attribute list error"),
    Row(0x0116, 0x0116, WARNING, "attribute value out of range"),
    Row(0xB001, 0xBFFF, WARNING, "a warning of its own"),
    Row(0x0111, 0x0111, CONFLICT, "duplicate SOP instance"),
    Row(0xA700, 0xA7FF, RETRY, "out of resources"),
    Row(0x0213, 0x0213, RETRY, "resource limitation"),
    Row(0x0110, 0x0110, RETRY, "processing failure", FEW),
    Row(0x0117, 0x0117, REFUSED, "invalid SOP instance"),
    Row(0x0122, 0x0122, REFUSED, "SOP class not supported"),
    Row(0x0124, 0x0124, REFUSED, "not authorised"),
    Row(0x0210, 0x0210, REFUSED, "duplicate invocation"),
    Row(0x0211, 0x0211, REFUSED, "unrecognised operation"),
    Row(0x0212, 0x0212, REFUSED, "mistyped argument"),
    Row(0xA900, 0xA9FF, REFUSED, "data set does not match SOP class"),
    Row(0xC000, 0xCFFF, REFUSED, "cannot understand"),
    Row(0x0000, 0xFFFF, RETRY, "a status that the standard does not know", FEW),
)

# PS3.18 Table 10.5.3-1 and RFC 9110. What an object that the response does not name has become; the one that it names
# is judged by STORE_STATUS.
STOW_STATUS = (
    Row(202, 202, RETRY, "some objects were not stored, and it does not say which"),
    Row(200, 299, DELIVERED, ""),
    Row(409, 409, RETRY, "nothing was stored, and it does not say why", FEW),
    Row(408, 408, RETRY, "request timeout"),
    Row(425, 425, RETRY, "too early"),
    Row(429, 429, RETRY, "too many requests"),
    Row(400, 400, REFUSED, "bad request"),
    Row(401, 401, REFUSED, "the credentials are missing or wrong"),
    Row(403, 403, REFUSED, "these credentials may not store"),
    Row(404, 404, REFUSED, "there is no STOW-RS service at this address"),
    Row(413, 413, REFUSED, "the object is larger than the server takes"),
    Row(415, 415, REFUSED, "unsupported media type"),
    Row(300, 399, REFUSED, "the service has moved; correct the url"),
    Row(400, 499, REFUSED, "refused"),
    Row(500, 599, RETRY, "server error"),
    Row(0, 999, RETRY, "a status that HTTP does not know", FEW),
)


def judge(sop_uid: str, status: int) -> Answer:
    """The answer to a C-STORE with this Status, or to an object with this Failure Reason in a STOW-RS response.

    The peer's own words (Error Comment (0000,0902)) are left out: they may name the patient.
    """
    row = _row(STORE_STATUS, status)
    said = f"{row.meaning} (0x{status:04X})" if row.meaning else ""
    return Answer(sop_uid, status, row.verdict, said, row.tries)


def judge_http(sop_uid: str, status: int, retry_after: float | None = None) -> Answer:
    """The answer to an object of a STOW-RS request whose response does not name it."""
    row = _row(STOW_STATUS, status)
    said = f"{row.meaning} (HTTP {status})" if row.meaning else ""
    return Answer(sop_uid, status, row.verdict, said, row.tries, retry_after if row.verdict == RETRY else None)


def _row(table: tuple[Row, ...], status: int) -> Row:
    return next(row for row in table if row.first <= status <= row.last)


class Random(Protocol):
    """``random.Random``, or whatever a test puts in its place."""

    def uniform(self, a: float, b: float, /) -> float: ...


def next_try(
    attempts: int,
    first_failed_at: float,
    now: float,
    rng: Random,
    *,
    answers: Sequence[Answer] = (),
    answered: int | None = None,
) -> float | None:
    """When to send again what was not accepted; None: never, a person must look.

    From 10 s to 30 min, doubling, with jitter so that a hundred deliveries do not return to a PACS in one instant.

    Args:
        attempts: How many have failed, at least 1.
        first_failed_at, now: Seconds since the epoch.
        answers: Of the last attempt. Their ``tries`` end it sooner, their ``retry_after`` makes the pause longer.
        answered: In how many attempts the peer has answered as now, the last one counted; by default in all. A peer
            that was off has not answered.
    """
    said = attempts if answered is None else answered
    waiting = [answer for answer in answers if answer.verdict == RETRY]
    if answers and not waiting:
        return None
    if waiting and all(answer.tries is not None and said >= answer.tries for answer in waiting):
        return None
    if now - first_failed_at >= GIVE_UP_AFTER:
        return None
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempts, 30))
    pause = rng.uniform(longest / 2, longest)
    asked = max((answer.retry_after or 0.0 for answer in waiting), default=0.0)
    return now + max(pause, min(asked, 24 * 3600.0))
