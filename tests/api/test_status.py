from __future__ import annotations

import msgspec
import pytest
from fastapi.testclient import TestClient

from intaglio.api.state import ServerState
from intaglio.api.status import ServerStatus
from intaglio.version import __version__
from tests.api.conftest import MODEL, SECOND_MODEL
from tests.helpers.fakes import FakeLLM


def read(client: TestClient, **headers: str) -> ServerStatus:
    answer = client.get("/status", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return msgspec.json.decode(answer.content, type=ServerStatus)


def test_each_model_has_a_status_and_the_time_goes_on(client: TestClient) -> None:
    first, second = read(client), read(client)
    assert first.version == __version__
    assert list(first.models) == [MODEL, SECOND_MODEL]
    assert second.uptime_s > first.uptime_s


def test_running_requests_are_counted(client: TestClient, llm: FakeLLM) -> None:
    llm.num_open = 3
    status = read(client).models[MODEL]
    assert status is not None
    assert status.running == 3


def test_a_model_whose_engine_is_being_started_has_none(client: TestClient, llm: FakeLLM) -> None:
    llm.ready = False
    models = read(client).models
    assert models[MODEL] is None
    assert models[SECOND_MODEL] is not None


def test_it_needs_a_token_where_tokens_are_set(client: TestClient, state: ServerState) -> None:
    state.settings = state.settings.model_copy(update={"api_tokens": ("secret",)})
    assert client.get("/status").status_code == 401
    read(client, Authorization="Bearer secret")


@pytest.mark.parametrize("tokens", [(), ("secret",)])
def test_a_browser_is_sent_to_the_page(client: TestClient, state: ServerState, tokens: tuple[str, ...]) -> None:
    state.settings = state.settings.model_copy(update={"api_tokens": tokens})
    accepted = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    answer = client.get("/status", headers={"accept": accepted}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "./#/now")
