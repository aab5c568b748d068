"""Outlines with a server's model: `from_openai` and `from_vllm`, and the output types that only vLLM has."""

from __future__ import annotations

import re

from tests.clients.assertions import assert_fits_schema, chat_text
from tests.clients.clients import Client
from tests.clients.conftest import ADAPTER, CATEGORIES, Plain
from tests.clients.script_runner import Outcomes
from tests.clients.table import shows
from tests.clients.tools.tools import OUTLINES

CLIENTS = (OUTLINES,)


@shows("chat")
def test_the_text_is_that_of_plain_http(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert shown["chat"] == [chat_text(plain)] * 2


@shows("stream")
def test_a_stream_adds_up_to_the_text(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert ["".join(pieces) for pieces in shown["stream"]] == [chat_text(plain)] * 2
    assert [pieces for pieces in shown["stream"] if len(pieces) < 5] == []


@shows("adapter")
def test_an_adapter_is_a_model_by_both_of_its_names(client: Client, shown: Outcomes, plain: Plain) -> None:
    text = chat_text(plain, lora=ADAPTER)
    assert shown["adapter"] == [text, text]
    assert text != chat_text(plain)


@shows("structured")
def test_a_pydantic_model_is_filled(client: Client, shown: Outcomes, plain: Plain) -> None:
    as_openai, as_vllm = shown["structured"]
    assert_fits_schema(plain, as_openai)
    assert_fits_schema(plain, as_vllm)


@shows("structured")
def test_vllms_other_output_types_are_kept_to(client: Client, shown: Outcomes) -> None:
    assert shown["choice"] in CATEGORIES
    assert re.fullmatch("[A-C]{2}-[0-9]{4}", shown["regex"])
    assert shown["grammar"] in {"yes", "no"}


@shows("errors")
def test_an_unknown_adapter_is_an_error_with_a_message(client: Client, shown: Outcomes) -> None:
    assert "404" in shown["errors"]
    assert "Finetune no-such-adapter not found" in shown["errors"]
