"""langchain-cloudflare with both of its endpoint formats."""

from __future__ import annotations

from tests.clients.assertions import MESSAGES, assert_chat_adapters_speak, assert_fits_schema, chat_text
from tests.clients.clients import LANGCHAIN, LANGCHAIN_OPENAI, Client
from tests.clients.conftest import ADAPTER, CATEGORIES, Plain
from tests.clients.script_runner import Outcomes
from tests.clients.table import shows

CLIENTS = (LANGCHAIN, LANGCHAIN_OPENAI)


@shows("chat")
def test_invoke_gets_the_text_and_the_usage(client: Client, shown: Outcomes, plain: Plain) -> None:
    text, usage = shown["chat"]
    wanted = plain(messages=MESSAGES)
    assert text == wanted["response"]
    assert usage["total_tokens"] == wanted["usage"]["total_tokens"]


@shows("stream")
def test_a_stream_adds_up_to_the_text_and_has_its_usage_once(client: Client, shown: Outcomes, plain: Plain) -> None:
    pieces, usage = shown["stream"]
    wanted = plain(messages=MESSAGES)
    assert "".join(pieces) == wanted["response"]
    assert len(pieces) > 4
    assert usage["total_tokens"] == wanted["usage"]["total_tokens"]


@shows("adapter")
def test_lora_in_model_kwargs_changes_the_text(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert_chat_adapters_speak(plain, shown["adapter"], shown["demo_adapter"])
    assert shown["adapter_stream"] == chat_text(plain, lora=ADAPTER)


@shows("errors")
def test_an_unknown_adapter_is_an_error(client: Client, shown: Outcomes) -> None:
    status, message = shown["errors"]
    assert status == 404
    assert "Finetune no-such-adapter not found" in message


@shows("structured")
def test_a_response_fits_a_schema(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert_fits_schema(plain, shown["structured"])


@shows("tools")
def test_a_tool_is_called(client: Client, shown: Outcomes) -> None:
    ((name, given),) = shown["tools"]
    assert name == "open_ticket"
    assert given["team"] in CATEGORIES
