"""Is every record of the trail as it was written? Reads; changes nothing."""

from __future__ import annotations

import hmac
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.etree import ElementTree

from node.audit.records import NOTHING, Entry, digest_of, seal_of


@dataclass(frozen=True)
class Verdict:
    """What a verification found.

    Attributes:
        count: Records that are whole.
        first: The number of the first record that is kept, of ``last``.
        broken: The number of the first record that is not as it was written; None if all are.
        why: What is wrong with it.
        head: ``N:DIGEST`` of the last record, to be noted down elsewhere.
    """

    count: int
    first: int
    last: int
    broken: int | None
    why: str
    head: str


class Verification:
    def __init__(self, db: sqlite3.Connection, key: bytes, against: str | None) -> None:
        self._db, self._key = db, key
        self._n, _, self._digest = (against or "").partition(":")

    def verdict(self) -> Verdict:
        base, base_digest, fault = self._mark("base", (0, NOTHING))
        head, head_digest, head_fault = self._mark("head", (0, NOTHING))
        n, digest = base, base_digest
        if fault:
            return Verdict(0, base + 1, head, base + 1, fault, "")
        query = "SELECT n, at, event, study, message, digest FROM records ORDER BY n"
        for row in self._db.execute(query):
            why = self._fault(Entry(*row), n + 1, digest)
            if why:
                return Verdict(n - base, base + 1, head, n + 1, why, "")
            n, digest = n + 1, row[5]
        if not head_fault and (n, digest) != (head, head_digest):
            head_fault = f"{head - n} records at the end are missing" if n < head else "it was added without the key"
        if not head_fault and n < int(self._n or 0):
            head_fault = f"record {self._n} was noted down, and the trail ends before it"
        broken = n + 1 if n < max(head, int(self._n or 0)) else max(n, 1)
        return Verdict(n - base, base + 1, max(n, head), broken if head_fault else None, head_fault, f"{n}:{digest}")

    def _mark(self, name: str, otherwise: tuple[int, str]) -> tuple[int, str, str]:
        row = self._db.execute("SELECT n, digest, seal FROM marks WHERE name = ?", (name,)).fetchone()
        if row is None:
            return *otherwise, "the mark of the last record is missing" if name == "head" else ""
        n, digest, seal = row
        ok = hmac.compare_digest(str(seal), seal_of(self._key, name, n, digest))
        return n, digest, "" if ok else f"the mark of the {'last record' if name == 'head' else name} was changed"

    def _fault(self, entry: Entry, expected: int, before: str) -> str:
        """What is wrong with a record; empty if nothing is."""
        if entry.n != expected:
            return f"record {expected} is missing: {entry.n} follows {expected - 1}"
        if not hmac.compare_digest(str(entry.digest), digest_of(self._key, before, entry.n, entry.message)):
            return "its message, its number or its digest was changed"
        if self._n == str(entry.n) and self._digest != entry.digest:
            return "it is not the record that was noted down: the trail is another, or an older copy was put back"
        root = ElementTree.fromstring(entry.message)  # noqa: S314 - the digest says that we have written it
        event = root.find("EventIdentification/EventID")
        study = root.find("ParticipantObjectIdentification/ParticipantObjectIDTypeCode[@csd-code='110180']/..")
        found = None if study is None else study.get("ParticipantObjectID")
        when = root[0].get("EventDateTime") == datetime.fromtimestamp(entry.at, UTC).isoformat(timespec="milliseconds")
        if event is None or event.get("originalText") != entry.event or found != entry.study_uid or not when:
            return "what it is listed under is not what it says"
        return ""
