"""The way in by HTTP: the parts of a STOW-RS request into the spool and the ledger, and what is answered (PS3.18 10.5).

The same promises as the listener's: an instance is named as stored only when it is durable in the spool and written
down in the ledger; what is refused carries the same reason. Nothing is ever whole in memory. It knows no web framework
and decodes no pixels.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Protocol

from node import log
from node.audit import Actor, Audited, Seldom, alarm, unrecorded
from node.errors import CannotUnderstand, DataSetDoesNotMatch, InvalidUid, OutOfResources, Refusal
from node.instance import DEFLATED, FileMeta, is_uid, read_meta
from node.listener.journal import received
from node.listener.negotiation import STORAGE_CLASSES
from node.multipart import read_parts
from node.spool import Arrival, Origin, Spool
from node.stow_response import Response

LEASE_SECONDS = 15.0  # a study stays open so long after something of it was heard
RENEW_SECONDS = 4.0
BATCH = 500  # instances that share a transaction of the ledger
_META = 64 << 10  # File Meta Information ends within it
MOST = 50_000  # instances of one request

# Failure Reason (0008,1197), PS3.18 Table I.2-2
SOP_CLASS_NOT_SUPPORTED, TRANSFER_SYNTAX_NOT_SUPPORTED, PROCESSING_FAILURE = 0x0122, 0xC122, 0x0110

_events = log.get("stow")


class Ledger(Protocol):
    """What is needed of the ledger."""

    def now(self) -> float: ...

    def record(self, arrivals: list[Arrival], *, settle_at: float, settle_by_seconds: float) -> None: ...

    def settle_at(self, study_uids: Iterable[str], when: float) -> None: ...


@dataclass(frozen=True)
class Sender:
    """A peer that may send, by its address: as the listener's, for HTTP has no AE title."""

    ae_title: str
    address: IPv4Network | IPv6Network
    quiet_seconds: float | None = None


@dataclass(frozen=True)
class StowOptions:
    """Who may store, how much, and how long a study then waits for more; as the listener's options.

    Attributes:
        senders: None: this machine alone.
    """

    own: str = "WETREAD"
    senders: tuple[Sender, ...] = ()
    quiet_seconds: float = 3.0
    longest_wait_seconds: float = 900.0
    largest_bytes: int = 16 << 30

    def sender(self, address: str) -> Sender | None:
        """Who asks from there; None if nobody may."""
        try:
            at = ip_address(address.partition("%")[0])
        except ValueError:
            return None
        if not self.senders:
            return Sender("STOW-RS", IPv4Network("127.0.0.0/8")) if at.is_loopback else None
        return next((sender for sender in self.senders if at in sender.address), None)


class Stow:
    """Stores; to be called from any thread, which it keeps until the request has ended.

    Args:
        audited: Is told what came, once it is stored.
    """

    def __init__(self, options: StowOptions, spool: Spool, ledger: Ledger, *, audited: Audited = unrecorded) -> None:
        self.options, self.audited, self._spool, self._ledger = options, audited, spool, ledger
        self._seldom = Seldom()

    def refuse(self, address: str) -> None:
        """Somebody who may not store has asked."""
        _events.warning("refused a sender", address=address)
        if self._seldom(address):
            who, us = Actor("unknown", address, "STOW-RS"), Actor(self.options.own)
            sentence = "the address is none of the peers that may send"
            self.audited(alarm("node authentication", sentence, reporter=us, culprit=who, where=address))

    def is_full(self) -> bool:
        return self._spool.free_bytes() <= 0

    def store(
        self, chunks: Iterable[bytes], boundary: bytes, *, sender: Sender, address: str, study_uid: str | None = None
    ) -> Response:
        """Store the parts of a multipart/related body.

        Args:
            study_uid: Only instances of this study are taken.

        Raises:
            Truncated: The body is no multipart, or ends before its end; what came before stays stored.
            Unavailable: The ledger cannot be written: what came is kept, but nothing is promised.
        """
        request = _Request(self, self._spool, self._ledger, sender, address)
        try:
            for number, (headers, pieces) in enumerate(read_parts(chunks, boundary)):
                request.take(headers, request.watched(pieces), study_uid, number)
        finally:
            request.close()
        return request.response


class _Request:
    """One request while it comes in."""

    def __init__(self, stow: Stow, spool: Spool, ledger: Ledger, sender: Sender, address: str) -> None:
        self._stow, self._options, self._spool, self._ledger = stow, stow.options, spool, ledger
        self._sender, self._address = sender, address
        self.response = Response()
        self._unrecorded: list[Arrival] = []
        self._kept: dict[str, list[Arrival]] = defaultdict(list)
        self._renew_at = 0.0

    def watched(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The pieces; meanwhile the studies of what came before are kept open."""
        for piece in pieces:
            if self._kept and time.monotonic() >= self._renew_at:
                self._record()
                self._ledger.settle_at(list(self._kept), self._ledger.now() + LEASE_SECONDS)
                self._renew_at = time.monotonic() + RENEW_SECONDS
            yield piece

    def take(self, headers: dict[str, str], pieces: Iterator[bytes], study_uid: str | None, number: int) -> None:
        """Store one part, or note why not."""
        meta: FileMeta | None = None
        try:
            if number >= MOST:
                raise OutOfResources(f"more than {MOST} instances in one request")
            kind = headers.get("content-type", "application/dicom").partition(";")[0].strip().lower()
            if kind != "application/dicom":
                raise CannotUnderstand(f"a part of {kind[:60]}, not application/dicom")
            head = _begin(pieces)
            meta = _meta(head)
            arrival = self._keep(meta, head, pieces, study_uid)
        except Refusal as refusal:
            self._refuse(meta, refusal)
            return
        self._kept[arrival.study_uid].append(arrival)
        self._unrecorded.append(arrival)
        if len(self._unrecorded) >= BATCH:
            self._record()

    def _keep(self, meta: FileMeta, head: bytes, pieces: Iterator[bytes], study_uid: str | None) -> Arrival:
        if not is_uid(meta.sop_uid):
            raise InvalidUid("Media Storage SOP Instance UID breaks the rules for UIDs")
        if meta.transfer_syntax in DEFLATED:
            raise _NoTransferSyntax("deflated instances are not taken")
        if meta.sop_class not in STORAGE_CLASSES:
            raise _NoClass("the SOP class is none that is stored")
        with self._spool.receive(
            sop_class=meta.sop_class, sop_uid=meta.sop_uid, transfer_syntax=meta.transfer_syntax
        ) as part:
            for piece in itertools.chain((head[meta.dataset_start :],), pieces):
                part.write(piece)
                if part.size > self._options.largest_bytes:
                    raise CannotUnderstand(f"larger than {self._options.largest_bytes} bytes")
            found = part.head()
            if found.sop_uid != meta.sop_uid or found.sop_class != meta.sop_class:
                raise DataSetDoesNotMatch("the dataset is not the instance that its meta information names")
            if study_uid is not None and found.study_uid != study_uid:
                raise DataSetDoesNotMatch("the instance is of another study than the request")
            return part.keep(found, Origin(self._sender.ae_title, self._address, time.time()))

    def _refuse(self, meta: FileMeta | None, refusal: Refusal) -> None:
        if meta is not None and is_uid(meta.sop_uid):
            self.response.failed.append((meta.sop_class, meta.sop_uid, refusal.status))
        else:
            self.response.others.append(refusal.status)
        _events.warning(
            "refused an instance",
            caller=self._sender.ae_title,
            address=self._address,
            status=f"{refusal.status:04X}",
            reason=str(refusal),
            sop=meta.sop_uid if meta and is_uid(meta.sop_uid) else None,
        )

    def _record(self) -> None:
        """Into the ledger; only then they count as stored."""
        if not self._unrecorded:
            return
        lease = self._ledger.now() + LEASE_SECONDS
        wait = self._options.longest_wait_seconds
        self._ledger.record(self._unrecorded, settle_at=lease, settle_by_seconds=wait)
        self._spool.recorded(self._unrecorded)
        self.response.stored += [(one.sop_class, one.sop_uid) for one in self._unrecorded]
        self._unrecorded = []

    def close(self) -> None:
        """The request has ended: its studies may settle when it has been quiet."""
        if not self._kept:
            return
        self._record()
        quiet = self._sender.quiet_seconds
        quiet = self._options.quiet_seconds if quiet is None else quiet
        self._ledger.settle_at(list(self._kept), self._ledger.now() + quiet)
        for study_uid, arrivals in self._kept.items():
            self._stow.audited(*received(arrivals, receiver=self._options.own, way="STOW-RS"))
            _events.info("stored", study=study_uid, caller=self._sender.ae_title, count=len(arrivals))


class _NoClass(Refusal):
    status = SOP_CLASS_NOT_SUPPORTED


class _NoTransferSyntax(Refusal):
    status = TRANSFER_SYNTAX_NOT_SUPPORTED


def _begin(pieces: Iterator[bytes]) -> bytes:
    """The first bytes of a part, its File Meta Information among them."""
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= _META:
            break
    return head


def _meta(head: bytes) -> FileMeta:
    file = os.memfd_create("meta")
    try:
        os.write(file, head)
        return read_meta(file)
    finally:
        os.close(file)
