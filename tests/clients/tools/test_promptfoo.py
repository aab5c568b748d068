"""promptfoo: one evaluation of the base model beside adapters."""

from __future__ import annotations

from tests.clients.assertions import MESSAGES, assert_fits_schema, chat_text
from tests.clients.clients import Client
from tests.clients.conftest import ADAPTER, CATEGORIES, Plain
from tests.clients.script_runner import Outcomes
from tests.clients.table import shows
from tests.clients.tools.tools import PROMPTFOO

CLIENTS = (PROMPTFOO,)


@shows("chat")
def test_the_text_and_the_count_of_tokens_are_those_of_plain_http(
    client: Client, shown: Outcomes, plain: Plain
) -> None:
    wanted = plain(messages=MESSAGES)
    assert shown["chat"] == [wanted["response"], wanted["usage"]["total_tokens"]]


@shows("adapter")
def test_an_adapter_is_a_model_by_both_of_its_names_or_a_field(client: Client, shown: Outcomes, plain: Plain) -> None:
    text = chat_text(plain, lora=ADAPTER)
    assert shown["adapter"] == [text] * 3
    assert text != chat_text(plain)


@shows("structured")
def test_an_answer_passes_the_check_of_its_schema(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert_fits_schema(plain, shown["structured"])


@shows("tools")
def test_a_call_passes_the_check_of_its_tool(client: Client, shown: Outcomes) -> None:
    ((name, given),) = shown["tools"]
    assert name == "open_ticket"
    assert given["team"] in CATEGORIES


@shows("errors")
def test_an_unknown_adapter_is_an_error_with_a_message(client: Client, shown: Outcomes) -> None:
    success, text = shown["errors"]
    assert not success
    assert "404" in text
    assert "Finetune no-such-adapter not found" in text
