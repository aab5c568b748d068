"""LiteLLM's proxy, its own process, in front of the server: what comes through it is what the server answers."""

from __future__ import annotations

from tests.clients.assertions import MESSAGES, assert_fits_schema, chat_text
from tests.clients.clients import Client
from tests.clients.conftest import ADAPTER, CATEGORIES, DEMO_ADAPTER, Plain
from tests.clients.script_runner import Outcomes
from tests.clients.table import shows
from tests.clients.tools.tools import LITELLM_PROXY

CLIENTS = (LITELLM_PROXY,)


@shows("chat")
def test_the_text_is_that_of_plain_http(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert shown["chat"] == [chat_text(plain), plain(messages=MESSAGES)["usage"]["total_tokens"], "length"]


@shows("stream")
def test_a_stream_adds_up_to_the_text(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert "".join(shown["stream"]) == chat_text(plain)
    assert len(shown["stream"]) > 4


@shows("adapter")
def test_an_adapter_has_a_name_in_the_configuration_or_its_own(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert shown["adapter"] == [chat_text(plain, lora=DEMO_ADAPTER), chat_text(plain, lora=ADAPTER)]
    assert chat_text(plain) not in shown["adapter"]


@shows("structured")
def test_a_schema_is_kept_to(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert_fits_schema(plain, shown["structured"])


@shows("tools")
def test_a_function_is_called(client: Client, shown: Outcomes) -> None:
    ((name, given),) = shown["tools"]
    assert name == "open_ticket"
    assert given["team"] in CATEGORIES


@shows("errors")
def test_an_unknown_adapter_is_an_error_with_a_message(client: Client, shown: Outcomes) -> None:
    status, text = shown["errors"]
    assert status == 404
    assert "Finetune no-such-adapter not found" in text
