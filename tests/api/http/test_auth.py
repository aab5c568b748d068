from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from intaglio.settings import Settings
from tests.api.conftest import ACCOUNT, RUN


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"api_tokens": ("first-token", "sécond")})


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer first-token"},
        {"Authorization": "bearer  first-token "},
        {"X-Auth-Key": "first-token", "X-Auth-Email": "a@b.c"},
        {"X-Auth-User-Service-Key": "first-token"},
        {"cf-aig-authorization": "Bearer first-token"},
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
        {"cf-aig-authorization": "Bearer nope"},
        {"Authorization": "Bearer wrong", "cf-aig-authorization": "Bearer first-token"},
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
