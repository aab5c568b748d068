"""aiperf: two requests for each model, as streams with ignore_eos and as whole answers."""

from __future__ import annotations

from tests.clients.assertions import chat_text
from tests.clients.clients import Client
from tests.clients.conftest import ADAPTER, Plain
from tests.clients.script_runner import Outcomes
from tests.clients.table import shows
from tests.clients.tools.tools import AIPERF

CLIENTS = (AIPERF,)


@shows("chat")
def test_the_text_is_that_of_plain_http(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert shown["chat"] == [[chat_text(plain), 12]] * 2


@shows("stream")
def test_a_stream_adds_up_to_the_text_and_counts_its_tokens(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert shown["stream"] == [[chat_text(plain)] * 2, [12, 12]]


@shows("adapter")
def test_an_adapter_is_a_model_by_both_of_its_names(client: Client, shown: Outcomes, plain: Plain) -> None:
    text = chat_text(plain, lora=ADAPTER)
    assert shown["adapter"] == [[text, text]] * 2
    assert text != chat_text(plain)


@shows("errors")
def test_requests_for_an_unknown_adapter_are_kept_with_their_message(client: Client, shown: Outcomes) -> None:
    assert [error["code"] for error in shown["errors"]] == [404, 404]
    assert all("Finetune no-such-adapter not found" in error["message"] for error in shown["errors"])
