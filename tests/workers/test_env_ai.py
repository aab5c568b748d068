"""env.AI in real Workers: what it gives is what the server says over REST, in every way to bind it."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from tests.workers.conftest import ADAPTER, ANSWER_DEADLINE_S, MODEL, EnvAI, wait_for_ends

pytestmark = pytest.mark.clients

PROMPT = {"prompt": "The capital of France is", "raw": True, "max_tokens": 12, "temperature": 0}


def test_a_run_gives_the_result_itself(env_ai: EnvAI) -> None:
    plain = env_ai.over_rest(**PROMPT)
    result = env_ai.run(PROMPT)
    assert result["response"] == plain["response"] != ""
    assert result["finish_reason"] == "length"
    assert result["usage"]["completion_tokens"] == 12


def test_messages_are_answered(env_ai: EnvAI) -> None:
    chat = {"messages": [{"role": "user", "content": "Name a fruit."}], "max_tokens": 8, "temperature": 0}
    assert env_ai.run(chat)["response"] == env_ai.over_rest(**chat)["response"]


def test_a_stream_gives_the_events_of_the_same_text(env_ai: EnvAI) -> None:
    events = [line.removeprefix("data: ") for line in env_ai.stream(PROMPT) if line]
    assert events.pop() == "[DONE]"
    pieces: list[dict[str, Any]] = [json.loads(event) for event in events]
    assert "".join(piece["response"] for piece in pieces) == env_ai.over_rest(**PROMPT)["response"]
    assert len(pieces) > 6
    assert pieces[-1]["finish_reason"] == "length"
    assert pieces[-1]["usage"]["completion_tokens"] == 12


def test_cancelling_the_stream_ends_the_run(env_ai: EnvAI) -> None:
    seen = len(env_ai.server.log.text)
    lines = env_ai.stream({**PROMPT, "max_tokens": 4000})
    assert next(lines).startswith("data: ")
    lines.close()  # type: ignore[attr-defined]
    wait_for_ends(env_ai.server, seen, "abort")


@pytest.mark.parametrize("lora", [ADAPTER, "intaglio-json"])
def test_an_adapter_answers_by_input_and_by_option(env_ai: EnvAI, lora: str) -> None:
    plain = env_ai.over_rest(**PROMPT, lora=lora)["response"]
    assert plain != env_ai.over_rest(**PROMPT)["response"]
    assert env_ai.run({**PROMPT, "lora": lora})["response"] == plain
    assert env_ai.run(PROMPT, {"lora": lora})["response"] == plain


def test_a_batch_is_queued_and_answered(env_ai: EnvAI) -> None:
    seen = len(env_ai.server.log.text)
    queue = {"queueRequest": True}
    queued = env_ai.run({"requests": [PROMPT, {**PROMPT, "lora": ADAPTER}]}, queue)
    assert queued["status"] == "queued"
    wait_for_ends(env_ai.server, seen, count=2)
    deadline = time.monotonic() + ANSWER_DEADLINE_S
    while "responses" not in (answered := env_ai.run({"request_id": queued["request_id"]}, queue)):
        assert time.monotonic() < deadline, answered
    texts = [response["result"]["response"] for response in answered["responses"]]
    assert texts == [env_ai.over_rest(**PROMPT)["response"], env_ai.over_rest(**PROMPT, lora=ADAPTER)["response"]]


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({"prompt": "x", "lora": "nobody"}, r"3037: Finetune nobody not found \(\S+\)"),
        ({"prompt": "x", "lora": "nobody", "stream": True}, r"3037: Finetune nobody not found \(\S+\)"),
        ({"prompt": "x", "temperature": 9}, r"5006: Error: temperature .*"),
        ({"prompt": "x", "max_tokens": 10**6}, r"5021: The estimated number of input and maximum output tokens .*"),
    ],
)  # fmt: skip
def test_a_failure_is_thrown_with_its_code_and_reason(env_ai: EnvAI, inputs: dict[str, Any], text: str) -> None:
    told = env_ai.call("run", MODEL, inputs)
    assert (told["kind"], told["name"]) == ("error", "InferenceUpstreamError")
    assert re.fullmatch(text, told["message"]), told["message"]


def test_an_unknown_model_is_thrown(env_ai: EnvAI) -> None:
    told = env_ai.call("run", "@cf/no/such-model", {"prompt": "x"})
    assert (told["kind"], told["name"]) == ("error", "InferenceUpstreamError")
    assert told["message"].startswith("5007: No such model @cf/no/such-model")


def test_a_raw_response_has_status_and_headers_and_throws_nothing(env_ai: EnvAI) -> None:
    raw = {"returnRawResponse": True}
    good = env_ai.call("run", MODEL, {**PROMPT, "lora": ADAPTER}, raw)
    assert (good["kind"], good["status"]) == ("response", 200)
    assert re.fullmatch(r"[0-9a-f]{64}", good["headers"]["intaglio-adapter-digest"])
    assert json.loads(good["text"])["response"] == env_ai.over_rest(**PROMPT, lora=ADAPTER)["response"]
    bad = env_ai.call("run", MODEL, {"prompt": "x", "lora": "nobody"}, raw)
    assert (bad["kind"], bad["status"]) == ("response", 404)
    assert json.loads(bad["text"])["internalCode"] == 3037


def test_a_websocket_is_refused_with_a_reason(env_ai: EnvAI) -> None:
    told = env_ai.call("run", MODEL, {"prompt": "x"}, {"websocket": True})
    assert "set stream in the inputs" in (told["message"] if told["kind"] == "error" else told["text"])


def test_models_lists_the_servers_models(env_ai: EnvAI) -> None:
    told = env_ai.call("models", {"search": "270m", "task": "Text Generation"})
    assert [model["name"] for model in told["value"]] == [MODEL]
    failed = env_ai.call("models", {"page": 0})
    assert (failed["kind"], failed["name"]) == ("error", "AiInternalError")
    assert "query parameter 'page'" in failed["message"]
