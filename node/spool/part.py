"""An instance while it is received: written and hashed as it comes, removed unless it is kept (PS3.10 section 7)."""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from node.errors import OutOfResources
from node.instance import Head, read_head
from node.spool.arrival import Arrival, Origin, arrival_of

# These two stand in every file and so in its name: with another value, an instance that is sent again would be
# another object.
IMPLEMENTATION_CLASS_UID = "2.25.108265699800766656154672720225739643178"
IMPLEMENTATION_VERSION = "WETREAD"

# In one write, bytes. With more, Linux 6 takes large folios for the page cache, which on a virtual machine come fresh
# from the host: 1.4 ms of CPU for 512 KiB instead of 0.11 ms (measured on ext4, kernel 6.18).
_WRITE = 64 << 10
_BEGIN_EVERY = 256 << 10  # bytes after which the disk is set to work
_LET_GO_EVERY = 16 << 20  # bytes of one object after which its pages are given back


class Part:
    """An instance while it is received. Leaving the ``with`` removes what was not kept.

    Args:
        meta: What stands before the dataset: preamble_and_meta.
        keep: Gives the open file at that path its name, for good, by its SHA-256.
        free_bytes: The room that is left.
    """

    def __init__(
        self,
        folder: Path,
        *,
        meta: bytes,
        transfer_syntax: str,
        keep: Callable[[int, str, str, Origin], None],
        free_bytes: Callable[[], int],
    ) -> None:
        self.path = f"{folder}/{uuid.uuid4().hex}.part"
        self.size = 0
        self._start, self._transfer_syntax, self._keep, self._free = len(meta), transfer_syntax, keep, free_bytes
        self._hash = hashlib.sha256()
        self._begun = self._let_go = 0
        self._is_kept = False
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
        with out_of_resources():
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
            if self._free() <= 0:
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
        with out_of_resources():
            self._keep(self._file, self.path, sha256, origin)
            self._is_kept = True
        return arrival_of(head, self._transfer_syntax, sha256, self.size, origin)

    def __enter__(self) -> Part:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_kept:
            Path(self.path).unlink(missing_ok=True)
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


class out_of_resources:  # noqa: N801 - a state, as contextlib's own
    """Turns what the disk says into the answer that the sender gets: try again later."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise OutOfResources(f"the spool cannot be written: {os.strerror(error.errno or 0)}") from error
