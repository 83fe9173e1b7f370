"""Whose an ID token is: its signature, its claims (OpenID Connect Core 1.0, 3.1.3.7), and the role of its groups.

Authlib and joserfc judge; here stands what each of their verdicts means to a person. No network, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import ClaimError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from node.accounts import Person, Role
from node.errors import NodeError

# RFC 7518, RFC 8037: what only the provider can sign; not "none", nor what a shared secret signs.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA")
LONGEST_NAME = 64
_CLOCK = ("exp", "iat", "nbf")

Claims = Mapping[str, Any]


class NotAdmitted(NodeError):
    """What the provider says lets nobody in; the sentence says why, and what to do."""


class UnknownKey(NotAdmitted):
    """The token names a key that is not among the provider's: it may have new ones."""


@dataclass(frozen=True)
class Rules:
    """What the settings say of tokens and of who they let in.

    Attributes:
        issuer: Of the tokens; ``client_id`` is whom they are meant for.
        roles: Group → role; of several the highest holds.
        groups_claim, name_claim: Where they stand; ``realm_access.roles`` is a claim within a claim.
        clock_seconds: By so much the provider's clock may differ from ours.
    """

    issuer: str
    client_id: str
    roles: Mapping[str, Role]
    groups_claim: str = "groups"
    name_claim: str = "preferred_username"
    clock_seconds: int = 60
    provider: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "provider", self.issuer.split("://", 1)[-1].split("/", 1)[0])


def judged(token: str, keys: KeySet, rules: Rules, *, nonce: str, now: float) -> Claims:
    """The claims of a token that is the provider's, meant for us, of this sign-in, and not over.

    Raises:
        UnknownKey: It names a key that is not among ``keys``.
        NotAdmitted: In every other case.
    """
    try:
        read = jwt.decode(token, keys, algorithms=list(ALGORITHMS))
    except InvalidKeyIdError as error:
        raise UnknownKey(f"the token is signed with a key that {rules.provider} does not publish") from error
    except (JoseError, ValueError) as error:
        raise NotAdmitted(f"the token is not signed by {rules.provider} as it should be: {error}") from error
    claims: dict[str, Any] = dict(read.claims)
    wanted = {"iss": {"essential": True, "value": rules.issuer}, "aud": {"essential": True, "value": rules.client_id}}
    checked = CodeIDToken(claims, read.header, wanted, {"nonce": nonce, "client_id": rules.client_id})
    try:
        checked.validate(now=int(now), leeway=rules.clock_seconds)
    except ClaimError as error:
        raise NotAdmitted(_why(error.claim, claims, rules, now)) from error
    except (JoseError, TypeError, ValueError) as error:
        raise NotAdmitted(f"the token of {rules.provider} cannot be understood: {error}") from error
    return claims


def _why(claim: str, claims: Claims, rules: Rules, now: float) -> str:
    told = claims.get(claim)
    if claim in ("aud", "azp"):
        meant = f"the token of {rules.provider} is meant for {told}, not for {rules.client_id}"
        return f"{meant}: compare web.oidc.client_id with what is registered there"
    if claim == "iss":
        return f"the token comes from {told}, not from {rules.issuer}: correct web.oidc.issuer"
    if claim == "nonce":
        return "the token belongs to another sign-in; begin again"
    if claim in _CLOCK and isinstance(issued := claims.get("iat"), int | float):
        ahead = "behind" if issued > now else "ahead of"
        return (
            f"this machine's clock is {abs(now - issued):.0f} s {ahead} that of {rules.provider}, and "
            f"{rules.clock_seconds} s are allowed: have both kept by NTP"
        )
    return f"the token of {rules.provider} lacks {claim}, or it is wrong there"


def found(claims: Claims, name: str) -> Any:
    """The claim of that name, also one within another (``realm_access.roles``); None if there is none."""
    if name in claims:
        return claims[name]
    inside: Any = claims
    for part in name.split("."):
        inside = inside.get(part) if isinstance(inside, Mapping) else None
    return inside


def person_of(claims: Claims, rules: Rules) -> Person:
    """Who it is, by the name that the provider gives, and as what it is let in.

    Raises:
        NotAdmitted: If none of its groups has a role.
    """
    told = found(claims, rules.name_claim) or claims["sub"]
    name = " ".join("".join(letter if letter.isprintable() else " " for letter in str(told)).split())[:LONGEST_NAME]
    given = found(claims, rules.groups_claim)
    groups = [given] if isinstance(given, str) else [str(one) for one in given] if isinstance(given, list) else []
    if not groups:
        raise NotAdmitted(f"{rules.provider} names no groups of {name}: it is to tell them in {rules.groups_claim}")
    role = max((rules.roles[group] for group in groups if group in rules.roles), default=None)
    if role is None:
        listed = ", ".join(group[:LONGEST_NAME] for group in groups[:10])
        raise NotAdmitted(f"none of the groups of {name} has a role here ({listed}): web.oidc.roles says which have")
    return Person(f"{name} at {rules.provider}", role)
