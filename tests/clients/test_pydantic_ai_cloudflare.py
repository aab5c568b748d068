"""Pydantic AI with Cloudflare's provider, straight to the OpenAI-compatible route."""

from __future__ import annotations

from tests.clients.assertions import MESSAGES, assert_chat_adapters_speak, chat_text
from tests.clients.clients import PYDANTIC_AI, Client
from tests.clients.conftest import CATEGORIES, Plain
from tests.clients.script_runner import Outcomes
from tests.clients.table import shows

CLIENTS = (PYDANTIC_AI,)


@shows("chat")
def test_an_agent_gets_the_text_and_the_usage(client: Client, shown: Outcomes, plain: Plain) -> None:
    wanted = plain(messages=MESSAGES)
    assert shown["chat"] == [wanted["response"], wanted["usage"]["total_tokens"]]


@shows("stream")
def test_a_stream_adds_up_to_the_text(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert "".join(shown["stream"]) == chat_text(plain)
    assert len(shown["stream"]) > 4


@shows("adapter")
def test_lora_in_extra_body_changes_the_text(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert_chat_adapters_speak(plain, shown["adapter"], shown["demo_adapter"])


@shows("errors")
def test_an_unknown_adapter_is_an_error_with_a_message(client: Client, shown: Outcomes) -> None:
    status, text = shown["errors"]
    assert status == 404
    assert "Finetune no-such-adapter not found" in text


@shows("structured")
def test_an_output_type_is_filled(client: Client, shown: Outcomes) -> None:
    assert shown["structured"]["category"] in CATEGORIES
    assert isinstance(shown["structured"]["urgent"], bool)


@shows("tools")
def test_a_function_is_called(client: Client, shown: Outcomes) -> None:
    done, team = shown["tools"]
    assert done == "opened"
    assert team in CATEGORIES


@shows("logprobs")
def test_logprobs_come_with_the_tokens(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert "".join(token for token, _ in shown["logprobs"]) == chat_text(plain)
    assert all(logprob < 0 for _, logprob in shown["logprobs"])
