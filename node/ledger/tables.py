"""The tables of the ledger. A change here needs a migration in ``migrations/versions``; a test compares the two.

All times are seconds since the epoch as steady.py tells them, but for ``received_at`` and what comes of it to be shown
(first and last arrival, opened_at): those are the wall clock's.

No column holds a patient's name, number or date: ``patient_key`` is a digest.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

tables = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

UID = String(64)  # PS3.5 section 9.1
DIGEST = String(64)  # SHA-256 in hexadecimal
# SQLite numbers rows by itself only where the type is spelt INTEGER.
NUMBER = BigInteger().with_variant(Integer, "sqlite")

studies = Table(
    "studies",
    tables,
    Column("uid", UID, primary_key=True),
    Column("state", String(12), nullable=False),
    Column("reason", Text),  # why it is held, was not wanted, or waits
    Column("patient_key", DIGEST, nullable=False),  # of the instance that came first
    Column("caller", String(16), nullable=False),  # AE title of who sent first
    Column("revision", Integer, nullable=False),  # the newest that is settled; 0: none yet
    Column("arrived", Integer, nullable=False),  # distinct SOP Instance UIDs
    Column("expected", Integer),  # as the sender or the PACS told
    Column("first_arrival", Double, nullable=False),
    Column("opened_at", Double, nullable=False),  # first arrival of the revision that is open
    Column("last_arrival", Double, nullable=False),
    Column("settle_at", Double, nullable=False),
    Column("settle_by", Double, nullable=False),  # the longest wait ends
    Column("purged_at", Double),  # its images were deleted then
    Index(None, "state", "settle_at"),
    Index(None, "last_arrival"),
    Index(None, "first_arrival"),
    Index(None, "patient_key"),
)

# Every version of every instance. The set of revision n is, per SOP Instance UID, the newest version whose revision
# is at most n; so 5,000 slices are written once, and not once per revision.
instances = Table(
    "instances",
    tables,
    Column("id", NUMBER, primary_key=True, autoincrement=True),
    Column("study_uid", UID, ForeignKey("studies.uid"), nullable=False),
    Column("series_uid", UID, nullable=False),
    Column("sop_uid", UID, nullable=False),
    Column("sop_class", UID, nullable=False),
    Column("transfer_syntax", UID, nullable=False),
    Column("sha256", DIGEST, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("patient_key", DIGEST, nullable=False),
    Column("modality", String(16), nullable=False),
    Column("caller", String(16), nullable=False),
    Column("address", String(64), nullable=False),
    Column("received_at", Double, nullable=False),
    Column("revision", Integer),  # the first that holds it; null: none yet
    UniqueConstraint("study_uid", "sop_uid", "sha256"),
    Index(None, "sha256"),
    Index(None, "sop_uid"),
)

revisions = Table(
    "revisions",
    tables,
    Column("study_uid", UID, ForeignKey("studies.uid"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("predecessor", Integer),
    Column("digest", DIGEST, nullable=False),  # of its (SOP Instance UID, SHA-256) pairs
    Column("instances", Integer, nullable=False),
    Column("opened_at", Double, nullable=False),
    Column("last_arrival", Double, nullable=False),
    Column("settled_at", Double, nullable=False),
)

jobs = Table(
    "jobs",
    tables,
    Column("id", NUMBER, primary_key=True, autoincrement=True),
    Column("study_uid", UID, ForeignKey("studies.uid"), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("pipeline", String(64), nullable=False),
    Column("use", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("destinations", JSON, nullable=False),
    Column("why", Text, nullable=False),  # the rule that matched
    Column("key", DIGEST, nullable=False, unique=True),
    Column("predecessor_key", DIGEST),
    Column("state", String(12), nullable=False),
    Column("attempts", Integer, nullable=False),  # only ever grows: with the owner it is the fencing token
    Column("forgiven", Integer, nullable=False),  # attempts that do not count towards the quarantine
    Column("owner", Text),
    Column("lease_until", Double),
    Column("not_before", Double, nullable=False),
    Column("queued_at", Double, nullable=False),
    Column("claimed_at", Double),
    Column("done_at", Double),
    Column("outcome", String(16)),
    Column("reason", Text),
    Column("runs", Text),  # JSON, as contract.md has it
    Column("stages", JSON),  # seconds per stage
    Column("purged_at", Double),  # its evidence was deleted then
    Column("forms", JSON),  # that its evidence was made in
    Column("asked", JSON),  # and that it is to be made in besides what its destinations take
    Column("shadow", Boolean, nullable=False, server_default=false()),  # nothing of it is sent
    Column("away_since", Double),  # its images cannot be read since then
    UniqueConstraint("study_uid", "revision", "pipeline"),
    Index(None, "state", "priority", "queued_at"),
    Index("ix_jobs_queued_at", "queued_at", "state", "pipeline"),
    # Figures and the queue's page are answered from this one alone: a job's row is long, and there are many.
    Index("ix_jobs_figures", "done_at", "state", "queued_at", "claimed_at", "priority", "pipeline", "outcome", "owner"),
)

evidence = Table(
    "evidence",
    tables,
    Column("job_id", NUMBER, ForeignKey("jobs.id"), primary_key=True, autoincrement=False),
    Column("sop_uid", UID, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("series_uid", UID, nullable=False),
    Column("sop_class", UID, nullable=False),
    Column("path", Text, nullable=False),  # relative to the evidence root
    Column("sha256", DIGEST, nullable=False),
    Column("form", String(32), nullable=False, server_default=""),  # as pipelines.forms names it
)

deliveries = Table(
    "deliveries",
    tables,
    Column("id", NUMBER, primary_key=True, autoincrement=True),
    Column("job_id", NUMBER, ForeignKey("jobs.id"), nullable=False),
    Column("destination", String(64), nullable=False),
    Column("state", String(12), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("owner", Text),
    Column("lease_until", Double),
    Column("not_before", Double, nullable=False),
    Column("queued_at", Double, nullable=False),
    Column("claimed_at", Double),
    Column("first_failed_at", Double),
    Column("delivered_at", Double),
    Column("verified_at", Double),
    Column("verified", Boolean, nullable=False),
    Column("reason", Text),
    Column("whole_since", Double),  # what was accepted before it is sent again
    UniqueConstraint("job_id", "destination"),
    Index(None, "state", "destination"),
    Index(None, "destination", "delivered_at"),
)

# Files of images that are to be deleted: their rows have gone.
purging = Table("purging", tables, Column("sha256", DIGEST, primary_key=True))

# Workers that are to take nothing more.
drained = Table(
    "drained",
    tables,
    Column("worker", String(255), primary_key=True),  # host/device
    Column("since", Double, nullable=False),
    Column("reason", Text, nullable=False),
)

# Pipelines that a person has switched, whatever the settings say.
switches = Table(
    "switches",
    tables,
    Column("pipeline", String(64), primary_key=True),
    Column("mode", String(8), nullable=False),  # on, off, shadow
    Column("since", Double, nullable=False),
    Column("reason", Text, nullable=False),
)

# The ledger's time, per boot of each machine (steady.py).
clocks = Table(
    "clocks",
    tables,
    Column("boot", String(128), primary_key=True),
    Column("since_boot", Double, nullable=False),
    Column("told", Double, nullable=False),  # the ledger's time then
    Column("wall", Double, nullable=False),  # what the machine's clock said then
    Column("rate", Double, nullable=False),
)

# What a destination was asked to keep (PS3.4 Annex J), and what it has said.
commitments = Table(
    "commitments",
    tables,
    Column("transaction_uid", UID, primary_key=True),
    Column("delivery_id", NUMBER, ForeignKey("deliveries.id"), nullable=False),
    Column("asked_at", Double, nullable=False),
    Column("reported_at", Double),  # null: it has not reported yet
    Column("held", JSON),  # SOP Instance UIDs
    Column("wanted", JSON),  # those that it was asked about
    Index(None, "delivery_id"),
)

answers = Table(
    "answers",
    tables,
    Column("id", NUMBER, primary_key=True, autoincrement=True),
    Column("delivery_id", NUMBER, ForeignKey("deliveries.id"), nullable=False),
    Column("sop_uid", UID, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("status", Integer),  # DIMSE or HTTP; null: no response
    Column("verdict", String(16), nullable=False),
    Column("comment", Text, nullable=False),
    Column("answered_at", Double, nullable=False),
    Index(None, "delivery_id", "sop_uid"),
)
