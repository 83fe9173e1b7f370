"""``wetread work``: a process per device that does jobs, one that delivers, and the clock; each restarted if it dies.

    python -m node.worker analyze DEVICE | deliver | clock        with the options as JSON on standard input

Options come by standard input since they hold passwords. This process itself starts and watches, and does no work.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from node import log
from node.audit import Audited, Source, Trail, quietly
from node.delivery import Destination
from node.notices.receiver import Receiver
from node.processes import on_signal
from node.routing import Route
from node.supervisor import Part, supervise
from node.triage.rules import Rule
from node.urgency import Urgency
from pipelines.forms import Wanted

STATE_FILE = "workers.json"  # beside spool and evidence
DRAIN_SECONDS = 20.0  # what a running job may still take
DRAINED_LOOK_SECONDS = 1.0  # between two looks whether a drained worker may go on
_events = log.get("worker")


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker needs, all of it plain values.

    Attributes:
        spool: The root of the spool, on a disk that listener and worker share.
        evidence: The folder that evidence lies under; the audit trail lies beside it.
        count_from: Per AE title that sends the name of the destination that its studies are counted by.
        device: ``cpu``, ``cuda``, ``cuda:N``, or ``auto``: every GPU that torch can use, else the CPU.
        threads: Per device; 0: the cores shared out evenly.
        urgency: The rules that make a study urgent before anything has read it.
        triage, receivers: What makes it urgent once it is read, and who is told then.
        urgent_up_to, aging_seconds, rest_every: In which order jobs are done (turns.py).
        drain_seconds: How long a running job may go on after SIGTERM before it is given back.
    """

    ledger_url: str
    broker_url: str
    spool: Path
    evidence: Path
    ae_title: str = "WETREAD"
    routes: Mapping[str, Route] = field(default_factory=dict)
    destinations: Mapping[str, Destination] = field(default_factory=dict)
    count_from: Mapping[str, str] = field(default_factory=dict)
    urgency: Mapping[str, Urgency] = field(default_factory=dict)
    triage: Sequence[Rule] = ()
    receivers: Mapping[str, Receiver] = field(default_factory=dict)
    urgent_up_to: int = 1
    aging_seconds: float = 600.0
    rest_every: int = 10
    device: str = "auto"
    threads: int = 0
    time_limit_seconds: float = 600.0
    memory_gib: float = 8.0
    deliver_threads: int = 8
    drain_seconds: float = DRAIN_SECONDS
    lease_seconds: float = 30.0
    away_seconds: float = 4 * 3600.0

    def to_json(self) -> bytes:
        plain: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        plain["routes"] = {name: _given(route) for name, route in self.routes.items()}
        plain["urgency"] = {name: _given(rule) for name, rule in self.urgency.items()}
        plain["triage"] = [asdict(rule) for rule in self.triage]
        plain["receivers"] = {name: asdict(receiver) for name, receiver in self.receivers.items()}
        plain["destinations"] = {name: asdict(destination) for name, destination in self.destinations.items()}
        return json.dumps(plain, default=str).encode()

    @classmethod
    def from_json(cls, text: bytes) -> WorkerOptions:
        plain: dict[str, Any] = json.loads(text)
        plain["routes"] = {
            name: Route(**route | {"deliver_to": tuple(route["deliver_to"])}) for name, route in plain["routes"].items()
        }
        plain["urgency"] = {name: Urgency(**rule) for name, rule in plain["urgency"].items()}
        plain["triage"] = tuple(Rule(**_tuples(rule)) for rule in plain["triage"])
        plain["receivers"] = {name: Receiver(**_tuples(_paths(each))) for name, each in plain["receivers"].items()}
        plain["destinations"] = {name: _destination(each) for name, each in plain["destinations"].items()}
        return cls(**plain | {"spool": Path(plain["spool"]), "evidence": Path(plain["evidence"])})


def run(options: WorkerOptions, stop: threading.Event) -> None:
    """Work until ``stop`` is set; then let what runs finish, for a while. To be called from the main thread."""
    given = options.to_json()
    names = [*(f"analyze {device}" for device in devices(options.device)), "deliver", "clock"]
    parts = [Part(name, (sys.executable, "-m", "node.worker", *name.split()), given=given) for name in names]
    state_file = options.evidence.parent / STATE_FILE
    supervise(parts, stop, drain_seconds=options.drain_seconds + 8.0, labelled=False, state_file=state_file)


def devices(wanted: str) -> tuple[str, ...]:
    """The devices to have one process each for."""
    if wanted != "auto":
        return (wanted,)
    if not Path("/dev/nvidia0").exists() and not Path("/dev/dxg").exists():
        return ("cpu",)  # without a driver there is no need to spend seconds on importing torch
    count = _gpus_of_torch()
    return tuple(f"cuda:{number}" for number in range(count)) or ("cpu",)


def _gpus_of_torch() -> int:
    """Asked in another process: this one shall load no torch."""
    program = "import torch; print(torch.cuda.device_count())"
    try:
        answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
        return int(answer.stdout.strip() or 0)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return 0


def _analyze(options: WorkerOptions, device: str) -> None:
    from node.analysis import Analysis, Rules
    from node.ledger import Ledger, Order
    from node.spool import Spool
    from node.tasks import ANALYZE, Bell, serve
    from node.turns import Turns
    from node.warm import Limits

    stop = threading.Event()
    bell = Bell(options.broker_url)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = options.threads or max(1, cores // len(devices(options.device)))
    ledger = Ledger(options.ledger_url)
    order = Order(options.urgent_up_to, options.aging_seconds)
    analysis = Analysis(
        ledger,
        Limits(device, threads, int(options.memory_gib * 2**30)),
        Rules(
            evidence=options.evidence,
            owner=_owner(device),
            time_limit_seconds=options.time_limit_seconds,
            lease_seconds=options.lease_seconds,
            drain_seconds=options.drain_seconds,
            away_seconds=options.away_seconds,
            triage=tuple(options.triage),
            forms={name: each.evidence.forms for name, each in options.destinations.items()},
        ),
        path=Spool(options.spool).path,
        finished=bell.ring_delivery,
        again=bell.ring_job,
        stop=stop,
        turn=Turns(ledger, order, rest_every=options.rest_every),
        audited=_trail(options),
    )
    try:
        analysis.warm(sorted({route.use for route in options.routes.values()}))
        gated = unless_drained(analysis, ledger.is_drained, name_of(device), stop)
        serve(options.broker_url, ANALYZE, gated, threads=1, stop=stop, name=_owner(device))
    finally:
        analysis.close()


def _deliver(options: WorkerOptions) -> None:
    from node.ledger import Ledger
    from node.outbox import Outbox
    from node.tasks import DELIVER, serve

    stop = threading.Event()
    ledger = Ledger(options.ledger_url)
    outbox = Outbox(
        ledger,
        evidence=options.evidence,
        destinations=options.destinations,
        owner=_owner("deliver"),
        stop=stop,
        receivers=options.receivers,
        triage=options.triage,
        audited=_trail(options),
    )
    threads = max(2, options.deliver_threads)  # one would be the main thread's
    gated = unless_drained(outbox, ledger.is_drained, name_of("deliver"), stop)
    serve(options.broker_url, DELIVER, gated, threads=threads, stop=stop, name=_owner("deliver"))


def _clock(options: WorkerOptions) -> None:
    import signal

    from node.clock import Clock
    from node.counts import Counts
    from node.ledger import Ledger
    from node.spool import Spool
    from node.tasks import Bell

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal(stop))
    ledger = Ledger(options.ledger_url)
    counts = Counts({caller: options.destinations[name] for caller, name in options.count_from.items()})
    path = Spool(options.spool).path
    try:
        bell = Bell(options.broker_url)
        clock = Clock(
            ledger,
            path=path,
            routes=options.routes,
            rules=options.urgency,
            bell=bell,
            counts=counts,
            away_seconds=options.away_seconds,
        )
        clock.run(stop)
    finally:
        counts.close()


def _trail(options: WorkerOptions) -> Audited:
    return quietly(Trail(options.evidence.parent / "audit", Source(options.ae_title, socket.gethostname())))


def name_of(device: str) -> str:
    """What an administrator calls a worker: ``host/device``, where device is cpu, cuda:0, …, or deliver."""
    return f"{socket.gethostname()}/{device}"


def unless_drained(
    act: Callable[[int], None], is_drained: Callable[[str], bool], worker: str, stop: threading.Event
) -> Callable[[int], None]:
    """``act``, which waits while the worker is drained. The bell that it holds then is rung again for others."""

    def heard(number: int) -> None:
        waits = False
        while is_drained(worker):
            if not waits:
                _events.info("drained: takes nothing more", owner=worker)
            waits = True
            if stop.wait(DRAINED_LOOK_SECONDS):
                return
        if waits:
            _events.info("takes work again", owner=worker)
        act(number)

    return heard


def _owner(device: str) -> str:
    """Who claims: not to be mistaken for a process of the same number that ran before, or on another machine."""
    return f"{socket.gethostname()}-{os.getpid()}-{device}-{os.urandom(4).hex()}"


def _given(rule: Route | Urgency) -> dict[str, Any]:
    """What a rule was made of."""
    return {one.name: getattr(rule, one.name) for one in fields(rule) if one.init}


def _destination(plain: dict[str, Any]) -> Destination:
    return Destination(**_paths(plain) | {"evidence": Wanted(**plain["evidence"])})


def _paths(plain: dict[str, Any]) -> dict[str, Any]:
    files = {key: Path(plain[key]) for key in ("tls_ca", "tls_certificate", "tls_key") if plain[key] is not None}
    return plain | files


def _tuples(plain: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()}


def main() -> None:
    log.to_stderr()
    options = WorkerOptions.from_json(sys.stdin.buffer.read())
    match sys.argv[1:]:
        case ["analyze", device]:
            _analyze(options, device)
        case ["deliver"]:
            _deliver(options)
        case ["clock"]:
            _clock(options)
        case other:
            raise SystemExit(f"node.worker does not know how to {' '.join(other)}")


if __name__ == "__main__":
    main()
