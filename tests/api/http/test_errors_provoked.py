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
from intaglio.api.http.errors import WIRE_ERRORS
from intaglio.api.state import ServerState
from intaglio.batches import BatchLimits, BatchStore
from intaglio.finetunes.db.repository import FinetuneRepository
from intaglio.settings import Settings
from tests.api.conftest import ACCOUNT, MODEL, RUN
from tests.api.finetunes.calls import CONFIG, FINETUNES, create, error_of, upload
from tests.api.http.test_errors import EXCEPTIONS
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
    tree.GrammarError: run(prompt="x", guided_json={"type": "string", "pattern": "(?<=a)b"}),
    tree.IncompleteJsonError: run(prompt='<answer>{"a": 1</answer>', guided_json={"type": "object"}),
    tree.ChatError: run(messages=[{"role": "user", "content": None}]),
    tree.ContextLengthError: run(prompt="x", max_tokens=5000),
    tree.EmptyBodyError: lambda client: client.post(RUN),
    tree.RequestTooLargeError: run(prompt="x" * 30_000),
    tree.ModelNotFoundError: run_of("@cf/nobody/nothing"),
    tree.ModelWithoutWeightsError: run_of("@cf/google/gemma-7b-it-lora"),
    tree.AdapterUseError: run(prompt="<refuse>", raw=True),
    tree.FinetuneNotFoundError: run(prompt="x", lora="nobody"),
    tree.FinetuneNotReadyError: unready,
    tree.FinetuneError: lambda client: create(client, "cf-public-mine"),
    tree.BatchNotFoundError: run(request_id="b0b0"),
    tree.ResponseNotFoundError: lambda client: client.get(f"{ACCOUNT}/ai/v1/responses/resp_0"),
    tree.RouteError: lambda client: client.get("/client/v4/nowhere"),
    tree.IdentifierError: lambda client: client.get("/client/v4/accounts/a b/ai/finetunes"),
    tree.MethodNotAllowedError: lambda client: client.delete(RUN),
    tree.AdapterError: bad_file,
    tree.BatchQueueFullError: full_queue,
    tree.EngineError: run(prompt="<fail>", raw=True),
}  # fmt: skip
BY_STATE = {  # each has its own test below
    tree.CapacityError, tree.AuthenticationError, tree.EngineDeadError, tree.DatabaseError, tree.StorageFullError,
}  # fmt: skip
NEVER_BY_A_REQUEST = {
    tree.IntaglioError, tree.RequestError,  # roots
    tree.ModelFormatError, tree.ModelNotInstalledError, tree.DataFolderError, tree.SettingsError,
    tree.NotEnoughMemoryError, tree.HubError, tree.HubNotInstalledError,
    tree.HubUnreachableError,  # the server does not start
    tree.EngineStepError,  # inside the engine; its callers get an EngineError
    tree.RemoteError, tree.ServerUnreachableError, tree.ServerRefusedError,  # commands that ask a server
    tree.TrainingError, tree.TrainingDataError, tree.TrainingInterruptedError,  # the command that trains
    tree.EvaluationError, tree.PackingError,  # the commands eval and pack
}  # fmt: skip


@pytest.fixture
def state(state: ServerState) -> ServerState:
    """Capacity for two items of batches."""
    state.batches.close()
    state.batches = BatchStore(
        state.settings.data_path / "few.db", BatchLimits(max_items=9, max_open_items=2, max_bytes=10**6, retention_s=60)
    )
    return state


def test_every_error_is_provoked_here_or_listed_as_not_reachable_by_callers() -> None:
    assert {*PROVOKED, *BY_STATE, *NEVER_BY_A_REQUEST} == set(EXCEPTIONS)


@pytest.mark.parametrize("kind", PROVOKED, ids=lambda kind: kind.__name__)
def test_a_provoked_error_has_the_status_and_code_of_the_table(
    client: TestClient, kind: type[tree.IntaglioError]
) -> None:
    assert_row(PROVOKED[kind](client), kind)


def test_a_full_engine_refuses_as_the_table_says(client: TestClient, llm: FakeLLM) -> None:
    llm.full = True
    assert_row(run(prompt="x")(client), tree.CapacityError)


def test_an_engine_that_does_not_restart_fails_as_the_table_says(
    client: TestClient, llm: FakeLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def submit(*_args: Any, **_options: Any) -> None:
        raise tree.EngineDeadError("the engine did not come back within 60 s")

    monkeypatch.setattr(llm, "submit", submit)
    assert_row(run(prompt="x")(client), tree.EngineDeadError)


@pytest.mark.parametrize("kind", [tree.DatabaseError, tree.StorageFullError])
def test_a_store_that_cannot_write_fails_as_the_table_says(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, kind: type[tree.IntaglioError]
) -> None:
    def create(*_args: Any, **_fields: Any) -> None:
        raise kind("the database of finetunes does not respond")

    monkeypatch.setattr(FinetuneRepository, "create", create)
    assert_row(client.post(FINETUNES, json={"model": MODEL, "name": "mine"}), kind)


def test_health_reports_that_the_database_is_away(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_batches: BatchStore) -> int:
        raise tree.DatabaseError("the database of batches does not respond")

    monkeypatch.setattr(BatchStore, "num_open_items", away)
    answer = client.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (503, "database does not answer")
    assert answer.json()["batch_items"] is None


class TestWithTokens:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"api_tokens": ("right",)})

    def test_requests_without_a_token_are_401(self, client: TestClient) -> None:
        assert_row(run(prompt="x")(client), tree.AuthenticationError)


def assert_row(response: Response, kind: type[tree.IntaglioError]) -> None:
    row = WIRE_ERRORS[kind]
    error = error_of(response)
    assert (response.status_code, error["code"]) == (row.status, row.code), response.text
    assert error["message"].startswith(row.prefix)
    assert len(error["message"]) > len(row.prefix) + 5
    assert all(response.headers[name] == value for name, value in row.headers)
