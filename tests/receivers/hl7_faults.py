"""What is wrong with an HL7 message, by hl7apy: its structures, cardinalities, types and lengths of version 2.5.1."""

from __future__ import annotations

from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.exceptions import HL7apyException
from hl7apy.parser import parse_message


def fault_of(text: str) -> str | None:
    """The first fault; None if there is none."""
    try:
        message = parse_message(text, validation_level=VALIDATION_LEVEL.STRICT, find_groups=True)
        message.validate()
    except HL7apyException as error:
        return f"{type(error).__name__}: {error}"
    return None
