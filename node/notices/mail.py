"""A mail by SMTP (RFC 5321): that something was found, and by which number the study is to be looked up.

Mail is read on telephones and kept for ever: no name, no birth date and no patient's ID stand in it, unless the
settings ask for names. One mail per recipient, each with its answer, so that whom it has reached gets it once.
"""

from __future__ import annotations

import smtplib
import socket
import ssl
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from email.message import EmailMessage

from node.answers import DELIVERED, REFUSED, RETRY, Answer
from node.errors import Unavailable
from node.notices.notice import Notice
from node.notices.receiver import Receiver


def tell(receiver: Receiver, notice: Notice, accepted: Collection[str]) -> Iterator[Answer]:
    """Mail it to whom it has not reached yet, on one connection."""
    left = [one for one in receiver.recipients if notice.uid(f"mail {one}") not in accepted]
    if not left:
        return
    first = notice.uid(f"mail {left[0]}")
    try:
        with _connected(receiver) as server:
            for recipient in left:
                yield _sent(server, receiver, notice, recipient)
    except smtplib.SMTPResponseException as error:  # to the greeting, to EHLO, to STARTTLS, to the password
        yield _judged(first, error.smtp_code, "the mail server")
    except smtplib.SMTPNotSupportedError:
        yield Answer(first, None, REFUSED, f"{receiver.where} offers no TLS, or no way to tell the password")
    except (smtplib.SMTPException, OSError) as error:
        raise Unavailable(f"{receiver.where} does not answer: {_said(error)}") from error


@contextmanager
def _connected(receiver: Receiver) -> Iterator[smtplib.SMTP]:
    """A connection that is cut when the time is over: the library's own limit begins anew with every byte."""
    server = smtplib.SMTP(timeout=receiver.answer_seconds)
    server._host = str(receiver.host)  # type: ignore[attr-defined]  # else STARTTLS has no name to check; see its __init__
    timer = threading.Timer(receiver.answer_seconds, lambda: _cut(server))
    timer.start()
    try:
        code, _ = server.connect(str(receiver.host), receiver.port or 25)
        if code != 220:
            raise smtplib.SMTPConnectError(code, b"")
        server.ehlo_or_helo_if_needed()
        if receiver.tls == "required":
            server.starttls(context=receiver.ssl_context())
        if receiver.user:
            server.login(receiver.user, receiver.secret("password") or "")
        yield server
    finally:
        timer.cancel()
        with suppress(smtplib.SMTPException, OSError):
            server.close()


def _cut(server: smtplib.SMTP) -> None:
    with suppress(OSError, AttributeError):
        server.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]


def _sent(server: smtplib.SMTP, receiver: Receiver, notice: Notice, recipient: str) -> Answer:
    uid = notice.uid(f"mail {recipient}")
    try:
        server.send_message(message(receiver, notice, recipient), to_addrs=[recipient])
    except smtplib.SMTPRecipientsRefused as refused:
        code = next(code for code, _ in refused.recipients.values())
        return _judged(uid, code, "the recipient")
    except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as refused:
        return _judged(uid, refused.smtp_code, "the mail")
    return Answer(uid, 250, DELIVERED)


def _judged(uid: str, code: int, what: str) -> Answer:
    """4yz passes, 5yz does not (RFC 5321 4.2.1); the server's own words are left out."""
    if code >= 500:
        return Answer(uid, code, REFUSED, f"{what}: refused (SMTP {code})")
    return Answer(uid, code, RETRY, f"{what}: not now (SMTP {code})")


def message(receiver: Receiver, notice: Notice, recipient: str) -> EmailMessage:
    """The mail; always the same Message-ID for the same notice and recipient."""
    mail = EmailMessage()
    mail["Subject"] = f"Urgent study: {_line(', '.join(one.code[2] for one in notice.findings))}"
    mail["From"], mail["To"] = str(receiver.sender), recipient
    mail["Date"] = notice.found_at
    mail["Message-ID"] = f"<{notice.uid(f'mail {recipient}')}@wetread.invalid>"
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's out-of-office answers it
    mail["Importance"] = "high"
    lines = [_line(notice.impression), "", f"Accession number: {_line(notice.accession) or 'none'}"]
    lines.append(f"Study: {notice.study_uid}")
    if receiver.names:
        lines += [f"Patient: {_line(str(notice.patient.name))}, {_line(notice.patient.id)}"]
    lines += ["", "Please read the study: this is no finding of a person."]
    mail.set_content("\n".join(lines) + "\n")
    return mail


def _line(text: str) -> str:
    return " ".join(text.split())


def _said(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower()
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
