from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from intaglio.api.app import create_app
from intaglio.api.startup import open_batches, open_finetunes, open_responses
from intaglio.api.state import ServerState
from intaglio.batches import BatchStore
from intaglio.model.config import ModelConfig
from intaglio.settings import Settings
from tests.api.conftest import ACCOUNT, MODEL, RUN, SECOND_MODEL
from tests.api.finetunes.calls import create, read, upload_both
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.fakes import FakeLLM

DEADLINE_S = 20.0
QUEUE = {"queueRequest": "true"}


class Batches:
    """A client that submits and polls, and waits on commits in between."""

    def __init__(self, client: TestClient, committed: threading.Semaphore) -> None:
        self._client = client
        self._committed = committed

    def submit(self, *requests: Any, **fields: Any) -> str:
        answer = self._client.post(RUN, params=QUEUE, json={"requests": list(requests), **fields})
        assert answer.status_code == 200, answer.text
        result = answer.json()["result"]
        assert result == {"status": "queued", "request_id": result["request_id"], "model": MODEL}
        request_id: str = result["request_id"]
        return request_id

    def poll(self, request_id: str) -> dict[str, Any]:
        answer = self._client.post(RUN, params=QUEUE, json={"request_id": request_id})
        assert answer.status_code == 200, answer.text
        content: dict[str, Any] = answer.json()["result"]
        return content

    def wait(self, request_id: str) -> dict[str, Any]:
        """The answer to a poll once the batch is finished."""
        while "responses" not in (found := self.poll(request_id)):
            assert self._committed.acquire(timeout=DEADLINE_S), found
        return found

    def run(self, *requests: Any, **fields: Any) -> list[dict[str, Any]]:
        responses: list[dict[str, Any]] = self.wait(self.submit(*requests, **fields))["responses"]
        return responses


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_batch_items": 30, "max_queued_items": 40, "batch_running": 4})


@pytest.fixture
def committed(state: ServerState, monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Released at each commit of results."""
    semaphore = threading.Semaphore(0)
    finish = BatchStore.finish

    def watched(store: BatchStore, results: Any) -> Any:
        finished = finish(store, results)
        semaphore.release()
        return finished

    monkeypatch.setattr(BatchStore, "finish", watched)
    return semaphore


@pytest.fixture
def batch(client: TestClient, committed: threading.Semaphore, lifespan: None) -> Batches:
    return Batches(client, committed)


def errors_of(answer: Any) -> tuple[int, int, str]:
    assert answer.json()["success"] is False
    (error,) = answer.json()["errors"]
    return answer.status_code, error["code"], error["message"]


def test_results_come_in_the_order_of_the_requests_with_their_references_and_the_sum_of_usage(batch: Batches) -> None:
    found = batch.wait(
        batch.submit(
            {"prompt": "one two", "raw": True, "external_reference": "first"},
            {"messages": [{"role": "user", "content": "three"}], "max_tokens": 1},
            {"prompt": "four five", "raw": True, "external_reference": None},
        )
    )
    usage = {"prompt_tokens_details": {"cached_tokens": 1}}
    assert found["responses"] == [
        {
            "id": 0, "success": True, "external_reference": "first",
            "result": {"response": "two one", "finish_reason": "stop",
                       "usage": {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4, **usage}},
        },
        {
            "id": 1, "success": True, "external_reference": None,
            "result": {"response": "three", "finish_reason": "length",
                       "usage": {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3, **usage}},
        },
        {
            "id": 2, "success": True, "external_reference": None,
            "result": {"response": "five four", "finish_reason": "stop",
                       "usage": {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4, **usage}},
        },
    ]  # fmt: skip
    assert found["usage"] == {
        "prompt_tokens": 6, "completion_tokens": 5, "total_tokens": 11, "prompt_tokens_details": {"cached_tokens": 3},
    }  # fmt: skip
    assert found.keys() == {"responses", "usage"}


@pytest.fixture
def stand_in(state: ServerState) -> str:
    """An id without weights for which the fake answers."""
    state.stand_ins = {"@cf/google/gemma-7b-it-lora": MODEL}
    return "@cf/google/gemma-7b-it-lora"


def test_a_batch_of_an_id_that_another_model_stands_in_for_is_run_and_says_so(
    stand_in: str, client: TestClient, state: ServerState, batch: Batches, committed: threading.Semaphore
) -> None:
    url = f"{ACCOUNT}/ai/run/{stand_in}"
    submitted = client.post(url, params=QUEUE, json={"requests": [{"prompt": "one", "raw": True}]})
    result = submitted.json()["result"]
    assert (result["model"], submitted.headers["intaglio-answered-by"]) == (stand_in, MODEL)
    while True:
        polled = client.post(url, params=QUEUE, json={"request_id": result["request_id"]})
        assert polled.headers["intaglio-answered-by"] == MODEL
        if "responses" in polled.json()["result"]:
            break
        assert committed.acquire(timeout=DEADLINE_S)
    assert polled.json()["result"]["responses"][0]["result"]["response"] == "one"
    state.stand_ins = {}  # as on a server that did not run it
    again = client.post(url, params=QUEUE, json={"request_id": result["request_id"]})
    assert again.headers["intaglio-answered-by"] == MODEL


def test_a_running_batch_reports_its_progress(batch: Batches, llm: FakeLLM, committed: threading.Semaphore) -> None:
    request_id = batch.submit({"prompt": "<stall>", "raw": True}, {"prompt": "one", "raw": True})
    assert llm.stalled.wait(DEADLINE_S)
    assert committed.acquire(timeout=DEADLINE_S)
    expected = {"status": "running", "request_id": request_id, "model": MODEL, "completed": 1, "total": 2}
    assert batch.poll(request_id) == expected


def test_a_batch_without_a_started_item_is_queued(batch: Batches, llm: FakeLLM) -> None:
    stalled = batch.submit(*[{"prompt": "<stall>", "raw": True}] * 4)
    assert llm.stalled.wait(DEADLINE_S)
    waiting = batch.submit({"prompt": "one"})
    assert batch.poll(waiting)["status"] == "queued"
    assert batch.poll(stalled)["status"] == "running"


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        ({}, 5006, "AiError: Bad input: Error: prompt or messages is missing"),
        (5, 5006, "a JSON object is needed"),
        ({"prompt": "x", "temperature": 9}, 5006, "temperature is 9, more than 5"),
        ({"prompt": "x", "stream": True}, 5006, "stream cannot be true in a batch"),
        ({"prompt": "x", "options": {"rejectIfBusy": True}}, 5006, "options.rejectIfBusy cannot be used"),
        ({"prompt": "x", "external_reference": 7}, 5006, "external_reference is "),
        ({"prompt": "x", "lora": "nobody"}, 3037, "AiError: AiError: Finetune nobody not found ("),
        ({"prompt": "x", "max_tokens": 5000}, 3010, "more than the context window of 1000 tokens"),
        ({"prompt": "<crash>", "raw": True}, 3043, "internal error"),
    ],
)
def test_an_item_at_fault_fails_alone(batch: Batches, request_: Any, code: int, message: str) -> None:
    if isinstance(request_, dict):
        request_ = {"external_reference": "bad", **request_}
    bad, good = batch.run(request_, {"prompt": "one", "raw": True})
    assert good["result"]["response"] == "one"
    reference = request_["external_reference"] if isinstance(request_, dict) else None
    (error,) = bad.pop("errors")
    assert bad == {
        "id": 0, "success": False, "result": {},
        "external_reference": reference if isinstance(reference, str) else None,
    }  # fmt: skip
    assert error["code"] == code
    assert message in error["message"]


def test_an_adapter_may_be_named_for_all_items_or_for_one(
    batch: Batches, client: TestClient, adapter_folder: Path
) -> None:
    for name in ("one", "two"):
        client.post(f"{ACCOUNT}/ai/finetunes", json={"model": MODEL, "name": name})
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            parts = {"file_name": (None, file), "file": (file, (adapter_folder / file).read_bytes())}
            assert client.post(f"{ACCOUNT}/ai/finetunes/{name}/finetune-assets", files=parts).status_code == 200
    plain = {"prompt": "word", "raw": True}
    items = [plain, {**plain, "lora": "nobody"}, {**plain, "options": {"lora": "two"}}]
    for shared in ({"lora": "one"}, {"options": {"lora": "one"}}):
        answers = batch.run(*items, **shared)
        assert [entry["success"] for entry in answers] == [True, False, True]
        assert [entry["result"].get("response", "-")[0] for entry in answers] == ["[", "-", "["]
    assert batch.run(plain)[0]["result"]["response"] == "word"
    refused = client.post(RUN, params={**QUEUE, "lora": "two"}, json={"requests": items, "lora": "one"})
    assert "names different adapters" in errors_of(refused)[2]


def test_settings_beside_the_requests_and_in_the_query_are_defaults_of_the_items(
    client: TestClient, batch: Batches, llm: FakeLLM
) -> None:
    query = {**QUEUE, "temperature": "0.25", "max_tokens": "7"}
    body = {"requests": [{"prompt": "a"}, {"prompt": "b", "max_tokens": 3}], "max_tokens": 5}
    batch.wait(client.post(RUN, params=query, json=body).json()["result"]["request_id"])
    params = {text.split()[1]: given for text, given, _, _ in llm.submitted}
    assert (params["a"].max_tokens, params["b"].max_tokens) == (5, 3)
    assert params["a"].temperature == params["b"].temperature == 0.25


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ({}, {"requests": [{"prompt": "one", "raw": True}], "options": {"queueRequest": True}}),
        ({}, {"requests": [{"prompt": "one", "raw": True}], "options": {"queueRequest": "true"}}),
        ({}, {"requests": [{"prompt": "one", "raw": True}], "queueRequest": True}),
        ({"queueRequest": "1"}, {"requests": [{"prompt": "one", "raw": True}], "prompt": None}),
        ({"queueRequest": "1"}, {"requests": [{"prompt": "one", "raw": True}], "prompt": ""}),
        ({"queueRequest": "1"}, {"requests": [{"prompt": "one", "raw": True}], "messages": []}),
    ],
)
def test_a_batch_is_submitted_in_each_way_that_callers_write_it(
    client: TestClient, batch: Batches, query: dict[str, str], body: Any
) -> None:
    result = client.post(RUN, params=query, json=body).json()["result"]
    assert batch.wait(result["request_id"])["responses"][0]["result"]["response"] == "one"


def test_the_model_may_stand_in_the_body_for_submit_and_poll(client: TestClient, batch: Batches) -> None:
    outer = {"model": MODEL, "input": {"requests": [{"prompt": "one"}]}, "options": {"queueRequest": True}}
    request_id = client.post(f"{ACCOUNT}/ai/run", json=outer).json()["result"]["request_id"]
    batch.wait(request_id)
    polled = client.post(f"{ACCOUNT}/ai/run", json={"model": MODEL, "input": {"request_id": request_id}})
    assert len(polled.json()["result"]["responses"]) == 1


@pytest.mark.parametrize("query", [{}, QUEUE, {"queueRequest": "false"}])
@pytest.mark.parametrize("extra", [{}, {"prompt": None}])
def test_a_poll_needs_no_flag_and_the_sdks_null_prompt_does_not_disturb_it(
    client: TestClient, batch: Batches, query: dict[str, str], extra: dict[str, None]
) -> None:
    request_id = batch.submit({"prompt": "one"})
    batch.wait(request_id)
    answer = client.post(RUN, params=query, json={"request_id": request_id, **extra})
    assert len(answer.json()["result"]["responses"]) == 1
    assert len(answer.headers["cf-ai-req-id"]) == 36


def test_a_run_that_carries_an_unknown_request_id_is_still_a_run(client: TestClient) -> None:
    answer = client.post(RUN, json={"prompt": "one two", "raw": True, "request_id": "mine", "requests": []})
    assert answer.json()["result"]["response"] == "two one"


@pytest.mark.parametrize(
    ("query", "body", "message"),
    [
        (QUEUE, {"requests": []}, "requests is empty; at least 1 item is needed"),
        (QUEUE, {"requests": {"prompt": "x"}}, "requests is "),
        (QUEUE, {"requests": [{}] * 31}, "31 requests, more than the limit of 30"),
        (QUEUE, {"prompt": "x"}, "queueRequest needs one of 'requests' (to submit a batch) and 'request_id'"),
        (QUEUE, {"requests": [{}], "request_id": "x"}, "queueRequest needs one of"),
        ({}, {"requests": [{"prompt": "x"}]}, "requests is a batch, which needs ?queueRequest=true"),
        ({"queueRequest": "perhaps"}, {"prompt": "x"}, "'queueRequest' is \"perhaps\", not true or false"),
        ({}, {"request_id": 7}, "request_id is 7; a string is needed"),
        (QUEUE, {"requests": [{}], "prompt": "x"}, "prompt cannot be used beside requests"),
        (
            QUEUE,
            {"requests": [{}], "messages": [{"role": "user", "content": "x"}]},
            "messages cannot be used beside requests",
        ),
        (QUEUE, {"requests": [{}], "external_reference": "x"}, "external_reference cannot be used beside"),
        (QUEUE, {"requests": [{}], "options": {"rejectIfBusy": True}}, "options.rejectIfBusy cannot be used"),
    ],
)
def test_an_invalid_batch_is_refused_as_a_whole(
    client: TestClient, state: ServerState, query: dict[str, str], body: Any, message: str
) -> None:
    status, code, text = errors_of(client.post(RUN, params=query, json=body))
    assert (status, code) == (400, 5006)
    assert message in text
    assert state.batches.open_batches() == []


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("raw", "0.7", "raw"), ("temperature", "hot", "temperature"), ("top_p", "7", "more than 2")],
)
def test_a_setting_in_the_query_that_is_wrong_for_every_item_is_refused_as_a_whole(
    client: TestClient, name: str, value: str, message: str
) -> None:
    answer = client.post(RUN, params=QUEUE | {name: value}, json={"requests": [{"prompt": "one"}]})
    assert answer.status_code == 400
    assert message in answer.json()["errors"][0]["message"]


def test_large_shared_fields_are_refused_with_their_size(state: ServerState) -> None:
    state.settings = state.settings.model_copy(update={"max_body_bytes": 10**6})
    with TestClient(create_app(state)) as client:
        body = {"requests": [{"prompt": "x"}], "lora": "y" * 70_000}
        assert "more than 65536" in errors_of(client.post(RUN, params=QUEUE, json=body))[2]


def test_a_batch_body_has_the_limit_of_all_bodies(client: TestClient) -> None:
    body = {"requests": [{"prompt": "x" * 20_000}]}
    assert errors_of(client.post(RUN, params=QUEUE, json=body))[:2] == (413, 3006)


def test_an_unknown_model_is_refused_as_a_whole(client: TestClient) -> None:
    answer = client.post(f"{ACCOUNT}/ai/run/@cf/nobody/nothing", params=QUEUE, json={"requests": [{}]})
    assert errors_of(answer)[:2] == (400, 5007)


def test_a_batch_is_found_by_its_account_at_its_model_only(client: TestClient, batch: Batches) -> None:
    request_id = batch.submit({"prompt": "one"})
    for url in (RUN, RUN.replace("acc0", "acc1")):
        asked = "b0b0" if url == RUN else request_id
        status, code, text = errors_of(client.post(url, json={"request_id": asked}))
        assert (status, code, text) == (404, 5006, f"AiError: Batch {asked} not found")
    status, code, text = errors_of(client.post(RUN.replace(MODEL, SECOND_MODEL), json={"request_id": request_id}))
    assert (status, code) == (400, 5006)
    assert f"was submitted to {MODEL}" in text


def test_a_full_queue_is_429_with_retry_after(client: TestClient, batch: Batches, llm: FakeLLM) -> None:
    batch.submit(*[{"prompt": "<stall>", "raw": True}] * 30)
    answer = client.post(RUN, params=QUEUE, json={"requests": [{"prompt": "x"}] * 11})
    assert errors_of(answer)[:2] == (429, 3040)
    assert int(answer.headers["retry-after"]) >= 10


def test_health_reports_the_number_of_waiting_items(client: TestClient, batch: Batches, llm: FakeLLM) -> None:
    assert client.get("/health").json()["batch_items"] == 0
    batch.submit(*[{"prompt": "<stall>", "raw": True}] * 3)
    assert client.get("/health").json()["batch_items"] == 3


def test_items_wait_while_the_engine_is_away_or_full(client: TestClient, batch: Batches, llm: FakeLLM) -> None:
    llm.ready, llm.full = False, True
    request_id = batch.submit({"prompt": "one", "raw": True})
    assert batch.poll(request_id)["status"] in ("queued", "running")
    assert llm.submitted == []
    llm.ready = True
    assert batch.poll(request_id)["status"] in ("queued", "running")
    llm.full = False
    assert batch.wait(request_id)["responses"][0]["result"]["response"] == "one"


def test_items_yield_to_interactive_requests(batch: Batches, client: TestClient, llm: FakeLLM) -> None:
    batch.run({"prompt": "one"}, {"prompt": "two"})
    client.post(RUN, json={"prompt": "three"})
    assert [priority.name for priority in llm.priorities] == ["BATCH", "BATCH", "INTERACTIVE"]


def restarted(state: ServerState) -> tuple[ServerState, FakeLLM]:
    """The same data folder under a new server, with only the first of the models."""
    before = state.models[MODEL]
    llm = FakeLLM(MODEL, before.config)
    models: Any = {MODEL: llm}
    settings = state.settings
    stores = open_finetunes(settings, []), open_batches(settings), open_responses(settings)
    return ServerState(settings, models, *stores), llm


def test_a_restart_resumes_batches_and_fails_those_of_a_model_that_is_gone(
    state: ServerState, llm: FakeLLM, committed: threading.Semaphore
) -> None:
    second = RUN.replace(MODEL, SECOND_MODEL)
    with TestClient(create_app(state)) as client:
        mine = Batches(client, committed).submit({"prompt": "<stall>", "raw": True}, {"prompt": "one", "raw": True})
        assert llm.stalled.wait(DEADLINE_S)
        body = {"requests": [{"prompt": "<stall>", "raw": True}]}
        gone = client.post(second, params=QUEUE, json=body).json()["result"]["request_id"]
        assert committed.acquire(timeout=DEADLINE_S)
    assert llm.aborted.is_set()
    state, llm = restarted(state)
    llm.stalls = False
    with TestClient(create_app(state)) as client:
        responses = Batches(client, committed).wait(mine)["responses"]
        assert [entry["result"]["response"] for entry in responses] == ["<stall>", "one"]
        assert [text for text, *_ in llm.submitted] == ["<stall>"]
        while "responses" not in (found := client.post(second, json={"request_id": gone}).json()["result"]):
            assert committed.acquire(timeout=DEADLINE_S)
        assert found["responses"][0]["errors"][0]["code"] == 5007


def test_items_of_a_batch_have_lists_of_their_own(
    client: TestClient, batch: Batches, llm: FakeLLM, base_config: ModelConfig, tmp_path: Path
) -> None:
    digests = {}
    for seed, name in enumerate(("one", "two"), start=1):
        create(client, name)
        upload_both(client, write_peft_adapter(tmp_path / name, base_config, seed=seed, model_type="gemma"), name)
        digests[name] = read(client, name)["digest"]
    items = [
        {"prompt": "a", "lora": [{"name": "one", "scale": 0.5}, "two"]},
        {"prompt": "b"},
        {"prompt": "c", "options": {"lora": ["two"]}},
        {"prompt": "d", "lora": [{"name": "one", "scale": 11}]},
    ]
    responses = batch.run(*items, lora=[{"name": "one", "scale": -0.5}])
    assert [one["success"] for one in responses] == [True, True, True, False]
    assert "more than 10" in responses[3]["errors"][0]["message"]
    asked = {text.split()[1]: {one.ref.digest: one.scale for one in adapters} for text, _, adapters, _ in llm.submitted}
    assert asked == {
        "a": {digests["one"]: 0.5, digests["two"]: 1},
        "b": {digests["one"]: -0.5},
        "c": {digests["two"]: 1},
    }
