"""What was received, on disk: one Part 10 file per instance, named by the SHA-256 of its bytes.

    incoming/<uuid>.part                       being received; nothing here was ever promised to a sender
    objects/<aa>/<sha256>.dcm                  kept
    pending/<sha256>,<time>,<caller>,<address> a second link to an object that the ledger may not know of yet
    quarantine/                                objects that were torn by a power cut before they were promised
    purging/                                   objects on their way out

``pending`` is the journal: link, rename and content are durable by one fsync, and the link goes when the ledger has
committed. What a power cut can lose is therefore only what was never answered 0x0000. This rests on fsync of a file
also committing the directory operations made on it before, which ext4 and xfs do by their journal. A file system
without one may forget a name; where it is that in ``objects``, it is put back from ``pending`` at the next start.

It knows neither the network nor the ledger, and deletes what was kept only when it is told to (``discard``).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from node import log
from node.errors import CannotUnderstand, OutOfResources, Refusal
from node.instance import read_head, read_meta
from node.spool.arrival import Arrival, Origin, arrival_of
from node.spool.part import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION,
    Part,
    out_of_resources,
    preamble_and_meta,
)

__all__ = ["IMPLEMENTATION_CLASS_UID", "IMPLEMENTATION_VERSION", "Arrival", "Origin", "Part", "Spool", "object_path"]

_GIB = 1 << 30
_events = log.get("spool")


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
        self._purging = root / "purging"
        folders = [self.incoming, self.objects, self.pending, self.quarantine, self._purging]
        folders += [self.objects / f"{number:02x}" for number in range(256)]
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in folders:
            folder.mkdir(mode=0o700, exist_ok=True)
        for folder in (root.parent, root, self.objects):
            _sync(folder)

    def path(self, sha256: str) -> Path:
        return Path(self._object(sha256))

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
        with out_of_resources():
            return Part(
                self.incoming,
                meta=preamble_and_meta(sop_class, sop_uid, transfer_syntax),
                transfer_syntax=transfer_syntax,
                keep=self._keep,
                free_bytes=self.free_bytes,
            )

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
        with out_of_resources():
            file = os.open(part, os.O_RDONLY)
            try:
                self._keep(file, str(part), sha256, origin or Origin(received_at=time.time()))
                return self.path(sha256)
            finally:
                os.close(file)

    # Paths are plain text from here: pathlib takes longer to build one than the kernel to act on it.

    def _keep(self, file: int, part: str, sha256: str, origin: Origin) -> None:
        target, link = self._object(sha256), f"{self.pending}/{origin.link_name(sha256)}"
        fresh = _link(file, part, target)
        try:
            if fresh:
                os.replace(part, link)  # noqa: PTH105
                os.fsync(file)  # content, name and journal entry: one journal commit
            else:
                _link_again(target, link)
                os.unlink(part)  # noqa: PTH108
                _sync(target)
        except OSError:
            Path(link).unlink(missing_ok=True)
            if fresh and os.fstat(file).st_nlink <= 1 + Path(part).exists():  # no other sender of the same bytes has it
                Path(target).unlink(missing_ok=True)
            raise

    def _object(self, sha256: str) -> str:
        return f"{self.objects}/{sha256[:2]}/{sha256}.dcm"

    def recorded(self, arrivals: Iterable[Arrival]) -> None:
        """The ledger has committed these: their journal entries go."""
        for arrival in arrivals:
            origin = Origin(arrival.caller, arrival.address, arrival.received_at)
            (self.pending / origin.link_name(arrival.sha256)).unlink(missing_ok=True)

    def discard(self, sha256: str, *, is_wanted: Callable[[str], bool]) -> bool:
        """Delete an object, unless it has come again meanwhile: then it has a link in ``pending``, or is wanted.

        It goes aside first. A sender of the same bytes that saw it there just before is told to try again; one that
        comes after makes it anew.
        """
        aside, target = self._purging / f"{sha256}.dcm", self.path(sha256)
        try:
            target.replace(aside)
        except FileNotFoundError:
            if not aside.exists():
                return False  # it went in an earlier run
        if any(link.name.startswith(sha256) for link in self.pending.iterdir()) or is_wanted(sha256):
            _link_again(str(aside), str(target))
            aside.unlink()
            return False
        aside.unlink()
        return True

    def sweep(self) -> None:
        """After a start: remove what was being received when its process ended."""
        for part in self.incoming.iterdir():
            self._remove_if_abandoned(part)

    def _remove_if_abandoned(self, part: Path) -> None:
        try:
            file = os.open(part, os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (
                os.fstat(file).st_nlink == 2
            ):  # killed when it had its name and no journal entry yet: nobody was promised it
                with part.open("rb") as content:
                    self.path(hashlib.file_digest(content, "sha256").hexdigest()).unlink(missing_ok=True)
            part.unlink(missing_ok=True)
        except BlockingIOError:
            pass  # another process is receiving it
        finally:
            os.close(file)

    def unrecorded(self) -> Iterator[Arrival]:
        """What has a journal entry, that is to say what the ledger may not know of; torn objects go to quarantine."""
        for link in sorted(self.pending.iterdir(), key=lambda link: link.name.split(",")[1:2]):
            try:
                sha256, origin = Origin.of_link(link.name)
                arrival = _arrival(link, sha256, origin)
                _link_again(str(link), self._object(sha256))
                yield arrival
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


def object_path(root: Path, sha256: str) -> Path:
    """Where the instance lies in the spool at ``root``, for who only looks."""
    return root / "objects" / sha256[:2] / f"{sha256}.dcm"


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
        return arrival_of(head, meta.transfer_syntax, sha256, os.fstat(file.fileno()).st_size, origin)


def _link(file: int, part: str, target: str) -> bool:
    """Make ``part`` also ``target``; False if that is there already."""
    try:
        os.link(part, target)
    except FileExistsError:
        if Path(target).stat().st_size == os.fstat(file).st_size:
            return False
        Path(target).unlink()  # torn by a power cut before it was promised
        os.link(part, target)
    return True


def _link_again(present: str, wanted: str) -> None:
    try:
        os.link(present, wanted)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno != errno.EMLINK:  # sent again 65,000 times before the ledger came back: one entry will do
            raise


def _sync(path: Path | str) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
