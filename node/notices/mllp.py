"""MLLP: one HL7 message to a peer, and its acknowledgement, in blocks of <VT> … <FS><CR> (HL7 2.9 appendix C).

A peer that hangs, drips or never ends its block is left in time. The library's own client has no deadline and no TLS.
"""

from __future__ import annotations

import socket
import time

from node.errors import Unavailable
from node.notices.receiver import Receiver

START, END = b"\x0b", b"\x1c\x0d"
LARGEST = 1 << 16  # bytes of an acknowledgement


class Line:
    """A connection to the peer, for several messages one after the other; to be closed.

    Raises:
        Unavailable: If it cannot be reached; as from any call.
        BadSettings: If a file for TLS cannot be used.
    """

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        context = receiver.ssl_context() if receiver.tls == "required" else None
        try:
            plain = socket.create_connection((receiver.host, receiver.port), min(10.0, receiver.answer_seconds))
            self._socket = context.wrap_socket(plain, server_hostname=receiver.host) if context else plain
        except OSError as error:  # ssl.SSLError is one
            raise Unavailable(f"{receiver.where} does not answer: {_said(error)}") from error

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, message: str) -> str:
        """Send the message, and return what the peer says to it."""
        until = time.monotonic() + self._receiver.answer_seconds
        try:
            self._socket.settimeout(self._receiver.answer_seconds)
            self._socket.sendall(START + message.encode() + END)
            held = b""
            while END not in held:
                self._socket.settimeout(max(0.01, until - time.monotonic()))
                piece = self._socket.recv(4096)
                held += piece
                if not piece or len(held) > LARGEST or time.monotonic() > until:
                    raise Unavailable(f"{self._receiver.where} ended without a whole acknowledgement")
        except TimeoutError as error:
            seconds = f"{self._receiver.answer_seconds:g} s"
            raise Unavailable(f"{self._receiver.where} does not acknowledge within {seconds}") from error
        except OSError as error:
            raise Unavailable(f"{self._receiver.where} was lost: {_said(error)}") from error
        return held.split(END)[0].lstrip(START).decode("utf-8", "replace")


def _said(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).lower()
