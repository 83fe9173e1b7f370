"""What a STOW-RS request is answered: the Store Instances Response, as JSON and XML (PS3.18 10.5.3). Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from node.errors import OutOfResources


@dataclass
class Response:
    """What became of the instances of a request (PS3.18 Table 10.5.3-1)."""

    stored: list[tuple[str, str]] = field(default_factory=list)  # SOP class, SOP instance
    failed: list[tuple[str, str, int]] = field(default_factory=list)
    others: list[int] = field(default_factory=list)  # reasons of what does not say which instance it is

    @property
    def status(self) -> int:
        """The HTTP status (PS3.18 Table 10.5.3-1); 503 where only room was lacking."""
        reasons = {reason for _, _, reason in self.failed} | set(self.others)
        if self.stored:
            return 202 if reasons else 200
        return 503 if reasons == {OutOfResources.status} else 409 if reasons else 400

    def as_json(self) -> dict[str, Any]:
        """In the DICOM JSON Model (PS3.18 Annex F)."""
        body: dict[str, Any] = {"00081190": {"vr": "UR"}}  # Retrieve URL: nothing is retrieved here
        if self.stored:
            body["00081199"] = _sequence([_reference(*one) for one in self.stored])
        if self.failed:
            body["00081198"] = _sequence([_reference(c, uid) | _reason(why) for c, uid, why in self.failed])
        if self.others:
            body["0008119A"] = _sequence([_reason(why) for why in self.others])
        return body

    def as_xml(self) -> str:
        """In the Native DICOM Model (PS3.19 A.1)."""
        return f'<?xml version="1.0" encoding="UTF-8"?><NativeDicomModel>{_xml(self.as_json())}</NativeDicomModel>'


def _sequence(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"vr": "SQ", "Value": items}


def _reference(sop_class: str, sop_uid: str) -> dict[str, Any]:
    return {"00081150": {"vr": "UI", "Value": [sop_class]}, "00081155": {"vr": "UI", "Value": [sop_uid]}}


def _reason(status: int) -> dict[str, Any]:
    return {"00081197": {"vr": "US", "Value": [status]}}


KEYWORDS = {
    "00081150": "ReferencedSOPClassUID",
    "00081155": "ReferencedSOPInstanceUID",
    "00081190": "RetrieveURL",
    "00081197": "FailureReason",
    "00081198": "FailedSOPSequence",
    "00081199": "ReferencedSOPSequence",
    "0008119A": "OtherFailuresSequence",
}


def _xml(dataset: dict[str, Any]) -> str:
    text = ""
    for tag, element in sorted(dataset.items()):
        inside = ""
        for number, value in enumerate(element.get("Value", ()), 1):
            # Only UIDs, which were checked, and numbers: nothing has to be escaped.
            kind, content = ("Item", _xml(value)) if isinstance(value, dict) else ("Value", str(value))
            inside += f'<{kind} number="{number}">{content}</{kind}>'
        text += f'<DicomAttribute tag="{tag}" vr="{element["vr"]}" keyword="{KEYWORDS[tag]}">{inside}</DicomAttribute>'
    return text
