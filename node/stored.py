"""What a STOW-RS server says of each object: the Store Instances Response, in JSON or XML (PS3.18 10.5.3).

Believes nothing: a response that makes no sense says nothing, and then the HTTP status decides (answers.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from node.answers import DELIVERED, Answer, judge, judge_http
from node.multipart import boundary_of, read_parts

REFERENCED, FAILED = "00081199", "00081198"  # Referenced / Failed SOP Sequence
SOP_UID, WARNING_REASON, FAILURE_REASON = "00081155", "00081196", "00081197"


@dataclass(frozen=True)
class Stored:
    """A Store Instances Response (PS3.18 10.5.3.2, PS3.18 Annex I): {SOP Instance UID: reason}."""

    failed: dict[str, int | None] = field(default_factory=dict)
    stored: dict[str, int | None] = field(default_factory=dict)

    @classmethod
    def of(cls, body: bytes, content_type: str) -> Stored:
        """Read the response, in JSON or XML; one that is neither says nothing about any object."""
        try:
            if "xml" in content_type:
                dataset = _from_xml(body, content_type)
            else:
                parsed = json.loads(body)
                dataset = parsed[0] if isinstance(parsed, list) else parsed
            return cls(_reasons(dataset, FAILED, FAILURE_REASON), _reasons(dataset, REFERENCED, WARNING_REASON))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, ElementTree.ParseError):
            return cls()

    def answer(self, sop_uid: str, http_status: int) -> Answer:
        if sop_uid in self.failed:
            reason = self.failed[sop_uid]
            return judge(sop_uid, 0x0110 if reason is None else reason)
        if sop_uid in self.stored:
            warning = self.stored[sop_uid]
            return judge(sop_uid, warning) if warning else Answer(sop_uid, http_status, DELIVERED)
        return judge_http(sop_uid, http_status)


def _reasons(dataset: dict[str, Any], sequence: str, reason: str) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    for item in dataset.get(sequence, {}).get("Value", []):
        if uid := value_of(item, SOP_UID):
            code = value_of(item, reason)
            found[str(uid)] = None if code is None else int(code) & 0xFFFF
    return found


def value_of(item: dict[str, Any], tag: str) -> Any:
    values = item.get(tag, {}).get("Value") or [None]
    return values[0]


def _from_xml(body: bytes, content_type: str) -> dict[str, Any]:
    """The Native DICOM Model (PS3.19 A.1) in the shape of the DICOM JSON Model, as far as a response needs it."""
    if "multipart" in content_type:
        _, pieces = next(read_parts([body], boundary_of(content_type)))
        body = b"".join(pieces)
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:  # no answer needs them, and a bomb does
        raise ValueError("an XML answer with a document type")
    return _dataset(ElementTree.fromstring(body))  # noqa: S314


def _dataset(parent: ElementTree.Element) -> dict[str, Any]:
    dataset: dict[str, Any] = {}
    for attribute in parent:
        children = list(attribute)
        items = [_dataset(child) for child in children if _name(child) == "Item"]
        values = [(child.text or "").strip() for child in children if _name(child) == "Value"]
        dataset[attribute.get("tag", "").upper()] = {"Value": items or values}
    return dataset


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
