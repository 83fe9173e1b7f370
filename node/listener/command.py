"""DIMSE command sets, to and from bytes (PS3.7 section 6.3.1 and Annex E): always implicit VR little endian.

Only what a Storage and Verification SCP, and a Storage Commitment SCU, needs; whether a command makes sense is for the
caller to judge.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from node.errors import NodeError

# Command Field (0000,0100), PS3.7 Annex E.1
C_STORE_RQ, C_ECHO_RQ, C_CANCEL_RQ, N_EVENT_REPORT_RQ = 0x0001, 0x0030, 0x0FFF, 0x0100
RESPONSE = 0x8000
NO_DATASET = 0x0101

SUCCESS, UNRECOGNISED_OPERATION, SOP_CLASS_NOT_SUPPORTED, PROCESSING_FAILURE = 0x0000, 0x0211, 0x0122, 0x0110
NO_SUCH_EVENT_TYPE = 0x0113

_NUMBERS = {0x0100: "field", 0x0110: "message_id", 0x0800: "dataset_type", 0x1002: "event_type"}
_TEXTS = {0x0002: "sop_class", 0x0003: "requested_class", 0x1000: "sop_uid"}


class BadCommand(NodeError):
    """The bytes are no command set."""


@dataclass(frozen=True)
class Command:
    """A request. ``sop_uid`` is Affected SOP Instance UID (0000,1000), empty if there is none; ``event_type`` 0."""

    field: int
    message_id: int
    dataset_type: int = NO_DATASET
    sop_class: str = ""
    sop_uid: str = ""
    requested_class: str = ""
    event_type: int = 0

    @property
    def has_dataset(self) -> bool:
        return self.dataset_type != NO_DATASET


def decode(raw: bytes) -> Command:
    """Raises: BadCommand."""
    values: dict[str, int | str] = {}
    offset = 0
    while offset < len(raw):
        if offset + 8 > len(raw):
            raise BadCommand("the command set is truncated")
        group, element, length = struct.unpack_from("<HHL", raw, offset)
        value = raw[offset + 8 : offset + 8 + length]
        offset += 8 + length
        if group != 0 or len(value) != length:
            raise BadCommand("the command set is truncated, or holds an element that is no command element")
        if element in _NUMBERS:
            if length != 2:
                raise BadCommand(f"(0000,{element:04X}) is {length} bytes long, not 2")
            values[_NUMBERS[element]] = int.from_bytes(value, "little")
        elif element in _TEXTS:
            values[_TEXTS[element]] = value.decode("latin-1").rstrip(" \0")
    if "field" not in values or ("message_id" not in values and values["field"] != C_CANCEL_RQ):
        raise BadCommand("the command set lacks the command field or the message ID")
    values.setdefault("message_id", 0)
    return Command(**values)  # type: ignore[arg-type]  # int for the numbers, str for the texts


def encode_response(request: Command, status: int, comment: str = "") -> bytes:
    """The response that answers a request; ``comment`` is Error Comment (0000,0902), without anybody's name."""
    elements = [
        _text(0x0002, request.sop_class or request.requested_class),
        _number(0x0100, request.field | RESPONSE),
        _number(0x0120, request.message_id),
        _number(0x0800, NO_DATASET),
        _number(0x0900, status),
    ]
    if comment:
        elements.append(_text(0x0902, comment[:64], pad=b" "))  # LO: 64 characters
    if request.sop_uid:
        elements.append(_text(0x1000, request.sop_uid))
    body = b"".join(elements)
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def _number(element: int, value: int) -> bytes:
    return struct.pack("<HHLH", 0, element, 2, value)


def _text(element: int, text: str, pad: bytes = b"\0") -> bytes:
    value = text.encode("latin-1", "replace")
    value += pad * (len(value) % 2)
    return struct.pack("<HHL", 0, element, len(value)) + value
