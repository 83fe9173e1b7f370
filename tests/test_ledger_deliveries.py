"""Deliveries in the ledger, on SQLite and on PostgreSQL: each destination for itself."""

from __future__ import annotations

import pytest

from node.errors import LostClaim, NodeError
from node.ledger import DeliveryClaim, Ledger
from tests.ledgers import (
    STUDY,
    arrival,
    claimed,
    cluster,
    cluster_template,
    delivery,
    ledger,
    made,
    settled,
    url,
    wanted,
)

__all__ = ["cluster", "cluster_template", "ledger", "url"]  # fixtures


def claim_of(ledger: Ledger, delivery_id: int, *, owner: str = "sender", at: float = 40.0) -> DeliveryClaim:
    claim = ledger.claim_delivery(delivery_id, owner, 60, at)
    assert claim is not None
    return claim


def test_a_delivery_that_arrived_is_done_and_keeps_its_times(ledger: Ledger) -> None:
    (one,) = delivery(ledger)
    claim = claim_of(ledger, one, at=40)
    for sent in claim.evidence:
        ledger.record_answer(claim, sent.sop_uid, 0x0000, "delivered", now=41)
    ledger.ask_commitment(claim, "2.25.7", now=41)
    ledger.finish_delivery(claim, state="DELIVERED", now=42)
    held = [sent.sop_uid for sent in claim.evidence]
    assert ledger.commitment_reported("2.25.7", held, [], now=50) == "everything is kept"
    ledger.commitment_reported("2.25.7", held, [], now=60)  # as a peer does that did not hear our answer
    done = ledger.delivery(one)
    assert (done.queued_at, done.claimed_at, done.delivered_at, done.verified_at) == (30, 40, 42, 50)
    assert done.verified
    assert [answer.status for answer in ledger.study(STUDY).answers] == [0, 0]
    assert ledger.overview().deliveries == {"PACS": {"DELIVERED": 1}}


def test_a_delivery_that_was_read_back_at_once_is_verified(ledger: Ledger) -> None:
    (one,) = delivery(ledger)
    ledger.finish_delivery(claim_of(ledger, one), state="DELIVERED", verified=True, now=42)
    assert ledger.delivery(one).verified_at == 42


def test_a_delivery_is_claimed_once(ledger: Ledger) -> None:
    (one,) = delivery(ledger)
    claim_of(ledger, one)
    assert ledger.claim_delivery(one, "other", 60, 41) is None
    assert ledger.claim_delivery(404, "other", 60, 41) is None


def test_what_a_destination_accepted_is_not_sent_again(ledger: Ledger) -> None:
    (one,) = delivery(ledger)
    claim = claim_of(ledger, one)
    first, second = claim.evidence
    ledger.record_answer(claim, first.sop_uid, 0xB000, "warning", "coerced")
    ledger.record_answer(claim, second.sop_uid, 0xA700, "retry", "out of resources")
    ledger.finish_delivery(claim, state="WAITING", retry_at=100, reason="out of resources", now=41)
    assert ledger.ready_deliveries(99) == []
    again = claim_of(ledger, one, at=100)
    assert again.evidence == (second,)
    assert again.all_evidence == (first, second)
    assert again.attempt == 2


def test_patience_counts_from_the_first_failure(ledger: Ledger) -> None:
    (one,) = delivery(ledger)
    for at in (40, 140, 240):
        claim = claim_of(ledger, one, at=at)
        ledger.finish_delivery(claim, state="WAITING", retry_at=at + 100, reason="refused", now=at + 1)
    assert ledger.delivery(one).first_failed_at == 41
    assert ledger.delivery(one).attempts == 3


def test_a_destination_that_is_off_does_not_hold_up_another(ledger: Ledger) -> None:
    pacs, web = delivery(ledger, to=("PACS", "WEB"))
    ledger.finish_delivery(claim_of(ledger, pacs), state="WAITING", retry_at=1000, reason="off", now=41)
    assert ledger.ready_deliveries(50) == [(web, 5)]
    ledger.finish_delivery(claim_of(ledger, web), state="DELIVERED", now=51)
    assert ledger.overview().deliveries == {"PACS": {"WAITING": 1}, "WEB": {"DELIVERED": 1}}


def test_a_destination_gets_no_more_at_once_than_it_may(ledger: Ledger) -> None:
    ids = [one for number in range(3) for one in delivery(ledger, study=f"1.2.{number}")]
    first = claim_of(ledger, ids[0])
    assert ledger.claim_delivery(ids[1], "b", 60, 41) is None
    assert ledger.claim_delivery(ids[1], "b", 60, 41, max_active_per_destination=2) is not None
    assert ledger.claim_delivery(ids[2], "c", 60, 41, max_active_per_destination=2) is None
    ledger.finish_delivery(first, state="DELIVERED", now=42)
    assert ledger.claim_delivery(ids[2], "c", 60, 43, max_active_per_destination=2) is not None


def test_a_sender_that_died_frees_its_delivery_and_its_destination(ledger: Ledger) -> None:
    ids = [one for number in range(2) for one in delivery(ledger, study=f"1.2.{number}")]
    dead = claim_of(ledger, ids[0], at=40)
    assert [one for one, _ in ledger.ready_deliveries(100)] == ids
    claim_of(ledger, ids[1], at=100)
    assert ledger.claim_delivery(ids[0], "b", 60, 100, max_active_per_destination=2) is not None
    with pytest.raises(LostClaim):
        ledger.finish_delivery(dead, state="DELIVERED")


def test_a_heartbeat_keeps_a_long_delivery(ledger: Ledger) -> None:
    (one,) = delivery(ledger)
    claim = claim_of(ledger, one, at=40)
    assert ledger.heartbeat_delivery(claim, 60, 90)
    assert ledger.ready_deliveries(149) == []
    claim_of(ledger, one, at=150, owner="b")
    assert not ledger.heartbeat_delivery(claim, 60, 151)


def test_a_dead_delivery_waits_for_an_administrator(ledger: Ledger) -> None:
    (one,) = delivery(ledger)
    ledger.finish_delivery(claim_of(ledger, one), state="DEAD", reason="0122 SOP class not supported", now=41)
    assert ledger.ready_deliveries(9999) == []
    ledger.retry_delivery(one, now=100)
    assert ledger.ready_deliveries(100) == [(one, 5)]
    assert ledger.delivery(one).first_failed_at is None
    claim_of(ledger, one, at=100)
    with pytest.raises(NodeError, match=f"no delivery {one} that is dead or waiting"):
        ledger.retry_delivery(one)


def test_an_end_that_is_none_is_refused(ledger: Ledger) -> None:
    (one,) = delivery(ledger)
    claim = claim_of(ledger, one)
    with pytest.raises(ValueError, match="not SENDING"):
        ledger.finish_delivery(claim, state="SENDING")
    with pytest.raises(ValueError, match="next attempt"):
        ledger.finish_delivery(claim, state="WAITING")
    with pytest.raises(NodeError, match="no delivery 404"):
        ledger.delivery(404)


def test_the_newest_revision_arrives_last(ledger: Ledger) -> None:
    (old,) = delivery(ledger)
    (other,) = settled(ledger, arrival(2, at=40), jobs=(wanted(to=("PACS", "WEB")),), at=50)
    new, web = ledger.finish(claimed(ledger, other, at=51), outcome="read", evidence=made("sr", key="9"), now=52)
    assert ledger.ready_deliveries(60) == [(old, 5), (web, 5)]
    ledger.finish_delivery(claim_of(ledger, old, at=60), state="WAITING", retry_at=100, reason="off", now=61)
    assert ledger.claim_delivery(new, "out", 60, 70) is None
    sending = claim_of(ledger, old, at=100)
    assert ledger.claim_delivery(new, "out", 60, 101, max_active_per_destination=2) is None
    ledger.finish_delivery(sending, state="DELIVERED", now=102)
    claim_of(ledger, new, at=103)


def test_it_is_counted_how_often_a_destination_said_so_since_the_delivery_was_queued(ledger: Ledger) -> None:
    (one,) = delivery(ledger)
    for at, status in ((40, 0x0110), (50, None), (60, 0x0110), (70, 0xA700)):
        claim = claim_of(ledger, one, at=at)
        for sent in claim.evidence:
            ledger.record_answer(claim, sent.sop_uid, status, "retry", now=at + 1)
        ledger.finish_delivery(claim, state="WAITING", retry_at=at + 5, reason="x", now=at + 2)
    claim = claim_of(ledger, one, at=80)
    assert ledger.times_said(claim, "retry", {0x0110}) == 2
    assert ledger.times_said(claim, "retry") == 4
    assert ledger.times_said(claim, "missing") == 0
    ledger.finish_delivery(claim, state="DEAD", reason="x", now=81)
    ledger.retry_delivery(one, now=90)
    assert ledger.times_said(claim_of(ledger, one, at=91), "retry", {0x0110}) == 0


def waiting_for_a_report(ledger: Ledger) -> tuple[int, list[str]]:
    """A delivery that waits for a report on the transaction 2.25.7 until 100; and what is to be kept."""
    (one,) = delivery(ledger)
    claim = claim_of(ledger, one, at=40)
    ledger.ask_commitment(claim, "2.25.7", now=41)
    assert ledger.await_commitment(claim, "2.25.7", until=100, reason="it is to report")
    assert ledger.delivery(one).state == "WAITING"
    return one, [sent.sop_uid for sent in claim.all_evidence]


def test_a_report_that_everything_is_kept_ends_the_wait_for_it(ledger: Ledger) -> None:
    one, held = waiting_for_a_report(ledger)
    ledger.commitment_reported("2.25.7", held, [], now=50)
    done = ledger.delivery(one)
    assert (done.state, done.verified, done.delivered_at, done.verified_at) == ("DELIVERED", True, 50, 50)
    assert ledger.ready_deliveries(999) == []


def test_without_a_report_the_delivery_comes_up_again_and_knows_that_it_asked(ledger: Ledger) -> None:
    one, _ = waiting_for_a_report(ledger)
    assert ledger.ready_deliveries(99) == []
    asked = ledger.commitment(claim_of(ledger, one, at=100))
    assert asked is not None
    assert (asked.transaction_uid, asked.held) == ("2.25.7", None)


def test_a_report_that_something_is_not_kept_has_it_asked_about_at_once(ledger: Ledger) -> None:
    one, held = waiting_for_a_report(ledger)
    assert ledger.commitment_reported("2.25.7", held[:1], held[1:], now=50) == "not everything is kept"
    assert ledger.ready_deliveries(50) == [(one, 5)]


def test_a_report_that_comes_before_the_delivery_waits_for_it_is_not_missed(ledger: Ledger) -> None:
    (one,) = delivery(ledger)
    claim = claim_of(ledger, one, at=40)
    ledger.ask_commitment(claim, "2.25.7", now=41)
    held = [sent.sop_uid for sent in claim.all_evidence]
    assert ledger.commitment_reported("2.25.7", held, [], now=42) == "its delivery is under way"
    assert not ledger.await_commitment(claim, "2.25.7", until=100, reason="it is to report")
    asked = ledger.commitment(claim)
    assert asked is not None
    assert asked.held == set(held)


def test_a_report_on_what_nobody_asked_or_on_what_was_queued_anew_changes_nothing(ledger: Ledger) -> None:
    one, held = waiting_for_a_report(ledger)
    assert ledger.commitment_reported("2.25.8", held, [], now=50) == "nobody asked for it"
    ledger.retry_delivery(one, now=60)
    ledger.commitment_reported("2.25.7", held, [], now=70)
    assert ledger.delivery(one).state == "WAITING"
    assert ledger.commitment(claim_of(ledger, one, at=80)) is None
