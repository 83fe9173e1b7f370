"""An identity provider as a separate program: npm's oidc-provider on loopback, and a browser that signs in there.

`make test` fetches it (deploy/setup/oidc-provider.sh) where there is npm.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urljoin, urlsplit

import httpx
import pytest
from joserfc.jwk import RSAKey

from tests.peers import ROOT, free_port, where

VERSION = "9.13.3"
PROGRAM = ROOT / ".cache" / f"oidc-provider-{VERSION}" / "node_modules" / "oidc-provider" / "lib" / "index.js"
CLIENT, SECRET = "wetread", "of the two / and nobody else: +%&="
GROUPS = {"anna": ["staff", "radiographers"], "boris": ["radiology", "imaging-it"], "carl": ["canteen"], "dora": []}
BACK = "/sign-in/back"
CHALLENGE = "NeXgPm-CVJuFkX674guN_H_1w2B5Ks8R8EehiO9HwIU"  # S256 of 60 times "v"
needed = pytest.mark.skipif(
    where("node") is None or not PROGRAM.exists(),
    reason="no identity provider here: `make test` fetches oidc-provider with npm",
)


def signing_key() -> dict[str, Any]:
    """A private key as a provider signs with."""
    return dict(RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, auto_kid=True).as_dict(private=True))


@contextmanager
def identity_provider(
    *, port: int = 0, key: dict[str, Any] | None = None, conform: bool = True, clients: Sequence[str] = (CLIENT,)
) -> Iterator[str]:
    """A provider that sends back to ``BACK`` on any port of loopback; its issuer.

    Args:
        conform: It tells name and groups at its UserInfo endpoint alone, not in ID tokens.
    """
    port = port or free_port()
    one = {"client_secret": SECRET, "application_type": "native", "redirect_uris": [f"http://127.0.0.1{BACK}"]}
    registered = [{"client_id": name, "scope": "openid profile groups", **one} for name in clients]
    told = {"port": port, "groups": GROUPS, "conform": conform, "clients": registered, "keys": [key or signing_key()]}
    command = [where("node") or "node", str(Path(__file__).parent / "receivers" / "identity.mjs"), str(PROGRAM)]
    with subprocess.Popen(
        [*command, json.dumps(told)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as program:
        try:
            assert program.stdout is not None
            assert any("listening" in line for line in program.stdout), "the identity provider does not start"
            yield f"http://localhost:{port}"
        finally:
            program.terminate()


def signed_in_there(browser: httpx.Client, address: str, name: str, *, back: str) -> str:
    """Follow ``address`` at the provider, fill in its forms as ``name``: where it sends the browser in the end."""
    answer = browser.get(address)
    for _ in range(12):
        if answer.is_redirect:
            there = urljoin(str(answer.url), answer.headers["location"])
            if there.startswith(back):
                return there
            answer = browser.get(there)
            continue
        action = re.search(r'<form[^>]* action="([^"]+)"', answer.text)
        prompt = re.search(r'name="prompt" value="(\w+)"', answer.text)
        assert action, answer.text
        assert prompt, answer.text
        filled = {"prompt": prompt[1], "login": name, "password": "any"}
        answer = browser.post(urljoin(str(answer.url), unescape(action[1])), data=filled)
    raise AssertionError(f"the provider never sends back: {answer.url}")


def token_of(issuer: str, client: str, name: str, *, nonce: str) -> str:
    """An ID token that the provider has given ``client`` for ``name``, asked for without any code of ours."""
    back, verifier = f"http://127.0.0.1:1{BACK}", "v" * 60
    asked = {
        "client_id": client, "response_type": "code", "scope": "openid", "redirect_uri": back, "state": "s",
        "nonce": nonce, "code_challenge": CHALLENGE, "code_challenge_method": "S256",
    }  # fmt: skip
    with httpx.Client(timeout=120) as browser:
        came = signed_in_there(browser, f"{issuer}/auth?{urlencode(asked)}", name, back=back)
    code = dict(parse_qsl(urlsplit(came).query))["code"]
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": back, "code_verifier": verifier}
    answer = httpx.post(f"{issuer}/token", data=form, auth=(quote(client), quote(SECRET, safe="")), timeout=120)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id_token"])
