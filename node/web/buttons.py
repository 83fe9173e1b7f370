"""What people may do from a page or by REST: a row per act of node/actions.py, with who may and what is asked.

Pages and REST are made from this table; the acts themselves are those of the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from node.accounts import Role
from node.actions import AS_SET, Actions, Done
from node.audit import Actor
from node.errors import NotNow
from node.instance import is_uid

Given = Mapping[str, Any]
PLURAL = {"job": "jobs", "study": "studies", "worker": "workers", "pipeline": "pipelines"}


@dataclass(frozen=True)
class Field:
    """What else is asked; it is of the type of ``usual``, which holds where nothing is given.

    ``choices``: what it may be, with what is said of each; none: any.
    """

    name: str
    usual: str | int
    label: str
    choices: Mapping[str, str] | None = None

    def read(self, text: str) -> str | int:
        """
        Raises:
            NotNow: If it is not of that type.
        """
        try:
            return type(self.usual)(text)
        except ValueError:
            raise NotNow(f"{self.name} is {text[:40]!r}; allowed: a number, as {self.usual}") from None


@dataclass(frozen=True)
class Button:
    """
    Attributes:
        subject: What it is done to: ``job``, ``study``, ``worker`` or ``pipeline``.
        question: Asked once, before it is done; ``{0}`` is the subject.
    """

    name: str
    subject: str
    role: Role
    question: str
    act: Callable[[Actions, str, Actor, Given], Done]
    fields: tuple[Field, ...] = ()

    def press(self, actions: Actions, subject: str, by: Actor, given: Given) -> Done:
        """Do it.

        Raises:
            NotNow, Unknown: As node/actions.py does; nothing was done.
        """
        usual = {field.name: field.usual for field in self.fields}
        legible = {name: _legible(value) if isinstance(value, str) else value for name, value in given.items()}
        return self.act(actions, _checked(self.subject, subject), by, {**usual, **legible})


def _checked(kind: str, subject: str) -> str:
    if kind == "job" and not (subject.isdecimal() and len(subject) < 16):
        raise NotNow(f"{subject[:70]!r} is no number of a job")
    if kind == "study" and not is_uid(subject):
        raise NotNow(f"{subject[:70]!r} is no Study Instance UID")
    if kind == "worker" and not (subject.isprintable() and len(subject) < 256):
        raise NotNow(f"{subject[:70]!r} is no worker")
    return subject


def _legible(text: str) -> str:
    """Without what no page shows and not every database takes: control characters, half of a surrogate pair."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _reason(given: Given) -> str:
    return " ".join(str(given["reason"]).split())[:200]


_REASON = Field("reason", "", "Why; without the patient's name")

SWITCHES = {
    "on": "on: it reads, and what it finds is sent",
    "shadow": "shadow: it reads; shown here, sent nowhere",
    "off": "off: it reads nothing",
    AS_SET: "as the settings say",
}
BUTTONS = {
    button.name: button
    for button in (
        Button("retry", "job", Role.OPERATOR, "Queue what has failed of job {0} once more?",
               lambda actions, job, by, _: actions.retry(int(job), by=by)),
        Button("cancel", "job", Role.OPERATOR, "Cancel job {0}? Its study is then not read by it.",
               lambda actions, job, by, _: actions.cancel(int(job), by=by)),
        Button("quarantine", "job", Role.OPERATOR, "Set job {0} apart, until somebody retries it?",
               lambda actions, job, by, given: actions.quarantine(int(job), by=by, reason=_reason(given)), (_REASON,)),
        Button("priority", "job", Role.OPERATOR, "Give job {0} another priority?",
               lambda actions, job, by, given: actions.prioritize(int(job), given["priority"], by=by),
               (Field("priority", 0, "0 is the most urgent, 9 the least"),)),
        Button("resend", "job", Role.OPERATOR, "Send all evidence of job {0} again?",
               lambda actions, job, by, given: actions.send_again(int(job), str(given["destination"]), by=by),
               (Field("destination", "", "To"),)),
        Button("hold", "study", Role.OPERATOR, "Hold this study? Nothing of it is read or sent until it is released.",
               lambda actions, study, by, given: actions.hold(study, by=by, reason=_reason(given) or "held by hand"),
               (_REASON,)),
        Button("release", "study", Role.OPERATOR,
               "Release this study? It is read and sent; of two contents of one instance the newest is taken.",
               lambda actions, study, by, _: actions.release(study, by=by)),
        Button("drain", "worker", Role.ADMINISTRATOR, "Have {0} end what it does, and take nothing more?",
               lambda actions, worker, by, given: actions.drain(worker, by=by, reason=_reason(given)), (_REASON,)),
        Button("resume", "worker", Role.ADMINISTRATOR, "Let {0} take work again?",
               lambda actions, worker, by, _: actions.resume(worker, by=by)),
        Button("switch", "pipeline", Role.ADMINISTRATOR, "Switch {0}? It holds for what waits, too.",
               lambda actions, pipeline, by, given: actions.switch(
                   pipeline, str(given["mode"]), by=by, reason=_reason(given)),
               (Field("mode", "", "To", SWITCHES), _REASON)),
    )
}  # fmt: skip
