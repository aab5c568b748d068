"""One request in all the forms in which callers write it: the responses are alike, and none is a redirect."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from intaglio.api.app import create_app
from intaglio.model.config import ModelConfig
from intaglio.settings import Settings
from tests.api.conftest import ACCOUNT, MODEL, RUN, fake_state
from tests.helpers.openapi_conformance import Declared, DeclaredResponses

BODY = b'{"prompt": "a b c"}'
NAMED = f'{{"model": "{MODEL}", "input": {BODY.decode()}}}'.encode()
CHAT = f'{{"model": "{MODEL}", "messages": [{{"role": "user", "content": "a"}}]}}'.encode()
MESSAGE = CHAT[:-1] + b', "max_tokens": 5}'
BINDING = b'{"inputs": {"prompt": "a b c"}}'
MODEL_HEADER = {"cf-consn-model-id": MODEL}
VARIES = re.compile(r'"(id|p|created|created_at|modified_at)":("[^"]*"|\d+)|\([0-9a-f-]{36}\)')

GETS = [
    "/health", "/openapi.json", "/ai-api/models/search",
    "/client/v4/user", "/client/v4/user/tokens/verify", "/client/v4/accounts", "/client/v4/memberships",
    *(ACCOUNT + path for path in (
        "/tokens/verify", "/ai/models/search", f"/ai/models/schema?model={MODEL}", "/ai/tasks/search",
        "/ai/authors/search", "/ai/finetunes", "/ai/finetunes/public", "/ai/finetunes/nobody", "/ai/v1/models",
        f"/ai/v1/models/{MODEL}", "/ai/finetunes/nobody/finetune-assets/adapter_config.json",
    )),
]  # fmt: skip
POSTS = [
    (RUN, BODY, {}),
    (f"{ACCOUNT}/ai/run", NAMED, {}),
    (f"{ACCOUNT}/ai/v1/chat/completions", CHAT, {}),
    (f"{ACCOUNT}/ai/v1/embeddings", CHAT, {}),
    (f"{ACCOUNT}/ai/v1/messages", MESSAGE, {}),
    (f"{ACCOUNT}/ai/finetunes", b'{"model": "x", "name": "x"}', {}),
    ("/run?version=3", BINDING, MODEL_HEADER),
    ("/ai-gateway/run", BINDING, MODEL_HEADER),
]
MODEL_FORMS = [
    MODEL, MODEL.replace("/", "%2F"), MODEL.replace("/", "%2f"), quote(MODEL, safe=""), MODEL.replace("@", "%40"),
    MODEL.replace("a", "%61", 1),
]  # fmt: skip
CONTENT_TYPES = [
    "application/json", "application/json; charset=utf-8", "application/x-www-form-urlencoded",
    "text/plain;charset=UTF-8", "multipart/form-data", "nonsense", "",
]  # fmt: skip


def slashed(path: str) -> str:
    before, mark, query = path.partition("?")
    return f"{before}/{mark}{query}"


def seen(response: Any) -> tuple[int, str]:
    """What is alike in like answers."""
    return response.status_code, VARIES.sub("", response.text)


@pytest.fixture(scope="module")
def client(
    base_config: ModelConfig, declared: Declared, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    """One for all these tests: they leave nothing behind."""
    state = fake_state(Settings(data_dir=tmp_path_factory.mktemp("data")), base_config)
    with TestClient(DeclaredResponses(create_app(state), declared), follow_redirects=False) as client:
        yield client


@pytest.mark.parametrize("path", GETS)
def test_a_trailing_slash_or_a_bare_question_mark_changes_nothing(client: TestClient, path: str) -> None:
    plain = seen(client.get(path))
    assert plain[0] in (200, 404)
    assert "No route" not in plain[1]
    assert seen(client.get(slashed(path))) == plain
    assert seen(client.get(f"{path}?" if "?" not in path else f"{path}&")) == plain


@pytest.mark.parametrize(("path", "body", "headers"), POSTS)
def test_a_trailing_slash_does_not_change_how_a_post_is_served(
    client: TestClient, path: str, body: bytes, headers: dict[str, str]
) -> None:
    plain = seen(client.post(path, content=body, headers=headers))
    assert "No route" not in plain[1]
    assert seen(client.post(slashed(path), content=body, headers=headers)) == plain


@pytest.mark.parametrize("form", MODEL_FORMS)
def test_the_model_may_be_escaped_in_the_path(client: TestClient, form: str) -> None:
    ran = client.post(f"{ACCOUNT}/ai/run/{form}", content=BODY)
    assert (ran.status_code, ran.json()["result"]["response"]) == (200, "model: c b a user:")
    assert client.get(f"{ACCOUNT}/ai/v1/models/{form}").json()["id"] == MODEL
    assert client.get(f"{ACCOUNT}/ai/models/schema?model={form}").status_code == 200


@pytest.mark.parametrize("kind", CONTENT_TYPES)
@pytest.mark.parametrize(("path", "body", "headers"), POSTS)
def test_json_is_json_whatever_its_content_type(
    client: TestClient, path: str, body: bytes, headers: dict[str, str], kind: str
) -> None:
    plain = seen(client.post(path, content=body, headers={**headers, "content-type": "application/json"}))
    assert seen(client.post(path, content=body, headers={**headers, "content-type": kind})) == plain


def test_a_request_with_two_content_types_is_read(client: TestClient) -> None:
    twice = [("content-type", "text/plain"), ("content-type", "application/json")]
    assert client.post(RUN, content=BODY, headers=twice).status_code == 200


@pytest.mark.parametrize("path", GETS)
def test_head_is_get_without_the_body(client: TestClient, path: str) -> None:
    head, got = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    lengths = head.headers["content-length"], got.headers["content-length"]
    assert lengths[0] == lengths[1]


@pytest.mark.parametrize("path", [*GETS, *(path for path, _, _ in POSTS)])
def test_options_and_a_wrong_method_list_the_allowed_methods(client: TestClient, path: str) -> None:
    asked, wrong = client.options(path), client.request("PATCH", path)
    assert (asked.status_code, asked.content) == (204, b"")
    assert wrong.status_code == 405
    assert asked.headers["allow"] == wrong.headers["allow"]
    allowed = set(asked.headers["allow"].split(", "))
    assert {"OPTIONS", "GET" if path in GETS else "POST"} <= allowed
    assert ("HEAD" in allowed) == ("GET" in allowed)
    assert "PATCH" not in allowed


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "DELETE", "TRACE"])
@pytest.mark.parametrize("path", ["/nowhere", "/client/v4/nowhere", f"{ACCOUNT}/ai/nowhere/", "/client/v3/accounts"])
def test_an_unknown_path_is_a_404_with_any_method(client: TestClient, method: str, path: str) -> None:
    assert client.request(method, path).status_code == 404


def test_head_of_a_post_route_is_refused(client: TestClient) -> None:
    assert client.head(RUN).status_code == 405


def test_no_path_redirects(client: TestClient) -> None:
    """A redirect would cost callers their body, and some their token."""
    paths = [*GETS, *(path for path, _, _ in POSTS), "/", "//", "/health//", f"{RUN}//", "/client", "/client/v4"]
    for path in paths:
        for method in ("GET", "POST", "HEAD"):
            assert client.request(method, path).status_code not in range(300, 304), (method, path)
            assert client.request(method, path).status_code not in (307, 308), (method, path)
