"""The AI SDK with Cloudflare's provider, over REST."""

from __future__ import annotations

from tests.clients.assertions import MESSAGES, assert_chat_adapters_speak, assert_fits_schema, chat_text
from tests.clients.clients import WORKERS_AI_PROVIDER, Client
from tests.clients.conftest import ADAPTER, CATEGORIES, Plain
from tests.clients.script_runner import Outcomes
from tests.clients.table import shows

CLIENTS = (WORKERS_AI_PROVIDER,)


@shows("chat")
def test_generate_text_gets_text_usage_and_finish_reason(client: Client, shown: Outcomes, plain: Plain) -> None:
    wanted = plain(messages=MESSAGES)
    assert shown["chat"] == {
        "text": wanted["response"],
        "total": wanted["usage"]["total_tokens"],
        "finishReason": "length",
    }


@shows("stream")
def test_stream_text_gets_the_same_in_pieces(client: Client, shown: Outcomes, plain: Plain) -> None:
    wanted = plain(messages=MESSAGES)
    assert "".join(shown["stream"]["pieces"]) == wanted["response"]
    assert len(shown["stream"]["pieces"]) > 4
    assert (shown["stream"]["total"], shown["stream"]["finishReason"]) == (wanted["usage"]["total_tokens"], "length")


@shows("adapter")
def test_lora_in_the_models_settings_changes_the_text(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert_chat_adapters_speak(plain, shown["adapter"], shown["demo_adapter"])
    assert shown["adapter_stream"] == chat_text(plain, lora=ADAPTER)


@shows("errors")
def test_an_unknown_adapter_is_an_error_that_is_not_retried(client: Client, shown: Outcomes) -> None:
    error = shown["errors"]
    assert (error["name"], error["status"], error["retryable"]) == ("AI_APICallError", 404, False)
    assert "Finetune no-such-adapter not found" in error["message"]


@shows("structured")
def test_generate_object_gets_an_object_that_fits_the_schema(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert_fits_schema(plain, shown["structured"])


@shows("tools")
def test_a_tool_is_called(client: Client, shown: Outcomes) -> None:
    ((name, given),) = shown["tools"]["calls"]
    assert name == "open_ticket"
    assert given["team"] in CATEGORIES
    assert shown["tools"]["finishReason"] == "tool-calls"
