"""One JSON line per event on standard error: UIDs and AE titles, never a patient's name.

Only the keys of ALLOWED pass; anything else is dropped, so that a careless call cannot leak a patient's identity.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

ALLOWED = frozenset(
    (
        "address",
        "association",
        "attempt",
        "bytes",
        "called",
        "caller",
        "code",
        "count",
        "delivery",
        "destination",
        "device",
        "error",
        "file",
        "job",
        "owner",
        "part",
        "path",
        "peer",
        "pid",
        "pipeline",
        "port",
        "precision",
        "priority",
        "reason",
        "retry_at",
        "revision",
        "seconds",
        "series",
        "sha256",
        "sop",
        "sop_class",
        "state",
        "status",
        "study",
        "transfer_syntax",
        "url",
        "verdict",
        "version",
        "wanted",
        "weights",
        "when",
    )
)


class Events:
    """Writes events of one part of the node: ``log.get("listener").info("kept", study=uid)``."""

    def __init__(self, part: str) -> None:
        self._logger = logging.getLogger(f"wetread.{part}")

    def debug(self, event: str, **keys: object) -> None:
        self._write(logging.DEBUG, event, keys)

    def info(self, event: str, **keys: object) -> None:
        self._write(logging.INFO, event, keys)

    def warning(self, event: str, **keys: object) -> None:
        self._write(logging.WARNING, event, keys)

    def error(self, event: str, **keys: object) -> None:
        self._write(logging.ERROR, event, keys)

    def _write(self, level: int, event: str, keys: dict[str, object]) -> None:
        kept = {key: value for key, value in keys.items() if key in ALLOWED and value is not None}
        self._logger.log(level, event, extra={"event_keys": kept})


def get(part: str) -> Events:
    return Events(part)


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "part": record.name.removeprefix("wetread."),
            "event": record.getMessage(),
        }
        line.update(getattr(record, "event_keys", {}))
        if record.exc_info and record.exc_info[0]:
            # The type and the place, not the message: a library's message may quote a patient's name.
            trace = record.exc_info[2]
            while trace and trace.tb_next:
                trace = trace.tb_next
            place = f"{trace.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}" if trace else ""
            line["error"] = f"{record.exc_info[0].__name__} at {place}"
        return json.dumps(line, default=str)


def to_stderr(level: int = logging.INFO) -> None:
    """Send the node's events to standard error; libraries are heard from WARNING on."""
    sink = logging.StreamHandler(sys.stderr)
    sink.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [sink]
    root.setLevel(logging.WARNING)
    logging.getLogger("wetread").setLevel(level)
    # pynetdicom prints what a message holds, patient's name and all (reliability: P14).
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    logging.getLogger("pydicom").setLevel(logging.ERROR)
