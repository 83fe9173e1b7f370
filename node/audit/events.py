"""What happens, as the event that is recorded of it: one function per message of PS3.15 A.5.3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from node.audit.messages import (
    ACCESSED,
    ACTIVITY,
    ALARMS,
    ALERT,
    APPLICATION,
    AUTHENTICATION,
    BEGINS,
    DELETED,
    DESTINATION,
    EXPORT,
    FROM_MEDIA,
    IMPORT,
    LAUNCHER,
    LOG_USED,
    LOGIN,
    LOGOUT,
    MINOR,
    NODE_ID,
    ORIGIN,
    PATIENT_NUMBER,
    QUERY,
    REPORT_NUMBER,
    SERIOUS,
    SOP_CLASS_UID,
    START,
    STOP,
    STUDY_UID,
    SUCCESS,
    TO_MEDIA,
    TRANSFERRED,
    URI,
    Act,
    Actor,
    Code,
    Event,
    Participant,
    Thing,
    Transfer,
)


def activity(part: str, *, starts: bool, by: Actor, reason: str = "") -> Event:
    """A part of the node starts or stops (A.5.3.1)."""
    return Event(
        ACTIVITY,
        Act.EXECUTE,
        (Participant(Actor(part, way="wetread"), False, APPLICATION), Participant(by, True, LAUNCHER)),
        types=(START if starts else STOP,),
        outcome=SERIOUS if reason else SUCCESS,
        reason=reason,
    )


def log_used(by: Actor, what: str = "") -> Event:
    """Somebody has looked at the audit trail (A.5.3.2)."""
    trail = Thing("audit", URI, "Security Audit Log", 2, 13, details={"asked for": what} if what else {})
    return Event(LOG_USED, Act.READ, (Participant(by, True),), (trail,))


def begins(transfer: Transfer, *, sender: Actor, receiver: Actor) -> Event:
    """We begin to send (A.5.3.3)."""
    return Event(BEGINS, Act.EXECUTE, _from_to(sender, receiver), _of(transfer))


def transferred(
    transfer: Transfer, act: Act, *, sender: Actor, receiver: Actor, reason: str = "", is_new: bool = True
) -> Event:
    """Instances came (``Act.CREATE``; UPDATE where they add to a study) or went (READ) (A.5.3.5)."""
    act = Act.UPDATE if act == Act.CREATE and not is_new else act
    outcome = MINOR if reason else SUCCESS
    return Event(TRANSFERRED, act, _from_to(sender, receiver), _of(transfer), outcome=outcome, reason=reason)


def accessed(transfer: Transfer, act: Act, *, by: Actor, what: str = "", reason: str = "") -> Event:
    """Instances are looked at, read by a pipeline, or changed in what becomes of them (A.5.3.4)."""
    types = (Code(what, "99WETREAD", what),) if what else ()
    outcome = MINOR if reason else SUCCESS
    return Event(ACCESSED, act, (Participant(by, True),), _of(transfer), types, outcome, reason)


def deleted(transfer: Transfer, *, by: Actor, what: str, reason: str = "") -> Event:
    """A study's images or evidence are deleted here (A.5.3.6)."""
    outcome = MINOR if reason else SUCCESS
    things = _of(transfer, {"deleted": what})
    return Event(DELETED, Act.DELETE, (Participant(by, True),), things, outcome=outcome, reason=reason)


def exported(transfer: Transfer, *, by: Actor, to: str, reason: str = "") -> Event:
    """Something leaves the domain of DICOM: a file, an e-mail, a webhook (A.5.3.7)."""
    return Event(
        EXPORT,
        Act.READ,
        (
            Participant(by, True, ORIGIN),
            Participant(Actor(to), False, TO_MEDIA, media="folder" if to.startswith("/") else ""),
        ),
        _of(transfer),
        outcome=MINOR if reason else SUCCESS,
        reason=reason,
    )


def imported(transfer: Transfer, *, by: Actor, source: str, reason: str = "") -> Event:
    """Files of a folder come in (A.5.3.8)."""
    return Event(
        IMPORT,
        Act.CREATE,
        (Participant(by, True, DESTINATION), Participant(Actor(source), False, FROM_MEDIA, media="folder")),
        _of(transfer),
        outcome=MINOR if reason else SUCCESS,
        reason=reason,
    )


def queried(sop_class: str, query: str, *, by: Actor, asked: Actor) -> Event:
    """One asks another what it has (A.5.3.10); ``query`` by keywords, or the address of a search."""
    asks = Thing(sop_class, SOP_CLASS_UID, "", 2, 3, query=query)
    return Event(QUERY, Act.EXECUTE, _from_to(by, asked), (asks,))


def alarm(kind: str, sentence: str, *, reporter: Actor, culprit: Actor | None = None, where: str = "") -> Event:
    """Something that endangers security (A.5.3.11); ``kind`` is a key of ALARMS."""
    people = (Participant(reporter, True), *((Participant(culprit, False),) if culprit else ()))
    things = (Thing(where, NODE_ID, where, 2, 13, details={"Alert Description": sentence}),) if where else ()
    return Event(ALERT, Act.EXECUTE, people, things, (ALARMS[kind],), SERIOUS, sentence)


def authenticated(by: Actor, *, enters: bool = True, reason: str = "") -> Event:
    """A user logs in or out, or fails to (A.5.3.12)."""
    outcome = MINOR if reason else SUCCESS
    return Event(
        AUTHENTICATION, Act.EXECUTE, (Participant(by, True),), (), (LOGIN if enters else LOGOUT,), outcome, reason
    )


def administered(
    act: str, subject: str, *, by: Actor, transfer: Transfer | None = None, reason: str = "", sentence: str = ""
) -> Event:
    """What an administrator did to a job, a study or a worker, and what came of it."""
    what = Thing(subject, REPORT_NUMBER, subject, 2, 20, details={"came to": sentence} if sentence else {})
    kind = Code(act, "99WETREAD", act)
    event, things = (ACCESSED, (*_of(transfer), what)) if transfer else (ALERT, (what,))
    types = (kind,) if transfer else (ALARMS["restricted function"], kind)
    outcome = MINOR if reason else SUCCESS
    return Event(event, Act.UPDATE, (Participant(by, True),), things, types, outcome, reason)


def _from_to(sender: Actor, receiver: Actor) -> tuple[Participant, ...]:
    return Participant(sender, True, ORIGIN), Participant(receiver, False, DESTINATION)


def _of(transfer: Transfer, details: Mapping[str, str] | None = None) -> tuple[Thing, ...]:
    study = Thing(transfer.study_uid, STUDY_UID, "study", 2, 3, classes=transfer.classes, details=details or {})
    # The ID is mandatory; "none" is how an empty one is said.
    return study, Thing(transfer.patient_id or "none", PATIENT_NUMBER, "patient", 1, 1)


def classes_of(uids: Sequence[str]) -> dict[str, int]:
    """Number of instances per SOP class."""
    return {uid: uids.count(uid) for uid in dict.fromkeys(uids)}
