"""The audit trail to a collector: syslog (RFC 5424) over TLS (RFC 5425), as PS3.15 A.6 has it.

Syslog is not answered, so a record counts as sent only when the collector's machine has acknowledged its bytes and the
line has stood for a moment after that; what was sent on a line that then broke is sent again. So a collector that was
away loses nothing, and may have a record twice: its number stands in the structured data.
"""

from __future__ import annotations

import fcntl
import os
import socket
import ssl
import struct
import termios
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from node import log
from node.audit.records import Entry
from node.audit.trail import Trail
from node.errors import BadSettings, NodeError, Unavailable

PRIORITY = 10 * 8 + 5  # facility 10, security and authorization (PS3.15 A.6.1); severity notice
MESSAGE_ID = "DICOM+RFC3881"
LOOK_SECONDS = 1.0
STEADY_SECONDS = 1.0  # the line has to stand after the last byte was acknowledged
ANSWER_SECONDS = 20.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
BATCH = 200

_events = log.get("audit")


@dataclass(frozen=True)
class Collector:
    """Where audit messages go.

    Attributes:
        ca: The authority that the collector's certificate must come from; None: the system's.
        certificate, key: Our own, where it asks for one.
    """

    host: str
    port: int = 6514
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @property
    def name(self) -> str:
        return f"{self.host}:{self.port}"


def framed(entry: Entry, host: str, app: str) -> bytes:
    """A record as a SYSLOG-FRAME: its length, a space, the message (RFC 5425 section 4.3)."""
    when = datetime.fromtimestamp(entry.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    # 32473 is the enterprise number for examples (RFC 5612); there is none of our own.
    data = f'[record@32473 n="{entry.n}" digest="{entry.digest}"]'
    head = f"<{PRIORITY}>1 {when} {_word(host, 255)} {_word(app, 48)} {os.getpid()} {MESSAGE_ID} {data} "
    message = head.encode("ascii") + b"\xef\xbb\xbf" + entry.message.encode()
    return str(len(message)).encode("ascii") + b" " + message


def _word(text: str, most: int) -> str:
    """PRINTUSASCII without spaces; nothing is ``-`` (RFC 5424 section 6)."""
    return "".join(character for character in text if "!" <= character <= "~")[:most] or "-"


class Forwarder:
    """Sends what the trail has and the collector has not, until it is told to stop.

    Raises:
        BadSettings: The certificates cannot be used.
    """

    def __init__(self, trail: Trail, collector: Collector) -> None:
        self._trail, self._collector = trail, collector
        try:
            self._tls = ssl.create_default_context(cafile=str(collector.ca) if collector.ca else None)
            self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
            if collector.certificate is not None:
                self._tls.load_cert_chain(collector.certificate, collector.key)
        except (OSError, ssl.SSLError) as error:
            raise BadSettings(f"audit.syslog: its certificates cannot be used: {error}") from error

    def try_out(self) -> None:
        """Connect, and send nothing.

        Raises:
            OSError: It cannot be reached, or its certificate is not right.
        """
        with self._line():
            pass

    def _line(self) -> ssl.SSLSocket:
        plain = socket.create_connection((self._collector.host, self._collector.port), ANSWER_SECONDS)
        try:
            return self._tls.wrap_socket(plain, server_hostname=self._collector.host)
        except BaseException:
            plain.close()
            raise

    def run(self, stop: threading.Event) -> None:
        pause, is_well = FIRST_PAUSE, True
        while not stop.is_set():
            try:
                if not self._trail.after(self._trail.sent(self._collector.name), 1):
                    stop.wait(LOOK_SECONDS)
                    continue
                self.send(stop)
                if not is_well:
                    _events.info("the collector answers again", address=self._collector.name)
                pause, is_well = FIRST_PAUSE, True
            except (OSError, NodeError) as error:
                if is_well:
                    _events.error(
                        "the collector has not got all; it waits", address=self._collector.name, reason=str(error)
                    )
                is_well = False
                stop.wait(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    def send(self, stop: threading.Event) -> None:
        """Send on one line until all is there, and for as long as more comes.

        Raises:
            OSError: The line cannot be had, or breaks.
            Unavailable: The collector does not acknowledge.
        """
        name = self._collector.name
        source = self._trail.source
        with self._line() as line:
            sent = self._trail.sent(name)
            idle_until = time.monotonic() + ANSWER_SECONDS
            while not stop.is_set() and time.monotonic() < idle_until:
                entries = self._trail.after(sent, BATCH)
                if not entries:
                    stop.wait(LOOK_SECONDS)
                    _check_stands(line)
                    continue
                for entry in entries:
                    line.sendall(framed(entry, source.host, source.ae_title))
                _await_acknowledged(line)
                sent = entries[-1].n
                self._trail.mark_sent(name, sent)
                idle_until = time.monotonic() + ANSWER_SECONDS


def _await_acknowledged(line: ssl.SSLSocket) -> None:
    until = time.monotonic() + ANSWER_SECONDS
    while _unacknowledged(line):
        if time.monotonic() > until:
            raise Unavailable("the collector does not acknowledge what is sent")
        time.sleep(0.02)
    line.settimeout(STEADY_SECONDS)
    try:
        _check_stands(line)
    finally:
        line.settimeout(ANSWER_SECONDS)


def _unacknowledged(line: ssl.SSLSocket) -> int:
    """Bytes that the peer's machine has not acknowledged (SIOCOUTQ, tcp(7))."""
    count: int = struct.unpack("i", fcntl.ioctl(line.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]
    return count


def _check_stands(line: ssl.SSLSocket) -> None:
    """Raises OSError if the collector has closed the line; it has nothing to say otherwise."""
    before = line.gettimeout()
    line.settimeout(min(before or STEADY_SECONDS, STEADY_SECONDS))
    try:
        if not line.recv(1):
            raise ConnectionError("the collector has closed the line")
    except TimeoutError:
        return
    finally:
        line.settimeout(before)
