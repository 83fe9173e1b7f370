"""An association of pynetdicom that loses no answer on a busy machine.

Its reactor thread, which looks for requests, may take an answer that another thread waits for: between finding that it
need not pause and saying that it does not.
"""

from __future__ import annotations

from typing import Any


def steady(association: Any) -> Any:
    """The same association; its reactor takes requests alone."""
    messages, take = association.dimse.msg_queue, association.dimse.get_msg

    def get_msg(block: bool = False) -> Any:
        if block:
            return take(block)
        with messages.mutex:
            waiting = messages.queue
            if waiting and waiting[0][1] is not None and waiting[0][1].is_valid_request:
                return waiting.popleft()
        return None, None

    association.dimse.get_msg = get_msg
    return association
