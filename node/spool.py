"""What was received, on disk: one Part 10 file per instance, named by the SHA-256 of its bytes.

    incoming/<uuid>.part                       being received; nothing here was ever promised to a sender
    objects/<aa>/<sha256>.dcm                  kept
    pending/<sha256>,<time>,<caller>,<address> a second link to an object that the ledger may not know of yet
    quarantine/                                objects that were torn by a power cut before they were promised

``pending`` is the journal: link, rename and content are durable by one fsync, and the link goes when the ledger has
committed. What a power cut can lose is therefore only what was never answered 0x0000. This rests on fsync of a file
also committing the directory operations made on it before: ext4 and xfs do so (one journal, in order); a file system
that does not might forget the name of an object whose content is safe.

It knows neither the network nor the ledger, and deletes nothing that was kept.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import struct
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import quote, unquote

from node import log
from node.errors import CannotUnderstand, OutOfResources, Refusal
from node.instance import Head, read_head, read_meta

# These two stand in every file and so in its name: with another value, an instance that is sent again would be
# another object.
IMPLEMENTATION_CLASS_UID = "2.25.108265699800766656154672720225739643178"
IMPLEMENTATION_VERSION = "WETREAD"

_GIB = 1 << 30
# In one write, bytes. With more, Linux 6 takes large folios for the page cache, which on a virtual machine come fresh
# from the host: 1.4 ms of CPU for 512 KiB instead of 0.11 ms (measured on ext4, kernel 6.18).
_WRITE = 64 << 10
_BEGIN_EVERY = 256 << 10  # bytes after which the disk is set to work
_LET_GO_EVERY = 16 << 20  # bytes of one object after which its pages are given back
_events = log.get("spool")


@dataclass(frozen=True)
class Arrival:
    """An instance that was received and is durable.

    Attributes:
        sha256: Of the whole file in the spool, and its name there.
        size: Of that file, in bytes.
        patient_key: SHA-256 of who the patient is; the ledger holds no identity.
        caller, address: The AE title and the IP address that it came from; empty if that is not known any more.
        received_at: Seconds since the epoch.
        expected: Number of Study Related Instances, where the sender told it.
    """

    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class: str
    transfer_syntax: str
    sha256: str
    size: int
    patient_key: str
    modality: str
    caller: str
    address: str
    received_at: float
    expected: int | None = None


@dataclass(frozen=True)
class Origin:
    """Where an instance came from, and when."""

    caller: str = ""
    address: str = ""
    received_at: float = 0.0

    def link_name(self, sha256: str) -> str:
        return f"{sha256},{self.received_at:.6f},{quote(self.caller, safe='')},{quote(self.address, safe='')}"

    @classmethod
    def of_link(cls, name: str) -> tuple[str, Origin]:
        """The SHA-256 and the origin that the name of a link in ``pending`` tells."""
        sha256, received, caller, address = name.split(",")
        return sha256, cls(unquote(caller), unquote(address), float(received))


class Spool:
    """The received instances under ``root``.

    Args:
        root: Made if it does not exist, for its owner only.
        reserve_bytes: Room that stays free for the ledger and for evidence; below it nothing more is received.
    """

    def __init__(self, root: Path, *, reserve_bytes: int = _GIB) -> None:
        self.root = root
        self.reserve_bytes = reserve_bytes
        self.incoming, self.objects = root / "incoming", root / "objects"
        self.pending, self.quarantine = root / "pending", root / "quarantine"
        folders = [self.incoming, self.objects, self.pending, self.quarantine]
        folders += [self.objects / f"{number:02x}" for number in range(256)]
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in folders:
            folder.mkdir(mode=0o700, exist_ok=True)
        for folder in (root.parent, root, self.objects):
            _sync(folder)

    def path(self, sha256: str) -> Path:
        return self.objects / sha256[:2] / f"{sha256}.dcm"

    def free_bytes(self) -> int:
        """Room for instances: what the file system has, less the reserve."""
        try:
            state = os.statvfs(self.root)
        except OSError:
            return 0
        return state.f_bavail * state.f_frsize - self.reserve_bytes

    def receive(self, *, sop_class: str, sop_uid: str, transfer_syntax: str) -> Part:
        """Begin to receive an instance whose dataset comes in that transfer syntax.

        Raises:
            OutOfResources: There is no room, or the disk cannot be written.
        """
        if self.free_bytes() <= 0:
            raise OutOfResources("the spool is full up to its reserve")
        with _out_of_resources():
            return Part(self, preamble_and_meta(sop_class, sop_uid, transfer_syntax), transfer_syntax)

    def add(self, file: Path, origin: Origin | None = None) -> Arrival:
        """Keep the instance of a Part 10 file, its dataset byte for byte.

        Raises:
            Refusal: As for one that comes by the network.
        """
        source = os.open(file, os.O_RDONLY)
        try:
            meta = read_meta(source)
            offset = meta.dataset_start
            with self.receive(
                sop_class=meta.sop_class, sop_uid=meta.sop_uid, transfer_syntax=meta.transfer_syntax
            ) as part:
                while piece := os.pread(source, 1 << 20, offset):
                    part.write(piece)
                    offset += len(piece)
                return part.keep(part.head(), origin or Origin(received_at=time.time()))
        finally:
            os.close(source)

    def keep(self, part: Path, sha256: str, origin: Origin | None = None) -> Path:
        """Give a whole file in ``incoming`` its name; it is durable on return. The same content twice is one file.

        Raises:
            OutOfResources: The disk cannot be written.
        """
        with _out_of_resources():
            file = os.open(part, os.O_RDONLY)
            try:
                return self._keep(file, part, sha256, origin or Origin(received_at=time.time()))
            finally:
                os.close(file)

    def _keep(self, file: int, part: Path, sha256: str, origin: Origin) -> Path:
        target, link = self.path(sha256), self.pending / origin.link_name(sha256)
        fresh = self._link(file, part, target)
        try:
            if fresh:
                part.replace(link)
                os.fsync(file)  # content, name and journal entry: one journal commit
            else:
                _link_again(target, link)
                part.unlink()
                _sync(target)
        except OSError:
            link.unlink(missing_ok=True)
            if fresh and os.fstat(file).st_nlink <= 1 + part.exists():  # no other sender of the same bytes has it
                target.unlink(missing_ok=True)
            raise
        return target

    @staticmethod
    def _link(file: int, part: Path, target: Path) -> bool:
        """Make ``part`` also ``target``; False if that is there already."""
        try:
            os.link(part, target)
        except FileExistsError:
            if target.stat().st_size == os.fstat(file).st_size:
                return False
            target.unlink()  # torn by a power cut before it was promised
            os.link(part, target)
        return True

    def recorded(self, arrivals: Iterable[Arrival]) -> None:
        """The ledger has committed these: their journal entries go."""
        for arrival in arrivals:
            origin = Origin(arrival.caller, arrival.address, arrival.received_at)
            (self.pending / origin.link_name(arrival.sha256)).unlink(missing_ok=True)

    def sweep(self) -> None:
        """After a start: remove what was being received when its process ended."""
        for part in self.incoming.iterdir():
            _remove_if_abandoned(part)

    def unrecorded(self) -> Iterator[Arrival]:
        """What has a journal entry, that is to say what the ledger may not know of; torn objects go to quarantine."""
        for link in sorted(self.pending.iterdir(), key=lambda link: link.name.split(",")[1:2]):
            try:
                sha256, origin = Origin.of_link(link.name)
                yield _arrival(link, sha256, origin)
            except FileNotFoundError:
                continue  # recorded meanwhile
            except (Refusal, ValueError) as reason:
                _events.error("quarantined", file=link.name, reason=str(reason))
                sha256 = link.name.split(",")[0]
                link.replace(self.quarantine / f"{sha256}.dcm")
                self.path(sha256).unlink(missing_ok=True)

    def everything(self) -> Iterator[Arrival]:
        """All that is kept, to rebuild a lost ledger from; who sent it is not known any more."""
        for file in sorted(self.objects.glob("*/*.dcm")):
            try:
                yield _arrival(file, file.stem, Origin(received_at=file.stat().st_mtime))
            except Refusal as reason:
                _events.error("passed over", file=file.name, reason=str(reason))


class Part:
    """An instance while it is received. Leaving the ``with`` removes what was not kept."""

    def __init__(self, spool: Spool, meta: bytes, transfer_syntax: str) -> None:
        self.path = spool.incoming / f"{uuid.uuid4().hex}.part"
        self.size = 0
        self._spool, self._start, self._transfer_syntax = spool, len(meta), transfer_syntax
        self._hash = hashlib.sha256()
        self._begun = self._let_go = 0
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)  # says to another's sweep that somebody is at it
            self.write(meta)
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def write(self, piece: bytes | memoryview) -> None:
        """Append bytes of the dataset.

        Raises:
            OutOfResources: There is no room left, or the disk cannot be written.
        """
        with _out_of_resources():
            self._hash.update(piece)
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(self._file, rest[:_WRITE]) :]
            self.size += len(piece)
            if self.size - self._begun >= _BEGIN_EVERY:
                self._begin_to_write()

    def _begin_to_write(self) -> None:
        """Have the disk write while the network still brings: the fsync at the end takes a third of the time then."""
        # The advice makes Linux begin to write what is dirty; what is not clean by then stays in the page cache.
        os.posix_fadvise(self._file, self._begun, self.size - self._begun, os.POSIX_FADV_DONTNEED)
        self._begun = self.size
        if self.size - self._let_go >= _LET_GO_EVERY:  # a huge object does not fill the page cache
            os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_DONTNEED)
            self._let_go = self.size
            if self._spool.free_bytes() <= 0:
                raise OutOfResources("the spool is full up to its reserve")

    def head(self) -> Head:
        """The head of the dataset as it came.

        Raises:
            Refusal: The dataset is not whole, or does not say where it belongs.
        """
        return read_head(self._file, start=self._start, transfer_syntax=self._transfer_syntax)

    def keep(self, head: Head, origin: Origin) -> Arrival:
        """Make it durable.

        Raises:
            OutOfResources: The disk cannot be written.
        """
        sha256 = self._hash.hexdigest()
        with _out_of_resources():
            self._spool._keep(self._file, self.path, sha256, origin)
        return _arrival_of(head, self._transfer_syntax, sha256, self.size, origin)

    def __enter__(self) -> Part:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.path.unlink(missing_ok=True)
        os.close(self._file)


def preamble_and_meta(sop_class: str, sop_uid: str, transfer_syntax: str) -> bytes:
    """What stands before the dataset in a Part 10 file: the same bytes for the same instance, for ever."""
    elements = b"".join(
        (
            struct.pack("<HH2sHL", 0x0002, 0x0001, b"OB", 0, 2) + b"\0\1",
            _short(0x0002, b"UI", sop_class, b"\0"),
            _short(0x0003, b"UI", sop_uid, b"\0"),
            _short(0x0010, b"UI", transfer_syntax, b"\0"),
            _short(0x0012, b"UI", IMPLEMENTATION_CLASS_UID, b"\0"),
            _short(0x0013, b"SH", IMPLEMENTATION_VERSION, b" "),
        )
    )
    return b"\0" * 128 + b"DICM" + struct.pack("<HH2sHL", 0x0002, 0x0000, b"UL", 4, len(elements)) + elements


def _short(number: int, vr: bytes, text: str, pad: bytes) -> bytes:
    value = text.encode("ascii")
    value += pad * (len(value) % 2)
    return struct.pack("<HH2sH", 0x0002, number, vr, len(value)) + value


def _arrival(path: Path, sha256: str, origin: Origin) -> Arrival:
    """The arrival that a kept file is.

    Raises:
        CannotUnderstand: The file is not what its name says.
    """
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise CannotUnderstand("the content is not what the name says")
        meta = read_meta(file.fileno())
        head = read_head(file.fileno(), start=meta.dataset_start, transfer_syntax=meta.transfer_syntax)
        return _arrival_of(head, meta.transfer_syntax, sha256, os.fstat(file.fileno()).st_size, origin)


def _arrival_of(head: Head, transfer_syntax: str, sha256: str, size: int, origin: Origin) -> Arrival:
    return Arrival(
        study_uid=head.study_uid,
        series_uid=head.series_uid,
        sop_uid=head.sop_uid,
        sop_class=head.sop_class,
        transfer_syntax=transfer_syntax,
        sha256=sha256,
        size=size,
        patient_key=head.patient_key,
        modality=head.modality,
        caller=origin.caller,
        address=origin.address,
        received_at=origin.received_at,
        expected=head.expected,
    )


def _link_again(target: Path, link: Path) -> None:
    try:
        os.link(target, link)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno != errno.EMLINK:  # sent again 65,000 times before the ledger came back: one entry will do
            raise


def _remove_if_abandoned(part: Path) -> None:
    try:
        file = os.open(part, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        part.unlink(missing_ok=True)
    except BlockingIOError:
        pass  # another process is receiving it
    finally:
        os.close(file)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


class _out_of_resources:  # noqa: N801 - a state, as contextlib's own
    """Turns what the disk says into the answer that the sender gets: try again later."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise OutOfResources(f"the spool cannot be written: {os.strerror(error.errno or 0)}") from error
