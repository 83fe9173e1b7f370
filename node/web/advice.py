"""What to do about an error, in plain words. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple


class Advice(NamedTuple):
    """What to do about an error that says something like ``pattern``."""

    pattern: str
    todo: str


# The first that fits is shown. The sentences of errors themselves say what is wrong; this says what to do.
ADVICE = (
    Advice(
        "^identity:",
        "Compare the patients of the study at the scanner or in the PACS. If they are one person, release "
        "the study; if not, correct it there and send it again under its own Study Instance UID.",
    ),
    Advice(
        "^conflict between studies",
        "One image came in two studies. Find out which of them is right, and release that one.",
    ),
    Advice(
        "^conflict:",
        "One image came twice with different content. Release the study to have the newest read, or "
        "correct it at the sender.",
    ),
    Advice(
        "^no header of its",
        "The files are damaged or cut off. Send the study again from the scanner or the PACS.",
    ),
    Advice(
        "^(this file cannot be read|no file came)",
        "Choose one DICOM file as the scanner sends it, or as the PACS exports it. None was kept.",
    ),
    Advice(
        "; switched off:",
        "Switch the pipeline on (Pipelines), and release the study.",
    ),
    Advice(
        "was switched off$|is switched off;",
        "Switch the pipeline on (Pipelines), then retry.",
    ),
    Advice(
        r"^none of the \d+ rules wants it",
        "If a pipeline should have read it: drop one of its files on Rules, see which condition fails, "
        "correct the settings, restart the worker, and release the study.",
    ),
    Advice(
        "held by",
        "Somebody holds it by hand. Release it when the question is settled.",
    ),
    Advice(
        "ledger",
        "The database does not answer: is PostgreSQL running, is the disk writable? wetread doctor says more.",
    ),
    Advice(
        "redis|Redis|broker",
        "The broker does not answer. Nothing is lost: start wetread up again, or the Redis that the settings name.",
    ),
    Advice(
        "Connection refused|connection refused|Errno 111",
        "Nothing listens there: is the PACS running, are host and port in the settings right, does a "
        "firewall refuse? It is sent by itself when it answers again.",
    ),
    Advice(
        "timed out|does not answer|No route|unreachable|Errno 113|Errno 110",
        "Ask the network: cable, VPN, firewall, the PACS's host. It is sent by itself when it answers again.",
    ),
    Advice(
        "[Cc]alled AE|called-AE",
        "The PACS goes by another AE title: correct ae_title of the destination.",
    ),
    Advice(
        "[Cc]alling AE|calling-AE|not recogni",
        "The PACS does not know this node: have its administrator enter this AE title, host and port.",
    ),
    Advice(
        "certificate|TLS|SSL",
        "Compare the certificates: who issued the peer's, is it still valid, is it for this host name?",
    ),
    Advice(
        r"accepts no 1\.2",
        "The PACS does not take this kind of object (SEG or SR). Enable that SOP class there, or send to "
        "another destination.",
    ),
    Advice(
        "out of resources|0xA7",
        "The PACS is full or overloaded. Tell its administrator; it is sent again by itself.",
    ),
    Advice(
        "not authori[sz]ed|0x0124|HTTP 40[13]|credentials",
        "The PACS does not let this node store: check user, password or token of the destination, and its "
        "rights there.",
    ),
    Advice(
        "duplicate SOP instance|conflict",
        "The PACS holds another object under the same UID. Delete that one there, then send again.",
    ),
    Advice(
        "worker died|took its worker|killed by|SIG",
        "Reading this study ended its worker each time. It is set apart so that others are not held up. "
        "Look at its images; after an update, retry it.",
    ),
    Advice(
        "memory|out of memory|MemoryError",
        "Give the worker more memory (worker.memory_gib), or a smaller device load; then retry.",
    ),
    Advice(
        "longer than|time limit|seconds limit|took too long",
        "Raise worker.time_limit_seconds, or use a faster device; then retry.",
    ),
    Advice(
        "cannot be loaded|disabled|No module|weights|sha256|digest",
        "Run wetread models verify and wetread doctor: weights or packages are missing or damaged. Jobs "
        "wait, and go on when it is mended.",
    ),
    Advice(
        "cannot be read now",
        "Look at the disk or network drive that the spool lies on (data). It goes on by itself once that can be read; "
        "what has failed by then is retried, or the study released.",
    ),
    Advice(
        "No space|no room|disk|reserve|Errno 28",
        "Make room on the data disk, or a larger one; senders wait meanwhile.",
    ),
    Advice(
        "is waiting|is gone|is stopped",
        "A process has ended and is being started again. If it keeps ending, its last lines in the log say why.",
    ),
)
OTHERWISE = "Retry it once. If it fails again, the log has more, under the job's number."


def advice(reason: str | None) -> str:
    """What to do about this; empty where nothing is wrong."""
    if not reason:
        return ""
    return next((one.todo for one in ADVICE if re.search(one.pattern, reason)), OTHERWISE)
