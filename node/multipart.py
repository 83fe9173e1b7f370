"""multipart/related (RFC 2046, RFC 2387), written and read as a stream: no object is ever whole in memory.

It knows nothing of DICOM; what the parts hold is dicomweb.py's business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from email.message import Message
from pathlib import Path

CHUNK = 256 * 1024
LONGEST_LINE = 8 * 1024  # of a part's header
MOST_LINES = 64


class Truncated(ValueError):
    """The body ends before its closing boundary, or its headers are no headers."""


class FileParts:
    """Files as the parts of one body; iterating gives its bytes, ``length`` is known beforehand."""

    def __init__(self, paths: Sequence[Path], *, content_type: str, boundary: str) -> None:
        self._paths = paths
        self._head = f"\r\n--{boundary}\r\nContent-Type: {content_type}\r\n\r\n".encode("ascii")
        self._end = f"\r\n--{boundary}--\r\n".encode("ascii")
        self.length = sum(len(self._head) + path.stat().st_size for path in paths) + len(self._end)

    def __iter__(self) -> Iterator[bytes]:
        for path in self._paths:
            yield self._head
            with path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    yield chunk
        yield self._end


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type names; Truncated if it names none."""
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary()
    if header.get_content_maintype() != "multipart" or not boundary:
        raise Truncated(f"a multipart body without a boundary: {content_type[:80]}")
    return boundary.encode("latin-1")


def read_parts(chunks: Iterable[bytes], boundary: bytes) -> Iterator[tuple[dict[str, str], Iterator[bytes]]]:
    """Each part as (headers in lower case, its bytes in pieces); the bytes last until the next part is asked for."""
    stream = _Stream(chunks)
    delimiter = b"\r\n--" + boundary
    _drain(stream.until(delimiter))  # the preamble, which is to be ignored
    while not stream.line().startswith(b"--"):
        headers: dict[str, str] = {}
        while line := stream.line():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
            if len(headers) > MOST_LINES:
                raise Truncated("a part with too many header lines")
        body = stream.until(delimiter)
        yield headers, body
        _drain(body)


class _Stream:
    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._held = b"\r\n"  # the first boundary may stand at the very beginning

    def until(self, mark: bytes) -> Iterator[bytes]:
        """What comes before ``mark``, in pieces; ``mark`` itself is consumed."""
        keep = len(mark) - 1  # it may have begun at the end of what is held
        while (at := self._held.find(mark)) < 0:
            ready, self._held = self._held[:-keep], self._held[-keep:]
            if ready:
                yield ready
            self._read()
        ready, self._held = self._held[:at], self._held[at + len(mark) :]
        if ready:
            yield ready

    def line(self) -> bytes:
        """The next line, without its CRLF; the line after the closing boundary may lack it."""
        while (at := self._held.find(b"\r\n")) < 0:
            if self._held.startswith(b"--"):
                at = len(self._held)
                break
            if len(self._held) > LONGEST_LINE:
                raise Truncated("a part with a header line that does not end")
            self._read()
        line, self._held = self._held[:at], self._held[at + 2 :]
        return line

    def _read(self) -> None:
        try:
            self._held += next(self._chunks)
        except StopIteration:
            raise Truncated("the answer ends in the middle of a part") from None


def _drain(pieces: Iterator[bytes]) -> None:
    deque(pieces, maxlen=0)
