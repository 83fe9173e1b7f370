"""Instances come in: what is kept, twice the same, in conflict, or of another patient.

One transaction per call, however many arrivals it holds (group commit). It decides nothing about time: the caller
says when the study may settle, and how long at the latest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, and_, func, insert, or_, select, text, update

from node.ledger.chapter import Chapter, chunks, locked_study, members
from node.ledger.entries import Instance
from node.ledger.states import StudyState
from node.ledger.tables import instances, studies

if TYPE_CHECKING:
    from node.spool import Arrival

RECORD_LOCK = 0x77657261  # any number that no one else's advisory lock has: "wera"
BETWEEN_STUDIES = "conflict between studies"
# What a sender is free to write may be too long, or hold a NUL, which PostgreSQL refuses. (UIDs are checked before.)
FREE_TEXT = {"modality": 16, "caller": 16, "address": 64}


class Arrivals(Chapter):
    def record(
        self, arrivals: Sequence[Arrival], *, settle_at: float, settle_by_seconds: float, now: float | None = None
    ) -> None:
        """Write down what lies in the spool; what is written down already changes nothing.

        Args:
            settle_at: The studies may settle at this time, unless more comes.
            settle_by_seconds: And at the latest so long after the open revision was first heard of.
        """
        latest = self._now(now) + settle_by_seconds
        by_study: dict[str, list[Arrival]] = defaultdict(list)
        for arrival in arrivals:
            by_study[arrival.study_uid].append(arrival)
        if not by_study:
            return
        with self._database.writing() as db:
            if not self._database.is_sqlite:
                # One after the other: two listeners must not both miss that the other has the same instance, nor wait
                # for each other's studies.
                db.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": RECORD_LOCK})
            for study_uid in sorted(by_study):
                self._record(db, by_study[study_uid], settle_at, latest)

    def _record(self, db: Connection, arrivals: list[Arrival], settle_at: float, latest: float) -> None:
        first = min(arrivals, key=lambda arrival: arrival.received_at)
        db.execute(self._database.insert_new(studies), _opening(first, settle_at, latest))
        study = locked_study(db, first.study_uid)
        held = _versions(db, arrivals)
        fresh = _not_yet_in(held, arrivals)
        changes: dict[str, Any] = {}
        if fresh:
            changes |= _progress(study, fresh, held, (settle_at, latest))
            elsewhere = _elsewhere(db, fresh)
            reasons = _doubts(db, study, fresh, held)
            if elsewhere:
                reasons.append(_ambiguous(elsewhere))
                _hold_others(db, study.uid, elsewhere)
            changes |= _held_for(study, reasons)
            db.execute(insert(instances), [_row(arrival) for arrival in fresh])
        counts = [arrival.expected for arrival in arrivals if arrival.expected is not None]
        if counts and max(counts) != study.expected:
            changes["expected"] = max([*counts, study.expected or 0])
        if (changes.get("state") or study.state) == StudyState.RECEIVING:
            later = max(changes.get("settle_at", study.settle_at), settle_at)
            changes["settle_at"] = min(later, changes.get("settle_by", study.settle_by))
        if changes:
            db.execute(update(studies).where(studies.c.uid == study.uid).values(changes))

    def settle_at(self, study_uids: Iterable[str], when: float) -> None:
        """The sender has released its association: these studies may settle then, though not after the longest wait."""
        with self._database.writing() as db:
            for piece in chunks(sorted(set(study_uids))):
                to_set = and_(studies.c.uid.in_(piece), studies.c.state == StudyState.RECEIVING)
                at_most = func.min if self._database.is_sqlite else func.least
                db.execute(update(studies).where(to_set).values(settle_at=at_most(when, studies.c.settle_by)))

    def expect(self, study_uid: str, count: int) -> None:
        """The PACS says how many instances the study has (Number of Study Related Instances, PS3.4 C.3.4).

        Its count grows while it is being filled: a smaller one than was told before changes nothing.
        """
        fewer = or_(studies.c.expected.is_(None), studies.c.expected < count)
        with self._database.writing() as db:
            db.execute(update(studies).where(studies.c.uid == study_uid, fewer).values(expected=count))

    def waits(self, study_uid: str, reason: str) -> None:
        """A study that is receiving cannot settle yet; the reason is shown until it does."""
        new = and_(studies.c.uid == study_uid, studies.c.state == StudyState.RECEIVING)
        with self._database.writing() as db:
            db.execute(update(studies).where(new).values(reason=reason))

    def known(self, sha256s: Iterable[str]) -> set[str]:
        """Those of the digests that the ledger has written down."""
        found: set[str] = set()
        with self._database.reading() as db:
            for piece in chunks(sha256s):
                found.update(db.scalars(select(instances.c.sha256).where(instances.c.sha256.in_(piece))))
        return found

    def instances(self, study_uid: str) -> tuple[Instance, ...]:
        """The newest version of each instance of a study, in the order of arrival."""
        with self._database.reading() as db:
            return tuple(_instance_of(row) for row in members(db, study_uid))

    def due(self, now: float | None = None) -> list[str]:
        """The studies whose time has come, those that wait longest first.

        With a count, a study is due when it is reached, and else at the end of the longest wait; without one, or with
        one that proved too small, when it is quiet. ``node.studies.is_due`` says the same, and a test compares the two.
        """
        moment = self._now(now)
        counted = studies.c.arrived == studies.c.expected  # null, hence not true, where nobody told
        uncounted = or_(studies.c.expected.is_(None), studies.c.arrived > studies.c.expected)
        ripe = or_(counted, and_(uncounted, studies.c.settle_at <= moment), studies.c.settle_by <= moment)
        with self._database.reading() as db:
            query = select(studies.c.uid).where(studies.c.state == StudyState.RECEIVING, ripe)
            return list(db.scalars(query.order_by(studies.c.settle_at)))


def _opening(first: Arrival, settle_at: float, latest: float) -> dict[str, Any]:
    return {
        "uid": first.study_uid,
        "state": StudyState.RECEIVING,
        "patient_key": first.patient_key,
        "caller": _fitting(first.caller, FREE_TEXT["caller"]),
        "revision": 0,
        "arrived": 0,
        "first_arrival": first.received_at,
        "opened_at": first.received_at,
        "last_arrival": first.received_at,
        "settle_at": min(settle_at, latest),
        "settle_by": latest,
    }


def _row(arrival: Arrival) -> dict[str, Any]:
    row = {
        column.name: getattr(arrival, column.name) for column in instances.c if column.name not in ("id", "revision")
    }
    return row | {name: _fitting(row[name], size) for name, size in FREE_TEXT.items()}


def _fitting(text: str, size: int) -> str:
    return text.replace("\0", "")[:size]


def _instance_of(row: Row[Any]) -> Instance:
    return Instance(**{name: getattr(row, name) for name in Instance.__dataclass_fields__})


def _versions(db: Connection, arrivals: list[Arrival]) -> dict[str, set[str]]:
    """The digests that the ledger has, per SOP Instance UID."""
    found: dict[str, set[str]] = defaultdict(set)
    for piece in chunks({arrival.sop_uid for arrival in arrivals}):
        query = select(instances.c.sop_uid, instances.c.sha256).where(
            instances.c.study_uid == arrivals[0].study_uid, instances.c.sop_uid.in_(piece)
        )
        for sop_uid, sha256 in db.execute(query):
            found[sop_uid].add(sha256)
    return found


def _not_yet_in(held: dict[str, set[str]], arrivals: list[Arrival]) -> list[Arrival]:
    return list(
        {
            (arrival.sop_uid, arrival.sha256): arrival
            for arrival in arrivals
            if arrival.sha256 not in held.get(arrival.sop_uid, ())
        }.values()
    )


def _progress(
    study: Row[Any], fresh: list[Arrival], held: dict[str, set[str]], settling: tuple[float, float]
) -> dict[str, Any]:
    times = [arrival.received_at for arrival in fresh]
    changes: dict[str, Any] = {
        "arrived": study.arrived + len({arrival.sop_uid for arrival in fresh} - held.keys()),
        "last_arrival": max([study.last_arrival, *times]),
    }
    if study.state in (StudyState.SETTLED, StudyState.UNROUTED):  # late images: the next revision opens
        changes["state"] = StudyState.RECEIVING
        changes["opened_at"] = min(times)
        changes["settle_at"], changes["settle_by"] = settling
    return changes


def _elsewhere(db: Connection, fresh: list[Arrival]) -> dict[str, str]:
    """SOP Instance UID to the other study that has an instance of it: the same one it cannot be (PS3.5 section 9)."""
    found: dict[str, str] = {}
    for piece in chunks(arrival.sop_uid for arrival in fresh):
        query = select(instances.c.sop_uid, instances.c.study_uid).where(
            instances.c.sop_uid.in_(piece), instances.c.study_uid != fresh[0].study_uid
        )
        found.update({row.sop_uid: row.study_uid for row in db.execute(query)})
    return found


def _ambiguous(elsewhere: dict[str, str]) -> str:
    sop_uid, study_uid = next(iter(elsewhere.items()))
    more = f" and {len(elsewhere) - 1} more" if len(elsewhere) > 1 else ""
    return (
        f"{BETWEEN_STUDIES}: instance {sop_uid}{more} is also in study {study_uid}, with other content; both are kept"
    )


def _hold_others(db: Connection, study_uid: str, elsewhere: dict[str, str]) -> None:
    """Nobody knows which of the two studies an ambiguous instance belongs to: both wait for a person."""
    for other in sorted(set(elsewhere.values())):
        theirs = {sop_uid: study_uid for sop_uid, where in elsewhere.items() if where == other}
        values = _held_for(locked_study(db, other), [_ambiguous(theirs)])
        db.execute(update(studies).where(studies.c.uid == other).values(values))


def _doubts(db: Connection, study: Row[Any], fresh: list[Arrival], held: dict[str, set[str]]) -> list[str]:
    """Why a human has to look at the study, if so: two contents under one UID, or two patients in one study."""
    reasons: list[str] = []
    seen: set[str] = set()
    doubled: list[str] = []
    for arrival in fresh:
        if held.get(arrival.sop_uid) or arrival.sop_uid in seen:
            doubled.append(arrival.sop_uid)
        seen.add(arrival.sop_uid)
    if doubled:
        more = f" and {len(set(doubled)) - 1} more" if len(set(doubled)) > 1 else ""
        reasons.append(f"conflict: instance {doubled[0]}{more} came twice with different content; both are kept")
    strangers = [arrival for arrival in fresh if arrival.patient_key != study.patient_key]
    if {arrival.patient_key for arrival in strangers} - _patients(db, study):
        reasons.append(
            f"identity: instance {strangers[0].sop_uid} names another patient (ID, issuer, name or birth date) than "
            "the study's first"
        )
    return reasons


def _held_for(study: Row[Any], reasons: list[str]) -> dict[str, Any]:
    """What changes of a study that a human has to look at for these reasons, besides those that it is held for."""
    if not reasons:
        return {}
    before = study.reason.split("; ") if study.state == StudyState.HELD and study.reason else []
    kinds = {reason.split(":")[0] for reason in before}
    return {
        "state": StudyState.HELD,
        "reason": "; ".join(before + [reason for reason in reasons if reason.split(":")[0] not in kinds]),
    }


def _patients(db: Connection, study: Row[Any]) -> set[str]:
    """The patients whom the study names already: a human has released them, or it is held for them."""
    return set(db.scalars(select(instances.c.patient_key).where(instances.c.study_uid == study.uid).distinct()))
