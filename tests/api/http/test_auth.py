from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from intaglio.api.app import create_app
from intaglio.api.state import ServerState
from intaglio.settings import Settings
from tests.api.conftest import ACCOUNT, MODEL, RUN


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"api_tokens": ("first-token", "sécond")})


@pytest.fixture
def client(state: ServerState) -> Iterator[TestClient]:
    with TestClient(create_app(state)) as client:
        yield client


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer first-token"},
        {"Authorization": "bearer  first-token "},
        {"X-Auth-Key": "first-token", "X-Auth-Email": "a@b.c"},
        {"X-Auth-User-Service-Key": "first-token"},
    ],
)
def test_a_request_with_an_accepted_token_is_served(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post(RUN, json={"prompt": "x"}, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer first-toke"},
        {"Authorization": "Bearer first-token-and-more"},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic first-token"},
        {"Authorization": "first-token"},
        {"X-Auth-Key": "nope"},
        {"Authorization": b"Bearer \xff\xfe"},
    ],
)
@pytest.mark.parametrize("path", [RUN, f"{ACCOUNT}/ai/finetunes"])
def test_a_missing_or_wrong_token_is_401_without_a_request_id(
    client: TestClient, headers: dict[str, str], path: str
) -> None:
    response = client.post(path, content=b"not even JSON", headers=headers)
    assert response.status_code == 401
    assert response.json()["errors"][0]["code"] == 10000
    assert response.json()["success"] is False
    assert "cf-ai-req-id" not in response.headers


def test_health_and_playground_need_no_token(client: TestClient) -> None:
    assert client.get("/health").status_code == 200
    assert client.get("/").status_code != 401


def test_token_check_of_the_docs(client: TestClient) -> None:
    for path in ("/client/v4/user/tokens/verify", f"{ACCOUNT}/tokens/verify"):
        assert client.get(path).status_code == 401
        answer = client.get(path, headers={"Authorization": "Bearer first-token"}).json()
        assert answer["result"]["status"] == "active"


def test_accounts_that_command_line_clients_ask_for(client: TestClient) -> None:
    headers = {"Authorization": "Bearer first-token"}
    (account,) = client.get("/client/v4/accounts?page=1", headers=headers).json()["result"]
    (membership,) = client.get("/client/v4/memberships?page=1", headers=headers).json()["result"]
    assert membership["account"] == account
    assert client.get("/client/v4/user", headers=headers).json()["result"]["email"]
    run = f"/client/v4/accounts/{account['id']}/ai/run/{MODEL}"
    assert client.post(run, json={"prompt": "x"}, headers=headers).status_code == 200
