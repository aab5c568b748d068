"""OpenAI's SDKs, Python and JavaScript, on the OpenAI-compatible routes."""

from __future__ import annotations

import math

from tests.clients.assertions import MESSAGES, assert_adapters_speak, assert_fits_schema, chat_text
from tests.clients.clients import OPENAI_NODE, OPENAI_PYTHON, Client
from tests.clients.conftest import CATEGORIES, MODEL, PROMPT, Plain
from tests.clients.script_runner import Outcomes
from tests.clients.table import shows

CLIENTS = (OPENAI_PYTHON, OPENAI_NODE)


@shows("prompt")
def test_a_prompt_is_completed_without_a_chat_template(client: Client, shown: Outcomes, plain: Plain) -> None:
    wanted = plain(prompt=PROMPT, raw=True)
    answer = shown["prompt"]
    assert answer["choices"][0]["text"] == wanted["response"]
    assert shown["prompt_by_environment"] == wanted["response"]
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == wanted["usage"]["total_tokens"]
    assert "".join(shown["prompt_stream"]) == wanted["response"]


@shows("chat")
def test_messages_get_the_text_and_the_usage(client: Client, shown: Outcomes, plain: Plain) -> None:
    wanted = plain(messages=MESSAGES)
    answer = shown["chat"]
    assert answer["choices"][0]["message"]["content"] == wanted["response"]
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == wanted["usage"]["total_tokens"]
    assert (answer["object"], answer["model"]) == ("chat.completion", MODEL)


@shows("stream")
def test_a_stream_adds_up_to_the_text(client: Client, shown: Outcomes, plain: Plain) -> None:
    stream = shown["stream"]
    assert "".join(stream["pieces"]) == chat_text(plain)
    assert len(stream["pieces"]) > 4
    assert (stream["role"], stream["reasons"]) == ("assistant", ["length"])


@shows("stream")
def test_a_stream_with_include_usage_has_the_usage_in_its_last_chunk_only(
    client: Client, shown: Outcomes, plain: Plain
) -> None:
    assert shown["stream_usage"] == [0, plain(messages=MESSAGES)["usage"]["total_tokens"]]


@shows("chat")
def test_two_choices_differ_and_a_seed_repeats_them(client: Client, shown: Outcomes) -> None:
    first, second = shown["several"]
    assert first == second
    assert len(set(first)) == 2


@shows("adapter")
def test_adapters_change_the_text(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert_adapters_speak(plain, shown["adapter"], shown["demo_adapter"])
    assert shown["adapter_in_model"] == shown["demo_adapter"]


@shows("models")
def test_models_are_listed(client: Client, shown: Outcomes) -> None:
    assert MODEL in shown["models"]


@shows("errors")
def test_an_unknown_adapter_is_an_error_with_a_message(client: Client, shown: Outcomes) -> None:
    status, text = shown["errors"]
    assert status == 404
    assert "Finetune no-such-adapter not found" in text


@shows("structured")
def test_parse_gets_an_object_of_the_type(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert_fits_schema(plain, shown["structured"])


@shows("tools")
def test_a_tool_is_called(client: Client, shown: Outcomes) -> None:
    (((kind, name, given),), reason) = shown["tools"]
    assert (kind, name, reason) == ("function", "open_ticket", "tool_calls")
    assert given["team"] in CATEGORIES


@shows("logprobs")
def test_logprobs_are_those_of_the_sampled_tokens(client: Client, shown: Outcomes, plain: Plain) -> None:
    tokens = shown["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == chat_text(plain)
    for token in tokens:
        assert len(token["top_logprobs"]) == 3
        assert token["logprob"] == max(best["logprob"] for best in token["top_logprobs"]) < 0
        assert sum(math.exp(best["logprob"]) for best in token["top_logprobs"]) <= 1 + 1e-6
        assert bytes(token["bytes"]).decode() == token["token"]
