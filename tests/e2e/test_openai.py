"""OpenAI's own Python client against the real server and the real model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from intaglio.base_model import BaseModel
from intaglio.model.bundled import bundled_model_path
from intaglio.settings import Settings
from intaglio.text import Tokenizer
from tests.e2e.conftest import ANSWER_DEADLINE_S, MODEL, run_model
from tests.helpers.servers import LiveServer

ADAPTER = "intaglio-triage"  # a demo adapter, which every account can use
PROMPT = "The capital of France is"
GREEDY: dict[str, Any] = {"model": MODEL, "prompt": PROMPT, "temperature": 0, "max_tokens": 6}
CHAT: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Say hello."}],
    "temperature": 0,
    "max_tokens": 6,
}
CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "London"]}, "people": {"type": "integer", "maximum": 99}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
WEATHER: Any = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Tells the weather of a city.", "parameters": CITY},
}


@pytest.fixture(scope="module")
def client(live_server: LiveServer) -> Iterator[openai.OpenAI]:
    address = f"{live_server.account('acc0')}/ai/v1"
    with openai.OpenAI(api_key="any", base_url=address, max_retries=0, timeout=ANSWER_DEADLINE_S) as client:
        yield client


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    settings = Settings()
    return BaseModel.open(bundled_model_path(settings.cache_path), settings).tokenizer


def streamed(chunks: Any) -> str:
    """The text of a stream of completions."""
    return "".join(choice.text for chunk in chunks for choice in chunk.choices)


def test_a_completion_is_that_of_the_native_route_with_raw(client: openai.OpenAI, http: httpx.Client) -> None:
    native = run_model(http, prompt=PROMPT, raw=True, temperature=0, max_tokens=6)
    made = client.completions.create(**GREEDY)
    assert made.choices[0].text == native["response"]
    assert made.choices[0].finish_reason == native["finish_reason"] == "length"
    assert made.usage is not None
    assert made.usage.total_tokens == native["usage"]["total_tokens"] == 12


def test_a_chat_completion_is_that_of_the_native_route_with_messages(client: openai.OpenAI, http: httpx.Client) -> None:
    native = run_model(http, messages=CHAT["messages"], temperature=0, max_tokens=6)
    made = client.chat.completions.create(**CHAT)
    assert made.choices[0].message.content == native["response"]
    assert made.choices[0].message.role == "assistant"
    assert made.usage is not None
    assert made.usage.prompt_tokens == native["usage"]["prompt_tokens"]


def test_streams_give_the_same_text(client: openai.OpenAI) -> None:
    assert (
        streamed(client.completions.create(**GREEDY, stream=True))
        == client.completions.create(**GREEDY).choices[0].text
    )
    chunks = list(client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == client.chat.completions.create(**CHAT).choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 6


@pytest.mark.slow
def test_each_of_n_choices_can_be_repeated_by_its_seed(client: openai.OpenAI) -> None:
    body = {**GREEDY, "temperature": 1.5, "seed": 7, "max_tokens": 8}
    first = client.completions.create(**body, n=2)
    again = client.completions.create(**body, n=3)
    alone = client.completions.create(**body)
    texts = [choice.text for choice in first.choices]
    assert texts[0] != texts[1]
    assert [choice.text for choice in again.choices[:2]] == texts
    assert alone.choices[0].text == texts[0]
    assert first.usage is not None
    assert (first.usage.prompt_tokens, first.usage.completion_tokens) == (6, 16)


@pytest.mark.slow
def test_streamed_choices_are_told_apart_by_their_index(client: openai.OpenAI) -> None:
    body = {**GREEDY, "temperature": 1.5, "seed": 7, "max_tokens": 8, "n": 2}
    texts = ["", ""]
    for chunk in client.completions.create(**body, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in client.completions.create(**body).choices]


def test_a_prompt_of_token_ids_is_the_text_it_stands_for(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(PROMPT, add_bos=True)
    texts = [client.completions.create(**{**GREEDY, "prompt": prompt}).choices[0].text for prompt in (PROMPT, ids)]
    assert texts[0] == texts[1]
    both = client.completions.create(**{**GREEDY, "prompt": [ids, ids[:-1]]}, echo=True)
    assert [choice.text.startswith("The capital of France") for choice in both.choices] == [True, True]
    assert both.choices[0].text == f"{PROMPT}{texts[0]}"


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ({}, "model\nIt is<end_of_turn>\n<start_of_turn>model\n"),
        ({"add_generation_prompt": False}, "model\nIt is<end_of_turn>\n"),
        ({"continue_final_message": True}, "model\nIt is"),
    ],
)
def test_a_chat_ends_as_its_fields_say(
    live_server: LiveServer, client: openai.OpenAI, tokenizer: Tokenizer, fields: dict[str, bool], end: str
) -> None:
    messages: Any = [{"role": "user", "content": "Name a city."}, {"role": "assistant", "content": "It is"}]
    text = f"<start_of_turn>user\nName a city.<end_of_turn>\n<start_of_turn>{end}"
    ids = tokenizer.encode(text, special=True, add_bos=True)
    sent = {"model": MODEL, "messages": messages, **fields}
    tokens = httpx.post(f"{live_server.account('acc0')}/ai/v1/tokenize", json=sent, timeout=ANSWER_DEADLINE_S).json()
    assert tokens["tokens"] == ids
    chat = client.chat.completions.create(**{**CHAT, "messages": messages}, extra_body=fields)
    raw = client.completions.create(**{**GREEDY, "prompt": ids})
    assert chat.choices[0].message.content == raw.choices[0].text
    assert chat.usage is not None
    assert chat.usage.prompt_tokens == len(ids)


def test_chat_logprobs_are_of_the_raw_distribution(client: openai.OpenAI) -> None:
    greedy = client.chat.completions.create(**CHAT, logprobs=True, top_logprobs=20).choices[0]
    assert greedy.logprobs is not None
    tokens = greedy.logprobs.content
    assert tokens
    assert "".join(bytes(token.bytes or []).decode() for token in tokens) == greedy.message.content
    for token in tokens:
        assert len(token.top_logprobs) == 20
        assert token.token == token.top_logprobs[0].token
        assert token.logprob == token.top_logprobs[0].logprob
        assert 0.01 < sum(math.exp(one.logprob) for one in token.top_logprobs) <= 1 + 1e-4
    steered = client.chat.completions.create(
        **{**CHAT, "temperature": 2, "frequency_penalty": 1, "seed": 1}, logprobs=True, top_logprobs=20
    )
    assert steered.choices[0].logprobs is not None
    assert steered.choices[0].logprobs.content
    assert steered.choices[0].logprobs.content[0].top_logprobs == tokens[0].top_logprobs


def test_completion_logprobs_are_parallel_lists(client: openai.OpenAI) -> None:
    choice = client.completions.create(**GREEDY, logprobs=3).choices[0]
    assert choice.logprobs is not None
    tokens, offsets, best = choice.logprobs.tokens, choice.logprobs.text_offset, choice.logprobs.top_logprobs
    assert tokens is not None
    assert offsets is not None
    assert best is not None
    assert "".join(tokens) == choice.text
    assert [choice.text[begin:].startswith(token) for begin, token in zip(offsets, tokens, strict=True)] == [True] * 6
    assert all(
        len(one) == 3 and max(one, key=lambda name: one[name]) == token for one, token in zip(best, tokens, strict=True)
    )


@pytest.mark.parametrize("model", [MODEL, f"{MODEL}:{ADAPTER}"])
def test_the_scores_of_a_prompt_are_the_logprobs_its_tokens_had_when_they_were_sampled(
    client: openai.OpenAI, tokenizer: Tokenizer, model: str
) -> None:
    """To the last digit: neither the chunks nor the neighbours of a row change it."""
    body = {**GREEDY, "model": model, "logprobs": 2}
    written = client.completions.create(**body, echo=True).choices[0]
    assert written.logprobs is not None
    ids = tokenizer.encode(written.text, add_bos=True)
    assert len(ids) == 12, "the completion's text has the tokens that were sampled"
    scored = client.completions.create(**{**body, "prompt": ids, "max_tokens": 0}, echo=True).choices[0]
    assert scored.logprobs is not None
    assert scored.text == written.text
    assert scored.logprobs == written.logprobs
    assert (scored.logprobs.token_logprobs or [])[0] is None
    assert written.text.startswith(PROMPT)


def test_an_adapter_changes_the_scores_of_a_prompt(client: openai.OpenAI) -> None:
    both = [
        client.completions.create(**{**GREEDY, "model": model, "max_tokens": 0}, echo=True, logprobs=0)
        .choices[0]
        .logprobs
        for model in (MODEL, f"{MODEL}:{ADAPTER}")
    ]
    base, adapter = (one.token_logprobs[1:] for one in both if one and one.token_logprobs)
    assert all(one != other for one, other in zip(base, adapter, strict=True))


def test_a_stop_string_ends_the_completion(client: openai.OpenAI) -> None:
    text = client.completions.create(**GREEDY).choices[0].text
    stop = text.split()[2]
    cut = client.completions.create(**GREEDY, stop=[stop, "never said"]).choices[0]
    assert (cut.text, cut.finish_reason) == (text[: text.index(stop)], "stop")


def test_a_logit_bias_forces_a_token(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    (banana,) = tokenizer.encode(" banana")
    forced = client.completions.create(**{**GREEDY, "max_tokens": 3}, logit_bias={str(banana): 100}, logprobs=1)
    assert forced.choices[0].text == " banana" * 3
    assert forced.choices[0].logprobs is not None
    assert forced.choices[0].logprobs.token_logprobs is not None
    assert forced.choices[0].logprobs.token_logprobs[0] < -1  # the raw distribution does not know of the bias


def test_an_adapter_in_the_model_is_the_adapter_in_lora(client: openai.OpenAI) -> None:
    base = client.chat.completions.create(**CHAT).choices[0].message.content
    by_model = client.chat.completions.create(**{**CHAT, "model": f"{MODEL}:{ADAPTER}"})
    by_lora = client.chat.completions.create(**CHAT, extra_body={"lora": ADAPTER})
    assert by_model.choices[0].message.content == by_lora.choices[0].message.content
    assert by_model.choices[0].message.content != base
    assert (by_model.model, by_lora.model) == (f"{MODEL}:{ADAPTER}", MODEL)


@pytest.mark.parametrize("model", [MODEL, pytest.param(f"{MODEL}:{ADAPTER}", marks=pytest.mark.slow)])
def test_a_completion_follows_its_schema(client: openai.OpenAI, model: str) -> None:
    made = client.chat.completions.create(
        **{**CHAT, "model": model, "max_tokens": 40},
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}},
    )
    assert made.choices[0].finish_reason == "stop"
    written = json.loads(made.choices[0].message.content or "")
    assert written.keys() == {"city", "people"}
    assert written["city"] in ("Paris", "London")
    assert written["people"] <= 99


def test_a_required_tool_is_called_with_arguments_that_fit(client: openai.OpenAI) -> None:
    body = {**CHAT, "max_tokens": 60, "tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False}
    with ThreadPoolExecutor(1) as pool:  # both at once: together they take little longer than one
        whole = pool.submit(client.chat.completions.create, **body)
        chunks = list(client.chat.completions.create(**body, stream=True))
    (choice,) = whole.result().choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.tool_calls
    call: Any = choice.message.tool_calls[0]
    assert call.function.name == "get_weather"
    arguments = json.loads(call.function.arguments)
    assert arguments["city"] in ("Paris", "London")
    deltas: list[Any] = [
        one for chunk in chunks for one in chunk.choices[0].delta.tool_calls or []
    ]  # fmt: skip
    assert json.loads(deltas[0].function.arguments) == arguments
    asked = [*CHAT["messages"], choice.message.model_dump(exclude_none=True)]
    asked.append({"role": "tool", "tool_call_id": call.id, "content": "sunny"})
    assert client.chat.completions.create(**{**CHAT, "messages": asked, "tools": [WEATHER]}).choices


def test_models_are_listed_and_retrieved(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert MODEL in names
    assert f"{MODEL}:{ADAPTER}" in names
    for name in names:
        assert client.models.retrieve(name).id == name


def test_the_client_raises_its_own_errors_with_the_servers_envelope(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(**{**CHAT, "model": f"{MODEL}:nobody"})
    assert missing.value.response.json()["errors"][0]["code"] == 3037
    with pytest.raises(openai.BadRequestError) as hot:
        client.completions.create(**{**GREEDY, "temperature": 9})
    assert "more than 5" in hot.value.response.text
    with pytest.raises(openai.NotFoundError) as embeddings:
        client.embeddings.create(model=MODEL, input="x")
    assert "chat/completions, completions, responses, messages and models" in embeddings.value.response.text


def test_a_stream_that_is_closed_frees_its_sequence(client: openai.OpenAI, live_server: LiveServer) -> None:
    with client.completions.create(**{**GREEDY, "max_tokens": 4000}, n=2, stream=True) as stream:
        request_id = next(iter(stream)).id.removeprefix("cmpl-")
    for number in range(2):
        live_server.log.wait_for(rf"run {request_id}/{number} .* reason=abort")


def test_the_adapter_and_engine_are_named_in_the_headers(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(**{**CHAT, "model": f"{MODEL}:{ADAPTER}"})
    assert len(raw.headers["intaglio-adapter-digest"]) == 64
    assert raw.headers["intaglio-version"]
    assert raw.headers["cf-ai-req-id"] == raw.parse().id.removeprefix("chatcmpl-")


def test_the_demo_adapter_of_these_tests_exists() -> None:
    """If the demo adapter were renamed, the tests above would fail for another reason."""
    assert (Path(__file__).parents[2] / "src" / "intaglio" / "demo_adapters" / ADAPTER).is_dir()
