"""The bell: Celery on Redis (the only celery). A task carries the id of a job or of a delivery, and nothing else.

What is rung may be lost, doubled or forged without harm: the ledger says what there is to do, and a claim is had once.
So a bell that cannot be rung is no error, no result is kept, and nothing here knows what a job is.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.worker import state as celery_state
from celery.worker.request import Request
from kombu import Queue
from kombu.transport.virtual import QoS

from node import log
from node.processes import on_signal

ANALYZE, DELIVER = "analyze", "deliver"  # the queues, and the tasks
MOST_URGENT, LEAST_URGENT = 0, 9
# One queue of Redis per priority, the most urgent looked at first (kombu, transport redis).
_PRIORITIES = list(range(MOST_URGENT, LEAST_URGENT + 1))
_ANSWER_SECONDS = 5.0
_SILENT_SECONDS = 2.0  # a broker that does not answer is not tried again for so long
# One try and no pause: who rings has a clock that rings again, and other things to do (kombu, retry_over_time).
_AT_ONCE = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}

_events = log.get("tasks")


def make_app(broker_url: str) -> Celery:
    app = Celery("wetread", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],  # a pickle in the queue is refused
        result_backend=None,
        task_ignore_result=True,
        task_queues=[Queue(ANALYZE), Queue(DELIVER)],
        task_default_queue=ANALYZE,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_acks_on_failure_or_timeout=True,
        task_publish_retry=False,
        worker_prefetch_multiplier=1,  # what waits is in Redis by priority, not in a worker in order of arrival
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=_ANSWER_SECONDS,
        broker_heartbeat=0,
        broker_pool_limit=2,
        broker_transport_options={
            "priority_steps": _PRIORITIES,
            "queue_order_strategy": "priority",
            # A killed worker's message comes back after this; its job sooner, by the lease and the clock.
            "visibility_timeout": 600,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            # Without these a publish to a broker that is gone but not closed hangs for ever (kombu's default).
            "socket_timeout": _ANSWER_SECONDS,
            "socket_connect_timeout": _ANSWER_SECONDS,
            "socket_keepalive": True,
            "health_check_interval": 25,
        },
    )
    return app


class Bell:
    """Rings for workers. Never raises and never hangs: the clock rings again whatever was not heard."""

    def __init__(self, broker_url: str) -> None:
        self._app = make_app(broker_url)
        self._app.conf.broker_transport_options |= _AT_ONCE
        self._is_heard = True
        self._silent_until = 0.0  # of time.monotonic

    def ring_job(self, job_id: int, priority: int) -> bool:
        return self._ring(ANALYZE, job_id, priority)

    def ring_delivery(self, delivery_id: int, priority: int) -> bool:
        return self._ring(DELIVER, delivery_id, priority)

    def waiting(self, queue: str) -> dict[int, int] | None:
        """How many bells of each priority nobody has heard yet; None if the broker does not answer."""
        if time.monotonic() < self._silent_until:
            return None
        try:
            with self._app.connection_for_write() as connection:
                channel = connection.default_channel
                names = [channel._q_for_pri(queue, priority) for priority in _PRIORITIES]
                pipe = channel.client.pipeline()
                for name in names:
                    pipe.llen(name)
                return dict(zip(_PRIORITIES, pipe.execute(), strict=True))
        except Exception as error:  # kombu and redis-py raise OSErrors, their own and each other's
            self._note(error)
            return None

    def close(self) -> None:
        self._app.close()

    def _ring(self, queue: str, number: int, priority: int) -> bool:
        if time.monotonic() < self._silent_until:
            return False
        try:
            self._app.send_task(
                f"wetread.{queue}", args=[number], queue=queue, priority=priority, ignore_result=True, retry=False
            )
        except Exception as error:
            self._note(error)
            return False
        self._note(None)
        return True

    def _note(self, error: Exception | None) -> None:
        """Say it when the bell falls silent and when it is heard again, not each time between."""
        if error is not None:
            self._silent_until = time.monotonic() + _SILENT_SECONDS
        if error is not None and self._is_heard:
            _events.warning("the broker does not answer; what is due waits in the ledger", error=type(error).__name__)
        elif error is None and not self._is_heard:
            _events.info("the broker answers again")
        self._is_heard = error is None


class _Request(Request):  # type: ignore[misc]  # celery has no types
    def acknowledge(self) -> None:
        """Forget a message that a dying broker took no acknowledgement of.

        Celery logs that and counts it as unfinished for ever, and asks for no other beyond the one it may have.
        The message comes back when its visibility ends, and finds its job claimed.
        """
        super().acknowledge()
        if not self.message.acknowledged:
            QoS.ack(self.message.channel.qos, self.message.delivery_tag)


def serve(
    broker_url: str, queue: str, act: Callable[[int], None], *, threads: int, stop: threading.Event, name: str
) -> None:
    """Call ``act`` with each number that is rung in ``queue``, until SIGTERM; sets ``stop`` then. In the main thread.

    With ``threads`` 1 it is called in this very thread.
    """
    app = make_app(broker_url)

    def heard(number: Any) -> None:
        # Anyone who has the broker can ring: only a number is looked at, and it only says where to look in the ledger.
        if stop.is_set() or isinstance(number, bool) or not isinstance(number, int):
            return
        try:
            act(number)
        except Exception as error:  # one task must not end the worker; the ledger's lease brings the job back
            _events.error("a task ended in an error", part=queue, error=f"{type(error).__name__}: {error}")

    app.task(name=f"wetread.{queue}", Request=_Request)(heard)
    app.finalize()
    worker = app.WorkController(
        pool="solo" if threads == 1 else "threads",
        concurrency=threads,
        queues=[queue],
        hostname=f"{queue}@{name}",
        loglevel="WARNING",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )

    set_it = on_signal(stop)

    def end(*_: object) -> None:
        set_it()
        celery_state.should_stop = 0  # looked at between tasks, at least every second

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        worker.start()
    finally:
        for number, action in before.items():
            signal.signal(number, action)
    if worker.exitcode:
        raise SystemExit(worker.exitcode)
