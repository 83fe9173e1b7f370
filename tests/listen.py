"""A listener in a process of its own, for what can only be done to a process: ``python -m tests.listen FOLDER``.

It prints its port, and ends on SIGTERM. The spool and the ledger lie in FOLDER; without ``--ledger`` nobody is told.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from node import log
from node.listener import Ledger, Listener, ListenerOptions
from node.processes import on_signal
from node.spool import Arrival, Spool


class Nobody:
    """A ledger that keeps nothing."""

    def now(self) -> float:
        return time.time()

    def record(self, arrivals: Sequence[Arrival], *, settle_at: float, settle_by_seconds: float) -> None:
        pass

    def settle_at(self, study_uids: Iterable[str], when: float) -> None:
        pass

    def commitment_reported(self, transaction_uid: str, held: Sequence[str], failed: Sequence[str]) -> str:
        return "nobody asked for it"


class Unreachable(Nobody):
    """A ledger whose database does not answer."""

    def record(self, arrivals: Sequence[Arrival], *, settle_at: float, settle_by_seconds: float) -> None:
        raise ConnectionError


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ledger", choices=["nobody", "unreachable", "sqlite"], default="nobody")
    parser.add_argument("--bind", default="127.0.0.1")
    parser.add_argument("--drain", type=float, default=20)
    options = parser.parse_args()
    log.to_stderr()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, on_signal(stop))
    ledger: Ledger = {"nobody": Nobody, "unreachable": Unreachable}.get(options.ledger, Nobody)()
    if options.ledger == "sqlite":
        from node.ledger import Ledger as Real

        real = Real(f"sqlite:///{options.folder / 'ledger.sqlite'}")
        real.upgrade()
        ledger = real
    listener = Listener(
        ListenerOptions(port=0, bind=options.bind, drain_seconds=options.drain),
        Spool(options.folder / "spool", reserve_bytes=0),
        ledger,
    )
    listener.start()
    sys.stdout.write(f"{listener.port}\n")
    sys.stdout.flush()
    while not stop.wait(0.2):  # a signal does not wake who has just gone to sleep
        pass
    listener.close()


if __name__ == "__main__":
    main()
