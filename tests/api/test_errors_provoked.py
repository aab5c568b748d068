"""Every error that a caller can bring about, brought about over HTTP: it is as its row of the table says.

The rest of the tree is what no request can cause: it ends a start of the server, or the engine's work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from intaglio import errors as tree
from intaglio.api.errors import WIRE_ERRORS
from intaglio.api.state import ServerState
from intaglio.batches import BatchLimits, BatchStore
from intaglio.settings import Settings
from tests.api.conftest import ACCOUNT, RUN
from tests.api.finetune_calls import CONFIG, create, error_of, upload
from tests.api.test_errors import EXCEPTIONS
from tests.helpers.fakes import FakeLLM

Provoke = Callable[[TestClient], Response]


def run(**body: Any) -> Provoke:
    return lambda client: client.post(RUN, json=body)


def run_of(model: str) -> Provoke:
    return lambda client: client.post(f"{ACCOUNT}/ai/run/{model}", json={"prompt": "x"})


def unready(client: TestClient) -> Response:
    create(client, "waits")
    return client.post(RUN, json={"prompt": "x", "lora": "waits"})


def bad_file(client: TestClient) -> Response:
    create(client)
    answer: Response = upload(client, "mine", CONFIG, b"{}")
    return answer


def full_queue(client: TestClient) -> Response:
    ways = [client.post(f"{RUN}?queueRequest=true", json={"requests": [{"prompt": "<stall>"}] * 2}) for _ in range(2)]
    return ways[-1]


PROVOKED: dict[type[tree.IntaglioError], Provoke] = {
    tree.BadInputError: run(prompt="x", temperature=9),
    tree.GrammarError: run(prompt="x", guided_json={"type": "string", "pattern": "(?=a)"}),
    tree.JsonAnswerError: run(prompt='<answer>{"a": 1</answer>', guided_json={"type": "object"}),
    tree.ChatError: run(messages=[{"role": "user", "content": None}]),
    tree.ContextLengthError: run(prompt="x", max_tokens=5000),
    tree.EmptyBodyError: lambda client: client.post(RUN),
    tree.RequestTooLargeError: run(prompt="x" * 30_000),
    tree.ModelNotFoundError: run_of("@cf/nobody/nothing"),
    tree.ModelWithoutWeightsError: run_of("@cf/google/gemma-7b-it-lora"),
    tree.FinetuneNotFoundError: run(prompt="x", lora="nobody"),
    tree.FinetuneNotReadyError: unready,
    tree.FinetuneError: lambda client: create(client, "cf-public-mine"),
    tree.BatchNotFoundError: run(request_id="b0b0"),
    tree.RouteError: lambda client: client.get("/client/v4/nowhere"),
    tree.IdentifierError: lambda client: client.get("/client/v4/accounts/a b/ai/finetunes"),
    tree.MethodNotAllowedError: lambda client: client.delete(RUN),
    tree.AdapterError: bad_file,
    tree.BatchQueueFullError: full_queue,
    tree.EngineError: run(prompt="<fail>", raw=True),
}  # fmt: skip
BY_STATE = {tree.CapacityError, tree.AuthenticationError, tree.EngineDeadError}  # each has its own test below
NEVER_BY_A_REQUEST = {
    tree.IntaglioError, tree.RequestError,  # roots
    tree.ModelFormatError, tree.ModelNotInstalledError, tree.DataFolderError, tree.SettingsError,
    tree.NotEnoughMemoryError,  # the server does not start
    tree.EngineStepError,  # inside the engine; its callers get an EngineError
}  # fmt: skip


@pytest.fixture
def state(state: ServerState) -> ServerState:
    """Room for two items of batches."""
    state.batches.close()
    state.batches = BatchStore(
        state.settings.data_path / "few.db", BatchLimits(max_items=9, max_open_items=2, max_bytes=10**6, retention_s=60)
    )
    return state


def test_every_error_can_be_provoked_or_is_known_to_be_none_of_the_callers() -> None:
    assert {*PROVOKED, *BY_STATE, *NEVER_BY_A_REQUEST} == set(EXCEPTIONS)


@pytest.mark.parametrize("kind", PROVOKED, ids=lambda kind: kind.__name__)
def test_it_is_on_the_wire_as_the_table_has_it(client: TestClient, kind: type[tree.IntaglioError]) -> None:
    assert_row(PROVOKED[kind](client), kind)


def test_a_full_engine(client: TestClient, llm: FakeLLM) -> None:
    llm.full = True
    assert_row(run(prompt="x")(client), tree.CapacityError)


def test_an_engine_that_does_not_come_back(client: TestClient, llm: FakeLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    async def submit(*_args: Any, **_options: Any) -> None:
        raise tree.EngineDeadError("the engine did not come back within 60 s")

    monkeypatch.setattr(llm, "submit", submit)
    assert_row(run(prompt="x")(client), tree.EngineDeadError)


class TestWithTokens:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"api_tokens": ("right",)})

    def test_nobody_without_one(self, client: TestClient) -> None:
        assert_row(run(prompt="x")(client), tree.AuthenticationError)


def assert_row(response: Response, kind: type[tree.IntaglioError]) -> None:
    row = WIRE_ERRORS[kind]
    error = error_of(response)
    assert (response.status_code, error["code"]) == (row.status, row.code), response.text
    assert error["message"].startswith(row.prefix)
    assert len(error["message"]) > len(row.prefix) + 5
    assert all(response.headers[name] == value for name, value in row.headers)
