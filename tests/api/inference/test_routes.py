from __future__ import annotations

import json
import logging
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from intaglio.api.app import create_app
from intaglio.api.state import ServerState
from tests.api.conftest import ACCOUNT, MODEL, RUN
from tests.helpers.fakes import FakeLLM


def error_of(response: Any) -> dict[str, Any]:
    """The one error of a failure in the envelope, whose shape is checked here for every test."""
    content = response.json()
    assert content.keys() == {"result", "success", "errors", "messages"}
    assert content["success"] is False
    assert (content["result"], content["messages"]) == ({}, [])
    (error,) = content["errors"]
    return error


def test_a_prompt_is_wrapped_unless_it_is_raw(client: TestClient) -> None:
    response = client.post(RUN, json={"prompt": "one two three", "raw": True})
    assert response.status_code == 200
    assert response.json() == {
        "result": {
            "response": "three two one",
            "usage": {
                "prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6,
                "prompt_tokens_details": {"cached_tokens": 1},
            },
            "finish_reason": "stop",
        },
        "success": True, "errors": [], "messages": [],
    }  # fmt: skip
    wrapped = client.post(RUN, json={"prompt": "one two"})
    assert wrapped.json()["result"]["response"] == "model: two one user:"


def test_messages_are_answered(client: TestClient) -> None:
    response = client.post(RUN, json={"messages": [{"role": "user", "content": "Hi"}]})
    assert response.json()["result"]["response"] == "Hi user:"


def test_each_answer_has_its_own_request_id(client: TestClient) -> None:
    ids = {client.post(RUN, json={"prompt": "x"}).headers["cf-ai-req-id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(UUID(one) for one in ids)


def test_max_tokens_ends_the_completion_with_length(client: TestClient) -> None:
    result = client.post(RUN, json={"prompt": "a b c d", "raw": True, "max_tokens": 3}).json()["result"]
    assert (result["response"], result["finish_reason"]) == ("d c b", "length")
    assert result["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    "path",
    [
        f"{ACCOUNT}/ai/run/{MODEL}",
        f"{ACCOUNT}/ai/run/{MODEL.replace('/', '%2F')}",
        f"{ACCOUNT}/ai/run/{MODEL.replace('/', '%2F').replace('@', '%40')}",
        f"{ACCOUNT}/ai/run/{MODEL}/",
        f"{ACCOUNT}/ai/run/{MODEL}?",
    ],
)
def test_every_spelling_of_the_path_is_served_without_a_redirect(client: TestClient, path: str) -> None:
    response = client.post(path, json={"prompt": "x"}, follow_redirects=False)
    assert response.status_code == 200


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain;charset=UTF-8", "nonsense", None])
def test_json_is_json_whatever_its_content_type_says(client: TestClient, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    response = client.post(RUN, content=b'{"prompt": "x"}', headers=headers)
    assert response.status_code == 200


def test_the_model_may_stand_in_the_body(client: TestClient) -> None:
    for path in (f"{ACCOUNT}/ai/run", f"{ACCOUNT}/ai/run/"):
        response = client.post(path, json={"model": MODEL, "input": {"prompt": "a b", "raw": True}})
        assert response.json()["result"]["response"] == "b a"
    assert error_of(client.post(f"{ACCOUNT}/ai/run", json={"model": MODEL}))["code"] == 5006
    assert error_of(client.post(f"{ACCOUNT}/ai/run", json={"model": "x", "input": {}}))["code"] == 5007


def test_stop_and_settings_reach_the_engine(client: TestClient, llm: FakeLLM) -> None:
    client.post(f"{RUN}?temperature=0.25", json={"prompt": "x", "stop": ["END"], "options": {"rejectIfBusy": True}})
    _, params, adapters, stop = llm.submitted[-1]
    assert (params.temperature, adapters, stop) == (0.25, (), ("END",))


BAD_BODIES: list[tuple[bytes, int, int, str]] = [
    (b"", 400, 3003, "no body"),
    (b"  \n", 400, 3003, "no body"),
    (b"{", 400, 5006, "not JSON"),
    (b"prompt=x", 400, 5006, "not JSON"),
    (b'{"prompt": "x"} trailing', 400, 5006, "not JSON"),
    (b'{"prompt": "x", "temperature": NaN}', 400, 5006, "not JSON"),
    (b'{"prompt": "x", "temperature": Infinity}', 400, 5006, "not JSON"),
    (b'{"prompt": "x", "temperature": 1e999}', 400, 5006, "the body has the number 1e999, which is out of range"),
    (
        b'{"prompt": "x", "max_tokens": ' + b"9" * 5000 + b"}",
        400,
        5006,
        "99999999... (5000 digits), which is out of range",
    ),
    (b'{"prompt": "x", "max_tokens": ' + b"9" * 400 + b"}", 400, 5006, "max_tokens"),
    (b'{"prompt": "\xff"}', 400, 5006, "not UTF-8"),
    (b'{"prompt": "\xed\xa0\x80"}', 400, 5006, "not UTF-8: byte 12 is 0xed"),
    (b'{"prompt": "\xff', 400, 5006, "not UTF-8: byte 12 is 0xff"),
    (b'{"prompt": "x"}\xff', 400, 5006, "not UTF-8: byte 15 is 0xff"),
    (b'{"prompt": "\\ud800 alone"}', 400, 5006, "not JSON"),
    (b'{"prompt": "\\ud800"}', 400, 5006, "not JSON"),
    (b"[]", 400, 5006, "the body is []; a JSON object is needed"),
    (b"null", 400, 5006, "the body is null; a JSON object is needed"),
    (b'"prompt"', 400, 5006, 'the body is "prompt"; a JSON object is needed'),
    (b'{"prompt": 5}', 400, 5006, "prompt is 5; a string is needed"),
    (b'{"prompt": "x", "options": 3, "temperature": 99}', 400, 5006, "temperature is 99, more than 5"),
    (
        b'{"prompt": "x", "guided_json": {"a": ' + b"[" * 400 + b"]" * 400 + b"}}",
        400,
        5025,
        "nested more than 100 deep",
    ),
    (b'{"prompt": "x", "temperature": ' + b"[" * 400 + b"]" * 400 + b"}", 400, 5006, "nested too deeply"),
    (b"[" * 10_000, 400, 5006, "nested too deeply"),
    (b'{"a":' * 3_000 + b"1" + b"}" * 3_000, 400, 5006, "nested too deeply"),
    (b'{"prompt": "' + b"x" * 20_000 + b'"}', 413, 3006, "20000 bytes"),
]


@pytest.mark.parametrize(("body", "status", "code", "text"), BAD_BODIES)
def test_bad_bodies_are_refused_with_the_reason(
    client: TestClient, body: bytes, status: int, code: int, text: str
) -> None:
    response = client.post(RUN, content=body)
    error = error_of(response)
    assert (response.status_code, error["code"]) == (status, code)
    assert text in error["message"]
    assert response.headers["cf-ai-req-id"]
    assert client.post(RUN, json={"prompt": "x"}).status_code == 200


def test_a_body_without_a_declared_length_is_limited(client: TestClient) -> None:
    response = client.post(RUN, content=(b"x" * 4096 for _ in range(6)))
    assert "content-length" not in response.request.headers
    assert (response.status_code, error_of(response)["code"]) == (413, 3006)


def test_bad_input_text_begins_as_the_service_begins_it(client: TestClient) -> None:
    message = error_of(client.post(RUN, json={}))["message"]
    assert message == "AiError: Bad input: Error: prompt or messages is missing"


def test_an_unknown_model_is_5007(client: TestClient) -> None:
    response = client.post(f"{ACCOUNT}/ai/run/@cf/google/gemma-99b", json={"prompt": "x"})
    assert (response.status_code, error_of(response)["code"]) == (400, 5007)


def test_the_7b_without_weights_says_how_to_add_them(client: TestClient) -> None:
    response = client.post(f"{ACCOUNT}/ai/run/@cf/google/gemma-7b-it-lora", json={"prompt": "x"})
    error = error_of(response)
    assert (response.status_code, error["code"]) == (400, 5007)
    assert (
        "--model '@cf/google/gemma-7b-it-lora=hf:google/gemma-7b-it' (or a folder, or a .gguf file)" in error["message"]
    )


def test_an_unknown_adapter_is_never_answered_by_the_base(client: TestClient, llm: FakeLLM) -> None:
    for name in ("nobody", "", "../../etc/passwd", "a/b", "\x00", "x" * 5000):
        response = client.post(RUN, json={"prompt": "x", "lora": name})
        error = error_of(response)
        assert (response.status_code, error["code"]) == (404, 3037)
        request_id = response.headers["cf-ai-req-id"]
        named = name if len(name) < 200 else f"{name[:128]}... ({len(name)} characters)"
        hint = "" if name else ". The name is empty; name a finetune, or leave 'lora' out for the base model"
        assert error["message"] == f"AiError: AiError: Finetune {named} not found ({request_id}){hint}"
    assert llm.submitted == []


def test_too_many_tokens_are_413_with_both_numbers(client: TestClient) -> None:
    response = client.post(RUN, json={"prompt": "a b c", "raw": True, "max_tokens": 998})
    error = error_of(response)
    assert (response.status_code, error["code"]) == (413, 3010)
    assert "(1001) exceeded this model context window limit (1000)" in error["message"]
    assert client.post(RUN, json={"prompt": "a b c", "raw": True, "max_tokens": 997}).status_code == 200


def test_a_full_server_is_429_with_retry_after(client: TestClient, llm: FakeLLM) -> None:
    llm.full = True
    response = client.post(RUN, json={"prompt": "x", "stream": True})
    assert (response.status_code, error_of(response)["code"]) == (429, 3040)
    assert int(response.headers["retry-after"]) > 0


def test_a_failed_generation_is_a_500(client: TestClient) -> None:
    response = client.post(RUN, json={"prompt": "<fail> x", "raw": True})
    assert (response.status_code, error_of(response)["code"]) == (500, 3043)
    assert "engine process ended" in error_of(response)["message"]


def test_a_crash_of_ours_is_an_enveloped_500_and_is_logged(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    response = client.post(RUN, json={"prompt": "<crash> x", "raw": True})
    assert (response.status_code, error_of(response)["code"]) == (500, 3043)
    assert "unexpected fault" not in response.text
    assert "ZeroDivisionError: an unexpected fault" in caplog.text


def test_one_line_is_logged_per_request_and_no_prompt(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="intaglio"):
        client.post(RUN, json={"prompt": "secret words", "raw": True})
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("run ")]
    (line,) = lines
    for part in (f"model={MODEL}", "adapter=-", "prompt=2", "completion=2", "reason=stop", "ttft="):
        assert part in line
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", RUN, 405, 7001),
        ("DELETE", f"{ACCOUNT}/ai/models/search", 405, 7001),
        ("PUT", f"{ACCOUNT}/ai/finetunes", 405, 7001),
        ("GET", "/client/v4/nowhere", 404, 7000),
        ("POST", "/client/v4/nowhere", 404, 7000),
        ("POST", f"{ACCOUNT}/ai/nothing/here", 404, 7000),
        ("GET", "/nowhere", 404, 7000),
        ("POST", "/nowhere", 404, 7000),
        ("POST", "/health", 405, 7001),
        ("POST", f"/client/v4/accounts/a b/ai/run/{MODEL}", 404, 7003),
        ("POST", f"/client/v4/accounts/{'a' * 65}/ai/run/{MODEL}", 404, 7003),
        ("GET", "/client/v4/accounts/%2e%2e/ai/models/search", 404, 7003),
    ],
)
def test_wrong_routes_are_enveloped(client: TestClient, method: str, path: str, status: int, code: int) -> None:
    response = client.request(method, path, json={"prompt": "x"} if method == "POST" else None)
    assert (response.status_code, error_of(response)["code"]) == (status, code)
    assert "cf-ai-req-id" not in response.headers


def test_health_is_bare_and_turns_503_while_an_engine_restarts(client: TestClient, llm: FakeLLM) -> None:
    assert client.get("/health").json()["status"] == "ok"
    llm.ready = False
    response = client.get("/health")
    assert response.status_code == 503
    assert response.json()["models"][MODEL] == "starting"


def test_shutdown_closes_the_models(state: ServerState, llm: FakeLLM) -> None:
    with TestClient(create_app(state)):
        assert not llm.closed
    assert llm.closed


def test_bodies_are_plain_json(client: TestClient) -> None:
    response = client.post(RUN, json={"prompt": "héllo \U0001f600", "raw": True})
    assert response.headers["content-type"] == "application/json"
    assert json.loads(response.content)["result"]["response"] == "\U0001f600 héllo"


def test_a_misspelt_field_is_ignored_as_by_the_service_and_the_response_says_so(client: TestClient) -> None:
    response = client.post(RUN, json={"prompt": "x", "temprature": 0, "nobody_knows": 1})
    assert response.json()["messages"] == [
        {"code": 5006, "message": "temprature is not known and was ignored; did you mean temperature?"}
    ]
    assert client.post(RUN, json={"prompt": "x", "nobody_knows": 1}).json()["messages"] == []


def test_a_misspelt_query_parameter_is_refused_and_a_foreign_one_is_ignored(client: TestClient) -> None:
    message = error_of(client.post(RUN + "?temprature=0", json={"prompt": "x"}))["message"]
    assert message.endswith('query parameter "temprature" is not known; did you mean temperature?')
    assert client.post(RUN + "?tags=a&api-version=3", json={"prompt": "x"}).status_code == 200
    listed = client.get(f"{ACCOUNT}/ai/models/search?perpage=3")
    assert error_of(listed)["message"].endswith("did you mean per_page?")
