"""Other addresses of the same routes: the response is that of the route itself, and so are errors and methods."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from intaglio.api.aliases import aliased_path
from intaglio.settings import Settings
from tests.api.conftest import ACCOUNT, MODEL
from tests.api.finetunes.calls import create, error_of
from tests.api.openai.wire import MODELS, body_of, refusal_of

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "one two"}]}
LOCAL = ACCOUNT.replace("acc0", "local")


def content_of(response: Any) -> str:
    content: str = body_of(response)["choices"][0]["message"]["content"]
    return content


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/chat/completions/"])
def test_openai_clients_find_their_routes_at_the_root(client: TestClient, path: str) -> None:
    assert content_of(client.post(path, json=CHAT)) == "two one user:"
    assert body_of(client.post("/v1/completions", json={"model": MODEL, "prompt": "a b"}))["object"]
    assert body_of(client.get("/v1/models")) == body_of(client.get(MODELS))
    assert body_of(client.get(f"/v1/models/{MODEL.replace('/', '%2F')}"))["id"] == MODEL


def test_the_root_belongs_to_the_account_local(client: TestClient) -> None:
    create(client, "mine")
    refused = client.post("/v1/chat/completions", json={**CHAT, "lora": "mine"})
    assert refusal_of(refused)[:2] == (404, 3037)
    client.post(f"{LOCAL}/ai/finetunes", json={"model": MODEL, "name": "theirs"})
    assert refusal_of(client.post("/v1/chat/completions", json={**CHAT, "lora": "theirs"}))[1] == 3039


def test_a_stream_at_the_root_is_the_stream_of_the_route(client: TestClient) -> None:
    response = client.post("/v1/chat/completions", json={**CHAT, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("path", [f"{ACCOUNT}/ai/health", f"{ACCOUNT}/ai/health/"])
def test_the_health_is_also_read_below_an_account(client: TestClient, path: str) -> None:
    assert client.get(path).json() == client.get("/health").json()
    assert client.head(path).status_code == 200
    assert client.post(path).status_code == 405


def test_a_path_is_aliased_whatever_stands_in_it(client: TestClient) -> None:
    assert refusal_of(client.get("/v1/responses/%0A®"))[:2] == (404, 5006)
    assert client.get("/client/v4/accounts/®/ai/health").json() == client.get("/health").json()


def test_a_wrong_method_and_options_are_answered_as_at_the_route(client: TestClient) -> None:
    assert client.get("/v1/chat/completions").status_code == 405
    assert client.options("/v1/chat/completions").headers["allow"] == "POST, OPTIONS"
    assert client.head("/v1/models").status_code == 200


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("path", ["/v1/nowhere", "/v1/audio/speech", "/v1", f"{ACCOUNT}/ai/v1/nowhere"])
def test_an_unknown_path_below_v1_is_an_openai_error_that_lists_the_routes(
    client: TestClient, path: str, method: str
) -> None:
    status, code, message = refusal_of(client.request(method, path))
    assert (status, code) == (404, 7000)
    assert message.startswith(f"No route for that URI: {path}. Below /client/v4/accounts/")
    assert "chat/completions" in message
    assert "models/{model}" in message
    assert "finetunes" not in message


@pytest.mark.parametrize("path", [f"{ACCOUNT}/ai/nowhere", "/ai/nowhere"])
def test_an_unknown_path_below_ai_lists_the_routes_in_the_envelope(client: TestClient, path: str) -> None:
    response = client.post(path)
    (error,) = response.json()["errors"]
    assert (response.status_code, error["code"], response.json()["success"]) == (404, 7000, False)
    assert error["message"].startswith(f"No route for that URI: {path}. Below /client/v4/accounts/")
    assert "run/{model}" in error["message"]
    assert "user/tokens/verify" not in error["message"]


@pytest.mark.parametrize("path", [f"/ai/run/{MODEL}", "/ai/finetunes", "/accounts", "/user/tokens/verify"])
def test_a_path_that_lacks_its_beginning_is_answered_with_the_whole_path(client: TestClient, path: str) -> None:
    message = client.get(path).json()["errors"][0]["message"]
    assert f"{path}. Did you mean /client/v4" in message
    assert message.endswith(f"{path}?")


def test_a_path_that_resembles_no_route_has_no_advice(client: TestClient) -> None:
    assert client.get("/nowhere").json()["errors"][0]["message"] == "No route for that URI: /nowhere"


GATEWAY = "/v1/acc0/my-gateway"
GATEWAY_HEADERS = {
    "cf-aig-cache-ttl": "3600", "cf-aig-skip-cache": "true", "cf-aig-metadata": '{"team": "a"}',
    "cf-aig-collect-log": "false", "cf-aig-request-timeout": "1", "cf-aig-max-attempts": "3",
    "x-session-affinity": "ses_1",
}  # fmt: skip


@pytest.mark.parametrize("model", [MODEL, MODEL.replace("/", "%2F"), f"{MODEL}/"])
def test_a_gateway_runs_the_model_of_the_path_natively(client: TestClient, model: str) -> None:
    answer = client.post(f"{GATEWAY}/workers-ai/{model}", json={"prompt": "a b", "raw": True}, headers=GATEWAY_HEADERS)
    assert answer.json()["result"]["response"] == "b a"
    refused = client.post(f"{GATEWAY}/workers-ai/{model}", json={"prompt": ""})
    assert (refused.status_code, error_of(refused)["code"]) == (400, 5006)


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("workers-ai/v1/chat/completions", MODEL),
        ("compat/chat/completions", f"workers-ai/{MODEL}"),
        ("compat/chat/completions/", f"workers-ai/{MODEL}"),
        ("compat/chat/completions", MODEL),
    ],
)
def test_a_gateway_answers_in_the_form_of_openai(client: TestClient, path: str, model: str) -> None:
    response = client.post(f"{GATEWAY}/{path}", json={**CHAT, "model": model}, headers=GATEWAY_HEADERS)
    assert content_of(response) == "two one user:"
    assert response.json()["model"] == model


def test_a_model_of_another_provider_is_refused_by_the_gateway(client: TestClient) -> None:
    response = client.post(f"{GATEWAY}/compat/chat/completions", json={**CHAT, "model": "openai/gpt-5"})
    assert refusal_of(response)[:2] == (400, 5007)


def test_the_account_of_a_gateway_is_that_of_its_path(client: TestClient) -> None:
    create(client, "mine")
    here = client.post(f"{GATEWAY}/workers-ai/v1/chat/completions", json={**CHAT, "lora": "mine"})
    assert refusal_of(here)[:2] == (400, 3039)
    there = client.post(
        f"{GATEWAY.replace('acc0', 'other')}/workers-ai/v1/chat/completions", json={**CHAT, "lora": "mine"}
    )
    assert refusal_of(there)[:2] == (404, 3037)
    wrong = client.post(f"{GATEWAY.replace('acc0', 'a b')}/workers-ai/v1/chat/completions", json=CHAT)
    assert refusal_of(wrong)[:2] == (404, 7003)


def test_a_model_whose_id_looks_like_a_gateways_path_is_still_a_model() -> None:
    assert aliased_path("/v1/models/x/workers-ai/y").endswith("/accounts/local/ai/v1/models/x/workers-ai/y")


@pytest.mark.parametrize("path", [f"{GATEWAY}/openai/chat/completions", f"{GATEWAY}/compat/embeddings", GATEWAY])
def test_what_a_gateway_does_not_have_here_is_a_404(client: TestClient, path: str) -> None:
    assert refusal_of(client.post(path, json=CHAT))[:2] == (404, 7000)


def test_no_other_path_is_an_alias() -> None:
    for path in ("/", "/v1x", "/v10/models", "/client/v4/accounts/a/ai/healthy", "/client/v4/accounts/a/ai/v1/models"):
        assert aliased_path(path) == path


class TestWithTokens:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"api_tokens": ("right",)})

    def test_an_alias_asks_for_a_token_where_its_route_does(self, client: TestClient) -> None:
        assert refusal_of(client.post("/v1/chat/completions", json=CHAT))[:2] == (401, 10000)
        headers = {"authorization": "Bearer right"}
        assert client.post("/v1/chat/completions", json=CHAT, headers=headers).status_code == 200
        assert client.get(f"{ACCOUNT}/ai/health").status_code == 200
