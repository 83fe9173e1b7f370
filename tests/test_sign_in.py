"""Sign-in at an identity provider that is a program of its own, npm's oidc-provider: who comes in, and who does not."""

from __future__ import annotations

import base64
import hmac
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from node.accounts import Role
from node.cli.site import provider_options
from node.errors import BadSettings, Unavailable
from node.settings_web import Oidc
from node.web.id_token import NotAdmitted, Rules, judged, person_of
from node.web.provider import Admitted, Provider, ProviderOptions, is_safe
from tests.identity import BACK, CLIENT, SECRET, identity_provider, needed, signed_in_there, signing_key, token_of
from tests.ledgers import upgraded_file
from tests.peers import free_port, needs
from tests.site import Home, serving

OWN = "http://127.0.0.1:8114"
PASSWORD = "correct horse battery"
ROLES = {"radiology": Role.VIEWER, "radiographers": Role.OPERATOR, "imaging-it": Role.ADMINISTRATOR}
OTHER = "another-client"


@pytest.fixture(scope="module")
def key() -> dict[str, Any]:
    return signing_key()


@pytest.fixture(scope="module")
def issuer(key: dict[str, Any]) -> Iterator[str]:
    with identity_provider(key=key, clients=(CLIENT, OTHER)) as issuer:
        yield issuer


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "ledger.sqlite").write_bytes(upgraded_file())
    return Home(tmp_path)


def asked(address: str, **given: Any) -> httpx.Response:
    return httpx.get(address, timeout=120, **given)


def options_for(issuer: str, **changed: Any) -> ProviderOptions:
    rules = Rules(issuer, changed.pop("client", CLIENT), ROLES, **changed.pop("rules", {}))
    scopes, patient = ("openid", "profile", "groups"), {"answer_seconds": 120.0}
    return ProviderOptions(rules, changed.pop("secret", SECRET), scopes, **patient | changed)


def been_there(provider: Provider, name: str) -> tuple[dict[str, str], str]:
    """What the provider sends the browser of ``name`` back with, and the state that it had begun with."""
    address, state = provider.begin(OWN + BACK, "/queue")
    with httpx.Client(timeout=120) as browser:
        back = signed_in_there(browser, address, name, back=OWN)
    return dict(parse_qsl(urlsplit(back).query)), state


def admitted(provider: Provider, name: str) -> Admitted:
    return provider.come_back(*been_there(provider, name))


def refused(provider: Provider, told: Mapping[str, str], state: str) -> str:
    with pytest.raises(NotAdmitted) as caught:
        provider.come_back(told, state)
    return str(caught.value)


@needed
@needs("chromium")
def test_somebody_signs_in_with_the_hospitals_account_and_may_what_its_groups_may(home: Home, issuer: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    home.accounts.set_user("local", Role.VIEWER, PASSWORD)
    provider = Provider(options_for(issuer))
    with serving(home, provider=provider) as url, playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.route("https://**", lambda route: route.abort())  # the provider's own pages ask for a font
        page.goto(f"{url}/queue?sort=oldest")
        page.get_by_text("With the hospital's account").click()
        page.get_by_placeholder("Enter any login").fill("anna")
        page.get_by_placeholder("and password").fill("any")
        page.get_by_role("button", name="Sign-in").click()
        page.get_by_role("button", name="Continue").click()
        page.get_by_role("heading", name="Queue").wait_for()
        assert page.url == f"{url}/queue?sort=oldest"
        who = f"anna at {urlsplit(issuer).netloc}"
        assert page.get_by_text(f"{who} · operator").is_visible()
        assert page.goto(f"{url}/settings").status == 403
        page.goto(f"{url}/queue")
        page.get_by_role("button", name="sign out").click()
        page.get_by_role("heading", name="Sign in").wait_for()
        assert page.goto(f"{url}/queue").url == f"{url}/sign-in?next=%2Fqueue"
        page.get_by_label("Name").fill("local")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_text("local · viewer").wait_for()
        browser.close()
    told = [entry.as_json() for entry in home.trail.entries()]
    entered = [one["who"][0] for one in told if one["event"] == "User Authentication"]
    assert [one["name"] for one in entered] == ["local", who, who]
    assert entered[-1]["way"] == "web, anna at the identity provider"


@needed
def test_another_browser_cannot_come_back(home: Home, issuer: str) -> None:
    with serving(home, provider=Provider(options_for(issuer))) as url, httpx.Client(timeout=120) as browser:
        assert asked(url).headers["location"] == "/sign-in?next=%2F"  # with a provider this machine is nobody
        begun = asked(f"{url}/sign-in/provider?next=//evil.example")
        cookie = begun.headers["set-cookie"]
        assert all(part in cookie for part in ("HttpOnly", "Secure", "SameSite=lax", "Path=/", "Max-Age=600"))
        back = signed_in_there(browser, begun.headers["location"], "anna", back=url)
        stranger = asked(back)
        assert stranger.status_code == 403
        assert "was not begun in this browser" in stranger.text
        assert asked(back, headers={"cookie": "__Host-wetread-begun=x"}).status_code == 403
        good = asked(back, headers={"cookie": cookie.split(";")[0]})
        assert (good.status_code, good.headers["location"]) == (303, "/")  # never to another site
        again = asked(back, headers={"cookie": cookie.split(";")[0]})
        assert again.status_code == 403
        held = re.search("__Host-wetread=[^;]+", " ".join(good.headers.get_list("set-cookie")))
        assert held is not None
        assert asked(f"{url}/queue", headers={"cookie": held[0]}).status_code == 200
        assert (
            httpx.post(f"{url}/sign-out", headers={"cookie": held[0]}, data={"csrf": "x"}, timeout=120).status_code
            == 403
        )
    outcomes = [entry.as_json()["outcome"] for entry in home.trail.entries()]
    assert outcomes == [4, 0, 4, 4]


@needed
def test_the_highest_role_of_somebodys_groups_holds(issuer: str) -> None:
    person = admitted(Provider(options_for(issuer)), "boris").person
    assert (person.name, person.role) == (f"boris at {urlsplit(issuer).netloc}", Role.ADMINISTRATOR)


@needed
def test_who_is_in_no_known_group_is_told_so(issuer: str) -> None:
    provider = Provider(options_for(issuer))
    assert "none of the groups of carl has a role here (canteen)" in refused(provider, *been_there(provider, "carl"))
    assert "names no groups of dora" in refused(provider, *been_there(provider, "dora"))


@needed
def test_a_wrong_client_secret_is_told_so(issuer: str) -> None:
    provider = Provider(options_for(issuer, secret="of another time"))
    assert "does not accept the client secret of wetread" in refused(provider, *been_there(provider, "anna"))


@needed
@pytest.mark.parametrize(("off", "told"), [(-7200, "7200 s behind"), (7200, "7200 s ahead of")])
def test_a_clock_that_is_off_is_told_so(issuer: str, off: int, told: str) -> None:
    provider = Provider(options_for(issuer), clock=lambda: time.time() + off)
    sentence = refused(provider, *been_there(provider, "anna"))
    found = re.search(r"this machine's clock is (\d+) s (behind|ahead of) that of localhost", sentence)
    assert found, sentence
    assert abs(int(found[1]) - 7200) < 300
    assert found[2] == told.split(" s ")[1]


@needed
def test_a_code_is_good_once_and_with_its_own_verifier(issuer: str) -> None:
    provider, other = Provider(options_for(issuer)), Provider(options_for(issuer))
    told, _ = been_there(provider, "anna")
    _, state = other.begin(OWN + BACK, "/")
    stolen = {**told, "state": state}  # somebody's code, in a sign-in that another has begun
    assert "gives no token (invalid_grant" in refused(other, stolen, state)


@needed
def test_a_sign_in_that_is_given_up_is_told_so(issuer: str) -> None:
    provider = Provider(options_for(issuer))
    _, state = provider.begin(OWN + BACK, "/")
    told = {"state": state, "iss": issuer, "error": "access_denied", "error_description": "End-User aborted"}
    assert "has let nobody in (access_denied): End-User aborted" in refused(provider, told, state)
    _, state = provider.begin(OWN + BACK, "/")
    mixed = {"state": state, "iss": "https://evil.example", "code": "x"}  # RFC 9207: another provider's answer
    assert "comes from https://evil.example" in refused(provider, mixed, state)


@needed
def test_a_sign_in_that_took_too_long_begins_again(issuer: str) -> None:
    now = [time.time()]
    provider = Provider(options_for(issuer), clock=lambda: now[0])
    _, state = provider.begin(OWN + BACK, "/")
    now[0] += 601
    assert "more than 10 minutes ago" in refused(provider, {"state": state, "iss": issuer, "code": "x"}, state)


@needed
def test_keys_that_the_provider_has_changed_are_fetched_and_a_provider_that_is_off_is_told_so() -> None:
    port = free_port()
    with identity_provider(port=port) as issuer:
        provider = Provider(options_for(issuer))
        assert admitted(provider, "anna").person.role is Role.OPERATOR
    with identity_provider(
        port=port, conform=False
    ):  # as after a restart; and what it tells stands in the token itself
        assert admitted(provider, "boris").person.role is Role.ADMINISTRATOR
        told, state = been_there(provider, "anna")
    with pytest.raises(Unavailable, match=r"localhost:\d+ does not answer.*local account"):
        provider.come_back(told, state)
    assert "does not answer" in (Provider(options_for(issuer)).look() or "")


@needed
def test_a_page_says_when_the_provider_is_off(home: Home) -> None:
    off = Provider(options_for(f"http://localhost:{free_port()}"))
    with serving(home, provider=off) as url:
        answer = asked(f"{url}/sign-in/provider")
        assert answer.status_code == 503
        assert "does not answer" in answer.text
        assert 'name="password"' in answer.text  # a local account is there for this


@needed
def test_another_issuer_than_the_settings_name_is_told_so(issuer: str) -> None:
    assert "HTTP 404; correct web.oidc.issuer" in (Provider(options_for(f"{issuer}/realm")).look() or "")
    elsewhere = issuer.replace("localhost", "127.0.0.1")
    assert f"it calls itself {issuer}" in (Provider(options_for(elsewhere)).look() or "")
    assert Provider(options_for(issuer)).look() is None


@needed
def test_a_token_for_another_client_lets_nobody_in(issuer: str) -> None:
    keys = KeySet.import_key_set(asked(f"{issuer}/jwks").json())
    rules, own = Rules(issuer, CLIENT, ROLES), token_of(issuer, CLIENT, "anna", nonce="n")
    assert judged(own, keys, rules, nonce="n", now=time.time())["sub"] == "anna"
    others = token_of(issuer, OTHER, "anna", nonce="n")
    with pytest.raises(
        NotAdmitted, match=r"is meant for another-client, not for wetread: compare web\.oidc\.client_id"
    ):
        judged(others, keys, rules, nonce="n", now=time.time())


def _in_base64(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


ISSUER, NOW = "https://login.example/realm", 1_800_000_000
GOOD = {"iss": ISSUER, "aud": CLIENT, "sub": "1", "iat": NOW, "exp": NOW + 300, "nonce": "n"}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"nonce": "m"}, "the token belongs to another sign-in"),
        ({"nonce": None}, "the token belongs to another sign-in"),
        ({"iss": "https://evil.example"}, "comes from https://evil.example, not from https://login.example/realm"),
        ({"aud": [CLIENT, "x"], "azp": "x"}, "meant for x, not for wetread"),
        ({"iat": NOW - 900, "exp": NOW - 600}, "clock is 900 s ahead of that of login.example, and 60 s are allowed"),
        ({"iat": NOW + 90, "exp": NOW + 600}, "clock is 90 s behind that of login.example"),
        ({"sub": None}, "lacks sub"),
        ({"exp": "soon"}, "clock"),
    ],
)
def test_what_is_wrong_with_a_token_is_named(key: dict[str, Any], changed: dict[str, Any], sentence: str) -> None:
    claims = {name: value for name, value in {**GOOD, **changed}.items() if value is not None}
    signer = RSAKey.import_key(key)
    token = jwt.encode({"alg": "RS256", "kid": key["kid"]}, claims, signer)
    with pytest.raises(NotAdmitted, match=re.escape(sentence)):
        judged(token, KeySet([signer]), Rules(ISSUER, CLIENT, ROLES), nonce="n", now=NOW)


def test_what_the_provider_has_not_signed_lets_nobody_in(key: dict[str, Any]) -> None:
    known, other = RSAKey.import_key(key), RSAKey.generate_key(2048, {"kid": key["kid"]})
    good = jwt.encode({"alg": "RS256", "kid": key["kid"]}, GOOD, known)
    claims = good.split(".")[1]
    shared = f"{_in_base64(json.dumps({'alg': 'HS256', 'kid': key['kid']}).encode())}.{claims}"
    # The public key as if it were a shared secret, as others have taken it.
    digest = hmac.digest(known.as_pem(private=False), shared.encode(), "sha256")
    forged = [
        jwt.encode({"alg": "RS256", "kid": key["kid"]}, GOOD, other),
        f"{shared}.{_in_base64(digest)}",
        f"{_in_base64(json.dumps({'alg': 'none', 'kid': key['kid']}).encode())}.{claims}.",
        *("", "x.y.z"),
    ]
    rules = Rules(ISSUER, CLIENT, ROLES)
    assert judged(good, KeySet([known]), rules, nonce="n", now=NOW) == GOOD
    for token in forged:
        with pytest.raises(NotAdmitted):
            judged(token, KeySet([known]), rules, nonce="n", now=NOW)


def test_groups_may_stand_in_a_claim_within_a_claim() -> None:
    rules = Rules(ISSUER, CLIENT, ROLES, "realm_access.roles", "name")
    person = person_of({"sub": "1", "name": " Eva\n<b> ", "realm_access": {"roles": ["radiology"]}}, rules)
    assert (person.name, person.role) == ("Eva <b> at login.example", Role.VIEWER)
    one = person_of({"sub": "1", "groups": "imaging-it"}, Rules(ISSUER, CLIENT, ROLES))
    assert (one.name, one.role) == ("1 at login.example", Role.ADMINISTRATOR)


def test_nothing_is_sent_where_others_can_read_it() -> None:
    assert all(map(is_safe, ("https://login.example/token", "http://127.0.0.1:4000/token", "http://[::1]/token")))
    assert not any(map(is_safe, ("http://login.example/token", "ftp://localhost/", "javascript:x", "https:///x", "")))


def test_a_secret_that_is_not_there_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Oidc(
        issuer=ISSUER, client_id=CLIENT, secret_variable="OIDC_SECRET", roles={"viewer": ("a", "b"), "operator": ("b",)}
    )
    monkeypatch.delenv("OIDC_SECRET", raising=False)
    with pytest.raises(BadSettings, match=r"web\.oidc\.secret_variable names OIDC_SECRET, which is not set"):
        provider_options(given)
    monkeypatch.setenv("OIDC_SECRET", "s")
    made = provider_options(given)
    assert made.rules.roles == {"a": Role.VIEWER, "b": Role.OPERATOR}
    assert "secret" not in repr(made)
