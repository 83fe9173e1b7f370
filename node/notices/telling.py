"""Tells a receiver, by its protocol; a receiver that is away or answers nonsense is an answer, too."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from node.answers import REFUSED, RETRY, Answer
from node.errors import BadSettings, Unavailable
from node.notices import fhir, hl7v2, mail, ups, webhook
from node.notices.notice import Notice
from node.notices.receiver import Receiver

Teller = Callable[[Receiver, Notice, Collection[str]], Iterator[Answer]]
TELLERS: dict[str, Teller] = {
    "fhir": fhir.tell,
    "hl7": hl7v2.tell,
    "smtp": mail.tell,
    "ups": ups.tell,
    "webhook": webhook.tell,
}


def tell(receiver: Receiver, notice: Notice, *, accepted: Collection[str] = ()) -> Iterator[Answer]:
    """Tell it what it has not ``accepted`` yet; one answer per message, as it comes. Never hangs, and raises nothing.

    Every answer is for good, but for RETRY; what follows a message that was not taken is not sent.
    """
    try:
        for answer in TELLERS[receiver.protocol](receiver, notice, accepted):
            yield answer
            if not answer.is_accepted:
                return
    except Unavailable as error:
        yield Answer(notice.uid(receiver.protocol), None, RETRY, str(error))
    except BadSettings as error:
        yield Answer(notice.uid(receiver.protocol), None, REFUSED, str(error))
