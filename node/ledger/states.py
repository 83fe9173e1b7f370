"""The words for what studies, jobs, deliveries and pipelines are, as the ledger keeps them."""

from __future__ import annotations

from enum import StrEnum


class StudyState(StrEnum):
    RECEIVING = "receiving"
    SETTLED = "settled"
    UNROUTED = "unrouted"  # settled, and no rule wants it
    HELD = "held"  # a human has to look; nothing of it is read or sent


class JobState(StrEnum):
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    QUARANTINED = "QUARANTINED"  # it took its worker along too often
    CANCELLED = "CANCELLED"
    SUPERSEDED = "SUPERSEDED"  # a newer revision of the study settled before it was read


class DeliveryState(StrEnum):
    WAITING = "WAITING"
    SENDING = "SENDING"
    DELIVERED = "DELIVERED"
    DEAD = "DEAD"


class Mode(StrEnum):
    """How a pipeline is switched."""

    ON = "on"
    OFF = "off"
    SHADOW = "shadow"  # it reads; the result is kept and shown, and nothing of it is sent or moves a study
