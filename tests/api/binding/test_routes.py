"""The wire of a Worker's env.AI, as workerd, miniflare and older wranglers send it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from intaglio.api.app import create_app
from intaglio.api.binding.routes import named_model
from intaglio.api.state import ServerState
from intaglio.settings import Settings
from tests.api.conftest import ACCOUNT, MODEL
from tests.helpers.fakes import FakeLLM
from tests.helpers.live_server import live_server

VERSION_3 = "https://workers-binding.ai/run?version=3"
CONSN = {"cf-consn-sdk-version": "2.0.0", "cf-consn-model-id": MODEL, "content-type": "application/json"}
Send = Callable[..., httpx.Response]


def call(client: TestClient, inputs: Any, options: Any = None, **headers: str) -> httpx.Response:
    """POST /run as the binding's own code does."""
    content = json.dumps({"inputs": inputs, "options": options or {}})
    return client.post("/run?version=3", content=content, headers=CONSN | headers)


def through_wrangler(client: TestClient, inputs: Any, options: Any = None, **headers: str) -> httpx.Response:
    content = json.dumps({"inputs": inputs, "options": options or {}})
    sent = CONSN | {"x-forwarded": VERSION_3} | headers
    return client.post(f"{ACCOUNT}/ai/run/proxy", content=content, headers=sent)


def through_miniflare(client: TestClient, inputs: Any, options: Any = None, **headers: str) -> httpx.Response:
    content = json.dumps({"inputs": inputs, "options": options or {}})
    wrapped = {f"MF-Header-{name}": value for name, value in (CONSN | headers).items()}
    return client.post("/", content=content, headers={"MF-URL": VERSION_3, "MF-Binding": "AI"} | wrapped)


def through_miniflare_with_an_account(
    client: TestClient, inputs: Any, options: Any = None, **headers: str
) -> httpx.Response:
    content = json.dumps({"inputs": inputs, "options": options or {}})
    wrapped = {f"MF-Header-{name}": value for name, value in (CONSN | headers).items()}
    sent = {"MF-URL": VERSION_3, "MF-Binding": "AI"} | wrapped
    return client.post(f"{ACCOUNT}/ai/run/proxy", content=content, headers=sent)


WAYS = [call, through_wrangler, through_miniflare, through_miniflare_with_an_account]


def error_of(response: httpx.Response) -> dict[str, Any]:
    """A failure in the binding's shape, which is checked here for every test."""
    content: dict[str, Any] = response.json()
    assert content.keys() == {"internalCode", "message", "name", "description"}
    assert content["name"] == "InferenceUpstreamError"
    assert response.headers["content-type"] == "application/json"
    return content


def upload_adapter(client: TestClient, folder: Path, account: str, name: str = "mine") -> None:
    finetunes = f"/client/v4/accounts/{account}/ai/finetunes"
    assert client.post(finetunes, json={"model": MODEL, "name": name}).status_code == 200
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        form = {"data": {"file_name": file}, "files": {"file": (folder / file).read_bytes()}}
        assert client.post(f"{finetunes}/{name}/finetune-assets", **form).status_code == 200


@pytest.mark.parametrize("send", WAYS)
def test_the_result_is_bare_and_its_content_type_exact(client: TestClient, send: Send) -> None:
    response = send(client, {"prompt": "one two three", "raw": True})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"  # a charset would make a stream of it
    result = response.json()
    assert (result["response"], result["finish_reason"]) == ("three two one", "stop")
    assert result["usage"]["completion_tokens"] == 3
    assert response.headers["cf-ai-req-id"]


@pytest.mark.parametrize("send", WAYS)
def test_a_stream_is_the_native_one(client: TestClient, send: Send) -> None:
    response = send(client, {"prompt": "one two three", "raw": True, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert "".join(json.loads(event)["response"] for event in events[:-1]) == "three two one"
    assert events[-1] == "[DONE]"


@pytest.mark.parametrize("path", ["/run?version=2", "/run", "/ai-gateway/run?version=3"])
def test_older_versions_and_the_gateways_path_are_answered_alike(client: TestClient, path: str) -> None:
    content = json.dumps({"inputs": {"prompt": "x", "raw": True}, "options": {"gateway": {"id": "mine"}}})
    assert client.post(path, content=content, headers=CONSN).json()["response"] == "x"


@pytest.mark.parametrize(
    ("header", "model"),
    [
        ("@cf/a/b", "@cf/a/b"),
        ("fast:@cf/a/b", "@cf/a/b"),
        ("@cf/a/b:c", "@cf/a/b:c"),
        ("gemma:mine", "gemma:mine"),
        ("fast:gemma:mine", "gemma:mine"),
        ("plain", "plain"),
    ],
)
def test_the_header_names_the_model_with_or_without_a_prefix(header: str, model: str) -> None:
    assert named_model(header, {"@cf/a/b", "gemma:mine"}) == model


def test_options_reach_the_run(client: TestClient, llm: FakeLLM) -> None:
    options = {"max_tokens": 2, "temperature": 0.1, "returnRawResponse": True, "tags": ["a"]}
    response = call(client, {"prompt": "a b c", "raw": True, "temperature": 0.2}, options)
    assert response.json()["response"] == "c b"
    assert llm.submitted[-1][1].temperature == pytest.approx(0.2)  # the inputs win
    llm.busy = True
    assert call(client, {"prompt": "x"}).status_code == 200
    refused = call(client, {"prompt": "x"}, {"rejectIfBusy": True})
    assert (refused.status_code, error_of(refused)["internalCode"]) == (429, 3040)
    assert refused.headers["retry-after"]


def test_an_adapter_is_named_in_inputs_or_options(client: TestClient, adapter_folder: Path) -> None:
    upload_adapter(client, adapter_folder, "local")
    prompt = {"prompt": "x", "raw": True}
    by_input = call(client, {**prompt, "lora": "mine"})
    by_option = call(client, prompt, {"lora": "mine"})
    inside = call(client, {**prompt, "options": {"lora": "mine"}})
    digest = by_input.headers["intaglio-adapter-digest"]
    for response in (by_input, by_option, inside):
        assert response.json()["response"] == f"[{digest[:8]}] x"
    for inputs in ({**prompt, "lora": "other"}, {**prompt, "options": {"lora": "other"}}):
        assert error_of(call(client, inputs, {"lora": "mine"}))["internalCode"] == 5006


def test_a_batch_is_submitted_and_polled_bare(client: TestClient) -> None:
    batch = {"requests": [{"prompt": "a b", "raw": True}, {"prompt": "c"}]}
    submitted = call(client, batch, {"queueRequest": True})
    assert submitted.headers["content-type"] == "application/json"
    request_id = submitted.json()["request_id"]
    assert submitted.json() == {"status": "queued", "request_id": request_id, "model": MODEL}
    for options in ({"queueRequest": True}, {}):
        polled = call(client, {"request_id": request_id}, options).json()
        assert polled.get("request_id") == request_id or len(polled["responses"]) == 2
    assert error_of(call(client, batch))["description"].startswith("Error: requests is a batch")


def test_the_account_is_the_headers_or_the_proxy_paths_and_else_local(client: TestClient, adapter_folder: Path) -> None:
    upload_adapter(client, adapter_folder, "acc0", "only-in-acc0")
    inputs = {"prompt": "x", "raw": True, "lora": "only-in-acc0"}
    assert error_of(call(client, inputs))["internalCode"] == 3037
    assert error_of(through_miniflare(client, inputs))["internalCode"] == 3037
    assert call(client, inputs, **{"intaglio-account": "acc0"}).status_code == 200
    assert through_miniflare(client, inputs, **{"intaglio-account": "acc0"}).status_code == 200
    assert through_wrangler(client, inputs).status_code == 200
    assert through_miniflare_with_an_account(client, inputs).status_code == 200
    # who writes an account into the path means that one
    elsewhere = {"intaglio-account": "somewhere"}
    assert through_miniflare_with_an_account(client, inputs, **elsewhere).status_code == 200
    assert error_of(call(client, inputs, **{"intaglio-account": "no such"}))["internalCode"] == 7003


@pytest.mark.parametrize("send", WAYS)
def test_an_unknown_adapter_is_an_error_streamed_or_not(client: TestClient, send: Send) -> None:
    for stream in (False, True):
        response = send(client, {"prompt": "x", "lora": "nobody", "stream": stream})
        assert response.status_code == 404
        error = error_of(response)
        assert error["internalCode"] == 3037
        assert error["description"].startswith("Finetune nobody not found")


def test_errors_have_the_wording_of_the_binding(client: TestClient) -> None:
    error = error_of(call(client, {"prompt": "x", "temperature": 9}))
    assert error["internalCode"] == 5006
    assert error["description"].startswith("Error: temperature is 9, more than 5")
    too_long = call(client, {"prompt": "x", "max_tokens": 5000})
    assert (too_long.status_code, error_of(too_long)["internalCode"]) == (413, 5021)
    unknown = error_of(call(client, {"prompt": "x"}, **{"cf-consn-model-id": "@cf/no/model"}))
    assert unknown["internalCode"] == 5007
    assert unknown["description"].startswith("No such model @cf/no/model")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "no body"),
        ("[]", "the body is []; a JSON object is needed"),
        ('{"prompt": "x"}', "inputs is missing"),
        ('{"inputs": "x"}', 'inputs is "x"; an object is needed'),
        ('{"inputs": {"prompt": "x"}, "options": 3}', "options is 3; an object is needed"),
        ('{"inputs": {"prompt": "x"}, "options": false}', "options is false; an object is needed"),
        ('{"inputs": {"prompt": "x"}, "options": {"websocket": true}}', "options.websocket is not supported"),
        ("not json", "not JSON"),
    ],
)
def test_a_body_that_is_not_an_object_is_refused_by_name(client: TestClient, content: str, text: str) -> None:
    response = client.post("/run?version=3", content=content, headers=CONSN)
    assert response.status_code == 400
    assert text in error_of(response)["description"]


def test_inputs_unknown_to_text_generation_are_refused_by_name(client: TestClient) -> None:
    content = json.dumps({"inputs": {"prompt": "x"}})
    for path, text in [("/run?version=4", "version is '4'"), ("/run?version=3&userInputs=%7B%7D", "ReadableStream")]:
        assert text in error_of(client.post(path, content=content, headers=CONSN))["description"]
    assert "cf-consn-model-id" in error_of(client.post("/run", content=content))["description"]
    assert error_of(client.get("/run"))["internalCode"] == 7001


def test_a_failure_before_the_first_token_has_a_status_even_in_a_stream(client: TestClient) -> None:
    response = call(client, {"prompt": "<fail>", "raw": True, "stream": True})
    assert response.status_code == 500
    assert error_of(response)["internalCode"] == 3043


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/ai-api/models/search?search=fake", {}),
        ("/", {"MF-URL": "https://workers-binding.ai/ai-api/models/search?search=fake"}),
        (f"{ACCOUNT}/ai/run/proxy", {"X-Forwarded": "http://workers-binding.ai/ai-api/models/search?search=fake"}),
    ],
)
def test_models_are_those_of_the_catalogue_in_the_envelope(
    client: TestClient, path: str, headers: dict[str, str]
) -> None:
    response = client.get(path, headers=headers)
    assert [card["name"] for card in response.json()["result"]] == [MODEL]
    assert client.get("/ai-api/models/search?page=0").json()["errors"][0]["code"] == 5006


def test_other_urls_of_the_binding_are_7000_and_reach_no_other_route(client: TestClient) -> None:
    for url in (
        "https://workers-binding.ai/ai-gateway/other",
        "http://x/client/v4/user",
        "http://x/health",
        "http://[",
        "nonsense",
    ):
        response = client.get("/", headers={"MF-URL": url})
        assert (response.status_code, response.json()["errors"][0]["code"]) == (404, 7000)


def test_an_account_in_the_proxys_path_is_checked(client: TestClient) -> None:
    headers = {"MF-URL": VERSION_3, "MF-Header-cf-consn-model-id": MODEL}
    for account in ("a b", "日本", "x" * 65):
        response = client.post(f"/client/v4/accounts/{account}/ai/run/proxy", json={}, headers=headers)
        assert (response.status_code, response.json()["errors"][0]["code"]) == (404, 7003)


def test_without_the_headers_of_a_proxy_nothing_is_unwrapped(client: TestClient) -> None:
    assert "<html" in client.get("/").text
    assert client.get("/", headers={"X-Forwarded": VERSION_3}).status_code == 200
    assert client.get("/health", headers={"MF-URL": VERSION_3}).status_code == 200
    response = client.post(f"{ACCOUNT}/ai/run/proxy", json={"prompt": "x"})
    assert response.json()["errors"][0]["code"] == 5007  # no model is called proxy


class TestWithTokens:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"api_tokens": ("right",)})

    @pytest.mark.parametrize("send", WAYS)
    def test_every_binding_path_needs_a_token(self, client: TestClient, send: Send) -> None:
        refused = send(client, {"prompt": "x"})
        assert (refused.status_code, error_of(refused)["internalCode"]) == (401, 10000)
        assert send(client, {"prompt": "x"}, authorization="Bearer wrong").status_code == 401
        assert send(client, {"prompt": "x"}, authorization="Bearer right").status_code == 200

    def test_the_catalogue_needs_a_token(self, client: TestClient) -> None:
        for path, headers in [
            ("/ai-api/models/search", {}),
            ("/", {"MF-URL": "https://workers-binding.ai/ai-api/models/search"}),
            (f"{ACCOUNT}/ai/run/proxy", {"X-Forwarded": "http://workers-binding.ai/ai-api/models/search"}),
        ]:
            assert client.get(path, headers=headers).json()["errors"][0]["code"] == 10000
            assert client.get(path, headers=headers | {"authorization": "Bearer right"}).status_code == 200

    def test_a_proxys_token_is_accepted_and_the_bindings_own_wins(self, client: TestClient) -> None:
        carried = {"MF-URL": VERSION_3, "MF-Header-cf-consn-model-id": MODEL}
        content = json.dumps({"inputs": {"prompt": "x"}})
        outer = carried | {"authorization": "Bearer right"}
        assert client.post("/", content=content, headers=outer).status_code == 200
        inner_wrong = outer | {"MF-Header-authorization": "Bearer wrong"}
        assert client.post("/", content=content, headers=inner_wrong).status_code == 401


def test_a_websocket_is_refused_with_a_reason(state: ServerState) -> None:
    with live_server(create_app(state)) as address, pytest.raises(InvalidStatus) as refusal:
        connect(address.replace("http", "ws") + "/?MF-Binding=AI").close()
    answer = refusal.value.response
    assert answer.status_code == 400
    assert "WebSockets are not supported" in json.loads(answer.body or b"{}")["description"]
