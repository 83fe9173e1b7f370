"""The hospital's identity provider: sign-in by OpenID Connect, the code flow (RFC 6749) with PKCE (RFC 7636).

    begin → the browser goes there, and comes back with a code → come_back: code → tokens → whose they are

What its tokens say is judged in id_token.py. No proxy and no redirect is followed, and nothing of it is kept but the
description of the provider and its keys.
"""

from __future__ import annotations

import hmac
import json
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from secrets import token_urlsafe
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from joserfc.jwk import KeySet

from node.accounts import Person
from node.errors import Unavailable
from node.web.id_token import Claims, NotAdmitted, Rules, UnknownKey, found, judged, person_of

PENDING_SECONDS = 600.0  # so long somebody may take to sign in there
MOST_PENDING = 10_000
DESCRIBED_SECONDS = 3600.0
LARGEST = 1 << 20  # bytes of an answer
DESCRIPTION = "/.well-known/openid-configuration"
ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")


@dataclass(frozen=True)
class ProviderOptions:
    """
    Attributes:
        secret: Of this client; None: a public client, which PKCE alone protects.
        label: What the button says.
        tls: How its certificate is checked.
    """

    rules: Rules
    secret: str | None = field(default=None, repr=False)
    scopes: tuple[str, ...] = ("openid", "profile")
    label: str = "the hospital's account"
    tls: ssl.SSLContext | bool = True
    answer_seconds: float = 10.0


@dataclass(frozen=True)
class Begun:
    """A sign-in whose browser is at the provider."""

    nonce: str
    verifier: str
    back: str
    there: str
    at: float


@dataclass(frozen=True)
class Admitted:
    """Somebody for whom the provider vouches: ``subject`` is how it names them for ever, ``there`` what they wanted."""

    person: Person
    subject: str
    there: str


class Provider:
    def __init__(self, options: ProviderOptions, *, clock: Callable[[], float] = time.time) -> None:
        self.label, self._options, self._rules, self._clock = options.label, options, options.rules, clock
        self._begun: OrderedDict[str, Begun] = OrderedDict()  # the oldest first
        self._described: tuple[float, dict[str, Any], KeySet] | None = None
        self._lock = threading.Lock()
        self._client = httpx.Client(
            verify=options.tls, trust_env=False, timeout=options.answer_seconds, headers={"Accept": "application/json"}
        )

    def begin(self, back: str, there: str) -> tuple[str, str]:
        """Where the browser is to go, and the state that it is to come back with.

        Args:
            back: The address of ours that the provider sends it back to.

        Raises:
            Unavailable: If the provider does not answer.
        """
        description, _ = self._description()
        state, nonce, verifier = token_urlsafe(32), token_urlsafe(32), token_urlsafe(48)
        with self._lock:
            self._begun[state] = Begun(nonce, verifier, back, there, self._clock())
            while len(self._begun) > MOST_PENDING:
                self._begun.popitem(last=False)
        address = prepare_grant_uri(
            description["authorization_endpoint"], self._rules.client_id, "code", back, self._options.scopes, state,
            nonce=nonce, code_challenge=create_s256_code_challenge(verifier), code_challenge_method="S256",
        )  # fmt: skip
        return str(address), state

    def come_back(self, told: Mapping[str, str], state: str) -> Admitted:
        """Who came back.

        Args:
            told: The query that the provider sent the browser back with.
            state: What this browser was given when it began.

        Raises:
            Unavailable: If the provider does not answer.
            NotAdmitted: If it lets nobody in.
        """
        begun = self._begun_with(told.get("state", ""), state)
        if error := told.get("error"):
            more = f": {told['error_description'][:200]}" if told.get("error_description") else ""
            raise NotAdmitted(f"{self._rules.provider} has let nobody in ({error[:60]}){more}")
        description, _ = self._description()
        names_itself = "iss" in told or description.get("authorization_response_iss_parameter_supported")  # RFC 9207
        if names_itself and told.get("iss") != self._rules.issuer:
            raise NotAdmitted(f"the answer comes from {told.get('iss')}, not from {self._rules.issuer}")
        tokens = self._tokens(description, begun, told.get("code", ""))
        claims = self._judged(str(tokens.get("id_token", "")), begun.nonce)
        claims = self._with_more(description, claims, str(tokens.get("access_token", "")))
        return Admitted(person_of(claims, self._rules), str(claims["sub"]), begun.there)

    def look(self) -> str | None:
        """None if the provider answers as it should, else the sentence that says why not."""
        try:
            self._description()
        except (Unavailable, NotAdmitted) as error:
            return str(error)
        return None

    def close(self) -> None:
        self._client.close()

    def _begun_with(self, told: str, state: str) -> Begun:
        with self._lock:
            begun = self._begun.pop(told, None) if told and hmac.compare_digest(told.encode(), state.encode()) else None
        if begun is None or self._clock() - begun.at > PENDING_SECONDS:
            raise NotAdmitted("this sign-in was not begun in this browser, or more than 10 minutes ago; begin again")
        return begun

    def _tokens(self, description: dict[str, Any], begun: Begun, code: str) -> dict[str, Any]:
        form = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": begun.back,
            "code_verifier": begun.verifier,
        }  # fmt: skip
        client, secret, auth = self._rules.client_id, self._options.secret, None
        ways = description.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if secret is None or "client_secret_basic" not in ways:
            form |= {"client_id": client} | ({"client_secret": secret} if secret else {})
        else:
            auth = httpx.BasicAuth(quote(client, safe=""), quote(secret, safe=""))  # RFC 6749 2.3.1
        status, answer = self._ask("POST", description["token_endpoint"], data=form, auth=auth)
        if status == 200:
            return answer
        error = str(answer.get("error", f"HTTP {status}"))[:60]
        if error == "invalid_client":
            raise NotAdmitted(
                f"{self._rules.provider} does not accept the client secret of {client}: "
                "compare web.oidc.client_id and the secret with what is registered there"
            )
        more = str(answer.get("error_description", ""))[:200]
        raise NotAdmitted(f"{self._rules.provider} gives no token ({error}){f': {more}' if more else ''}; begin again")

    def _judged(self, token: str, nonce: str) -> Claims:
        try:
            return judged(token, self._description()[1], self._rules, nonce=nonce, now=self._clock())
        except UnknownKey:  # it has made new keys since
            return judged(token, self._description(anew=True)[1], self._rules, nonce=nonce, now=self._clock())

    def _with_more(self, description: dict[str, Any], claims: Claims, access_token: str) -> Claims:
        """With what the UserInfo endpoint says (Core 5.3), where the token lacks name or groups."""
        wanted = (self._rules.name_claim, self._rules.groups_claim)
        address = description.get("userinfo_endpoint")
        if address is None or not access_token or all(found(claims, name) is not None for name in wanted):
            return claims
        status, more = self._ask("GET", address, headers={"Authorization": f"Bearer {access_token}"})
        if status != 200 or more.get("sub") != claims["sub"]:
            raise NotAdmitted(f"{self._rules.provider} does not say who {claims['sub']} is (HTTP {status})")
        return {**more, **claims}

    def _description(self, *, anew: bool = False) -> tuple[dict[str, Any], KeySet]:
        """What the provider says of itself (OpenID Connect Discovery 1.0), and its keys."""
        with self._lock:
            kept = self._described
        now = time.monotonic()
        if kept is not None and not anew and now - kept[0] < DESCRIBED_SECONDS:
            return kept[1], kept[2]
        status, told = self._ask("GET", self._rules.issuer.rstrip("/") + DESCRIPTION)
        if status != 200 or told.get("issuer") != self._rules.issuer:
            said = f"it calls itself {told.get('issuer')}" if status == 200 else f"HTTP {status}"
            raise Unavailable(f"there is no identity provider {self._rules.issuer}: {said}; correct web.oidc.issuer")
        for name in (*ENDPOINTS, *(("userinfo_endpoint",) if "userinfo_endpoint" in told else ())):
            if not is_safe(str(told.get(name, ""))):
                raise Unavailable(f"{self._rules.provider} names no {name} that can be used: {told.get(name)}")
        status, published = self._ask("GET", told["jwks_uri"])
        try:
            keys = KeySet.import_key_set(published)  # type: ignore[arg-type]
        except Exception as error:  # whatever it is made of, it is no set of keys
            raise Unavailable(f"the keys of {self._rules.provider} cannot be read (HTTP {status})") from error
        with self._lock:
            self._described = now, told, keys
        return told, keys

    def _ask(self, method: str, address: str, **given: Any) -> tuple[int, dict[str, Any]]:
        try:
            with self._client.stream(method, address, **given) as answer:
                body = b""
                for piece in answer.iter_bytes():
                    body += piece
                    if len(body) > LARGEST:
                        raise Unavailable(f"{self._rules.provider} does not end its answer")
            told = json.loads(body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = str(error).rpartition("] ")[2].lower() or type(error).__name__  # without [Errno 111]
            raise Unavailable(
                f"{self._rules.provider} does not answer: {why}; who has a local account signs in with that"
            ) from error
        except ValueError:
            told = None
        return answer.status_code, told if isinstance(told, dict) else {}


def is_safe(address: str) -> bool:
    """Whether what is sent there cannot be read on the way: HTTPS, or this machine."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    if parts.scheme == "http":
        try:
            return host == "localhost" or ip_address(host).is_loopback
        except ValueError:
            return False
    return parts.scheme == "https" and bool(host)
