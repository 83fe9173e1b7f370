"""An event as an audit message in XML (PS3.15 A.5.1), and the codes that one may hold. Values only."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from xml.sax.saxutils import quoteattr


@dataclass(frozen=True)
class Code:
    value: str
    scheme: str
    meaning: str

    def attributes(self) -> str:
        # PS3.15 A.5.2: displayName is the meaning that the scheme gives; originalText what the sender calls it.
        return (
            f"csd-code={_quoted(self.value)} codeSystemName={_quoted(self.scheme)} "
            f"displayName={_quoted(self.meaning)} originalText={_quoted(self.meaning)}"
        )


def _dcm(value: str, meaning: str) -> Code:
    return Code(value, "DCM", meaning)


# PS3.16 CID 400, CID 401, CID 402, CID 404: event, type of event, role, what an ID is of.
ACTIVITY, LOG_USED = _dcm("110100", "Application Activity"), _dcm("110101", "Audit Log Used")
BEGINS, ACCESSED = _dcm("110102", "Begin Transferring DICOM Instances"), _dcm("110103", "DICOM Instances Accessed")
TRANSFERRED, DELETED = _dcm("110104", "DICOM Instances Transferred"), _dcm("110105", "DICOM Study Deleted")
EXPORT, IMPORT, QUERY = _dcm("110106", "Export"), _dcm("110107", "Import"), _dcm("110112", "Query")
ALERT, AUTHENTICATION = _dcm("110113", "Security Alert"), _dcm("110114", "User Authentication")
START, STOP = _dcm("110120", "Application Start"), _dcm("110121", "Application Stop")
LOGIN, LOGOUT = _dcm("110122", "Login"), _dcm("110123", "Logout")
ALARMS = {
    "node authentication": _dcm("110126", "Node Authentication"),
    "restricted function": _dcm("110132", "Use of Restricted Function"),
    "software": _dcm("110131", "Software Configuration"),
    "security settings": _dcm("110129", "Security Configuration"),
}
APPLICATION, LAUNCHER = _dcm("110150", "Application"), _dcm("110151", "Application Launcher")
DESTINATION, ORIGIN = _dcm("110152", "Destination Role ID"), _dcm("110153", "Source Role ID")
TO_MEDIA, FROM_MEDIA = _dcm("110154", "Destination Media"), _dcm("110155", "Source Media")
STUDY_UID, SOP_CLASS_UID = _dcm("110180", "Study Instance UID"), _dcm("110181", "SOP Class UID")
NODE_ID = _dcm("110182", "Node ID")
PATIENT_NUMBER, URI = Code("2", "RFC-3881", "Patient Number"), Code("12", "RFC-3881", "URI")
REPORT_NUMBER = Code("9", "RFC-3881", "Report Number")

SUCCESS, MINOR, SERIOUS = 0, 4, 8  # EventOutcomeIndicator


class Act(StrEnum):
    """EventActionCode."""

    CREATE = "C"
    READ = "R"
    UPDATE = "U"
    DELETE = "D"
    EXECUTE = "E"


@dataclass(frozen=True)
class Source:
    """Who reports: the AE title of the node, and the machine that it runs on."""

    ae_title: str = "WETREAD"
    host: str = "localhost"


@dataclass(frozen=True)
class Actor:
    """A person or a program that does something.

    Attributes:
        name: The user's account, or the AE title.
        address: IP address or machine name that it comes from; empty if that is not known.
        way: How it reached us: ``command line``, ``web``, ``REST``, ``DICOM``, ``STOW-RS`` …
    """

    name: str
    address: str = ""
    way: str = ""


@dataclass(frozen=True)
class Transfer:
    """Instances of one study of one patient.

    Attributes:
        patient_id: (0010,0020), as it stands there; empty if it does.
        classes: Number of instances per SOP Class UID.
    """

    study_uid: str
    patient_id: str = ""
    classes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Participant:
    actor: Actor
    is_requestor: bool
    role: Code | None = None
    media: str = ""

    def xml(self) -> str:
        attributes = [f"UserID={_quoted(self.actor.name)}", f'UserIsRequestor="{str(self.is_requestor).lower()}"']
        if self.actor.way:
            attributes.append(f"AlternativeUserID={_quoted(self.actor.way)}")
        if self.actor.address:
            kind = "2" if re.fullmatch(r"[0-9.]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.%\w]*", self.actor.address) else "1"
            attributes.append(f'NetworkAccessPointID={_quoted(self.actor.address)} NetworkAccessPointTypeCode="{kind}"')
        role = f"<RoleIDCode {self.role.attributes()}/>" if self.role else ""
        # PS3.16 CID 405 has no folder.
        media = Code(self.media, "99WETREAD", self.media).attributes() if self.media else ""
        inside = f"<MediaIdentifier><MediaType {media}/></MediaIdentifier>" if media else ""
        return f"<ActiveParticipant {' '.join(attributes)}>{role}{inside}</ActiveParticipant>"


@dataclass(frozen=True)
class Thing:
    """A ParticipantObject; ``type`` and ``role`` as the schema numbers them."""

    id: str
    id_type: Code
    name: str
    type: int
    role: int
    query: str | None = None
    details: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)

    def xml(self) -> str:
        named = f"<ParticipantObjectName>{_escaped(self.name)}</ParticipantObjectName>"
        if self.query is not None:
            named = f"<ParticipantObjectQuery>{_base64(self.query)}</ParticipantObjectQuery>"
        details = "".join(
            f"<ParticipantObjectDetail type={_quoted(name)} value={_quoted(_base64(value))}/>"
            for name, value in self.details.items()
        )
        classes = "".join(
            f'<SOPClass UID={_quoted(uid)} NumberOfInstances="{count}"/>' for uid, count in sorted(self.classes.items())
        )
        inside = f"<ParticipantObjectDescription>{classes}</ParticipantObjectDescription>" if classes else ""
        return (
            f'<ParticipantObjectIdentification ParticipantObjectID={_quoted(self.id)} ParticipantObjectTypeCode="'
            f'{self.type}" ParticipantObjectTypeCodeRole="{self.role}"><ParticipantObjectIDTypeCode '
            f"{self.id_type.attributes()}/>{named}{details}{inside}</ParticipantObjectIdentification>"
        )


@dataclass(frozen=True)
class Event:
    """What is recorded. ``outcome``: 0 success, 4 minor failure, 8 serious failure; ``reason`` says why it failed."""

    id: Code
    act: Act
    participants: tuple[Participant, ...]
    things: tuple[Thing, ...] = ()
    types: tuple[Code, ...] = ()
    outcome: int = SUCCESS
    reason: str = ""

    @property
    def study_uid(self) -> str | None:
        return next((thing.id for thing in self.things if thing.id_type == STUDY_UID), None)

    def xml(self, source: Source, at: float) -> str:
        """The message, on one line; ``at`` in seconds since the epoch."""
        when = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
        types = "".join(f"<EventTypeCode {code.attributes()}/>" for code in self.types)
        why = f"<EventOutcomeDescription>{_escaped(self.reason)}</EventOutcomeDescription>" if self.reason else ""
        return (
            f'<AuditMessage><EventIdentification EventActionCode="{self.act}" EventDateTime="{when}" '
            f'EventOutcomeIndicator="{self.outcome}"><EventID {self.id.attributes()}/>{types}{why}'
            f"</EventIdentification>{''.join(one.xml() for one in self.participants)}"
            f"<AuditSourceIdentification AuditEnterpriseSiteID={_quoted(source.host)} "
            f'AuditSourceID={_quoted(source.ae_title)}><AuditSourceTypeCode csd-code="4"/>'
            f"</AuditSourceIdentification>{''.join(one.xml() for one in self.things)}</AuditMessage>"
        )


# XML 1.0 has no way to write most control characters.
_UNWRITABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff￾￿]")


def _clean(text: str) -> str:
    return _UNWRITABLE.sub("?", text)


def _quoted(text: str) -> str:
    return quoteattr(_clean(text))


def _escaped(text: str) -> str:
    return _clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")
