"""Token check, user, accounts and memberships, with one user and one account."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from msgspec import Meta, Struct
from starlette.responses import Response

from intaglio.api.http.auth import LOCAL_ACCOUNT
from intaglio.api.http.envelope import success

LOCAL_USER = "00000000-0000-0000-0000-000000000000"


class TokenState(Struct, frozen=True):
    id: str
    status: Annotated[str, Meta(extra_json_schema={"const": "active"})]


class User(Struct, frozen=True):
    id: str
    email: str


class Account(Struct, frozen=True):
    id: str
    name: str


class Membership(Struct, frozen=True):
    id: str
    account: Account


def token_routes() -> APIRouter:
    """The routes that name no account."""
    router = APIRouter()

    @router.get("/user/tokens/verify", operation_id="verify_token")
    async def verify() -> Response:
        return success(TokenState(LOCAL_USER, "active"))

    @router.get("/user", operation_id="read_user")
    async def user() -> Response:
        return success(User(LOCAL_USER, "user@localhost"))

    @router.get("/accounts", operation_id="list_accounts")
    async def accounts() -> Response:
        return success([_account()])

    @router.get("/memberships", operation_id="list_memberships")
    async def memberships() -> Response:
        return success([Membership(LOCAL_USER, _account())])

    return router


def account_token_routes() -> APIRouter:
    """The token check below an account."""
    router = APIRouter()

    @router.get("/tokens/verify", operation_id="verify_account_token")
    async def verify(account: str) -> Response:
        return success(TokenState(LOCAL_USER, "active"))

    return router


def _account() -> Account:
    return Account(LOCAL_ACCOUNT, "Intaglio")
