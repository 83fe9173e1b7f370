"""What Flower needs to know of the queues, since the node's workers tell it nothing: their names and priorities.

Run inside Flower's own image (compose.flower.yaml); the broker is that of the node's settings.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from celery import Celery
from kombu import Queue

settings = tomllib.loads(Path(os.environ["WETREAD_SETTINGS"]).read_text(encoding="utf-8"))
app = Celery("wetread", broker=settings["node"]["broker"])
app.conf.update(
    task_queues=[Queue("analyze"), Queue("deliver")],
    broker_transport_options={"priority_steps": list(range(10)), "queue_order_strategy": "priority"},
)
