"""A mail server: aiosmtpd, with TLS and a password where a certificate is given.

python -m tests.receivers.post FOLDER [CERTIFICATE]
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from tests.receivers import hear, next_answer

FOLDER = Path(sys.argv[1])


class Post:
    async def handle_RCPT(self, _: SMTP, __: Session, envelope: Envelope, address: str, ___: list[str]) -> str:  # noqa: N802
        said = next_answer(FOLDER)
        if said == "hang":
            await asyncio.sleep(600)
        if said:
            return f"{said} a test wants it so"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        mail = message_from_bytes(envelope.content, policy=default)  # type: ignore[arg-type]
        hear(
            FOLDER, to=envelope.rcpt_tos, sender=envelope.mail_from, subject=mail["Subject"], number=mail["Message-ID"],
            text=mail.get_content(), secure=session.ssl is not None, user=session.auth_data,
        )  # fmt: skip
        return "250 kept"


def known(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
    is_known = (data.login, data.password) == (b"wetread", b"a password")
    return AuthResult(success=is_known, handled=False, auth_data=data.login.decode() if is_known else None)


async def main() -> None:
    given: dict[str, Any] = {}
    if len(sys.argv) > 2:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(sys.argv[2])
        given = {"tls_context": context, "require_starttls": True, "authenticator": known, "auth_required": True}
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(Post(), **given), "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


asyncio.run(main())
