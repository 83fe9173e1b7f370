"""A signed webhook: JSON by POST, and over it a signature that only who has the secret can make.

    Webhook-Id: the notice's UID, always the same for the same notice
    Webhook-Timestamp: seconds since the epoch
    Webhook-Signature: v1,BASE64(HMAC-SHA256(secret, ID.TIMESTAMP.BODY))

As Standard Webhooks has it (standardwebhooks.com). Whoever receives compares the signature in constant time, and takes
no timestamp that is older than five minutes, so that what was overheard cannot be sent again later.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Collection, Iterator
from typing import Any

from node.answers import Answer
from node.errors import BadSettings
from node.notices.http import Line, judge
from node.notices.notice import Notice
from node.notices.receiver import Receiver


def tell(receiver: Receiver, notice: Notice, accepted: Collection[str]) -> Iterator[Answer]:
    """Post the notice, unless it was taken already."""
    uid = notice.uid("webhook")
    if uid in accepted:
        return
    secret = receiver.secret("secret")
    if not secret:
        raise BadSettings(f"notify.{receiver.name}.secret_variable is not set: a webhook is always signed")
    body = json.dumps(content(receiver, notice), ensure_ascii=False).encode()
    headers = {"Content-Type": "application/json", **signature(secret, uid, int(time.time()), body)}
    with Line(receiver) as line:
        yield judge(uid, line.ask("POST", str(receiver.url), content=body, headers=headers), "the webhook")


def signature(secret: str, uid: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers."""
    signed = f"{uid}.{timestamp}.".encode() + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    return {
        "Webhook-Id": uid,
        "Webhook-Timestamp": str(timestamp),
        "Webhook-Signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def content(receiver: Receiver, notice: Notice) -> dict[str, Any]:
    """What is posted; the patient by ID, and by name only where the settings say so."""
    patient: dict[str, str] = {"id": notice.patient.id, "issuer": notice.patient.issuer}
    if receiver.names:
        patient |= {"name": str(notice.patient.name), "birth_date": notice.patient.birth_date}
    return {
        "type": "study.urgent",
        "study_uid": notice.study_uid,
        "accession_number": notice.accession,
        "patient": patient,
        "priority": notice.priority,
        "pipeline": notice.pipeline,
        "version": notice.version,
        "status": "preliminary",
        "findings": [
            {
                "code": list(one.code),
                "certainty": one.certainty,
                "count": one.count,
                "measurements": [
                    {"name": list(name), "value": value, "unit": unit} for name, value, unit in one.measurements
                ],
            }
            for one in notice.findings
        ],
        "report_uid": notice.report.sop_uid if notice.report else None,
        "found_at": notice.found_at.isoformat(timespec="seconds"),
        "corrects": notice.corrects,
    }
