"""Anthropic's SDK for Python, on the Messages routes."""

from __future__ import annotations

from tests.clients.assertions import MESSAGES, assert_chat_adapters_speak, assert_fits_schema, chat_text
from tests.clients.clients import ANTHROPIC, Client
from tests.clients.conftest import CATEGORIES, MODEL, Plain
from tests.clients.script_runner import Outcomes
from tests.clients.table import shows

CLIENTS = (ANTHROPIC,)


@shows("chat")
def test_messages_get_the_text_and_the_usage(client: Client, shown: Outcomes, plain: Plain) -> None:
    wanted, answer = plain(messages=MESSAGES), shown["chat"]
    assert [block["text"] for block in answer["content"]] == [wanted["response"]]
    assert shown["chat_by_environment"] == wanted["response"]
    assert (answer["stop_reason"], answer["model"]) == ("max_tokens", MODEL)
    usage = answer["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == wanted["usage"]["prompt_tokens"]
    assert usage["output_tokens"] == wanted["usage"]["completion_tokens"]
    assert shown["count"] == wanted["usage"]["prompt_tokens"]


@shows("chat")
def test_a_stop_sequence_ends_the_text_and_is_named(client: Client, shown: Outcomes) -> None:
    text, word, cut, reason, found = shown["stop_sequence"]
    assert (cut, reason, found) == (text[: text.index(word)], "stop_sequence", word)


@shows("stream")
def test_a_stream_adds_up_to_the_message(client: Client, shown: Outcomes, plain: Plain) -> None:
    stream = shown["stream"]
    assert "".join(stream["pieces"]) == chat_text(plain)
    assert len(stream["pieces"]) > 4
    assert [block["text"] for block in stream["message"]["content"]] == [chat_text(plain)]
    usage = stream["message"]["usage"]
    counted = usage["input_tokens"] + usage["cache_read_input_tokens"], usage["output_tokens"]
    wanted = plain(messages=MESSAGES)["usage"]
    assert counted == (wanted["prompt_tokens"], wanted["completion_tokens"])


@shows("adapter")
def test_adapters_change_the_text(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert_chat_adapters_speak(plain, shown["adapter"], shown["demo_adapter"])


@shows("models")
def test_models_are_listed(client: Client, shown: Outcomes) -> None:
    assert MODEL in shown["models"]


@shows("errors")
def test_an_unknown_adapter_is_an_error_with_a_message(client: Client, shown: Outcomes) -> None:
    status, text, kind = shown["errors"]
    assert (status, kind) == (404, "not_found_error")
    assert "Finetune no-such-adapter not found" in text


@shows("structured")
def test_parse_gets_an_object_of_the_type(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert_fits_schema(plain, shown["structured"])


@shows("tools")
def test_a_tool_is_called_and_its_result_read(client: Client, shown: Outcomes) -> None:
    (((kind, name, given),), reason) = shown["tools"]
    assert (kind, name, reason) == ("tool_use", "open_ticket", "tool_use")
    assert given["team"] in CATEGORIES
    assert shown["tool_result"] in ("end_turn", "max_tokens")
    assert shown["tool_stream"] == [[kind, name, given]]
