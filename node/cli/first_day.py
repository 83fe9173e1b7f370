"""What else can be wrong on the first day: certificates, secrets, clock, peers, disk, memory, the audit trail and its
collector, and what already waits for a person. Each line says what is well, or what to do.
"""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import psutil

from node.accounts import ACCOUNTS_FILE, Accounts
from node.audit.syslog import Collector, Forwarder
from node.cli.lines import Line
from node.cli.options import trail_of
from node.cli.site import provider_options
from node.ledger import DeliveryState, JobState, Ledger, StudyState
from node.settings import Settings
from node.web.provider import Provider

SOON_DAYS = 30
SLOW_SYNC_MS = 50.0
FEW_FILES = 1024
FORGETS = frozenset(("tmpfs", "ramfs"))
NETWORK = frozenset(("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs"))
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronized


def certificates(settings: Settings) -> Iterator[Line]:
    """Ours: there, whole, of one pair, not over; and the authorities'."""
    pairs = [
        (f"destinations.{name}.tls_", one.tls_certificate, one.tls_key, one.tls_ca)
        for name, one in settings.destinations.items()
    ]
    if settings.node.tls:
        pairs.append(("node.tls.", settings.node.tls.certificate, settings.node.tls.key, settings.node.tls.client_ca))
    if collector := settings.audit.syslog:
        pairs.append(("audit.syslog.", collector.certificate, collector.key, collector.ca))
    for prefix, certificate, key, authority in pairs:
        if certificate and key:
            yield _pair(prefix, certificate, key)
        if authority:
            yield _authority(prefix, authority)


def _pair(prefix: str, certificate: Path, key: Path) -> Line:
    name = f"{prefix}certificate"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
        told = _ends(certificate)
    except (OSError, ssl.SSLError, ValueError) as error:
        return Line(name, f"{certificate}: {error}", f"put the certificate and its key there, or correct {prefix}*")
    days = (told - time.time()) / 86400
    found = f"{certificate} until {datetime.fromtimestamp(told, UTC):%Y-%m-%d}"
    if days < 0:
        return Line(name, f"{found}: it is over", "renew it; nobody who checks it will talk to us")
    if key.stat().st_mode & 0o077:
        return Line(name, f"{key} can be read by others", f"chmod 600 {key}")
    return Line(name, found, f"renew it: it ends in {days:.0f} days" if days < SOON_DAYS else "")


def _authority(prefix: str, file: Path) -> Line:
    try:
        ssl.create_default_context(cafile=str(file))
    except (OSError, ssl.SSLError) as error:
        return Line(f"{prefix}ca", f"{file}: {error}", "put the authority's certificate there, as PEM")
    return Line(f"{prefix}ca", str(file))


def _ends(certificate: Path) -> float:
    decode = ssl._ssl._test_decode_cert  # type: ignore[attr-defined] # the library has no other way to read a file
    return float(ssl.cert_time_to_seconds(decode(str(certificate))["notAfter"]))


def secrets(settings: Settings) -> Iterator[Line]:
    """The environment variables that the settings name."""
    named = [
        (f"destinations.{name}", variable)
        for name, line in settings.destinations.items()
        for variable in filter(None, (line.password_variable, line.token_variable))
    ]
    if settings.web.oidc and settings.web.oidc.secret_variable:
        named.append(("web.oidc", settings.web.oidc.secret_variable))
    for where, variable in named:
        there = bool(os.environ.get(variable))
        advice = f"set it for the node's processes (deploy/wetread.env.example): {where} names it"
        yield Line(f"secret {variable}", "is set" if there else "is not set here", "" if there else advice)


def identity(settings: Settings) -> Iterator[Line]:
    """The identity provider, and a way in for when it is off."""
    given = settings.web.oidc
    if given is None:
        return
    provider = Provider(provider_options(given, needs_secret=False))
    wrong = provider.look()
    provider.close()
    yield Line(
        "identity provider", wrong or f"{given.issuer} answers", "is it up, and web.oidc right?" if wrong else ""
    )
    if not Accounts(settings.node.folder / ACCOUNTS_FILE).users():
        advice = "wetread users add NAME --role administrator"
        yield Line("local account", "none: nobody gets in while the identity provider is off", advice)


def clock(_: Settings) -> Iterator[Line]:
    """Whether something keeps the clock right; evidence and audit carry its time."""
    answer = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(512))
    if answer < 0:
        yield Line("clock", "this machine does not say whether its clock is kept")
        return
    advice = "start chrony or systemd-timesyncd: evidence and audit records carry this clock's time"
    is_kept = answer != _TIME_ERROR
    yield Line("clock", "is kept by NTP" if is_kept else "nothing keeps it", "" if is_kept else advice)


def peers(settings: Settings) -> Iterator[Line]:
    """Whether who is to send can reach us, and is let in."""
    node = settings.node
    here = ip_address(node.bind).is_loopback
    outside = [peer.ae_title for peer in node.peers if not peer.address.is_loopback]
    if not node.peers:
        advice = "" if here else "name the scanners under node.peers: nobody but this machine itself may send"
        yield Line("peers", "none: any caller from this machine", advice)
    elif here and outside:
        yield Line("peers", f"{', '.join(outside)} cannot reach {node.bind}", "set node.bind to this machine's address")
    else:
        yield Line("peers", ", ".join(peer.ae_title for peer in node.peers))


def disk(settings: Settings) -> Iterator[Line]:
    """Whether what is kept stays, and how long that takes: every instance waits for the disk."""
    folder = settings.node.folder
    place = next(path for path in (folder, *folder.parents) if path.exists())
    kind = _file_system(place)
    if kind in FORGETS:
        yield Line("file system", f"{kind}: it forgets all when the machine restarts", "set node.data to a disk")
    elif kind in NETWORK:
        yield Line(
            "file system", kind, "set node.data to a local disk: locks and fsync over a network are not to be relied on"
        )
    else:
        yield Line("file system", kind)
    if os.access(place, os.W_OK):
        took = _sync_ms(place)
        slow = "it bounds how many instances a second are kept; a faster disk helps" if took > SLOW_SYNC_MS else ""
        yield Line("durable write", f"{took:.1f} ms", slow)


def _file_system(place: Path) -> str:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    found = [(mount[1], mount[2]) for mount in mounts if place.resolve().is_relative_to(mount[1].replace("\\040", " "))]
    return max(found, key=lambda one: len(one[0]), default=("", "unknown"))[1]


def _sync_ms(place: Path, times: int = 5) -> float:
    """Milliseconds of the median write of 64 KiB with fsync."""
    file = place / f".doctor-{os.getpid()}"
    took = []
    try:
        for _ in range(times):
            began = time.perf_counter()
            with file.open("wb") as out:
                out.write(b"\0" * 65536)
                out.flush()
                os.fsync(out.fileno())
            took.append(time.perf_counter() - began)
    finally:
        file.unlink(missing_ok=True)
    return sorted(took)[times // 2] * 1000


def room(settings: Settings) -> Iterator[Line]:
    """Memory and open files."""
    total = psutil.virtual_memory().total / 2**30
    wanted = settings.worker.memory_gib
    advice = (
        f"set worker.memory_gib below {total:.0f}, or a large study takes the machine along" if wanted > total else ""
    )
    yield Line("memory", f"{total:.0f} GiB, a job may take {wanted:g}", advice)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    yield Line("open files", f"{files} at once", "" if files >= FEW_FILES else f"raise it to {FEW_FILES} (ulimit -n)")


def audit(settings: Settings) -> Iterator[Line]:
    """The audit trail, and whether its collector can be reached."""
    trail = trail_of(settings)
    found = trail.verify()
    told = f"{found.count} records, whole" if found.broken is None else f"record {found.broken}: {found.why}"
    yield Line(
        "audit trail",
        told,
        "" if found.broken is None else "somebody changed it: keep the folder, ask who may log in here",
    )
    if given := settings.audit.syslog:
        where = Collector(given.host, given.port, given.ca, given.certificate, given.key)
        try:
            Forwarder(trail, where).try_out()
            yield Line("audit collector", f"{where.name} answers")
        except (OSError, ssl.SSLError) as error:
            yield Line(
                "audit collector", f"{where.name}: {error}", "is it up, and is its certificate of audit.syslog.ca?"
            )


def waiting(settings: Settings) -> Iterator[Line]:
    """What a person has to decide."""
    node = settings.node
    if node.database is None and not (node.folder / "ledger.sqlite").exists():
        return
    ledger = Ledger(node.database_url)
    try:
        counts, drained = ledger.overview(), ledger.drained()
    finally:
        ledger.close()
    dead = sum(states.get(DeliveryState.DEAD, 0) for states in counts.deliveries.values())
    held = counts.studies.get(StudyState.HELD, 0)
    ended = sum(counts.jobs.get(state, 0) for state in (JobState.FAILED, JobState.QUARANTINED))
    for what, count, advice in (
        ("held studies", held, "wetread status says why; wetread release STUDY"),
        ("failed or quarantined jobs", ended, "wetread status says why; wetread retry JOB"),
        ("dead deliveries", dead, "mend the destination, then wetread retry JOB"),
    ):
        if count:
            yield Line(what, str(count), advice)
    here = socket.gethostname()
    for worker in drained.values():
        name = worker.worker.removeprefix(f"{here}/")
        yield Line("drained worker", f"{name} {worker.reason}".strip(), f"wetread resume {name}")


LOOKS = (certificates, secrets, identity, clock, peers, disk, room, audit, waiting)
