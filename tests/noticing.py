"""What the tests of notices share: a job that has found a bleeding, and an outbox that tells of it."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.analysis import Analysis, Rules
from node.ledger import Delivery
from node.notices import Receiver
from node.outbox import Outbox
from node.triage.rules import Rule
from node.warm import Limits
from tests.workplace import Workplace

NAMES = ("HOOK", "RIS", "EHR", "WORKLIST", "MAIL")
BLEEDING = Rule("bleeding", "bleeds", ("Hemorrhage",), 0.5, 0, NAMES)


class Noticing:
    """A workplace whose worker looks for bleedings."""

    def __init__(self, folder: Path) -> None:
        self.place = Workplace(folder)
        self.rung: list[tuple[int, int]] = []
        self.analysis = Analysis(
            self.place.ledger,
            Limits("cpu", 1, 1 << 30),
            Rules(self.place.evidence, "bench", triage=(BLEEDING,)),
            path=self.place.spool.path,
            finished=lambda number, priority: self.rung.append((number, priority)),
            again=lambda *_: None,
            stop=threading.Event(),
        )

    def read(self, patient: str = "SYN-1", to: tuple[str, ...] = ()) -> dict[str, int]:
        """A new study is read: the ids of its deliveries by who gets them."""
        self.rung.clear()
        self.job_id = self.place.queued("Bleeds", patient=patient, to=to)
        self.analysis(self.job_id)
        return {self.place.ledger.delivery(number).destination: number for number, _ in self.rung}

    def tell(self, number: int, receiver: Receiver, *, rules: tuple[Rule, ...] = (BLEEDING,)) -> Delivery:
        """Have the delivery sent, and see what became of it."""
        outbox = Outbox(
            self.place.ledger, evidence=self.place.evidence, destinations={}, owner="outbox", stop=threading.Event(),
            receivers={receiver.name: receiver}, triage=rules,
        )  # fmt: skip
        outbox(number)
        return self.place.ledger.delivery(number)

    def again(self, number: int, receiver: Receiver) -> Delivery:
        """Send now what waits or is dead."""
        self.place.ledger.retry_delivery(number)
        return self.tell(number, receiver)

    def answers(self, number: int) -> list[tuple[int | None, str]]:
        """Status and verdict of every answer."""
        study = self.place.ledger.job(self.place.ledger.delivery(number).job_id).study_uid
        said = self.place.ledger.study(study).answers
        return [(one.status, one.verdict) for one in said if one.delivery_id == number]


@pytest.fixture(scope="module")
def noticing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Noticing]:
    made = Noticing(tmp_path_factory.mktemp("noticing"))
    yield made
    made.analysis.close()


def certificate(folder: Path) -> tuple[Path, Path]:
    """A key with its certificate for localhost, and the authority that it is to be trusted by: itself."""
    made, ca = folder / "peer.pem", folder / "ca.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    keys = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", str(made), "-nodes", "-days", "2"]
    ca.write_bytes(subprocess.run(["openssl", "req", "-x509", *keys, *subject], capture_output=True, check=True).stdout)
    made.write_bytes(made.read_bytes() + ca.read_bytes())
    return made, ca
