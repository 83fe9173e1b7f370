"""The ledger: studies, jobs and deliveries, their states and times. It is the truth; the broker is only a bell.

Every act is one short transaction, and may be done twice. It holds UIDs, digests and times, never a patient's name
or number, no pixels and no evidence: those lie in the spool, named by their digest. It starts no process, rings no
bell and decides nothing about routing.

    study     RECEIVING → SETTLED | UNROUTED; HELD until a human releases it
    job       QUEUED → RUNNING → DONE | FAILED | QUARANTINED | CANCELLED | SUPERSEDED
    delivery  WAITING → SENDING → DELIVERED | DEAD
"""

from __future__ import annotations

from collections.abc import Callable

from node.ledger.arrivals import Arrivals
from node.ledger.commitments import Commitments
from node.ledger.database import Database
from node.ledger.deliveries import Deliveries
from node.ledger.entries import (
    MAX_ATTEMPTS,
    Answer,
    Claim,
    Commitment,
    Delivery,
    DeliveryClaim,
    Drained,
    Evidence,
    Expired,
    Instance,
    Job,
    NewJob,
    Overview,
    Revision,
    StudyEntry,
    StudyHistory,
    Switched,
)
from node.ledger.figures import Counts, Figures, Hours
from node.ledger.jobs import Jobs
from node.ledger.orders import Orders
from node.ledger.overview import Pages
from node.ledger.purging import Purging
from node.ledger.search import Asked, JobRow, Search
from node.ledger.settling import Settling
from node.ledger.states import DeliveryState, JobState, Mode, StudyState
from node.ledger.steady import Machine, Steady
from node.ledger.switches import Switches
from node.ledger.turns import Order, Turns
from node.ledger.worklist import Came, Worklist

__all__ = [
    "MAX_ATTEMPTS",
    "Answer",
    "Asked",
    "Came",
    "Claim",
    "Commitment",
    "Counts",
    "Delivery",
    "DeliveryClaim",
    "DeliveryState",
    "Drained",
    "Evidence",
    "Expired",
    "Hours",
    "Instance",
    "Job",
    "JobRow",
    "JobState",
    "Ledger",
    "Machine",
    "Mode",
    "NewJob",
    "Order",
    "Overview",
    "Revision",
    "StudyEntry",
    "StudyHistory",
    "StudyState",
    "Switched",
]


class Ledger(
    Arrivals,
    Settling,
    Jobs,
    Turns,
    Orders,
    Switches,
    Deliveries,
    Commitments,
    Pages,
    Worklist,
    Figures,
    Search,
    Purging,
):
    """The ledger of one node, in SQLite (one machine) or PostgreSQL (several), shared by its processes and threads.

    Args:
        url: ``sqlite:////var/lib/wetread/ledger.sqlite`` or ``postgresql+psycopg://user@host/wetread``.
        machine: The clocks that the ledger's time is made of (steady.py).
        clock: The ledger's time in seconds since the epoch, in place of that.

    Raises:
        BadSettings: If the URL is of another database.
        Unavailable: From any call, when the database does not answer or cannot be written.
    """

    def __init__(self, url: str, *, machine: Machine | None = None, clock: Callable[[], float] | None = None) -> None:
        database = Database(url)
        super().__init__(database, clock or Steady(database, machine or Machine()))

    def upgrade(self) -> None:
        """Bring the tables to this version; several processes may do so at once."""
        self._database.upgrade()

    def close(self) -> None:
        self._database.close()
