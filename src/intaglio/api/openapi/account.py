"""The operations that tell who is asking, and whether the server is up."""

from __future__ import annotations

from typing import Any

from intaglio.api.account.routes import Membership, TokenState, User
from intaglio.api.health import Health
from intaglio.api.http.envelope import envelope_schema
from intaglio.api.http.wire import component_schemas
from intaglio.api.openapi.error_groups import EVERYWHERE, IN_AN_ACCOUNT
from intaglio.api.openapi.operation import JSON, DeclaredResponse, Operation
from intaglio.api.openapi.shapes import ACCOUNT, listed, ref
from intaglio.api.status import ServerStatus
from intaglio.errors import EngineError

TAG = "Account"

SCHEMAS: dict[str, Any] = component_schemas((TokenState, User, Membership, Health, ServerStatus))

_TOKEN = {200: DeclaredResponse("The token is good.", {JSON: envelope_schema(ref("TokenState"))})}
_HEALTH = {JSON: ref("Health")}

OPERATIONS: dict[str, Operation] = {
    "verify_token": Operation(
        TAG, "Check a token", "200 for a token that this server accepts.", _TOKEN, errors=EVERYWHERE
    ),
    "verify_account_token": Operation(
        TAG, "Check a token in an account", "As the check without an account: tokens belong to the server.", _TOKEN,
        parameters=(ACCOUNT,), errors=IN_AN_ACCOUNT,
    ),
    "read_user": Operation(
        TAG, "Who am I", "There is one user here, and every token is theirs.",
        {200: DeclaredResponse("The user.", {JSON: envelope_schema(ref("User"))})}, errors=EVERYWHERE,
    ),
    "list_accounts": Operation(
        TAG, "List accounts", "One account called `local`, for tools that ask for one. Others can be used too.",
        {200: DeclaredResponse("The accounts.", {JSON: envelope_schema(listed(ref("Account")))})}, errors=EVERYWHERE,
    ),
    "list_memberships": Operation(
        TAG, "List memberships", "The user's membership in the account `local`.",
        {200: DeclaredResponse("The memberships.", {JSON: envelope_schema(listed(ref("Membership")))})},
        errors=EVERYWHERE,
    ),
    "read_status": Operation(
        TAG, "Status",
        "What each engine is doing: requests, adapters and keys and values in memory, and counters since its start. "
        "A browser that asks for a page is sent to the playground's.",
        {200: DeclaredResponse("The status.", {JSON: ref("ServerStatus")}),
         303: DeclaredResponse("The page, for a browser.", {})},
        errors=EVERYWHERE,
    ),
    "read_health": Operation(
        TAG, "Health", "Whether every model can answer. No token is asked for.",
        {200: DeclaredResponse("All engines are ready.", _HEALTH),
         503: DeclaredResponse("An engine is being started, or the database does not answer.", _HEALTH)},
        errors=(EngineError,), is_open=True,
    ),
}  # fmt: skip
