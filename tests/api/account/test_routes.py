"""The few routes about accounts, tokens and users that clients call before they do anything else."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from intaglio.settings import Settings
from tests.api.conftest import ACCOUNT, MODEL


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"api_tokens": ("first-token", "sécond")})


def test_a_valid_token_is_reported_as_active(client: TestClient) -> None:
    for path in ("/client/v4/user/tokens/verify", f"{ACCOUNT}/tokens/verify"):
        assert client.get(path).status_code == 401
        answer = client.get(path, headers={"Authorization": "Bearer first-token"}).json()
        assert answer["result"]["status"] == "active"


def test_accounts_memberships_and_user_are_answered_as_command_line_clients_ask(client: TestClient) -> None:
    headers = {"Authorization": "Bearer first-token"}
    (account,) = client.get("/client/v4/accounts?page=1", headers=headers).json()["result"]
    (membership,) = client.get("/client/v4/memberships?page=1", headers=headers).json()["result"]
    assert membership["account"] == account
    assert client.get("/client/v4/user", headers=headers).json()["result"]["email"]
    run = f"/client/v4/accounts/{account['id']}/ai/run/{MODEL}"
    assert client.post(run, json={"prompt": "x"}, headers=headers).status_code == 200
