"""Who received, used, sent, changed and deleted what: audit messages of PS3.15 A.5, kept where no change goes unseen.

    events.py    what happens, as an event
    messages.py  an event as its message in XML
    records.py   one record, and what binds it to the one before
    trail.py     the records on disk
    syslog.py    the same to a collector, by syslog over TLS
    verification.py  whether they are as they were written

It knows no ledger and no spool; whoever acts says what was done. Unlike the log it names patients, by their ID alone.
"""

from __future__ import annotations

from node.audit.events import (
    accessed,
    activity,
    administered,
    alarm,
    authenticated,
    begins,
    classes_of,
    deleted,
    exported,
    imported,
    log_used,
    queried,
    transferred,
)
from node.audit.messages import Act, Actor, Event, Source, Transfer
from node.audit.records import Entry
from node.audit.trail import Audited, Seldom, Trail, quietly, unrecorded
from node.audit.verification import Verdict

__all__ = [
    "Act",
    "Actor",
    "Audited",
    "Entry",
    "Event",
    "Seldom",
    "Source",
    "Trail",
    "Transfer",
    "Verdict",
    "accessed",
    "activity",
    "administered",
    "alarm",
    "authenticated",
    "begins",
    "classes_of",
    "deleted",
    "exported",
    "imported",
    "log_used",
    "queried",
    "quietly",
    "transferred",
    "unrecorded",
]
