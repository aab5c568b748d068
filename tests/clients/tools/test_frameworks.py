"""Frameworks for agents and for typed answers, on the OpenAI-compatible routes."""

from __future__ import annotations

from typing import Any

from tests.clients.assertions import MESSAGES, chat_text, prompt_text
from tests.clients.clients import Client
from tests.clients.conftest import ADAPTER, CATEGORIES, DEMO_ADAPTER, Plain
from tests.clients.script_runner import Outcomes
from tests.clients.table import shows
from tests.clients.tools.tools import LANGCHAIN_OPENAI_CHAT, LLAMA_INDEX, OPENAI_AGENTS

CLIENTS = (OPENAI_AGENTS, LANGCHAIN_OPENAI_CHAT, LLAMA_INDEX)


@shows("chat")
def test_the_text_is_that_of_plain_http(client: Client, shown: Outcomes, plain: Plain) -> None:
    text, tokens = chat_text(plain), plain(messages=MESSAGES)["usage"]["total_tokens"]
    wanted: dict[str, Any] = {
        OPENAI_AGENTS.name: [chat_text(plain, lora=DEMO_ADAPTER, max_tokens=40), text],
        LANGCHAIN_OPENAI_CHAT.name: [[text, tokens]] * 2,
        LLAMA_INDEX.name: text,
    }
    assert shown["chat"] == wanted[client.name]
    if client is LLAMA_INDEX:
        assert shown["prompt"] == prompt_text(plain)


@shows("stream")
def test_a_stream_adds_up_to_the_text(client: Client, shown: Outcomes, plain: Plain) -> None:
    text = chat_text(plain)
    wanted = {
        OPENAI_AGENTS.name: [chat_text(plain, lora=DEMO_ADAPTER, max_tokens=40), text],
        LANGCHAIN_OPENAI_CHAT.name: [text, text],
        LLAMA_INDEX.name: [text],
    }
    streams = [shown["stream"]] if client is LLAMA_INDEX else shown["stream"]
    assert ["".join(pieces) for pieces in streams] == wanted[client.name]
    assert len(streams[-1]) > 4


@shows("adapter")
def test_an_adapter_is_a_model_by_both_of_its_names(client: Client, shown: Outcomes, plain: Plain) -> None:
    text = chat_text(plain, lora=ADAPTER)
    assert shown["adapter"] == [text, text]
    assert text != chat_text(plain)


@shows("structured")
def test_a_pydantic_model_is_filled(client: Client, shown: Outcomes, plain: Plain) -> None:
    found = shown["structured"]
    for ticket in found if isinstance(found, list) else [found]:
        assert ticket["category"] in CATEGORIES
        assert isinstance(ticket["urgent"], bool)


@shows("tools")
def test_a_function_is_called(client: Client, shown: Outcomes) -> None:
    for name, given in shown["tools"]:
        assert name == ("opened" if client is OPENAI_AGENTS else "open_ticket")
        assert (given if client is OPENAI_AGENTS else given["team"]) in CATEGORIES
    assert shown["tools"]


@shows("errors")
def test_an_unknown_adapter_is_an_error_with_a_message(client: Client, shown: Outcomes) -> None:
    status, text = shown["errors"]
    assert status == 404
    assert "Finetune no-such-adapter not found" in text
