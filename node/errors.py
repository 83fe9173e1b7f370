"""What can go wrong in the node, and the status that answers it.

NodeError
├── Refusal                    an instance that is not kept; carries its DIMSE status (PS3.4 Table B.2-1)
│   ├── OutOfResources         A700  the disk is full, or cannot be written
│   ├── DataSetDoesNotMatch    A900  the dataset is not what the command says
│   ├── CannotUnderstand       C000  not parseable, truncated, or beyond a limit
│   ├── InvalidUid             0117  a UID that breaks the rules of PS3.5 section 9.1
│   └── NotAuthorised          0124
├── BadSettings                a key of settings.toml that is unknown or impossible; exit status 2
├── Unknown                    the ledger knows nothing of that name
├── NotNow                     what is asked for does not go with the state that the thing is in
├── Unavailable                a thing that this machine lacks or that does not answer; try again later
└── LostClaim                  another worker holds the job by now: drop the result
"""

from __future__ import annotations


class NodeError(Exception):
    """Anything that the node says to a person in one sentence."""


class Refusal(NodeError):
    """An instance is not kept."""

    status = 0x0110  # Processing failure (PS3.7 C.5)


class OutOfResources(Refusal):
    """There is no room for the instance, or the disk cannot be written."""

    status = 0xA700


class DataSetDoesNotMatch(Refusal):
    """The dataset is not the instance that the command announced."""

    status = 0xA900


class CannotUnderstand(Refusal):
    """The dataset cannot be parsed, is truncated, or exceeds a limit."""

    status = 0xC000


class InvalidUid(Refusal):
    """A UID breaks the rules of PS3.5 section 9.1."""

    status = 0x0117


class NotAuthorised(Refusal):
    """The sender may not store this here."""

    status = 0x0124


class BadSettings(NodeError):
    """A setting is unknown or impossible; the sentence names the key, the value and what is allowed."""


class Unknown(NodeError):
    """The ledger knows nothing of that name or number."""


class NotNow(NodeError):
    """What is asked for does not go with the state that the thing is in; the sentence says what would."""


class Unavailable(NodeError):
    """Something that the node needs is not there now."""


class LostClaim(NodeError):
    """Another worker holds the job by now; the result is dropped."""
