"""The way out: evidence to a destination, by C-STORE or STOW-RS, byte for byte as it lies on disk.

One answer per object, so that what was refused or lost is sent again and what was kept is not. When to try again is
said by ``next_try``; the ledger remembers it, not this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from node import dicomweb, dimse
from node.answers import CONFLICT, DELIVERED, Answer, next_try
from node.destinations import Destination, Outgoing, outgoing
from node.dimse import Promise
from node.errors import NodeError

__all__ = [
    "Answer",
    "Destination",
    "Outgoing",
    "Promise",
    "count",
    "echo",
    "next_try",
    "outgoing",
    "request_commitment",
    "send",
    "verify",
]


def send(destination: Destination, objects: Sequence[Outgoing]) -> Iterator[Answer]:
    """Send the objects; one answer each, as it comes. Never raises for a peer's fault, and never hangs on one."""
    by_uid = {one.sop_uid: one for one in objects}
    duplicates: list[Answer] = []
    too_large: list[Outgoing] = []
    for answer in _store(destination, objects):
        if answer.verdict == CONFLICT:
            duplicates.append(answer)
        elif answer.status == dicomweb.TOO_LARGE and destination.protocol == "dicomweb" and destination.speaks_dimse:
            too_large.append(by_uid[answer.sop_uid])
        else:
            yield answer
    if too_large:
        yield from dimse.store(destination, too_large)
    if duplicates:
        yield from _settle(destination, duplicates, [by_uid[answer.sop_uid] for answer in duplicates])


def verify(destination: Destination, objects: Sequence[Outgoing]) -> set[str] | None:
    """The SOP Instance UIDs of these objects that the peer says it has; None if it cannot say."""
    ask = dicomweb.verify if destination.protocol == "dicomweb" else dimse.verify
    return ask(destination, objects)


def request_commitment(
    destination: Destination, objects: Sequence[Outgoing], transaction_uid: str, *, has_come: Callable[[], bool]
) -> Promise:
    """Ask a DICOM peer to say that it keeps the objects; it may say so at once, or on an association of its own.

    A peer that cannot be asked has not taken the request.
    """
    try:
        return dimse.request_commitment(destination, objects, transaction_uid, has_come=has_come)
    except (NodeError, OSError):
        return Promise(is_taken=False)


def count(destination: Destination, study_uid: str) -> int | None:
    """How many instances of the study the peer says that it has; None if it does not say.

    Raises:
        NodeError: If it cannot be asked.
    """
    ask = dicomweb.count if destination.protocol == "dicomweb" else dimse.count
    return ask(destination, study_uid)


def echo(destination: Destination) -> str | None:
    """None if the destination answers, else the sentence that says why not."""
    return dicomweb.echo(destination) if destination.protocol == "dicomweb" else dimse.echo(destination)


def _store(destination: Destination, objects: Sequence[Outgoing]) -> Iterator[Answer]:
    store = dicomweb.store if destination.protocol == "dicomweb" else dimse.store
    return store(destination, objects)


def _settle(destination: Destination, answers: list[Answer], objects: list[Outgoing]) -> Iterator[Answer]:
    """0111 says that the UID is there already: ours from an answer that was lost, if asking back finds it."""
    held = verify(destination, objects) or set()
    for answer in answers:
        if answer.sop_uid in held:
            yield replace(answer, verdict=DELIVERED, comment="it was there already")
        else:
            yield answer
