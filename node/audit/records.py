"""One record of the trail, and what binds it to the one before. No files here."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

NOTHING = "0" * 64  # what the first record follows


@dataclass(frozen=True)
class Entry:
    """One record, as it is shown. ``n`` counts from 1; ``at`` in seconds since the epoch."""

    n: int
    at: float
    event: str
    study_uid: str | None
    message: str
    digest: str

    def as_json(self) -> dict[str, Any]:
        """What happened, in words: time, event, who, to what, and what came of it."""
        root = ElementTree.fromstring(self.message)  # noqa: S314 - we have written it
        head = root[0]
        things = root.findall("ParticipantObjectIdentification")
        return {
            "n": self.n,
            "time": head.get("EventDateTime"),
            "event": self.event,
            "types": [code.get("originalText") for code in head.findall("EventTypeCode")],
            "action": head.get("EventActionCode"),
            "outcome": int(head.get("EventOutcomeIndicator", "0")),
            "reason": head.findtext("EventOutcomeDescription"),
            "who": [
                {
                    "name": one.get("UserID"),
                    "way": one.get("AlternativeUserID"),
                    "address": one.get("NetworkAccessPointID"),
                    "requestor": one.get("UserIsRequestor") == "true",
                }
                for one in root.findall("ActiveParticipant")
            ],
            "study_uid": self.study_uid,
            "what": [thing.get("ParticipantObjectID") for thing in things],
            "instances": sum(int(one.get("NumberOfInstances", "0")) for one in root.iter("SOPClass")),
            "digest": self.digest,
        }


def digest_of(key: bytes, before: str, n: int, message: str) -> str:
    return hmac.new(key, f"{before}\n{n}\n{message}".encode(), hashlib.sha256).hexdigest()


def seal_of(key: bytes, name: str, n: int, digest: str) -> str:
    return hmac.new(key, f"mark {name}\n{n}\n{digest}".encode(), hashlib.sha256).hexdigest()
