"""The AI SDK with its provider for OpenAI's routes."""

from __future__ import annotations

from typing import Any

from tests.clients.assertions import MESSAGES, assert_fits_schema, chat_text
from tests.clients.clients import Client
from tests.clients.conftest import ADAPTER, CATEGORIES, Plain
from tests.clients.script_runner import Outcomes
from tests.clients.table import shows
from tests.clients.tools.tools import AI_SDK

CLIENTS = (AI_SDK,)


@shows("chat")
def test_generate_text_gets_text_usage_and_finish_reason(client: Client, shown: Outcomes, plain: Plain) -> None:
    wanted = plain(messages=MESSAGES)
    total = wanted["usage"]["total_tokens"]
    assert shown["chat"] == {"text": wanted["response"], "total": total, "finishReason": "length"}


@shows("stream")
def test_stream_text_gets_the_same_in_pieces(client: Client, shown: Outcomes, plain: Plain) -> None:
    wanted = plain(messages=MESSAGES)
    assert "".join(shown["stream"]["pieces"]) == wanted["response"]
    assert len(shown["stream"]["pieces"]) > 4
    assert (shown["stream"]["total"], shown["stream"]["finishReason"]) == (wanted["usage"]["total_tokens"], "length")


@shows("adapter")
def test_an_adapter_is_a_model_by_both_of_its_names_or_a_field(client: Client, shown: Outcomes, plain: Plain) -> None:
    text = chat_text(plain, lora=ADAPTER)
    assert [*shown["adapter"], shown["adapter_by_field"]] == [text] * 3
    assert text != chat_text(plain)


@shows("structured")
def test_generate_object_fills_a_zod_schema(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert_fits_schema(plain, shown["structured"])


@shows("tools")
def test_a_tool_is_called_in_an_answer_and_in_a_stream(client: Client, shown: Outcomes) -> None:
    assert _called_team(shown["tools"]) == _called_team(shown["tools_stream"])


@shows("tools")
def test_a_tools_result_goes_back_to_the_model(client: Client, shown: Outcomes) -> None:
    found = shown["tools_result"]
    assert found["asked"] == [_called_team(shown["tools"])]
    first, second = found["steps"]
    assert first == "tool-calls"
    assert second in {"stop", "length"}


@shows("errors")
def test_an_unknown_adapter_is_an_error_that_is_not_retried(client: Client, shown: Outcomes) -> None:
    error = shown["errors"]
    assert (error["name"], error["status"], error["retryable"]) == ("AI_APICallError", 404, False)
    assert "Finetune no-such-adapter not found" in error["message"]


def _called_team(answer: Any) -> str:
    ((name, given),) = answer["calls"]
    assert (name, answer["finishReason"]) == ("open_ticket", "tool-calls")
    assert given["team"] in CATEGORIES
    return str(given["team"])
