"""The headers of a response: request id, adapter digest, engine version, and Retry-After."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from intaglio.version import __version__
from tests.api.conftest import ACCOUNT, MODEL, RUN
from tests.api.inference.test_routes import error_of
from tests.helpers.fakes import FakeLLM

FILES = ("adapter_config.json", "adapter_model.safetensors")
KINDS: list[dict[str, Any]] = [{}, {"stream": True}, {"guided_json": {}, "prompt": "<answer>{}</answer>"}]


@pytest.fixture
def digest(client: TestClient, adapter_folder: Path) -> str:
    """Of a finetune called mine."""
    client.post(f"{ACCOUNT}/ai/finetunes", json={"model": MODEL, "name": "mine"})
    for name in FILES:
        files = {"file": (name, (adapter_folder / name).read_bytes())}
        client.post(f"{ACCOUNT}/ai/finetunes/mine/finetune-assets", data={"file_name": name}, files=files)
    return str(client.get(f"{ACCOUNT}/ai/finetunes/mine").json()["result"]["digest"])


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_names_the_request_the_version_and_the_adapter(
    client: TestClient, digest: str, kind: dict[str, Any]
) -> None:
    base = client.post(RUN, json={"prompt": "one", "raw": True, **kind})
    tuned = client.post(RUN, json={"prompt": "one", "raw": True, "lora": "mine", **kind})
    for response in (base, tuned):
        assert UUID(response.headers["cf-ai-req-id"])
        assert response.headers["intaglio-version"] == __version__
    assert "intaglio-adapter-digest" not in base.headers
    assert len(digest) == 64
    assert tuned.headers["intaglio-adapter-digest"] == digest


def test_a_batch_names_the_request_and_the_version_too(client: TestClient) -> None:
    response = client.post(RUN, json={"requests": [{"prompt": "one"}], "options": {"queueRequest": True}})
    assert UUID(response.headers["cf-ai-req-id"])
    assert response.headers["intaglio-version"] == __version__


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"prompt": "x", "lora": "nobody"}, 404),
        ({"prompt": "x", "max_tokens": 5000}, 413),
        ({"prompt": "<fail>", "raw": True}, 500),
        ({"prompt": "x", "guided_json": {"not": True}}, 400),
    ],
)
def test_an_error_names_the_request_and_the_version_too(
    client: TestClient, body: dict[str, Any], status: int, stream: bool
) -> None:
    response = client.post(RUN, json={**body, "stream": stream})
    assert response.status_code == status
    assert UUID(response.headers["cf-ai-req-id"])
    assert response.headers["intaglio-version"] == __version__


@pytest.mark.parametrize("options", [{"rejectIfBusy": True}, {"rejectIfBusy": "true"}])
def test_reject_if_busy_is_refused_at_once_with_retry_after(
    client: TestClient, llm: FakeLLM, options: dict[str, Any]
) -> None:
    llm.busy = True
    for stream in (False, True):
        response = client.post(RUN, json={"prompt": "x", "options": options, "stream": stream})
        assert (response.status_code, error_of(response)["code"]) == (429, 3040)
        assert int(response.headers["retry-after"]) > 0
    llm.busy = False
    assert client.post(RUN, json={"prompt": "x", "options": options}).status_code == 200


@pytest.mark.parametrize("options", [{}, {"rejectIfBusy": False}, {"rejectIfBusy": None}, None, "rejectIfBusy"])
def test_requests_without_reject_if_busy_wait(client: TestClient, llm: FakeLLM, options: Any) -> None:
    llm.busy = True
    assert client.post(RUN, json={"prompt": "x", "options": options}).status_code == 200


def test_options_are_read_on_the_route_that_names_the_model_in_its_body(client: TestClient, llm: FakeLLM) -> None:
    llm.busy = True
    body = {"model": MODEL, "input": {"prompt": "x"}, "options": {"rejectIfBusy": True}}
    assert client.post(f"{ACCOUNT}/ai/run", json=body).status_code == 429
