"""The way in: a Storage SCP that puts what it receives into the spool (PS3.4 Annex B), and answers C-ECHO (Annex A).

It also hears the reports of a PACS on storage commitment (Annex J).

    server.py       connections: caps, TLS, threads
    wire.py         bytes against deadlines
    negotiation.py  PS3.8: what an association is agreed to be
    association.py  PS3.8: P-DATA, release and abort
    command.py      PS3.7: command sets
    storage.py      what a request comes to
    commitment.py   what a PACS says that it keeps
    lanes.py        a process for each association
    journal.py      the ledger catches up

It decodes no pixels, runs no pipeline, and imports neither Celery, torch nor the ledger, which it is handed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from node import log
from node.audit import Actor, Audited, Seldom, alarm, unrecorded
from node.listener.association import Aborted, Association, Patience
from node.listener.commitment import CommitmentReport
from node.listener.journal import Journal, Ledger
from node.listener.lanes import Flag, Handover, Lanes
from node.listener.negotiation import (
    CALLED_UNKNOWN,
    CALLER_UNKNOWN,
    CONGESTED,
    TOO_MANY,
    ProtocolFault,
    Rejection,
    Request,
)
from node.listener.server import Guest, Places, Server, Tls, Waiting
from node.listener.storage import Storage
from node.listener.wire import LineIsDead, Stopped, TooSlow, Wire
from node.spool import Arrival, Spool

__all__ = ["Ledger", "Listener", "ListenerOptions", "Patience", "Peer", "Tls", "listening", "serve"]

_events = log.get("listener")


@dataclass(frozen=True)
class Peer:
    """Who may call: an AE title from an address or a network, both or not at all (PS3.15 says nothing of titles alone).

    Attributes:
        quiet_seconds: How long after its associations a study is given for more; None for the listener's.
    """

    ae_title: str
    address: ipaddress.IPv4Network | ipaddress.IPv6Network
    quiet_seconds: float | None = None


@dataclass(frozen=True)
class ListenerOptions:
    """How the listener listens.

    Attributes:
        port: 0 takes a free one.
        peers: Who may call; with none, anybody on this machine and nobody else.
        longest_wait_seconds: After its first instance a study settles, whatever is still open.
        max_waiting: Connections that have not asked for an association yet, of all addresses; half of it of one.
        largest_bytes: Of one instance.
        drain_seconds: How long open associations are given to end when the listener stops.
    """

    ae_title: str = "WETREAD"
    bind: str = "127.0.0.1"
    port: int = 11112
    peers: tuple[Peer, ...] = ()
    quiet_seconds: float = 3.0
    longest_wait_seconds: float = 900.0
    max_associations: int = 60
    max_associations_per_address: int = 50
    max_waiting: int = 128
    largest_bytes: int = 16 << 30
    tls: Tls | None = None
    patience: Patience = field(default_factory=Patience)
    drain_seconds: float = 20.0


class Listener:
    """A Storage SCP that listens, from ``start`` to ``close``.

    Raises:
        Unavailable: The port is taken.
        BadSettings: The certificate or key cannot be used.
    """

    def __init__(
        self, options: ListenerOptions, spool: Spool, ledger: Ledger, *, audited: Audited = unrecorded
    ) -> None:
        self._options, self._spool, self._audited, self._seldom = options, spool, audited, Seldom()
        self._journal = Journal(
            spool,
            ledger,
            quiet_seconds=options.quiet_seconds,
            longest_wait_seconds=options.longest_wait_seconds,
            own=options.ae_title,
            audited=audited,
        )
        self._places = Places(most=options.max_associations, most_per_address=options.max_associations_per_address)
        self._numbers = itertools.count(1)
        self._stopping = Flag()
        self._lanes = Lanes(self._in_lane)
        self._server = Server(
            (options.bind, options.port),
            self._attend,
            tls=options.tls,
            waiting=Waiting(most=options.max_waiting, most_per_address=max(1, options.max_waiting // 2)),
            request_seconds=options.patience.request,
        )

    @property
    def port(self) -> int:
        return self._server.port

    def start(self) -> None:
        self._spool.sweep()
        self._lanes.start()  # before there are threads
        self._journal.start()
        self._server.start()
        _events.info("listening", address=self._options.bind, port=self.port)

    def close(self) -> None:
        """Take no more, let each peer finish the instance that it is sending, and tell the ledger."""
        self._stopping.set()
        all_gone = self._server.close(self._options.drain_seconds)
        self._lanes.close()
        self._journal.close(8)
        _events.info("stopped", state="drained" if all_gone else "cut off")

    def _attend(self, guest: Guest, introduced: Callable[[], None]) -> None:
        """One connection, from its first byte to its last."""
        wire = Wire(guest.connection, stopping=self._stopping.is_set)
        wire.deadline = guest.due
        association = Association(wire, patience=self._options.patience)
        placed = False

        def judge(request: Request) -> Rejection | None:
            nonlocal placed
            rejection = self._objection(request, guest.address)
            placed = not rejection and self._places.take(guest.address)
            return rejection if rejection or placed else TOO_MANY

        try:
            with _courtesy(association, wire, guest.address):
                if not association.negotiate(judge):
                    self._log_rejection(association, guest.address)
                    return
                introduced()
                self._see_through(association, wire, guest)
        finally:
            if placed:
                self._places.leave(guest.address)

    def _see_through(self, association: Association, wire: Wire, guest: Guest) -> None:
        """An association that stands, to its end: in a process of its own, else in this thread."""
        number, caller, began, kept = next(self._numbers), association.request.caller, time.monotonic(), 0

        def arrived(arrival: Arrival | CommitmentReport) -> None:
            nonlocal kept
            if isinstance(arrival, CommitmentReport):
                self._journal.reported(arrival)
                return
            kept += 1
            self._journal.arrived(arrival, number)

        try:
            handover = Handover(association.request, association.contexts, guest.address, wire.unread)
            arrivals = None if self._options.tls else self._lanes.hand_over(guest.connection, handover)
            if arrivals is None:
                self._storage(caller, guest.address, arrived).converse(association)
            else:
                guest.connection.close()  # it is the other process's now
                for arrival in arrivals:
                    arrived(arrival)
        finally:
            peer = self._peer(caller, guest.address)
            quiet = peer.quiet_seconds if peer and peer.quiet_seconds is not None else self._options.quiet_seconds
            self._journal.closed(number, quiet)
            seconds = round(time.monotonic() - began, 3)
            who = {"caller": caller, "address": guest.address, "association": number}
            _events.info("association ended", **who, count=kept, seconds=seconds)

    def _in_lane(
        self, connection: socket.socket, handover: Handover, arrived: Callable[[Arrival | CommitmentReport], None]
    ) -> None:
        """What the other process does."""
        wire = Wire(connection, stopping=self._stopping.is_set, unread=handover.unread)
        association = Association(
            wire, patience=self._options.patience, request=handover.request, contexts=handover.contexts
        )
        with _courtesy(association, wire, handover.address):
            self._storage(handover.request.caller, handover.address, arrived).converse(association)

    def _storage(self, caller: str, address: str, arrived: Callable[[Arrival | CommitmentReport], None]) -> Storage:
        largest = self._options.largest_bytes
        return Storage(self._spool, caller=caller, address=address, largest_bytes=largest, arrived=arrived)

    def _objection(self, request: Request, address: str) -> Rejection | None:
        if self._options.peers:
            if not self._peer(request.caller, address):
                return CALLER_UNKNOWN
        elif not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
            return CALLER_UNKNOWN
        if request.called != self._options.ae_title.strip():
            return CALLED_UNKNOWN
        if self._stopping.is_set() or self._spool.free_bytes() <= 0:
            return CONGESTED
        return None

    def _peer(self, caller: str, address: str) -> Peer | None:
        at = ipaddress.ip_address(address.partition("%")[0])
        return next((peer for peer in self._options.peers if peer.ae_title == caller and at in peer.address), None)

    def _log_rejection(self, association: Association, address: str) -> None:
        rejection, request = association.rejection, association.request
        if rejection:
            code = f"{rejection.result}/{rejection.source}/{rejection.reason}"
            _events.warning(
                "rejected",
                caller=request.caller,
                called=request.called,
                address=address,
                code=code,
                reason=rejection.why,
            )
            if rejection in (CALLER_UNKNOWN, CALLED_UNKNOWN) and self._seldom(f"{request.caller} {address}"):
                us, them = Actor(self._options.ae_title, way="DICOM"), Actor(request.caller, address, "DICOM")
                said = alarm("node authentication", rejection.why, reporter=us, culprit=them, where=address)
                self._audited(said)


@contextlib.contextmanager
def _courtesy(association: Association, wire: Wire, address: str) -> Iterator[None]:
    """End an association as its peer may expect: the last PDU is read before the line is closed, or it is aborted."""
    try:
        yield
        wire.close_after_peer()
    except ProtocolFault as fault:
        _events.warning("aborted", caller=association.request.caller, address=address, reason=str(fault))
        _abort(association, wire, fault.reason)
    except TooSlow as fault:
        _events.warning("cut off", caller=association.request.caller, address=address, reason=str(fault))
        _abort(association, wire, 0)
    except Stopped:
        _abort(association, wire, 0)
    except LineIsDead as fault:
        how = "aborted by the peer" if isinstance(fault, Aborted) else "line is dead"
        _events.info(how, caller=association.request.caller, address=address, reason=str(fault))


def _abort(association: Association, wire: Wire, reason: int) -> None:
    with contextlib.suppress(LineIsDead):
        association.abort(2, reason)
        wire.close_after_peer()


@contextlib.contextmanager
def listening(
    options: ListenerOptions, spool: Spool, ledger: Ledger, *, audited: Audited = unrecorded
) -> Iterator[Listener]:
    """A listener that listens as long as the ``with`` lasts."""
    listener = Listener(options, spool, ledger, audited=audited)
    listener.start()
    try:
        yield listener
    finally:
        listener.close()


def serve(
    options: ListenerOptions, spool: Spool, ledger: Ledger, stop: threading.Event, *, audited: Audited = unrecorded
) -> None:
    """Listen until ``stop`` is set, then see the open associations out: at most 30 s."""
    with listening(options, spool, ledger, audited=audited):
        while not stop.wait(0.5):  # a signal that another thread gets does not end a wait without a limit
            pass
