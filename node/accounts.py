"""Who may use the web server: local accounts and tokens, in one file that only the node's own user can read.

    {"users": {"anna": {"role": "operator", "password": "$argon2id$…"}},
     "tokens": {"3f9c…": {"name": "dashboard", "role": "viewer", "sha256": "…", "expires": 1790000000.0}}}

Passwords are kept as Argon2id (RFC 9106, the library's own parameters), tokens as SHA-256: they are 256 random bits.
It knows no session and no network.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from node.errors import NodeError, Unavailable
from node.processes import locked

ACCOUNTS_FILE = "accounts.json"
LEAST_PASSWORD = 12  # characters; NIST SP 800-63B-4 asks for 15 where nothing else is asked for, 8 at the very least
LONGEST_PASSWORD = 256  # so that nobody has us hash a megabyte
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class Role(IntEnum):
    """What somebody may do; each may do what those below may."""

    VIEWER = 1  # look
    OPERATOR = 2  # act on the queue
    ADMINISTRATOR = 3  # act on the node itself

    @property
    def word(self) -> str:
        return self.name.lower()

    @classmethod
    def named(cls, word: str) -> Role:
        try:
            return cls[word.upper()]
        except KeyError:
            raise NodeError(f"no such role: {word}; there are viewer, operator, administrator") from None


@dataclass(frozen=True)
class Person:
    """Somebody, or a program, who has shown who it is."""

    name: str
    role: Role


@dataclass(frozen=True)
class Token:
    """A program's way in; ``expires`` in seconds since the epoch."""

    id: str
    name: str
    role: Role
    expires: float


class Accounts:
    """The accounts in ``file``, which need not exist."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._hasher = PasswordHasher()
        self._nobody = self._hasher.hash(secrets.token_urlsafe())  # what an unknown name is compared with
        self._read_at: tuple[int, int] | None = None
        self._held: dict[str, dict[str, Any]] = {"users": {}, "tokens": {}}

    def users(self) -> dict[str, Role]:
        return {name: Role.named(one["role"]) for name, one in sorted(self._now()["users"].items())}

    def tokens(self) -> list[Token]:
        return [
            Token(number, one["name"], Role.named(one["role"]), one["expires"])
            for number, one in self._now()["tokens"].items()
        ]

    def sign_in(self, name: str, password: str) -> Person | None:
        """Who it is; None if there is no such user, or the password is another. Both take equally long."""
        known = self._now()["users"].get(name)
        try:
            self._hasher.verify(known["password"] if known else self._nobody, password[:LONGEST_PASSWORD])
        except (VerificationError, InvalidHashError):
            return None
        return Person(name, Role.named(known["role"])) if known else None

    def bearer(self, token: str, now: float) -> Person | str:
        """Who shows this token; else the sentence that says why it is not accepted."""
        number, _, secret = token.removeprefix("wt_").partition("_")
        known = self._now()["tokens"].get(number)
        given = hashlib.sha256(secret.encode()).hexdigest()
        if known is None or not hmac.compare_digest(known["sha256"], given):
            return "the token is not known here"
        if known["expires"] <= now:
            return "the token has expired: wetread tokens add makes a new one"
        return Person(f"token {known['name']}", Role.named(known["role"]))

    def person(self, name: str) -> Person | None:
        """Who has this name now: a session of somebody whom the administrator has removed ends."""
        known = self._now()["users"].get(name)
        return Person(name, Role.named(known["role"])) if known else None

    def set_user(self, name: str, role: Role, password: str) -> None:
        """Make the account, or give it this role and password.

        Raises:
            NodeError: If the name or the password will not do.
        """
        if not _NAME.fullmatch(name):
            raise NodeError(f"{name!r} will not do as a name: letters, digits, . _ @ -, 64 at most")
        if not LEAST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
            raise NodeError(f"a password has {LEAST_PASSWORD} to {LONGEST_PASSWORD} characters")
        with self._changing() as held:
            held["users"][name] = {"role": role.word, "password": self._hasher.hash(password)}

    def remove_user(self, name: str) -> None:
        with self._changing() as held:
            if held["users"].pop(name, None) is None:
                raise NodeError(f"there is no user {name}")

    def add_token(self, name: str, role: Role, expires: float) -> str:
        """The new token, which is kept nowhere."""
        if not _NAME.fullmatch(name):
            raise NodeError(f"{name!r} will not do as a name: letters, digits, . _ @ -, 64 at most")
        number, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        digest = hashlib.sha256(secret.encode()).hexdigest()
        with self._changing() as held:
            held["tokens"][number] = {"name": name, "role": role.word, "sha256": digest, "expires": expires}
        return f"wt_{number}_{secret}"

    def remove_token(self, number: str) -> None:
        with self._changing() as held:
            if held["tokens"].pop(number, None) is None:
                raise NodeError(f"there is no token {number}")

    def _now(self) -> dict[str, dict[str, Any]]:
        """What the file says; read again when it has changed, so that a removed user is out at once.

        Raises:
            Unavailable: If it cannot be read: nobody is let in then, rather than everybody.
        """
        try:
            state = self._file.stat()
        except FileNotFoundError:
            return {"users": {}, "tokens": {}}
        mark = (state.st_mtime_ns, state.st_ino)
        if mark != self._read_at:
            try:
                held = json.loads(self._file.read_text())
                self._held = {"users": dict(held["users"]), "tokens": dict(held["tokens"])}
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise Unavailable(f"the accounts in {self._file} cannot be read: {type(error).__name__}") from error
            self._read_at = mark
        return self._held

    @contextmanager
    def _changing(self) -> Iterator[dict[str, dict[str, Any]]]:
        """What the file holds, to be changed; whole on the disk when the block ends, or as it was."""
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = locked(self._file.with_suffix(".lock"), seconds=10)
        if lock is None:
            raise Unavailable(f"{self._file} is being changed by another process")
        try:
            held = json.loads(json.dumps(self._now()))
            yield held
            part = self._file.with_suffix(".part")
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(held, file, indent=1)
                file.flush()
                os.fsync(descriptor)
            part.replace(self._file)
        finally:
            os.close(lock)
