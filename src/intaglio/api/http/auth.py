"""The API token and the account id of a request."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence

from intaglio.errors import AuthenticationError, IdentifierError

LOCAL_ACCOUNT = "local"  # of a request that names no account
ACCOUNT_PATTERN = r"[A-Za-z0-9_-]{1,64}"

_BEARER_HEADERS = ("authorization", "cf-aig-authorization")  # the second is for an AI Gateway
_KEY_HEADERS = ("x-auth-key", "x-auth-user-service-key", "x-api-key")  # the last is Anthropic's


def check_token(headers: Mapping[str, str], accepted: Sequence[str]) -> None:
    """Raise AuthenticationError unless the headers have one of the accepted tokens, or no tokens are configured."""
    if not accepted:
        return
    given = _given_token(headers)
    if given is None:
        raise AuthenticationError("Authentication error: no API token; send Authorization: Bearer <token>")
    # Every accepted token is compared, each in constant time, so that the time reveals nothing about them.
    matches = [hmac.compare_digest(given.encode(), token.encode()) for token in accepted]
    if not any(matches):
        raise AuthenticationError("Authentication error: this server does not know the API token")


def check_account(account: str) -> None:
    """Raise IdentifierError unless the account id is made of letters, digits, '_' and '-', 64 at most."""
    if not re.fullmatch(ACCOUNT_PATTERN, account):
        raise IdentifierError(
            f"Could not route to /accounts/{account[:80]}, perhaps your object identifier is invalid? "
            "An account id has letters, digits, '_' and '-', 64 at most"
        )


def _given_token(headers: Mapping[str, str]) -> str | None:
    for name in _BEARER_HEADERS:
        scheme, _, token = headers.get(name, "").partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return token.strip()
    return next((headers[name] for name in _KEY_HEADERS if headers.get(name)), None)
