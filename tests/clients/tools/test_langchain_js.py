"""LangChain.js on chat completions and on the Responses API."""

from __future__ import annotations

from tests.clients.assertions import MESSAGES, assert_fits_schema, chat_text
from tests.clients.clients import Client
from tests.clients.conftest import ADAPTER, CATEGORIES, Plain
from tests.clients.script_runner import Outcomes
from tests.clients.table import shows
from tests.clients.tools.tools import LANGCHAIN_JS

CLIENTS = (LANGCHAIN_JS,)


@shows("chat")
def test_the_text_and_the_count_of_tokens_are_those_of_plain_http(
    client: Client, shown: Outcomes, plain: Plain
) -> None:
    wanted = plain(messages=MESSAGES)
    assert shown["chat"] == [[wanted["response"], wanted["usage"]["total_tokens"]]] * 2


@shows("stream")
def test_a_stream_adds_up_to_the_text(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert ["".join(pieces) for pieces in shown["stream"]] == [chat_text(plain)] * 2
    assert min(len(pieces) for pieces in shown["stream"]) > 4


@shows("adapter")
def test_an_adapter_is_a_model_by_both_of_its_names_or_a_field(client: Client, shown: Outcomes, plain: Plain) -> None:
    text = chat_text(plain, lora=ADAPTER)
    assert [*shown["adapter"], shown["adapter_by_field"]] == [text] * 3
    assert text != chat_text(plain)


@shows("structured")
def test_a_zod_schema_is_filled_by_a_schema_and_by_a_call(client: Client, shown: Outcomes, plain: Plain) -> None:
    by_schema, by_call = shown["structured"]
    assert_fits_schema(plain, by_schema)
    assert by_call["category"] in CATEGORIES
    assert isinstance(by_call["urgent"], bool)


@shows("tools")
def test_a_tool_is_called(client: Client, shown: Outcomes) -> None:
    ((name, given),) = shown["tools"]
    assert name == "open_ticket"
    assert given["team"] in CATEGORIES


@shows("errors")
def test_an_unknown_adapter_is_an_error_with_a_message(client: Client, shown: Outcomes) -> None:
    status, text = shown["errors"]
    assert status == 404
    assert "Finetune no-such-adapter not found" in text
