"""The OpenAI-compatible routes: what an answer looks like, and which sequences are run for it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from intaglio.version import __version__
from tests.api.conftest import ACCOUNT, MODEL
from tests.api.finetunes.test_routes import create, upload_both
from tests.api.openai.wire import CHAT, COMPLETIONS, V1, body_of, chat, chunks_of, complete, refusal_of
from tests.helpers.fakes import FakeLLM

CALL = '<answer>{"name": "get_weather", "parameters": {"city": "Paris"}}</answer>'
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


@pytest.fixture
def adapter(client: TestClient, adapter_folder: Path) -> str:
    """The name of a finetune that is ready."""
    create(client, "mine")
    upload_both(client, adapter_folder, "mine")
    return "mine"


def test_a_chat_answer_is_bare_and_in_openais_form(client: TestClient) -> None:
    response = chat(client)
    body = body_of(response)
    assert body.pop("id") == f"chatcmpl-{response.headers['cf-ai-req-id']}"
    assert body.pop("created") > 1_700_000_000
    assert body == {
        "object": "chat.completion",
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "two one user:"},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 3,
            "total_tokens": 6,
            "prompt_tokens_details": {"cached_tokens": 1},
        },
    }
    assert response.headers["intaglio-version"] == __version__


def test_a_completion_answers_the_raw_prompt(client: TestClient) -> None:
    body = body_of(complete(client))
    assert (body["object"], body["id"][:5]) == ("text_completion", "cmpl-")
    assert body["choices"] == [{"index": 0, "text": "two one", "logprobs": None, "finish_reason": "stop"}]


def test_max_tokens_ends_the_completion_with_length(client: TestClient) -> None:
    (choice,) = body_of(chat(client, max_tokens=2))["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("two one", "length")


def test_a_trailing_slash_and_any_content_type_are_accepted(client: TestClient) -> None:
    content = f'{{"model": "{MODEL}", "prompt": "a"}}'.encode()
    response = client.post(f"{COMPLETIONS}/", content=content, headers={"content-type": "text/plain"})
    assert body_of(response)["choices"][0]["text"] == "a"


def test_a_call_of_an_earlier_turn_that_was_cut_is_no_reason_to_refuse(client: TestClient, llm: FakeLLM) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"city":'}}
    talk = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": {"error": "not run"}},
        {"role": "user", "content": "go on"},
    ]
    assert client.post(CHAT, json={"model": MODEL, "messages": talk}).status_code == 200


def test_n_choices_share_a_prompt_that_counts_once(client: TestClient, llm: FakeLLM) -> None:
    body = body_of(chat(client, n=3, seed=7, max_tokens=2))
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert body["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 6,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 1},
    }
    assert llm.groups == [3]
    seeds = [params.seed for _, params, _, _ in llm.submitted]
    assert seeds[0] == 7
    assert len(set(seeds)) == 3
    chat(client, n=2, seed=7)
    assert [params.seed for _, params, _, _ in llm.submitted[3:]] == seeds[:2]


def test_choices_without_a_seed_get_none(client: TestClient, llm: FakeLLM) -> None:
    chat(client, n=2)
    assert [params.seed for _, params, _, _ in llm.submitted] == [None, None]


def test_several_prompts_times_n_stand_one_after_another(client: TestClient) -> None:
    body = body_of(complete(client, ["a b", "c d e"], n=2))
    assert [choice["text"] for choice in body["choices"]] == ["b a", "b a", "e d c", "e d c"]
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (5, 10)


def test_a_prompt_may_be_token_ids(client: TestClient, llm: FakeLLM) -> None:
    ids = llm.render_prompt("a b c", raw=True)
    assert body_of(complete(client, ids))["choices"][0]["text"] == "c b a"
    two = body_of(complete(client, [ids[:2], ids[1:]]))["choices"]
    assert [choice["text"] for choice in two] == ["b a", "c b"]


def test_echo_with_logprobs_lists_the_prompt_first(client: TestClient, llm: FakeLLM) -> None:
    (choice,) = body_of(complete(client, "a bb", echo=True, logprobs=0))["choices"]
    assert choice["text"] == "a bbbb a"
    assert choice["logprobs"]["tokens"] == ["a", "bb", "bb", " a"]
    assert choice["logprobs"]["token_logprobs"][:2] == [None, -1.0]
    assert choice["logprobs"]["top_logprobs"][:2] == [None, {"bb": -1.0}]
    assert choice["logprobs"]["text_offset"][2:] == [4, 6]
    assert "prompt_logprobs" not in choice
    assert llm.submitted[0][1].prompt_logprobs == 0


def test_a_prompt_can_be_scored_without_a_completion_and_several_at_once(client: TestClient, llm: FakeLLM) -> None:
    choices = body_of(complete(client, ["a b", "c d e"], echo=True, logprobs=2, max_tokens=0))["choices"]
    assert [choice["logprobs"]["token_logprobs"] for choice in choices] == [[None, -1.0], [None, -1.0, -2.0]]
    assert [choice["finish_reason"] for choice in choices] == ["length", "length"]
    assert [one[1].prompt_logprobs for one in llm.submitted] == [2, 2]


@pytest.mark.parametrize("max_tokens", [0, 5])
def test_a_stream_has_the_echo_with_its_logprobs_in_one_chunk(client: TestClient, max_tokens: int) -> None:
    chunks = chunks_of(complete(client, "a b", echo=True, logprobs=0, stream=True, max_tokens=max_tokens))
    first, *rest = [chunk["choices"][0] for chunk in chunks]
    assert first["text"].startswith("a b")
    assert first["logprobs"]["token_logprobs"][:2] == [None, -1.0]
    assert all(None not in (one["logprobs"] or {}).get("token_logprobs", []) for one in rest)


def test_prompt_logprobs_are_in_the_choice_of_a_completion_and_beside_the_choices_of_a_chat(
    client: TestClient, llm: FakeLLM
) -> None:
    (choice,) = body_of(complete(client, "a b", prompt_logprobs=0))["choices"]
    assert choice["logprobs"] is None
    first, second = choice["prompt_logprobs"]
    assert first is None
    assert list(second.values()) == [{"logprob": -1.0, "rank": 1, "decoded_token": "b"}]
    body = body_of(chat(client, prompt_logprobs=0, n=2))
    assert [one and next(iter(one.values()))["decoded_token"] for one in body["prompt_logprobs"]] == [
        None, "one", "two"
    ]  # fmt: skip
    assert "prompt_logprobs" not in body["choices"][0]
    assert "prompt_logprobs" not in body_of(chat(client))


def test_echo_and_prompt_logprobs_together_compute_the_larger_number(client: TestClient, llm: FakeLLM) -> None:
    (choice,) = body_of(complete(client, "a b c d", echo=True, logprobs=1, prompt_logprobs=3))["choices"]
    assert llm.submitted[0][1].prompt_logprobs == 3
    assert len(choice["prompt_logprobs"][3]) == 4
    assert len(choice["logprobs"]["top_logprobs"][3]) == 2


def test_echo_puts_the_prompt_in_front(client: TestClient, llm: FakeLLM) -> None:
    assert body_of(complete(client, "a  b", echo=True))["choices"][0]["text"] == "a  bb a"
    ids = llm.render_prompt("a b", raw=True)
    two = body_of(complete(client, [ids, ids], echo=True, n=2, max_tokens=0))["choices"]
    assert [choice["text"] for choice in two] == ["a b"] * 4


def test_an_adapter_may_be_named_in_every_place(client: TestClient, adapter: str, llm: FakeLLM) -> None:
    found = client.get(f"{ACCOUNT}/ai/finetunes/{adapter}").json()["result"]
    ways: list[dict[str, Any]] = [
        {"lora": adapter},
        {"lora": found["id"]},
        {"options": {"lora": adapter}},
        {"model": f"{MODEL}:{adapter}"},
        {"model": f"{MODEL}:{found['id']}"},
        {"model": f"{MODEL}:{adapter}", "lora": adapter},
    ]
    for way in ways:
        response = chat(client, **way)
        body = body_of(response)
        assert body["choices"][0]["message"]["content"].startswith(f"[{found['digest'][:8]}]"), way
        assert response.headers["intaglio-adapter-digest"] == found["digest"]
        assert body["model"] == way.get("model", MODEL)
    query = client.post(f"{COMPLETIONS}?lora={adapter}", json={"model": MODEL, "prompt": "a"})
    assert body_of(query)["choices"][0]["text"].startswith("[")


def test_two_names_for_the_adapter_are_refused(client: TestClient, adapter: str, llm: FakeLLM) -> None:
    status, code, message = refusal_of(chat(client, model=f"{MODEL}:{adapter}", lora="other"))
    assert (status, code) == (400, 5006)
    assert message.endswith("model names the adapter 'mine' and lora the adapter 'other'")
    assert llm.submitted == []


def test_an_unknown_adapter_is_never_answered_by_the_base(client: TestClient, llm: FakeLLM) -> None:
    for way in ({"lora": "nobody"}, {"model": f"{MODEL}:nobody"}, {"model": f"{MODEL}:"}):
        assert refusal_of(chat(client, **way))[:2] == (404, 3037)
    assert llm.submitted == []


@pytest.mark.parametrize("model", ["gpt-4o", "@cf/google/gemma-7b-it-lora", "gpt-4o:mine", ":", "@cf/meta/llama:x:y"])
def test_a_model_that_is_not_served_is_refused(client: TestClient, model: str) -> None:
    response = chat(client, model=model)
    assert refusal_of(response)[:2] == (400, 5007)
    assert response.headers["cf-ai-req-id"]


def test_a_full_server_runs_none_of_the_choices(client: TestClient, llm: FakeLLM) -> None:
    llm.busy = True
    response = chat(client, n=2, options={"rejectIfBusy": True})
    assert refusal_of(response)[:2] == (429, 3040)
    assert response.headers["retry-after"]
    assert body_of(chat(client, n=2))
    llm.full = True
    assert refusal_of(complete(client, ["a", "b"]))[:2] == (429, 3040)


def test_a_capacity_error_at_a_later_prompt_frees_the_started_choices(
    client: TestClient, llm: FakeLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = llm.submit

    async def submit_two(*args: Any, **kwargs: Any) -> Any:
        llm.full = len(llm.submitted) == 2
        return await submit(*args, **kwargs)

    monkeypatch.setattr(llm, "submit", submit_two)
    assert refusal_of(complete(client, ["a", "b", "c"]))[:2] == (429, 3040)
    assert (len(llm.submitted), llm.num_open) == (2, 0)


def test_one_failing_choice_fails_the_request_and_frees_the_others(client: TestClient, llm: FakeLLM) -> None:
    response = complete(client, ["never <stall>", "<fail> one"])
    assert refusal_of(response)[:2] == (500, 3043)
    assert llm.num_open == 0


def test_a_crash_in_one_choice_is_an_internal_error(client: TestClient, llm: FakeLLM) -> None:
    assert refusal_of(complete(client, ["<stall>", "<crash>"]))[:2] == (500, 3043)
    assert llm.num_open == 0


def test_every_sequence_has_its_log_line(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="intaglio"):
        request_id = chat(client, n=2).headers["cf-ai-req-id"]
        single = chat(client).headers["cf-ai-req-id"]
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("run ")]
    assert [line.split()[1] for line in lines] == [f"{request_id}/0", f"{request_id}/1", single]
    assert all("reason=stop" in line for line in lines)


def test_logprobs_of_a_chat_are_a_list_of_tokens(client: TestClient) -> None:
    (choice,) = body_of(chat(client, logprobs=True, top_logprobs=2))["choices"]
    content = choice["logprobs"]["content"]
    assert [entry["token"] for entry in content] == ["two", " one", " user:"]
    assert content[1]["bytes"] == list(b" one")
    assert [one["token"] for one in content[1]["top_logprobs"]] == [" one", "1"]
    assert content[1]["top_logprobs"][0]["logprob"] == content[1]["logprob"] == pytest.approx(-0.693, abs=1e-3)
    (choice,) = body_of(chat(client, logprobs=True))["choices"]
    assert [entry["top_logprobs"] for entry in choice["logprobs"]["content"]] == [[], [], []]
    (choice,) = body_of(chat(client, logprobs=False, top_logprobs=0))["choices"]
    assert choice["logprobs"] is None


def test_logprobs_of_a_completion_are_parallel_lists(client: TestClient) -> None:
    (choice,) = body_of(complete(client, "one two three", logprobs=2))["choices"]
    logprobs = choice["logprobs"]
    assert logprobs["tokens"] == ["three", " two", " one"]
    assert logprobs["text_offset"] == [0, 5, 9]
    assert logprobs["token_logprobs"] == pytest.approx([-0.693] * 3, abs=1e-3)
    assert [best.keys() for best in logprobs["top_logprobs"]] == [{"three", "1"}, {" two", "1"}, {" one", "1"}]
    (choice,) = body_of(complete(client, "one", logprobs=0))["choices"]
    assert choice["logprobs"]["top_logprobs"] == [{"one": pytest.approx(-0.693, abs=1e-3)}]


def test_a_tool_call_has_openais_form(client: TestClient, llm: FakeLLM) -> None:
    (choice,) = body_of(chat(client, CALL, tools=TOOLS))["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    (call,) = choice["message"]["tool_calls"]
    assert call.pop("id").startswith("call_")
    assert call == {"type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}
    text, params, _, _ = llm.submitted[-1]
    assert "get_weather" in text
    assert params.grammar is not None


def test_an_answer_without_a_call_is_text_and_has_no_tool_calls_key(client: TestClient) -> None:
    (choice,) = body_of(chat(client, "<answer>It is sunny.</answer>", tools=TOOLS))["choices"]
    assert choice["message"] == {"role": "assistant", "content": "It is sunny."}
    (choice,) = body_of(chat(client, CALL, tools=TOOLS, tool_choice="none"))["choices"]
    assert choice["message"]["content"].startswith("{")


def test_a_call_that_was_cut_short_is_its_text_and_the_reason(client: TestClient) -> None:
    (choice,) = body_of(chat(client, CALL, tools=TOOLS, max_tokens=2))["choices"]
    assert choice["message"] == {"role": "assistant", "content": '{"name": "get_weather",'}
    assert choice["finish_reason"] == "length"


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}},
        {"guided_json": {"type": "object"}},
    ],
)
def test_json_mode_is_a_grammar_and_the_answer_stays_a_text(
    client: TestClient, llm: FakeLLM, fields: dict[str, Any]
) -> None:
    (choice,) = body_of(chat(client, '<answer>{"a": 1}</answer>', **fields))["choices"]
    assert choice["message"]["content"] == '{"a": 1}'
    assert llm.submitted[-1][1].grammar is not None
    chat(client, response_format={"type": "text"})
    assert llm.submitted[-1][1].grammar is None


def test_embeddings_are_refused_with_the_routes_that_there_are(client: TestClient) -> None:
    status, code, message = refusal_of(client.post(f"{V1}/embeddings", json={"model": MODEL, "input": "x"}))
    assert (status, code) == (404, 7000)
    assert "chat/completions, completions, responses, messages and models" in message


def test_unknown_paths_and_methods_are_refused_by_name(client: TestClient) -> None:
    assert refusal_of(client.get(CHAT))[:2] == (405, 7001)
    assert refusal_of(client.post(f"{V1}/images/generations", json={}))[:2] == (404, 7000)
