"""One delivery, from claim to what the destination said: claim → send → answers → read back → finish.

    every object is accepted, and found when asked for      DELIVERED, verified
    accepted, and the destination cannot be asked           DELIVERED
    accepted, and it is to report that it keeps them        WAITING; when it does DELIVERED, verified; else asked
    accepted, but not found when asked for                  WAITING, asked again later; after the fifth time DEAD
    not accepted, for now                                   WAITING, sent again later: only what was not accepted
    the evidence cannot be read from our own disk           WAITING, tried again later
    it takes a form that the evidence was not made in       WAITING, until it is; what cannot be made leaves it DEAD
    refused for good, changed on disk, or after 72 hours    DEAD, until an administrator retries it

At most one delivery per destination is under way (lanes.py). It speaks neither DICOM nor HTTP (delivery.py) and looks
into no image.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from node import delivery, log, notices
from node.answers import RETRY
from node.asking import AskingBack, ToBeReported
from node.audit import Act, Actor, Audited, Transfer, begins, classes_of, exported, queried, transferred, unrecorded
from node.delivery import Answer, Destination, Outgoing
from node.errors import LostClaim, NodeError, NotNow, Refusal, Unavailable
from node.instance import head_of
from node.lanes import Lanes
from node.ledger import DeliveryClaim, DeliveryState, Evidence, Ledger
from node.notices import Receiver
from node.triage.rules import Rule

LEASE_SECONDS = 60.0
BEAT_SECONDS = 15.0
ASK_BACK_TRIES = 5
STUDY_ROOT_FIND, QIDO = "1.2.840.10008.5.1.4.1.2.2.1", "QIDO-RS"
MISSING = "missing"  # the verdict on an object that was accepted and, asked for, is not found

_events = log.get("outbox")


class Unreadable(NodeError):
    """A file of the evidence cannot be read now."""


class Outbox:
    """Delivers; may be called from several threads.

    Args:
        evidence: The folder that evidence lies under.
        receivers: Who is told of findings, by name, in place of being sent evidence.
        triage: The rules that say which findings.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        evidence: Path,
        destinations: Mapping[str, Destination],
        owner: str,
        stop: threading.Event,
        receivers: Mapping[str, Receiver] | None = None,
        triage: Sequence[Rule] = (),
        lease_seconds: float = LEASE_SECONDS,
        audited: Audited = unrecorded,
    ) -> None:
        self._audited = audited
        self._ledger = ledger
        self._evidence = evidence
        self._destinations = destinations
        self._receivers = receivers or {}
        self._triage = triage
        self._owner = owner
        self._stop = stop
        self._asking = AskingBack(ledger, stop)
        self._lease_seconds = lease_seconds
        self._lanes = Lanes()
        self._rng = random.Random()

    def __call__(self, delivery_id: int) -> None:
        """Deliver it, and whatever comes for the same destination meanwhile; or leave it to the thread that does so."""
        try:
            entry = self._ledger.delivery(delivery_id)
            priority = self._ledger.job(entry.job_id).priority
        except Unavailable:
            raise
        except NodeError as unknown:
            _events.warning("a bell rang for nothing", delivery=delivery_id, reason=str(unknown))
            return
        for number in self._lanes.through(entry.destination, delivery_id, priority):
            if self._stop.is_set():
                continue  # what is left in the lane stays in the ledger
            try:
                self._deliver(number)
            except LostClaim as lost:
                _events.warning("another sender has the delivery", delivery=number, reason=str(lost))

    def _deliver(self, delivery_id: int) -> None:
        claim = self._ledger.claim_delivery(delivery_id, self._owner, self._lease_seconds)
        if claim is None:
            return
        with self._beating(claim):
            try:
                self._carry_out(claim)
            except (LostClaim, Unavailable):
                raise
            except Exception as error:  # a fault of ours must not cost the delivery
                said = str(error) if isinstance(error, NodeError) else f"{type(error).__name__} while it was sent"
                self._wait(claim, said, ())

    def _carry_out(self, claim: DeliveryClaim) -> None:
        if (receiver := self._receivers.get(claim.delivery.destination)) is not None:
            self._tell(claim, receiver)
            return
        destination = self._destinations.get(claim.delivery.destination)
        if destination is None:
            self._bury(claim, f"the settings have no destination {claim.delivery.destination}")
            return
        if fault := self._damage(claim.all_evidence):
            self._bury(claim, fault)
            return
        forms = {str(form) for form in destination.evidence.forms}
        lacking: str | None = None
        if never_made := forms - {*claim.job.forms} if claim.job.forms else ():
            lacking = self._ask_for(claim, sorted(never_made))
            if lacking is None:
                return
        claim = claim.of({*forms, ""})
        begun = time.monotonic()
        answers = self._send(claim, destination)
        refused = [answer for answer in answers if not answer.is_accepted]
        unanswered = len(claim.evidence) - len(answers)
        if refused or unanswered:
            why = dict.fromkeys(answer.comment or answer.verdict for answer in refused)
            self._wait(claim, "; ".join(why) or f"no answer for {unanswered} objects", refused)
            return
        if lacking is not None:
            self._bury(claim, lacking)
            return
        seconds = round(time.monotonic() - begun, 3)
        self._read_back(claim, destination)
        _events.info("sent", delivery=claim.delivery.id, destination=destination.name, seconds=seconds)

    def _tell(self, claim: DeliveryClaim, receiver: Receiver) -> None:
        if not receiver.on:
            self._bury(claim, f"notify.{receiver.name} is switched off in the settings")
            return
        if fault := self._damage(claim.all_evidence):
            self._bury(claim, fault)
            return
        rules, name = self._triage, receiver.name
        try:
            notice = notices.notice_of(claim.job, claim.all_evidence, self._evidence, rules=rules, receiver=name)
        except NodeError as nothing:
            self._bury(claim, str(nothing))
            return
        answers: list[Answer] = []
        by, to = Actor("WETREAD"), f"{receiver.protocol} {receiver.name}"
        self._audited(exported(self._transfer(claim), by=by, to=to))
        for answer in notices.tell(receiver, notice, accepted=claim.accepted):
            self._ledger.record_answer(claim, answer.sop_uid, answer.status, answer.verdict, answer.comment)
            answers.append(answer)
        if refused := [answer for answer in answers if not answer.is_accepted]:
            self._wait(claim, "; ".join(answer.comment or answer.verdict for answer in refused), refused)
            return
        self._ledger.finish_delivery(claim, state=DeliveryState.DELIVERED)
        _events.info("told", delivery=claim.delivery.id, destination=name, count=len(answers))

    def _ask_for(self, claim: DeliveryClaim, forms: Sequence[str]) -> str | None:
        """Have the evidence made in forms that it was not made in, and wait for it; or why it never will be.

        So it is where a destination was added, or its setting changed, after the study was read.
        """
        said = f"{claim.delivery.destination} takes {', '.join(forms)}, which the evidence was not made in"
        try:
            self._ledger.read_again(claim.job.id, forms)
        except NotNow as never:
            return f"{said} and cannot be now: {never}"
        self._wait(claim, f"{said}: it is being made", ())
        return None

    def _send(self, claim: DeliveryClaim, destination: Destination) -> list[Answer]:
        answers: list[Answer] = []
        if claim.evidence:
            what, (us, them) = self._transfer(claim), _between(destination)
            self._audited(begins(what, sender=us, receiver=them))
            for answer in delivery.send(destination, [self._outgoing(one) for one in claim.evidence]):
                self._ledger.record_answer(claim, answer.sop_uid, answer.status, answer.verdict, answer.comment)
                answers.append(answer)
            lost = len(claim.evidence) - sum(answer.is_accepted for answer in answers)
            reason = f"{lost} of {len(claim.evidence)} instances are not accepted" if lost else ""
            self._audited(transferred(what, Act.READ, sender=us, receiver=them, reason=reason))
        return answers

    def _transfer(self, claim: DeliveryClaim) -> Transfer:
        """What is sent, as the audit trail names it."""
        classes = classes_of([one.sop_class for one in claim.evidence])
        try:
            patient_id = head_of(self._evidence / claim.all_evidence[0].path).patient_id
        except (OSError, Refusal, IndexError):
            patient_id = ""
        return Transfer(claim.job.study_uid, patient_id, classes)

    def _read_back(self, claim: DeliveryClaim, destination: Destination) -> None:
        """Delivered means: the destination says, asked, that it has each object; where it can be asked."""
        objects = [self._outgoing(one) for one in claim.all_evidence]
        if destination.verify and objects:
            us, them = _between(destination)
            how = STUDY_ROOT_FIND if destination.protocol == "dimse" else QIDO
            said = queried(how, f"StudyInstanceUID={claim.job.study_uid}", by=us, asked=them)
            self._audited(said)
        try:
            missing = self._asking.missing(claim, destination, objects) if destination.verify and objects else None
        except ToBeReported:
            return
        if not missing:
            verified = missing is not None
            nothing = None if objects else "nothing was sent: the run left no object of a kind that it takes"
            self._ledger.finish_delivery(claim, state=DeliveryState.DELIVERED, verified=verified, reason=nothing)
            return
        reason = f"it accepted {len(objects)} objects, but does not find {len(missing)} of them when asked"
        for uid in sorted(missing):
            self._ledger.record_answer(claim, uid, None, MISSING, "it is not found when asked for")
        if self._ledger.times_said(claim, MISSING) >= ASK_BACK_TRIES:
            self._bury(claim, reason)
        else:
            self._wait(claim, reason, ())

    def _outgoing(self, evidence: Evidence) -> Outgoing:
        return delivery.outgoing(self._evidence / evidence.path)

    def _damage(self, evidence: Sequence[Evidence]) -> str | None:
        """What is wrong with the files on disk: what is sent is what was written, byte for byte.

        Raises:
            Unreadable: If a file cannot be read now; a disk that fails or a mount that is away may pass.
        """
        for one in evidence:
            try:
                with (self._evidence / one.path).open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise Unreadable(f"the evidence {one.path} cannot be read: {error.strerror}") from error
            if digest != one.sha256:
                return f"the evidence {one.path} was changed on disk: its SHA-256 is not the one in the ledger"
        return None

    def _wait(self, claim: DeliveryClaim, reason: str, answers: Sequence[Answer]) -> None:
        now = self._ledger.now()
        first = claim.delivery.first_failed_at or now
        limited = {answer.status for answer in answers if answer.verdict == RETRY and answer.tries is not None}
        answered = self._ledger.times_said(claim, RETRY, limited) if limited else 0
        retry_at = delivery.next_try(claim.attempt, first, now, self._rng, answers=answers, answered=answered)
        if retry_at is None:
            self._bury(claim, reason)
            return
        self._ledger.finish_delivery(claim, state=DeliveryState.WAITING, retry_at=retry_at, reason=reason)
        _events.warning(
            "not delivered yet", delivery=claim.delivery.id, destination=claim.delivery.destination,
            attempt=claim.attempt, retry_at=retry_at, reason=reason,
        )  # fmt: skip

    def _bury(self, claim: DeliveryClaim, reason: str) -> None:
        self._ledger.finish_delivery(claim, state=DeliveryState.DEAD, reason=reason)
        _events.error(
            "not delivered", delivery=claim.delivery.id, destination=claim.delivery.destination, reason=reason
        )

    @contextmanager
    def _beating(self, claim: DeliveryClaim) -> Iterator[None]:
        """Keep the lease alive: a large SEG over a slow line takes longer than any lease that is short enough."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(BEAT_SECONDS):
                try:
                    self._ledger.heartbeat_delivery(claim, self._lease_seconds)
                except NodeError as error:
                    _events.warning("no heartbeat", delivery=claim.delivery.id, reason=str(error))

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _between(destination: Destination) -> tuple[Actor, Actor]:
    """Us and the destination, as the audit trail names them."""
    way = "DICOM" if destination.protocol == "dimse" else "DICOMweb"
    there = Actor(destination.ae_title or destination.name, destination.host or destination.url or "", way)
    return Actor(destination.calling_ae_title or "WETREAD"), there
