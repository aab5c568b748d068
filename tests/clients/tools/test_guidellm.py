"""guidellm: two requests at once for each model, as whole answers and as streams with ignore_eos."""

from __future__ import annotations

from tests.clients.assertions import chat_text
from tests.clients.clients import Client
from tests.clients.conftest import ADAPTER, Plain
from tests.clients.script_runner import Outcomes
from tests.clients.table import shows
from tests.clients.tools.tools import GUIDELLM

CLIENTS = (GUIDELLM,)


@shows("chat")
def test_the_text_is_that_of_plain_http(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert shown["chat"] == [[chat_text(plain), 12]] * 2


@shows("stream")
def test_a_stream_adds_up_to_the_text_and_counts_its_tokens(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert shown["stream"] == [[chat_text(plain), 12]] * 2


@shows("adapter")
def test_an_adapter_is_a_model_by_both_of_its_names(client: Client, shown: Outcomes, plain: Plain) -> None:
    text = chat_text(plain, lora=ADAPTER)
    assert shown["adapter"] == [[[text, 12]] * 2] * 2
    assert text != chat_text(plain)


@shows("errors")
def test_requests_for_an_unknown_adapter_are_kept_with_their_status(client: Client, shown: Outcomes) -> None:
    first, second = shown["errors"]
    assert "404 Not Found" in first
    assert "404 Not Found" in second
