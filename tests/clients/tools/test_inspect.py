"""inspect-ai: evaluations of the base and of adapters, through its provider for OpenAI-compatible servers."""

from __future__ import annotations

from tests.clients.assertions import assert_fits_schema, chat_text
from tests.clients.clients import Client
from tests.clients.conftest import ADAPTER, CATEGORIES, Plain
from tests.clients.script_runner import Outcomes
from tests.clients.table import shows
from tests.clients.tools.tools import INSPECT

CLIENTS = (INSPECT,)


@shows("chat")
def test_the_text_of_a_sample_is_that_of_plain_http(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert shown["chat"] == chat_text(plain)


@shows("chat")
def test_a_right_target_scores_one_and_a_wrong_one_zero(client: Client, shown: Outcomes) -> None:
    assert shown["evaluate"] == [1, 0]


@shows("adapter")
def test_an_adapter_is_a_model_by_both_of_its_names(client: Client, shown: Outcomes, plain: Plain) -> None:
    text = chat_text(plain, lora=ADAPTER)
    assert shown["adapter"] == [text, text]
    assert text != chat_text(plain)


@shows("structured")
def test_a_response_schema_is_kept_to(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert_fits_schema(plain, shown["structured"])


@shows("tools")
def test_a_function_is_called_and_its_result_is_a_message(client: Client, shown: Outcomes) -> None:
    ((role, text),) = shown["tools"]
    assert role == "tool"
    assert text in {f"opened for {team}" for team in CATEGORIES}


@shows("errors")
def test_an_unknown_adapter_ends_the_evaluation_with_a_message(client: Client, shown: Outcomes) -> None:
    assert "404" in shown["errors"]
    assert "Finetune no-such-adapter not found" in shown["errors"]
