"""What a body's `model` may name, and what the error for an unknown one says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from intaglio.api.model_names import split_model
from tests.api.conftest import ACCOUNT, MODEL, RUN, SECOND_MODEL
from tests.api.finetunes.calls import create, error_of, upload_both
from tests.api.openai.wire import CHAT, COMPLETIONS, MODELS, body_of, refusal_of
from tests.helpers.fakes import FakeLLM

MESSAGES = [{"role": "user", "content": "one"}]
NAMED_RUN = f"{ACCOUNT}/ai/run"


@pytest.fixture
def adapter(client: TestClient, adapter_folder: Path) -> str:
    create(client, "my-adapter")
    upload_both(client, adapter_folder, "my-adapter")
    return "my-adapter"


def digests(llm: FakeLLM) -> list[str]:
    """The adapters of the last request."""
    return [one.ref.digest for one in llm.submitted[-1][2]]


def chat(client: TestClient, model: str, **fields: Any) -> Any:
    return client.post(CHAT, json={"model": model, "messages": MESSAGES, **fields})


def test_only_a_colon_after_a_served_model_separates_an_adapter() -> None:
    served = {"@x/base", "local:7b"}
    assert split_model("@x/base", served) == ("@x/base", None)
    assert split_model("@x/base:mine", served) == ("@x/base", "mine")
    assert split_model("local:7b", served) == ("local:7b", None)
    assert split_model("local:7b:mine", served) == ("local:7b", "mine")
    assert split_model("other:mine", served) == ("other:mine", None)
    assert split_model("@x/base:", served) == ("@x/base", "")


def test_the_provider_of_an_ai_gateway_is_left_out_of_a_model() -> None:
    served = {"@x/base", "workers-ai/own"}
    assert split_model("workers-ai/@x/base", served) == ("@x/base", None)
    assert split_model("workers-ai/@x/base:mine", served) == ("@x/base", "mine")
    assert split_model("workers-ai/mine", served) == ("mine", None)
    assert split_model("workers-ai/own", served) == ("workers-ai/own", None)


def test_an_adapter_alone_is_a_model_in_every_body(client: TestClient, llm: FakeLLM, adapter: str) -> None:
    body_of(chat(client, f"{MODEL}:{adapter}"))
    wanted = digests(llm)
    assert len(wanted) == 1
    finetune_id = client.get(f"{ACCOUNT}/ai/finetunes/{adapter}").json()["result"]["id"]
    for name in (adapter, finetune_id):
        answers = [
            chat(client, name),
            client.post(COMPLETIONS, json={"model": name, "prompt": "one"}),
            client.post(NAMED_RUN, json={"model": name, "input": {"prompt": "one"}}),
        ]
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        assert [one[2][0].ref.digest for one in llm.submitted[-3:]] == wanted * 3
        assert answers[0].json()["model"] == name
        assert body_of(client.get(f"{MODELS}/{name}"))["id"] == name


def test_a_batch_of_an_adapter_is_one_of_its_base(client: TestClient, adapter: str) -> None:
    body: dict[str, Any] = {"model": adapter, "input": {"requests": [{"prompt": "x"}]}}
    queued = client.post(f"{NAMED_RUN}?queueRequest=true", json=body).json()["result"]
    assert queued["model"] == MODEL
    polled = client.post(NAMED_RUN, json={"model": adapter, "input": {"request_id": queued["request_id"]}})
    assert polled.json()["result"]["status"] == "queued"


@pytest.mark.parametrize("field", ["my-adapter", [{"name": "my-adapter"}]])
def test_lora_may_name_the_adapter_of_the_model_again(
    client: TestClient, llm: FakeLLM, adapter: str, field: Any
) -> None:
    body_of(chat(client, adapter, lora=field))
    assert len(digests(llm)) == 1
    assert client.post(NAMED_RUN, json={"model": adapter, "input": {"prompt": "x", "lora": field}}).status_code == 200


def test_another_adapter_in_lora_is_refused(client: TestClient, adapter: str) -> None:
    wanted = f"model names the adapter '{adapter}' and lora the adapter 'other'"
    assert wanted in refusal_of(chat(client, adapter, lora="other"))[2]
    for body in ({"prompt": "x", "lora": "other"}, {"prompt": "x", "options": {"lora": "other"}}):
        assert wanted in error_of(client.post(NAMED_RUN, json={"model": adapter, "input": body}))["message"]
    by_query = client.post(f"{NAMED_RUN}?lora=other", json={"model": adapter, "input": {"prompt": "x"}})
    assert wanted in error_of(by_query)["message"]


def test_an_adapter_of_another_account_is_no_model(client: TestClient, adapter: str) -> None:
    response = client.post(CHAT.replace("acc0", "other"), json={"model": adapter, "messages": MESSAGES})
    status, code, message = refusal_of(response)
    assert (status, code) == (400, 5007)
    assert "Did you mean" not in message


def test_an_adapter_without_files_is_named_as_unready(client: TestClient) -> None:
    create(client, "waits")
    assert refusal_of(chat(client, "waits"))[:2] == (400, 3039)


@pytest.mark.parametrize("asked", ["my_adapter", "My-Adapter", "my-adaptor", "adapter"])
def test_an_unknown_model_is_answered_with_what_resembles_it(client: TestClient, adapter: str, asked: str) -> None:
    message = refusal_of(chat(client, asked))[2]
    assert f"No such model {asked} or task. Did you mean the adapter my-adapter? Models of this server: " in message


def test_a_misspelt_base_is_answered_with_the_base(client: TestClient) -> None:
    for response in (chat(client, "intaglio/fake"), client.post(RUN.replace("fake", "fakes"), json={"prompt": "x"})):
        message = response.json()["errors"][0]["message"]
        assert f"Did you mean {MODEL}? Models of this server: {SECOND_MODEL}, {MODEL}" in message


def test_the_path_of_a_run_names_a_base_and_its_error_says_how_an_adapter_is_named(
    client: TestClient, adapter: str
) -> None:
    error = error_of(client.post(f"{ACCOUNT}/ai/run/{adapter}", json={"prompt": "x"}))
    assert error["code"] == 5007
    assert f'{adapter} is an adapter of {MODEL}: run that model with "lora": "{adapter}"' in error["message"]


@pytest.mark.parametrize("asked", ["my_adapter", "my-adapter2", "adapter"])
def test_an_unknown_adapter_is_answered_with_what_resembles_it(client: TestClient, adapter: str, asked: str) -> None:
    error = error_of(client.post(RUN, json={"prompt": "x", "lora": asked}))
    assert error["code"] == 3037
    assert error["message"].startswith(f"AiError: AiError: Finetune {asked} not found (")
    assert error["message"].endswith("). Did you mean my-adapter?")


@pytest.mark.parametrize("asked", ["zebra", "", "a\0b", "%", "x" * 5000])
def test_a_name_that_resembles_none_has_no_suggestion(client: TestClient, adapter: str, asked: str) -> None:
    error = error_of(client.post(RUN, json={"prompt": "x", "lora": asked}))
    assert error["code"] == 3037
    assert "Did you mean" not in error["message"]


@pytest.mark.parametrize("prefix", ["/v1", f"{ACCOUNT}/ai/v1"])
def test_the_routes_by_which_vllm_loads_adapters_say_how_it_is_done_here(client: TestClient, prefix: str) -> None:
    body = {"lora_name": "mine", "lora_path": "/adapters/mine"}
    status, code, message = refusal_of(client.post(f"{prefix}/load_lora_adapter", json=body))
    assert (status, code) == (404, 7000)
    assert "intaglio adapters upload" in message
    assert "finetune-assets" in message
    message = refusal_of(client.post(f"{prefix}/unload_lora_adapter", json={"lora_name": "mine"}))[2]
    assert "DELETE /client/v4/accounts/{account}/ai/finetunes/{finetune}" in message
