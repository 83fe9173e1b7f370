"""What the ledger hands out and takes in: frozen values. No SQL here."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from node.ledger.states import DeliveryState, JobState, Mode, StudyState

MAX_ATTEMPTS = 3  # of a job that takes its worker along; what comes after it is for the report that says so


@dataclass(frozen=True)
class Instance:
    """One version of one instance, as it lies in the spool."""

    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class: str
    transfer_syntax: str
    sha256: str
    size: int
    modality: str
    caller: str
    received_at: float


@dataclass(frozen=True)
class NewJob:
    """What a rule asks for: this pipeline, for the revision that settles.

    Attributes:
        priority: 0 the most urgent to 9.
        reason: The sentence that says which rule matched, and how.
    """

    pipeline: str
    use: str
    priority: int = 5
    destinations: tuple[str, ...] = ()
    reason: str = ""
    shadow: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.priority <= 9:
            raise ValueError(f"the priority of {self.pipeline} is {self.priority}, not 0 to 9")


@dataclass(frozen=True)
class Job:
    """One study revision for one pipeline.

    Attributes:
        key: Always the same for the same study, pipeline, revision and set of instances: the seed of its evidence's
            UIDs, and the name of its folder.
        predecessor_key: The key of the last job of this pipeline on this study that is done, whose evidence the new
            one replaces.
        attempts: How often it was claimed; with the owner, what a worker proves its claim by.
        forms: That its evidence was made in. ``asked``: that it is to be made in, too, whatever its destinations take.
        why: The rule that matched. ``reason``: why it ended as it did, or waits.
        shadow: Nothing of it is sent, and it moves no study; ``destinations`` are those that it would go to.
        away_since: It waits since then for images that cannot be read.
    """

    id: int
    study_uid: str
    revision: int
    pipeline: str
    use: str
    priority: int
    destinations: tuple[str, ...]
    why: str
    key: str
    predecessor_key: str | None
    state: JobState
    attempts: int
    owner: str | None
    lease_until: float | None
    not_before: float
    queued_at: float
    claimed_at: float | None
    done_at: float | None
    outcome: str | None
    reason: str | None
    runs: str | None
    stages: dict[str, float] = field(default_factory=dict)
    forms: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    shadow: bool = False
    away_since: float | None = None


@dataclass(frozen=True)
class Claim:
    """A worker's right to a job, until its lease ends.

    Attributes:
        files: SHA-256 of the instances of the job's revision, as the spool names them.
        counted: The attempts that count towards the quarantine, this one among them.
    """

    job: Job
    owner: str
    attempt: int
    files: tuple[str, ...]
    counted: int

    @property
    def is_last(self) -> bool:
        """Whether the job is quarantined if this attempt, too, takes its worker along."""
        return self.counted >= MAX_ATTEMPTS

    @property
    def is_spent(self) -> bool:
        """Whether it has taken its workers along too often already: only a report that says so is to be made."""
        return self.counted > MAX_ATTEMPTS


@dataclass(frozen=True)
class Evidence:
    """One object that a job made; ``path`` is relative to the evidence root, ``form`` as pipelines.forms names it."""

    path: str
    sha256: str
    sop_uid: str
    sop_class: str
    series_uid: str
    form: str = ""


@dataclass(frozen=True)
class Delivery:
    """The evidence of one job for one destination.

    Attributes:
        whole_since: When an administrator asked for all of it once more; what was accepted before does not count then.
    """

    id: int
    job_id: int
    destination: str
    state: DeliveryState
    attempts: int
    owner: str | None
    lease_until: float | None
    not_before: float
    queued_at: float
    claimed_at: float | None
    first_failed_at: float | None
    delivered_at: float | None
    verified_at: float | None
    verified: bool
    reason: str | None
    whole_since: float | None


@dataclass(frozen=True)
class Expired:
    """What may be deleted: images of a study (``key`` is its UID), or evidence of a job (``key`` is the job's)."""

    key: str
    study_uid: str
    count: int
    bytes: int
    job_id: int = 0


@dataclass(frozen=True)
class Drained:
    """A worker that takes nothing more, until it is resumed; ``worker`` as ``host/device``."""

    worker: str
    since: float
    reason: str


@dataclass(frozen=True)
class Switched:
    """A pipeline that a person has switched, whatever the settings say of it."""

    pipeline: str
    mode: Mode
    since: float
    reason: str


@dataclass(frozen=True)
class DeliveryClaim:
    """A sender's right to a delivery, until its lease ends.

    Attributes:
        evidence: What the destination has not accepted yet. ``all_evidence``: also what it has, for reading back.
        accepted: The UIDs of whatever it has accepted, objects or messages.
    """

    delivery: Delivery
    job: Job
    owner: str
    attempt: int
    evidence: tuple[Evidence, ...]
    all_evidence: tuple[Evidence, ...]
    accepted: frozenset[str] = frozenset()

    def of(self, forms: Collection[str]) -> DeliveryClaim:
        """The same for objects of these forms alone."""
        kept, everything = (
            tuple(one for one in objects if one.form in forms) for objects in (self.evidence, self.all_evidence)
        )
        return replace(self, evidence=kept, all_evidence=everything)


@dataclass(frozen=True)
class Commitment:
    """A destination was asked to keep a delivery's evidence; ``held`` is None until it reports what it keeps."""

    transaction_uid: str
    delivery_id: int
    asked_at: float
    held: frozenset[str] | None


@dataclass(frozen=True)
class Answer:
    """What a destination said to one object; ``status`` is None where it said nothing."""

    delivery_id: int
    sop_uid: str
    attempt: int
    status: int | None
    verdict: str
    comment: str
    answered_at: float


@dataclass(frozen=True)
class Revision:
    """A set of instances that does not change any more; it names the one that it replaces."""

    study_uid: str
    number: int
    predecessor: int | None
    digest: str
    instances: int
    opened_at: float
    last_arrival: float
    settled_at: float


@dataclass(frozen=True)
class StudyEntry:
    """One study, as a list shows it."""

    uid: str
    state: StudyState
    reason: str | None
    caller: str
    revision: int
    arrived: int
    expected: int | None
    first_arrival: float
    opened_at: float
    last_arrival: float
    settle_at: float
    settle_by: float
    modalities: tuple[str, ...] = ()
    purged_at: float | None = None


@dataclass(frozen=True)
class StudyHistory:
    """Everything that the ledger holds of one study: the times of its steps stand in its parts."""

    study: StudyEntry
    series: dict[str, int]  # instances per Series Instance UID
    revisions: tuple[Revision, ...]
    jobs: tuple[Job, ...]
    evidence: dict[int, tuple[Evidence, ...]]  # per job id
    deliveries: tuple[Delivery, ...]
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Overview:
    """How many there are in each state; ``deliveries`` per destination."""

    studies: dict[str, int]
    jobs: dict[str, int]
    deliveries: dict[str, dict[str, int]]
    instances: int
    bytes: int
    oldest_queued_at: float | None
