"""HL7 v2.5.1 over MLLP: the finding as a result that nobody has verified (ORU^R01), the order made urgent (OMI^O23).

    ORU^R01  MSH PID PV1 ORC OBR TQ1 OBX…          OBR-25, OBX-11 R: results stored, not yet verified
    OMI^O23  MSH PID PV1 ORC TQ1 OBR IPC           ORC-1 XO: change order; TQ1-9 S or A: how urgent it is now

Both name the order by the accession number (ORC-3, OBR-3, IPC-1) and the study by its UID (IPC-3, an OBX). In UTF-8.
What an acknowledgement means stands in two tables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime

import hl7

from node.answers import DELIVERED, FEW, REFUSED, RETRY, Answer
from node.errors import Unavailable
from node.notices.mllp import Line
from node.notices.notice import Notice
from node.notices.receiver import Receiver

Field = str | Sequence[str]  # a field, or its components; what stands in it is escaped

# Table 0008, original mode and enhanced mode (HL7 2.5.1, 2.9.2): AE is about this message, AR often about the moment.
ACKNOWLEDGED = {
    "AA": (DELIVERED, "", None),
    "CA": (DELIVERED, "", None),
    "AE": (RETRY, "application error", FEW),
    "CE": (RETRY, "commit error", FEW),
    "AR": (RETRY, "application reject", FEW),
    "CR": (RETRY, "commit reject", FEW),
}
# Table 0357, ERR-3: it says more than the acknowledgement does.
ERRORS = {
    100: (REFUSED, "segment sequence error", None),
    101: (REFUSED, "required field missing", None),
    102: (REFUSED, "data type error", None),
    103: (REFUSED, "table value not found", None),
    200: (REFUSED, "unsupported message type", None),
    201: (REFUSED, "unsupported event code", None),
    202: (REFUSED, "unsupported processing id", None),
    203: (REFUSED, "unsupported version id", None),
    204: (RETRY, "unknown key identifier", FEW),  # the order may be on its way
    206: (RETRY, "application record locked", None),
    207: (RETRY, "application internal error", None),
}
NUMBERS = {code: number for number, code in enumerate(ACKNOWLEDGED)}  # what is kept as the status
ESCAPES = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"}
PRIORITIES = {"S": "Stat", "A": "ASAP", "R": "Routine"}  # table 0485


def tell(receiver: Receiver, notice: Notice, accepted: Collection[str]) -> Iterator[Answer]:
    """Send the messages that were not taken yet, on one connection."""
    left = [name for name in receiver.messages if notice.uid(name) not in accepted]
    if not left:
        return
    with Line(receiver) as line:
        for name in left:
            uid = notice.uid(name)
            said = line.ask(MESSAGES[name](receiver, notice))
            yield acknowledged(uid, name, said, receiver)


def acknowledged(uid: str, name: str, said: str, receiver: Receiver) -> Answer:
    """What an acknowledgement means; the peer's own words are left out: they may name the patient.

    Raises:
        Unavailable: If it is none, or one to another message.
    """
    try:
        message = hl7.parse(said)
        code, about = str(message["MSA.1"]), str(message["MSA.2"])
        # ERR-3 is CWE: the code is its first component (HL7 2.5.1, 2.15.5)
        number = int(str(message["ERR.3.1.1"])) if any(str(one[0]) == "ERR" for one in message) else None
    except (LookupError, ValueError, hl7.HL7Exception):
        number, code, about = _without_error(said)
    if about != control_id(uid) or code not in ACKNOWLEDGED:
        raise Unavailable(f"{receiver.where} answers {name} with no acknowledgement of it")
    verdict, meaning, tries = ACKNOWLEDGED[code]
    if verdict == DELIVERED:
        return Answer(uid, NUMBERS[code], DELIVERED)
    if number in ERRORS:
        verdict, meaning, tries = ERRORS[number]
    told = f"{code}, {number}" if number else code
    return Answer(uid, number or NUMBERS[code], verdict, f"{name}: {meaning} ({told})", tries)


def _without_error(said: str) -> tuple[None, str, str]:
    """The acknowledgement where its ERR segment cannot be understood, or the message at all."""
    for segment in said.replace("\n", "\r").split("\r"):
        if segment.startswith("MSA|"):
            fields = [*segment.split("|"), "", ""]
            return None, fields[1], fields[2]
    return None, "", ""


def control_id(uid: str) -> str:
    """MSH-10, at most 20 characters, always the same for the same message."""
    return hashlib.sha256(uid.encode()).hexdigest()[:20]


def oru(receiver: Receiver, notice: Notice) -> str:
    """The finding as a result (chapter 7.3.1)."""
    found = _time(notice.found_at)
    study = notice.study_date + notice.study_time.split(".")[0]
    about: list[tuple[str, Field, Field, Field]] = [
        ("TX", ("19005-8", "Radiology - Impression", "LN"), notice.impression, ""),
        ("ST", ("110180", "Study Instance UID", "DCM"), notice.study_uid, ""),
    ]
    for one in notice.findings:
        value, scheme, meaning = one.code
        about.append(("CWE", (value, meaning, scheme), ("52101004", "Present", "SCT"), ""))
        if one.certainty is not None:
            percent = f"{one.certainty * 100:.3g}"
            about.append(("NM", ("111012", "Certainty of Finding", "DCM"), percent, ("%", "percent", "UCUM")))
        for (measured, of, name), number, unit in one.measurements:
            about.append(("NM", (measured, name, of), f"{number:.6g}", (unit, unit, "UCUM")))
    lines = [*_head(receiver, notice, "ORU^R01"), _segment("ORC", "RE", "", _number(notice))]
    order: list[Field] = ["1", "", _number(notice), ("18748-4", "Diagnostic imaging study", "LN"), "", "", study]
    lines.append(_segment("OBR", *order, *[""] * 14, found, "", "RAD", "R"))
    lines.append(_urgency(notice))
    for number_, (kind, name_, value_, unit_) in enumerate(about, 1):
        flags = "A" if kind == "CWE" else ""
        observed: list[Field] = [str(number_), kind, name_, "1", value_, unit_, "", flags, "", "", "R", "", "", found]
        lines.append(_segment("OBX", *observed))
    return "".join(f"{line}\r" for line in lines)


def omi(receiver: Receiver, notice: Notice) -> str:
    """The order, more urgent than it was (chapter 4.4.12); ids of the request that no image tells are its number."""
    placed = _number(notice)
    order: list[Field] = ["1", "", placed, ("18748-4", "Diagnostic imaging study", "LN")]
    lines = [
        *_head(receiver, notice, "OMI^O23"),
        _segment("ORC", "XO", "", placed, *[""] * 5, _time(notice.found_at)),
        _urgency(notice),
        _segment("OBR", *order),
        _segment("NTE", "1", "", notice.impression),
        _segment("IPC", placed, notice.study_id or placed, notice.study_uid, notice.study_id or placed),
    ]
    return "".join(f"{line}\r" for line in lines)


MESSAGES = {"ORU^R01": oru, "OMI^O23": omi}


def urgency(priority: int) -> str:
    """Table 0485: S, A or R."""
    return "S" if priority == 0 else "A" if priority <= 3 else "R"


def _head(receiver: Receiver, notice: Notice, name: str) -> list[str]:
    kind, event = name.split("^")
    sender = ("WETREAD", "", receiver.application, receiver.facility, _time(datetime.now(UTC)), "")
    number = control_id(notice.uid(name))
    message = _segment(
        "MSH", *sender, (kind, event, f"{kind}_{event}"), number, "P", "2.5.1", *[""] * 5, "UNICODE UTF-8"
    )
    patient, said = notice.patient, notice.patient.name
    # DICOM's order is prefix, suffix (PS3.5 6.2.1.1), that of XPN suffix, prefix; U: the name is not told
    parts = (said.family_name, said.given_name, said.middle_name, said.name_suffix, said.name_prefix)
    named: Field = parts if receiver.names and str(said) else ("", "", "", "", "", "", "U")
    born = patient.birth_date if receiver.names else ""
    identity: list[Field] = ["1", "", (patient.id, "", "", patient.issuer, "MR"), "", named, "", born, patient.sex]
    return [message.replace("MSH|", "MSH|^~\\&|", 1), _segment("PID", *identity), _segment("PV1", "1", "U")]


def _number(notice: Notice) -> str:
    """By what the order is known: its accession number, else the study's own UID."""
    return notice.accession or notice.study_uid


def _urgency(notice: Notice) -> str:
    letter = urgency(notice.priority)
    return _segment("TQ1", "1", *[""] * 7, (letter, PRIORITIES[letter], "HL70485"))


def _segment(name: str, *fields: Field) -> str:
    told = (
        "^".join(map(_escaped, each)).rstrip("^") if not isinstance(each, str) else _escaped(each) for each in fields
    )
    return "|".join((name, *told)).rstrip("|")


def _escaped(text: str) -> str:
    r"""Delimiters as \F\ and so on (2.7.1); a line's end would end the segment."""
    return "".join(ESCAPES.get(one, " " if ord(one) < 32 else one) for one in str(text))


def _time(moment: datetime) -> str:
    return moment.strftime("%Y%m%d%H%M%S%z")
